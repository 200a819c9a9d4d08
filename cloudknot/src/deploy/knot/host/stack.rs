//! The stack of a Knot: its name, and its note.

use super::values::job_definition;
use crate::aws::Aws;
use crate::aws::batch::Definition;
use crate::aws::cloudformation::{KNOT_STACKS, Stack, Stacks};
use crate::deploy::knot::{Deployed, Knot, KnotBuilder};
use crate::deploy::stack_note::StackNote;
use crate::error::{Error, ErrorKind, Result};
use crate::event::step;
use crate::settings::account::Account;

/// Returns the name of the stack of this Knot.
pub(super) fn stack_name(knot: &str) -> String {
    format!("{KNOT_STACKS}{knot}")
}

pub(crate) async fn get(builder: &KnotBuilder) -> Result<Knot> {
    let aws = Aws::load(&builder.account).await?;
    let name = builder.settings.knot.as_deref().unwrap_or_default();
    let found = Stacks::new(&aws).find(&stack_name(name)).await?;
    let not_found = |detail: &str| {
        Error::new(ErrorKind::NotFound, format!("cannot find the Knot `{name}` in {}{detail}", aws.region))
            .with_hint("`cargo knot list` lists the Knots in this region, `cargo knot deploy` creates one")
    };
    let stack = found.ok_or_else(|| not_found(""))?;
    if !stack.outputs.contains_key("ImageDigest") {
        return Err(not_found(&format!(": its last deploy did not finish (its stack is {})", stack.status)));
    }
    read(&stack, &builder.account)
}

pub(crate) async fn list(account: &Account) -> Result<Vec<Knot>> {
    let aws = Aws::load(account).await?;
    let stacks = Stacks::new(&aws).all(KNOT_STACKS).await?;
    // A Knot without an image is incomplete.
    let complete = stacks.iter().filter(|stack| stack.outputs.contains_key("ImageDigest"));
    Ok(complete.filter_map(|stack| or_warn(read(stack, account))).collect())
}

pub(super) fn read_note(stack: &Stack) -> Result<StackNote<Deployed>> {
    StackNote::read(stack)
}

/// Reports an unreadable Knot as a warning: one of another version of cloudknot must not prevent listing the others.
fn or_warn(read: Result<Knot>) -> Option<Knot> {
    read.map_err(|error| step(&format!("warning: {error}"))).ok()
}

/// Reads a Knot from its stack.
pub(crate) fn read(stack: &Stack, account: &Account) -> Result<Knot> {
    for key in ["Knot", "Pars", "RepositoryUri", "ImageDigest", "JobRole", "JobQueue"] {
        stack.output(key)?;
    }
    Ok(Knot {
        name: stack.output("Knot")?.to_owned(),
        region: stack.region().to_owned(),
        stack_id: stack.id.clone(),
        deployed: read_note(stack)?.settings,
        outputs: stack.outputs.clone(),
        changed: stack.changed,
        account: account.clone(),
    })
}

/// Returns the names of a Knot's job definitions.
pub(crate) fn definitions(knot: &Knot) -> Vec<String> {
    knot.deployed.functions.values().map(|id| job_definition(&knot.name, id)).collect()
}

/// Returns the names of a Knot's job definitions, including those of functions that its program no longer has.
pub(crate) fn all_definitions(name: &str, knot: Option<&Knot>, existing: &[Definition]) -> Vec<String> {
    let prefix = format!("cloudknot-{name}_");
    let tagged = existing.iter().filter(|one| one.knot.as_deref() == Some(name));
    let without_number = |arn: &str| Some(arn.split_once(":job-definition/")?.1.rsplit_once(':')?.0.to_owned());
    let mut names: Vec<String> = tagged.filter_map(|one| without_number(&one.arn)).collect();
    names.retain(|name| name.starts_with(&prefix));
    names.extend(knot.map(definitions).unwrap_or_default());
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_of_removed_functions_belong_to_the_knot() {
        let definition = |name: &str, knot: Option<&str>| Definition {
            arn: format!("arn:aws:batch:eu-west-1:123456789012:job-definition/{name}"),
            knot: knot.map(str::to_owned),
            images: Vec::new(),
        };
        let all = [
            definition("cloudknot-sweep_f-1a:1", Some("sweep")),
            definition("cloudknot-sweep_f-1a:12", Some("sweep")),
            definition("cloudknot-sweep-big_f-1a:1", Some("sweep-big")),
            definition("cloudknot-sweep_g-2b:1", None),
            definition("theirs:1", Some("sweep")),
        ];
        assert_eq!(all_definitions("sweep", None, &all), ["cloudknot-sweep_f-1a"]);
    }
}
