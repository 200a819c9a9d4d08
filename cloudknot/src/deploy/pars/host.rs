//! Creating, finding and deleting a Pars: `resolve` queries AWS, `plan` is pure data, and `apply`, in this module,
//! writes.

use super::{Pars, ParsBuilder};
use crate::aws::Aws;
use crate::aws::cloudformation::{Body, DesiredStack, PARS_STACKS, Stack, Stacks};
use crate::aws::ec2::Ec2;
use crate::deploy::plan::{Intent, Plan};
use crate::deploy::stack_note::StackNote;
use crate::deploy::template;
use crate::error::{Error, ErrorKind, Result, with_causes};
use crate::event::step;
use crate::settings::account::Account;

mod clobber;
mod network;
mod plan;
mod resolve;
mod stack;

pub(super) use clobber::clobber;
use network::{NetworkState, existing_network};
pub(crate) use plan::{ParsPlan, new_network};
use resolve::key_hint;
pub(crate) use resolve::{ParsResolution, ParsState};
use stack::{Note, check_same_settings};
pub(crate) use stack::{bucket_is_its_own, find, pars_of_log_group, read, stack_name};

/// Part of the message of CloudWatch Logs about a key that it may not use.
const KEY_REFUSED: &str = "KMS key does not exist or is not allowed to be used";

/// Hint for a Pars that was not found.
pub(crate) const PARS_LIST_HINT: &str = "`cargo knot pars list` lists the Pars in this region";

pub(super) async fn create(builder: &ParsBuilder) -> Result<Pars> {
    match ParsState::resolve(builder, Intent::Apply).await? {
        ParsResolution::Unchanged(pars) => {
            step(&format!("the Pars `{}` exists, and is up to date", builder.name));
            Ok(*pars)
        }
        ParsResolution::Open(state) => apply(&state).await,
    }
}

pub(super) async fn plan(builder: &ParsBuilder) -> Result<Plan> {
    match ParsState::resolve(builder, Intent::Plan).await? {
        ParsResolution::Unchanged(_) => Ok(Plan::default()),
        ParsResolution::Open(state) => Ok(ParsPlan::new(&state)?.steps),
    }
}

pub(super) async fn template(builder: &ParsBuilder) -> Result<String> {
    let ParsResolution::Open(state) = ParsState::resolve(builder, Intent::Template).await? else {
        unreachable!("a template is always resolved in full");
    };
    let plan = ParsPlan::new(&state)?;
    if plan.needs_default_vpc {
        // A template can name a default VPC, but cannot create one.
        let (name, region) = (&builder.name, &state.aws.region);
        let message = format!("cannot render the Pars `{name}`: there is no default VPC in {region}");
        return Err(Error::new(ErrorKind::NotFound, message)
            .with_hint("set a VPC (--vpc), let the stack create one (--cidr), or run `aws ec2 create-default-vpc`"));
    }
    for note in &plan.notes {
        step(note);
    }
    Ok(template::heading(&format!("pars {}", builder.name), &plan.stack, &[]) + &plan.template)
}

/// Creates or updates the Pars.
pub(crate) async fn apply(state: &ParsState) -> Result<Pars> {
    let mut plan = ParsPlan::new(state)?;
    for note in &plan.notes {
        step(note);
    }
    if plan.needs_default_vpc {
        step("creating the default VPC");
        let vpc = Ec2::new(&state.aws).create_default_vpc().await?;
        let network = existing_network(&state.aws, &vpc.id, true, &[]).await?;
        plan = ParsPlan::in_network(state, &NetworkState::Existing(network))?;
    }
    let body = Body::Text(plan.template);
    let desired = DesiredStack { name: &plan.stack, template: &body, tags: &plan.tags, only_new: false };
    // Another process may have created the Pars in the meantime.
    let may_change = |stack: &Stack| {
        check_same_settings(&state.builder, stack)?;
        // During the lookup, a bucket of another process's new stack may have looked like one that existed before.
        if StackNote::<Note>::read(stack)?.settings.bucket_existed != plan.creates_bucket {
            return Ok(());
        }
        let name = &state.builder.name;
        let message = format!("cannot create the Pars `{name}`: it was created by another process");
        Err(Error::new(ErrorKind::Exists, message).with_hint("run the same command again to use the new Pars"))
    };
    match state.stacks.apply(&desired, &may_change).await {
        Ok((stack, _)) => read(&stack, &state.builder.account),
        Err(error) if with_causes(&error).contains(KEY_REFUSED) => {
            // The error matters more than its hint, which needs a request.
            Err(match key_hint(&state.builder, &state.aws).await {
                Ok(hint) => error.with_hint(hint),
                Err(_) => error,
            })
        }
        Err(error) => Err(error),
    }
}

pub(super) async fn get(builder: &ParsBuilder) -> Result<Pars> {
    let aws = Aws::load(&builder.account).await?;
    find(&Stacks::new(&aws), &builder.name, &builder.account).await?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("cannot find the Pars `{}` in {}", builder.name, aws.region))
            .with_hint(PARS_LIST_HINT)
    })
}

pub(super) async fn list(account: &Account) -> Result<Vec<Pars>> {
    let aws = Aws::load(account).await?;
    let stacks = Stacks::new(&aws).all(PARS_STACKS).await?;
    // A Knot cannot use a Pars that is partly created or partly deleted.
    let complete = stacks.iter().filter(|stack| stack.outputs.contains_key("Settings"));
    // A Pars of another version of cloudknot must not prevent listing the others.
    let read_or_warn = |stack| read(stack, account).map_err(|error| step(&format!("warning: {error}"))).ok();
    Ok(complete.filter_map(read_or_warn).collect())
}
