//! The inputs of a Pars: its settings, and the state of the account. Nothing is written.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::read;
use super::stack::{Note, check_same_settings, content, log_group, stack_name};
use crate::aws::cloudformation::{Stack, Stacks};
use crate::aws::ec2::{Ec2, Subnet};
use crate::aws::{Aws, iam, logs, permissions, quotas, s3};
use crate::deploy::pars::{Pars, ParsBuilder};
use crate::deploy::plan::{Intent, denied_note};
use crate::deploy::policy::{Allowed, Scope};
use crate::deploy::stack_note::StackNote;
use crate::deploy::template::{Resource, resources};
use crate::error::{Error, ErrorKind, Result};
use crate::event::step;
use crate::settings::names::{self, Kind};
use crate::settings::network::{MAX_ZONES, subnets_of};
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
    pub(super) bucket_existed: bool,
    pub(super) logs_existed: bool,
    /// Permissions that the caller lacks, for the notes of a plan.
    pub(super) denied: Option<String>,
}

/// Network of a Pars, as far as it exists.
#[derive(Clone)]
pub(super) enum NetworkState {
    /// A new VPC in these zones.
    New { zones: Vec<String> },
    /// An existing VPC.
    Existing { vpc: String, subnets: Vec<String>, assign_public_ip: bool },
    /// The default VPC, which this region lacks.
    NoDefault,
}

/// The outcome of [`ParsState::resolve`].
pub(crate) enum ParsResolution {
    /// The Pars exists and needs no change.
    Unchanged(Box<Pars>),
    /// The Pars is to be created or changed.
    Open(Box<ParsState>),
}

