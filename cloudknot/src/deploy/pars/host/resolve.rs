//! The inputs of a Pars: its settings, and the state of the account. Nothing is written.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::read;
use super::stack::{Note, content, log_group, same_settings, stack_name};
use crate::aws::cloudformation::{Stack, Stacks};
use crate::aws::ec2::{Ec2, Subnet};
use crate::aws::{Aws, iam, logs, permissions, quotas, s3};
use crate::deploy::noted::Noted;
use crate::deploy::pars::{Pars, ParsBuilder};
use crate::deploy::plan::{Intent, denied_note};
use crate::deploy::policy::{Allowed, Scope};
use crate::deploy::template::{Resource, resources};
use crate::error::{Error, ErrorKind, Result};
use crate::event::step;
use crate::settings::names::{self, Kind};
use crate::settings::network::{ZONES, subnets_of};
use crate::settings::pars::{Internet, Network};

/// A Pars to create, and the state of its account.
pub(crate) struct ParsState {
    pub(super) builder: ParsBuilder,
    pub(super) aws: Aws,
    pub(super) stacks: Stacks,
    pub(super) stack: Option<Stack>,
    /// Template of the stack, if the stack is to be changed.
    pub(super) before: Option<String>,
    pub(super) network: NetworkState,
    pub(super) instance_role: Value,
    pub(super) execution_role: Value,
    pub(super) bucket_was_there: bool,
    pub(super) logs_were_there: bool,
    /// Permissions that the caller lacks, for the notes of a plan.
    pub(super) denied: Option<String>,
}

/// Network of a Pars, as far as it exists.
#[derive(Clone)]
pub(super) enum NetworkState {
    /// A new VPC in these zones.
    New { zones: Vec<String> },
    /// An existing VPC.
    Given { vpc: String, subnets: Vec<String>, assign_public_ip: bool },
    /// The default VPC, which this region lacks.
    NoDefault,
}

/// The outcome of [`ParsState::resolve`].
pub(crate) enum ParsResolved {
    /// The Pars exists and needs no change.
    Unchanged(Box<Pars>),
    /// The Pars is to be created or changed.
    Open(Box<ParsState>),
}

impl ParsState {
    /// Asks AWS for everything that a plan depends on. Refuses what AWS would refuse, unless the template is for a
    /// stack that the user creates.
    pub(crate) async fn resolve(builder: &ParsBuilder, intent: Intent) -> Result<ParsResolved> {
        names::check_name(Kind::Pars, &builder.name)?;
        builder.settings.check()?;
        if let Network::New { cidr, .. } = builder.settings.network() {
            subnets_of(&cidr, ZONES)?;
        }
        let aws = Aws::load(&builder.account).await?;
        let stacks = Stacks::new(&aws);
        let stack = stacks.find_at_rest(&stack_name(&builder.name)).await?;
        let complete = stack.as_ref().filter(|stack| stack.is_complete() && stack.outputs.contains_key("Settings"));
        if let Some(complete) = complete {
            same_settings(builder, complete)?;
            if Noted::<Note>::read(complete)?.content == content() && intent != Intent::Template {
                return Ok(ParsResolved::Unchanged(Box::new(read(complete, &builder.account)?)));
            }
        }
        let mut denied = None;
        if complete.is_none() && intent != Intent::Template {
            denied = denied_note(check_permissions(builder, &aws).await, intent)?;
            // An existing stack, incomplete or complete, may already have its network.
            if stack.is_none() {
                denied = denied.or(denied_note(check_quotas(builder, &aws).await, intent)?);
            }
        }
        let template = match &stack {
            Some(stack) => Some(stacks.template(stack).await?),
            None => None,
        };
        let made = template.as_deref().map(resources).unwrap_or_default();
        let (bucket_was_there, logs_were_there) = preexisting_resources(builder, &aws, stack.as_ref(), &made).await?;
        Ok(ParsResolved::Open(Box::new(Self {
            network: network(builder, &aws).await?,
            instance_role: instance_role(builder, &aws).await?,
            execution_role: execution_role(builder, &aws).await?,
            bucket_was_there,
            logs_were_there,
            denied,
            before: template.filter(|_| stack.as_ref().is_some_and(|stack| !stack.is_stuck())),
            builder: builder.clone(),
            aws,
            stacks,
            stack,
        })))
    }
}

