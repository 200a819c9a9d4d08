//! Deletion of a Pars.

use super::PARS_LIST_HINT;
use super::stack::stack_name;
use crate::aws::cloudformation::{Body, DesiredStack, KNOT_STACKS, PARS_STACKS, Stack, Stacks};
use crate::aws::{Aws, s3};
use crate::deploy::pars::ParsClobber;
use crate::deploy::template::resources;
use crate::error::{Error, ErrorKind, Result};

pub(crate) async fn clobber(clobber: &ParsClobber) -> Result<()> {
    let name = &clobber.name;
    let aws = Aws::load(&clobber.account).await?;
    let stacks = Stacks::new(&aws);
    let Some(stack) = stacks.find_settled(&stack_name(name)).await? else {
        return Err(Error::new(ErrorKind::NotFound, format!("cannot find the Pars `{name}` in {}", aws.region))
            .with_hint(PARS_LIST_HINT));
    };
    let refused = |why: &str, names: Vec<&str>, hint: &str| {
        let message = format!("cannot clobber the Pars `{name}`: {why}: {}", names.join(", "));
        Err(Error::new(ErrorKind::Exists, message).with_hint(hint))
    };
    let all = stacks.all("cloudknot-").await?;
    let has_output =
        |stack: &&Stack, key: &str, value: &str| stack.outputs.get(key).is_some_and(|current| current == value);
    let knots = all.iter().filter_map(|knot| Some((knot.name.strip_prefix(KNOT_STACKS)?, knot)));
    let dependents: Vec<_> = knots.filter(|(_, knot)| has_output(knot, "Pars", name)).map(|(name, _)| name).collect();
    if !dependents.is_empty() {
        return refused("Knots use it", dependents, "clobber those first: `cargo knot clobber <name>`");
    }
    // The template contains the stack's own resources only; a bucket that existed before is not part of it.
    let stack_resources = resources(&stacks.template(&stack).await?);
    let bucket = stack.outputs.get("Bucket").filter(|_| stack_resources.contains_key("Bucket"));
    if clobber.keep_data {
        if stack.status.as_str() != "DELETE_FAILED" && stack.outputs.contains_key("Settings") {
            keep_data(&stacks, &stack, true).await?;
        }
        let kept: Vec<_> =
            ["Bucket", "LogGroup"].into_iter().filter(|name| stack_resources.contains_key(*name)).collect();
        return stacks.delete(&stack, &kept).await;
    }
    if let Some(bucket) = bucket {
        let others = all.iter().filter(|other| other.id != stack.id && has_output(other, "Bucket", bucket));
        let others: Vec<_> = others.filter_map(|other| other.name.strip_prefix(PARS_STACKS)).collect();
        if !others.is_empty() {
            return refused("others have runs in its bucket", others, "clobber those first, or keep the data");
        }
        if stack.can_be_changed() {
            keep_data(&stacks, &stack, false).await?;
        }
        s3::empty(&aws, bucket).await?;
    }
    stacks.delete(&stack, &[]).await
}

/// Updates the stack's template so that the deletion of the stack keeps or deletes bucket and logs.
///
/// An output changes as well, because CloudFormation does not recognize a change of the deletion policy alone.
async fn keep_data(stacks: &Stacks, stack: &Stack, keep: bool) -> Result<()> {
    const KEPT: &str = "  KeptData:\n    Value: \"true\"\n";
    let (delete, retain) = ("DeletionPolicy: Delete", "DeletionPolicy: Retain");
    let template = stacks.template(stack).await?;
    let plain = template.replace(KEPT, "");
    let updated = if keep { plain.replace(delete, retain) + KEPT } else { plain.replace(retain, delete) };
    if updated == template {
        return Ok(());
    }
    let body = Body::Text(updated.clone());
    let change = DesiredStack { name: &stack.name, template: &body, tags: &[], only_new: false };
    let (stack, _) = stacks.apply(&change, &|_| Ok(())).await?;
    if stacks.template(&stack).await? == updated {
        return Ok(());
    }
    let message = format!("cannot change the deletion policies in the stack `{}`", stack.name);
    Err(Error::new(ErrorKind::Aws, message).with_hint("nothing was deleted; run the same command again"))
}