impl ParsState {
    /// Queries AWS for everything that a plan depends on. Returns an error if AWS would reject the Pars, unless the
    /// template is for a stack that the user creates.
    pub(crate) async fn resolve(builder: &ParsBuilder, intent: Intent) -> Result<ParsResolution> {
        names::check_name(Kind::Pars, &builder.name)?;
        builder.settings.check()?;
        if let Network::New { cidr, .. } = builder.settings.network() {
            subnets_of(&cidr, MAX_ZONES)?;
        }
        let aws = Aws::load(&builder.account).await?;
        let stacks = Stacks::new(&aws);
        let stack = stacks.find_settled(&stack_name(&builder.name)).await?;
        let complete = stack.as_ref().filter(|stack| stack.is_complete() && stack.outputs.contains_key("Settings"));
        if let Some(complete) = complete {
            check_same_settings(builder, complete)?;
            if StackNote::<Note>::read(complete)?.content == content() && intent != Intent::Template {
                return Ok(ParsResolution::Unchanged(Box::new(read(complete, &builder.account)?)));
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
        let stack_resources = template.as_deref().map(resources).unwrap_or_default();
        let (bucket_existed, logs_existed) =
            preexisting_resources(builder, &aws, stack.as_ref(), &stack_resources).await?;
        Ok(ParsResolution::Open(Box::new(Self {
            network: network(builder, &aws).await?,
            instance_role: instance_role(builder, &aws).await?,
            execution_role: execution_role(builder, &aws).await?,
            bucket_existed,
            logs_existed,
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
    /// Returns the Pars before it is created, without resources.
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

/// Returns an error if the caller is not allowed to create the Pars.
async fn check_permissions(builder: &ParsBuilder, aws: &Aws) -> Result<()> {
    let mut required = vec!["cloudformation:CreateStack"];
    if builder.settings.instance_role.is_none() || builder.settings.execution_role.is_none() {
        required.push("iam:CreateRole");
    }
    let policy = |account: &str| Allowed::ParsCreate.policy(&scope(account, aws, builder));
    permissions::check(aws, Allowed::ParsCreate.name(), &required, policy).await
}

/// Returns an error if a new network exceeds the account's quotas.
async fn check_quotas(builder: &ParsBuilder, aws: &Aws) -> Result<()> {
    let Network::New { internet, .. } = builder.settings.network() else { return Ok(()) };
    let first_zone = match internet {
        Internet::Nat => Ec2::new(aws).zones().await?.into_iter().next(),
        _ => None,
    };
    quotas::check_network(aws, first_zone.as_deref()).await
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
/// was clobbered without its data. Resources that this stack itself created do not count.
async fn preexisting_resources(
    builder: &ParsBuilder,
    aws: &Aws,
    stack: Option<&Stack>,
    stack_resources: &BTreeMap<String, Resource>,
) -> Result<(bool, bool)> {
    if let Some(Ok(StackNote { settings, .. })) = stack.map(StackNote::<Note>::read) {
        return Ok((settings.bucket_existed, settings.logs_existed));
    }
    let bucket = match &builder.settings.bucket {
        Some(bucket) if !stack_resources.contains_key("Bucket") => s3::bucket_exists(aws, bucket).await?,
        _ => false,
    };
    let logs = log_group(&builder.name);
    let kept_logs = !stack_resources.contains_key("LogGroup") && logs::group_exists(aws, &logs).await?;
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
            return Ok(NetworkState::New { zones: ec2.zones().await?.into_iter().take(MAX_ZONES).collect() });
        }
        Network::Vpc(id) => ec2.vpc(id).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("cannot find the VPC `{id}` in {}", aws.region))
                .with_hint("set a VPC of this region, or remove the setting for the default VPC")
        })?,
        Network::Default => match ec2.default_vpc().await? {
            Some(vpc) => vpc,
            None => return Ok(NetworkState::NoDefault),
        },
    };
    existing_network(&ec2, &vpc.id, network == Network::Default).await
}

/// Returns the network in this VPC.
pub(super) async fn existing_network(ec2: &Ec2, vpc: &str, in_default_vpc: bool) -> Result<NetworkState> {
    let all = ec2.subnets(vpc).await?;
    if all.is_empty() {
        let message = format!("cannot use the VPC `{vpc}`: it has no subnets");
        return Err(Error::new(ErrorKind::Config, message).with_hint("add a subnet to it, or create a VPC: --cidr"));
    }
    let (chosen, assign_public_ip) = choose(&all, in_default_vpc);
    let subnets = chosen.into_iter().map(|subnet| subnet.id.clone()).collect();
    Ok(NetworkState::Existing { vpc: vpc.to_owned(), subnets, assign_public_ip })
}

/// Returns the subnets that jobs run in, and whether each job gets a public address.
///
/// In a VPC that the user sets, jobs run in the private subnets if there are any. The default VPC is not a choice of
/// the user: in it, jobs run in the subnets that AWS created with it, which have public addresses and a route to the
/// internet, and not in subnets that were added later. If public addresses are turned off in all of these subnets, that
/// was on purpose: jobs get none, and an instance would not get one anyway, because its subnet assigns addresses.
fn choose(all: &[Subnet], in_default_vpc: bool) -> (Vec<&Subnet>, bool) {
    let default_subnets: Vec<&Subnet> = all.iter().filter(|subnet| in_default_vpc && subnet.default_for_zone).collect();
    let candidates = if default_subnets.is_empty() { all.iter().collect() } else { default_subnets };
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
    fn default_vpc_jobs_run_in_subnets_with_internet_access() {
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
        let (turned_off, added) = (subnet("default-c", false, true), subnet("added", false, false));
        let all = [one.clone(), other.clone(), added.clone()];
        check(&all, true, (&["default-a", "default-b"], true));
        check(&all, false, (&["added"], false));
        check(&all[..2], false, (&["default-a", "default-b"], true));
        check(&[one, other, turned_off.clone()], true, (&["default-a", "default-b"], true));
        check(&[turned_off, added.clone()], true, (&["default-c"], false));
        // The subnets that AWS created were deleted.
        check(&[added.clone(), subnet("public", true, false)], true, (&["public"], true));
        check(&[added], true, (&["added"], false));
    }
}