impl ParsState {
    /// Returns the Pars as far as it is known before it is created: without resources.
    pub(crate) fn planned(&self) -> Pars {
        Pars {
            name: self.builder.name.clone(),
            region: self.aws.region.clone(),
            stack_id: String::new(),
            settings: self.builder.settings.clone(),
            outputs: BTreeMap::new(),
            account: self.builder.account.clone(),
        }
    }
}

/// Refuses a Pars that the caller is not allowed to create.
async fn check_permissions(builder: &ParsBuilder, aws: &Aws) -> Result<()> {
    let mut takes = vec!["cloudformation:CreateStack"];
    if builder.settings.instance_role.is_none() || builder.settings.execution_role.is_none() {
        takes.push("iam:CreateRole");
    }
    let policy = |account: &str| Allowed::ParsCreate.policy(&scope(account, aws, builder));
    permissions::check(aws, Allowed::ParsCreate.name(), &takes, policy).await
}

/// Refuses a new network that exceeds the account's quotas.
async fn check_quotas(builder: &ParsBuilder, aws: &Aws) -> Result<()> {
    let Network::New { internet, .. } = builder.settings.network() else { return Ok(()) };
    let first = match internet {
        Internet::Nat => Ec2::new(aws).zones().await?.into_iter().next(),
        _ => None,
    };
    quotas::check_network(aws, first.as_deref()).await
}

/// Returns the resources that the policy for creating the Pars names.
fn scope(account: &str, aws: &Aws, builder: &ParsBuilder) -> Scope {
    let mut scope = Scope::new(account, aws.region.as_str(), &builder.name, "example");
    scope.bucket.clone_from(&builder.settings.bucket);
    scope.prefix = builder.settings.prefix();
    scope.kms_key.clone_from(&builder.settings.kms_key);
    builder.settings.role_path().clone_into(&mut scope.role_path);
    scope.permissions_boundary.clone_from(&builder.settings.permissions_boundary);
    scope
}

/// Returns whether the user's bucket existed before, and whether there are logs of an earlier Pars of this name that
/// was clobbered without its data. Resources that this stack itself created did not exist before.
async fn preexisting_resources(
    builder: &ParsBuilder,
    aws: &Aws,
    stack: Option<&Stack>,
    made: &BTreeMap<String, Resource>,
) -> Result<(bool, bool)> {
    if let Some(Ok(Noted { settings, .. })) = stack.map(Noted::<Note>::read) {
        return Ok((settings.bucket_was_there, settings.logs_were_there));
    }
    let bucket = match &builder.settings.bucket {
        Some(bucket) if !made.contains_key("Bucket") => s3::is_there(aws, bucket).await?,
        _ => false,
    };
    let logs = log_group(&builder.name);
    let kept_logs = !made.contains_key("LogGroup") && logs::group_is_there(aws, &logs).await?;
    if kept_logs {
        step(&format!("the log group `{logs}` exists already, and is used unchanged"));
    }
    Ok((bucket, kept_logs))
}

async fn network(builder: &ParsBuilder, aws: &Aws) -> Result<NetworkState> {
    let ec2 = Ec2::new(aws);
    let network = builder.settings.network();
    let vpc = match &network {
        Network::New { .. } => {
            // The zones are named explicitly: CloudFormation itself would count only zones that have a default subnet.
            return Ok(NetworkState::New { zones: ec2.zones().await?.into_iter().take(ZONES).collect() });
        }
        Network::Vpc(id) => ec2.vpc(id).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("cannot find the VPC `{id}` in {}", aws.region))
                .with_hint("name one of this region, or leave it out for the default VPC")
        })?,
        Network::Default => match ec2.default_vpc().await? {
            Some(vpc) => vpc,
            None => return Ok(NetworkState::NoDefault),
        },
    };
    given(&ec2, &vpc.id, network == Network::Default).await
}

