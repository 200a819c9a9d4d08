//! The inputs of a Pars: its settings, and the state of the account. Nothing is written.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::network::NetworkState;
use super::read;
use super::stack::{Note, check_same_settings, content, log_group, stack_name};
use crate::aws::cloudformation::{Stack, Stacks};
use crate::aws::{Aws, iam, kms, logs, permissions, quotas, s3};
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
    /// Note for the user that the KMS key was not checked, and why.
    pub(super) key_note: Option<String>,
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
        }
        let template = match &stack {
            Some(stack) => Some(stacks.template(stack).await?),
            None => None,
        };
        let before = template.as_deref().filter(|_| stack.as_ref().is_some_and(|stack| !stack.is_stuck()));
        let network = NetworkState::of(builder, &aws, before).await?;
        // An existing stack, incomplete or complete, may already have its network.
        if stack.is_none() && intent != Intent::Template {
            denied = denied.or(denied_note(check_quotas(builder, &aws, &network).await, intent)?);
        }
        let stack_resources = template.as_deref().map(resources).unwrap_or_default();
        let (bucket_existed, logs_existed) =
            preexisting_resources(builder, &aws, stack.as_ref(), &stack_resources).await?;
        let makes_logs = complete.is_none() && !logs_existed && intent != Intent::Template;
        let key_note = if makes_logs { check_key(builder, &aws).await? } else { None };
        Ok(ParsResolution::Open(Box::new(Self {
            network,
            instance_role: instance_role(builder, &aws).await?,
            execution_role: execution_role(builder, &aws).await?,
            bucket_existed,
            logs_existed,
            denied,
            key_note,
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
async fn check_quotas(builder: &ParsBuilder, aws: &Aws, network: &NetworkState) -> Result<()> {
    let (Network::New { internet, .. }, NetworkState::New { zones }) = (builder.settings.network(), network) else {
        return Ok(());
    };
    // The NAT gateway is in the first zone.
    let nat_zone = zones.first().filter(|_| internet == Internet::Nat);
    quotas::check_network(aws, nat_zone.map(String::as_str)).await
}

/// Returns an error if CloudWatch Logs may not use the key of the Pars, or a note if that is unknown.
async fn check_key(builder: &ParsBuilder, aws: &Aws) -> Result<Option<String>> {
    let Some(key) = &builder.settings.kms_key else { return Ok(None) };
    let unknown = match kms::is_for_logs(aws, key).await {
        Ok(true) => return Ok(None),
        Ok(false) => None,
        // Only administrators of keys can read their policies in many accounts.
        Err(error) if error.kind() == ErrorKind::Denied => Some(error),
        Err(error) => return Err(error),
    };
    let hint = key_hint(builder, aws).await?;
    if let Some(error) = unknown {
        return Ok(Some(format!("the KMS key was not checked: {}; {hint}", error.in_one_line())));
    }
    let group = log_group(&builder.name);
    let message = format!("cannot encrypt the log group `{group}`: the policy of `{key}` does not allow it");
    Err(Error::new(ErrorKind::Config, message).with_hint(format!("{hint}; nothing was created")))
}

/// Returns how CloudWatch Logs is allowed to use the key of the Pars.
pub(super) async fn key_hint(builder: &ParsBuilder, aws: &Aws) -> Result<String> {
    let statement = kms::statement_for_logs(&aws.region, &aws.account().await?, &log_group(&builder.name));
    Ok(format!("the policy of the key must have this statement, because CloudWatch Logs uses the key: {statement}"))
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

async fn instance_role(builder: &ParsBuilder, aws: &Aws) -> Result<Value> {
    let Some(role) = &builder.settings.instance_role else { return Ok(Value::Null) };
    iam::role(aws, role).await?;
    Ok(json!({"name": role, "profile": iam::instance_profile(aws, role).await?}))
}

async fn execution_role(builder: &ParsBuilder, aws: &Aws) -> Result<Value> {
    let Some(role) = &builder.settings.execution_role else { return Ok(Value::Null) };
    Ok(json!({"arn": iam::role(aws, role).await?}))
}