/// Returns the network in this VPC.
pub(super) async fn given(ec2: &Ec2, vpc: &str, in_default_vpc: bool) -> Result<NetworkState> {
    let all = ec2.subnets(vpc).await?;
    if all.is_empty() {
        let message = format!("cannot use the VPC `{vpc}`: it has no subnets");
        return Err(Error::new(ErrorKind::Config, message).with_hint("add a subnet to it, or create a VPC: --cidr"));
    }
    let (chosen, assign_public_ip) = choose(&all, in_default_vpc);
    let subnets = chosen.into_iter().map(|subnet| subnet.id.clone()).collect();
    Ok(NetworkState::Given { vpc: vpc.to_owned(), subnets, assign_public_ip })
}

/// Returns the subnets that jobs run in, and whether each job gets a public address.
///
/// A user who names a VPC with private subnets means those. The default VPC is not a choice of the user: there, the
/// subnets count that AWS created with it, which have public addresses and a route to the internet, and not those that
/// were added later. If public addresses are turned off in all of these subnets, that was on purpose: no job is given
/// one, and an instance would not get one anyway, since it has what its subnet assigns.
fn choose(all: &[Subnet], in_default_vpc: bool) -> (Vec<&Subnet>, bool) {
    let made_with_it: Vec<&Subnet> = all.iter().filter(|subnet| in_default_vpc && subnet.default_for_zone).collect();
    let candidates = if made_with_it.is_empty() { all.iter().collect() } else { made_with_it };
    let (public, private): (Vec<&Subnet>, Vec<&Subnet>) = candidates.into_iter().partition(|subnet| subnet.public_ip);
    let assign_public_ip = if in_default_vpc { !public.is_empty() } else { private.is_empty() };
    (if assign_public_ip { public } else { private }, assign_public_ip)
}

async fn instance_role(builder: &ParsBuilder, aws: &Aws) -> Result<Value> {
    let Some(role) = &builder.settings.instance_role else { return Ok(Value::Null) };
    iam::role(aws, role).await?;
    Ok(json!({"name": role, "profile": iam::instance_profile(aws, role).await?}))
}

async fn execution_role(builder: &ParsBuilder, aws: &Aws) -> Result<Value> {
    let Some(role) = &builder.settings.execution_role else { return Ok(Value::Null) };
    Ok(json!({"arn": iam::role(aws, role).await?}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_in_the_default_vpc_run_where_there_is_a_way_out() {
        let subnet = |id: &str, public_ip, default_for_zone| Subnet {
            id: id.into(),
            zone: "z-a".into(),
            cidr: "172.31.0.0/20".into(),
            public_ip,
            default_for_zone,
        };
        let check = |all: &[Subnet], in_default_vpc, expected: (&[&str], bool)| {
            let (chosen, public) = choose(all, in_default_vpc);
            let chosen: Vec<_> = chosen.into_iter().map(|subnet| &*subnet.id).collect();
            assert_eq!((&*chosen, public), expected);
        };
        let (one, other) = (subnet("default-a", true, true), subnet("default-b", true, true));
        let (turned_off, theirs) = (subnet("default-c", false, true), subnet("theirs", false, false));
        let all = [one.clone(), other.clone(), theirs.clone()];
        check(&all, true, (&["default-a", "default-b"], true));
        check(&all, false, (&["theirs"], false));
        check(&all[..2], false, (&["default-a", "default-b"], true));
        check(&[one, other, turned_off.clone()], true, (&["default-a", "default-b"], true));
        check(&[turned_off, theirs.clone()], true, (&["default-c"], false));
        // The subnets that AWS created were deleted.
        check(&[theirs.clone(), subnet("public", true, false)], true, (&["public"], true));
        check(&[theirs], true, (&["theirs"], false));
    }
}
