//! CloudFormation, and no other AWS service: creates, updates, finds and deletes stacks by name.
//!
//! [`Stacks::apply`] brings a stack to the desired state from any other state: it waits for an operation in progress,
//! and first deletes or rolls back a stack that failed.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use aws_sdk_cloudformation as cloudformation;
use cloudformation::types::{Capability, Output, StackStatus, Tag};
use tokio::time::sleep;

use crate::aws::{Aws, client, code, message};
use crate::error::{Error, ErrorKind, Result};
use crate::event::step;

mod events;

use events::Operation;

/// Prefix of the names of all stacks of Knots.
pub(crate) const KNOT_STACKS: &str = "cloudknot-knot-";
/// Prefix of the names of all stacks of Pars.
pub(crate) const PARS_STACKS: &str = "cloudknot-pars-";

/// Interval between two polls of a stack that is changing: the first one, and the longest one.
const POLL_INTERVAL: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(5));
/// Maximum size of a template in a request, in bytes. A larger one has to be fetched from a bucket.
pub(crate) const MAX_TEMPLATE_BODY_LEN: usize = 51_200;

/// Stacks of one account and region.
#[derive(Debug, Clone)]
pub(crate) struct Stacks {
    aws: Aws,
    client: cloudformation::Client,
}

/// A stack that exists.
#[derive(Debug, Clone)]
pub(crate) struct Stack {
    pub(crate) name: String,
    /// ARN of the stack, which still denotes this stack after another one with the same name was created.
    pub(crate) id: String,
    pub(crate) status: StackStatus,
    pub(crate) reason: Option<String>,
    pub(crate) outputs: BTreeMap<String, String>,
    pub(crate) created: SystemTime,
    /// Time of the last update, or of the creation if there was none.
    pub(crate) changed: SystemTime,
}

/// A deleted stack, as CloudFormation remembers it for 90 days.
#[derive(Debug, Clone)]
pub(crate) struct DeletedStack {
    pub(crate) template: String,
    pub(crate) created: SystemTime,
}

/// Desired state of a stack.
#[derive(Debug)]
pub(crate) struct DesiredStack<'a> {
    pub(crate) name: &'a str,
    pub(crate) template: &'a Body,
    pub(crate) tags: &'a [(String, String)],
    /// `true` if an existing stack must not be changed.
    pub(crate) only_new: bool,
}

/// Source from which CloudFormation reads a template.
#[derive(Debug)]
pub(crate) enum Body {
    Text(String),
    Url(String),
}

/// Result of [`Stacks::apply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Created,
    Updated,
    None,
}

/// Next step that the status of a stack allows.
enum Next {
    /// An operation is in progress, perhaps started by this program before it was killed.
    Wait,
    /// The creation failed, or the stack was only partly deleted.
    Delete,
    /// A rollback failed, and can be continued.
    RollBack,
    Update,
    /// The stack consists of a change set that was never executed.
    Refuse,
}

/// Result of the request to update a stack.
enum UpdateResponse {
    Requested,
    Unchanged,
    Busy,
}

impl Stacks {
    pub(crate) fn new(aws: &Aws) -> Self {
        Self { client: client!(aws, cloudformation), aws: aws.clone() }
    }

    /// Returns the stack with this name or ARN.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<Stack>> {
        let response = match self.client.describe_stacks().stack_name(name).send().await {
            Ok(response) => response,
            Err(error) if code(&error) == Some("ValidationError") && message(&error).contains("does not exist") => {
                return Ok(None);
            }
            Err(error) => return Err(self.aws.failed(&format!("find the stack `{name}`"), error)),
        };
        let found = response.stacks.unwrap_or_default().into_iter().next().map(Stack::of);
        Ok(found.filter(|stack| stack.status != StackStatus::DeleteComplete))
    }

    /// Returns the stack with this name or ARN, after waiting for the end of an operation in progress, even of another user.
    pub(crate) async fn find_settled(&self, name: &str) -> Result<Option<Stack>> {
        match self.find(name).await? {
            Some(stack) if matches!(stack.next(), Next::Wait) => {
                step(&format!("waiting for another operation on the stack `{}` ({})", stack.name, stack.status));
                self.wait(&stack.name, &stack.id).await
            }
            found => Ok(found),
        }
    }

    /// Returns all stacks whose names start with `prefix`, sorted by name.
    pub(crate) async fn all(&self, prefix: &str) -> Result<Vec<Stack>> {
        let mut pages = self.client.describe_stacks().into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.aws.failed("list the stacks", error))?;
            found.extend(page.stacks.unwrap_or_default().into_iter().map(Stack::of));
        }
        found.retain(|stack| stack.name.starts_with(prefix) && stack.status != StackStatus::DeleteComplete);
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Returns the template of a stack.
    pub(crate) async fn template(&self, stack: &Stack) -> Result<String> {
        self.template_of(&stack.name, &stack.id).await
    }

    async fn template_of(&self, name: &str, id: &str) -> Result<String> {
        let response = self.client.get_template().stack_name(id).send().await;
        let response = response.map_err(|error| self.aws.failed(&format!("read the template of `{name}`"), error))?;
        Ok(response.template_body.unwrap_or_default())
    }

    /// Returns the stack with this name that was deleted last.
    pub(crate) async fn deleted(&self, name: &str) -> Result<Option<DeletedStack>> {
        let request = self.client.list_stacks().stack_status_filter(StackStatus::DeleteComplete);
        let mut pages = request.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.aws.failed(&format!("find the deleted stack `{name}`"), error))?;
            let summaries = page.stack_summaries.unwrap_or_default().into_iter();
            let named = summaries.filter(|one| one.stack_name() == Some(name));
            found.extend(named.filter_map(|one| Some((time(one.creation_time), one.stack_id?))));
        }
        let Some((created, id)) = found.into_iter().max() else { return Ok(None) };
        Ok(Some(DeletedStack { template: self.template_of(name, &id).await?, created }))
    }

    /// Creates the desired stack, or updates the existing one, and waits until the operation has ended.
    ///
    /// `may_change` is called before the existing stack is updated: it may have been replaced by another stack while this
    /// call waited.
    pub(crate) async fn apply(
        &self,
        desired: &DesiredStack<'_>,
        may_change: &(dyn Fn(&Stack) -> Result<()> + Sync),
    ) -> Result<(Stack, Change)> {
        loop {
            let Some(stack) = self.find(desired.name).await? else {
                match self.create(desired).await? {
                    Some(id) => {
                        return Ok((
                            self.wait_for_success(desired.name, &id, Operation::Create).await?,
                            Change::Created,
                        ));
                    }
                    None => continue,
                }
            };
            match stack.next() {
                Next::Wait => {
                    step(&format!("waiting for another operation on the stack `{}` ({})", stack.name, stack.status));
                    self.wait(&stack.name, &stack.id).await?;
                }
                Next::Delete => self.delete(&stack, &[]).await?,
                Next::RollBack => {
                    step(&format!("rolling the stack `{}` back", stack.name));
                    let response = self.client.continue_update_rollback().stack_name(&stack.id).send().await;
                    response
                        .map_err(|error| self.aws.failed(&format!("roll back the stack `{}`", stack.name), error))?;
                    let stack = self.wait(&stack.name, &stack.id).await?;
                    if stack.as_ref().is_some_and(|stack| stack.status == StackStatus::UpdateRollbackFailed) {
                        let stack = stack.expect("the stack exists in this state");
                        return Err(self.failure(desired.name, &stack, Operation::RollBack).await);
                    }
                }
                Next::Update => {
                    may_change(&stack)?;
                    if desired.only_new {
                        return Ok((stack, Change::None));
                    }
                    match self.update(desired, &stack).await? {
                        UpdateResponse::Requested => {
                            return Ok((
                                self.wait_for_success(desired.name, &stack.id, Operation::Change).await?,
                                Change::Updated,
                            ));
                        }
                        UpdateResponse::Unchanged => return Ok((stack, Change::None)),
                        UpdateResponse::Busy => {}
                    }
                }
                Next::Refuse => {
                    let message = format!("cannot change the stack `{}`: its status is {}", stack.name, stack.status);
                    return Err(Error::new(ErrorKind::Exists, message).with_hint(
                        "the stack has a change set that was never executed: delete the stack in CloudFormation, then \
                         run the same command",
                    ));
                }
            }
        }
    }

    /// Requests the creation of a stack, and returns its ID; `None` if the stack was created in the meantime.
    async fn create(&self, desired: &DesiredStack<'_>) -> Result<Option<String>> {
        step(&format!("creating the stack `{}`", desired.name));
        let (body, url) = desired.template.parts();
        let request = self.client.create_stack().stack_name(desired.name).set_template_body(body).set_template_url(url);
        match request.capabilities(Capability::CapabilityIam).set_tags(desired.tags()).send().await {
            Ok(response) => Ok(Some(response.stack_id.unwrap_or_else(|| desired.name.to_owned()))),
            Err(error) if code(&error) == Some("AlreadyExistsException") => Ok(None),
            Err(error) => Err(self.aws.failed(&format!("create the stack `{}`", desired.name), error)),
        }
    }

    /// Requests an update of the stack.
    async fn update(&self, desired: &DesiredStack<'_>, stack: &Stack) -> Result<UpdateResponse> {
        step(&format!("changing the stack `{}`", desired.name));
        let (body, url) = desired.template.parts();
        let request = self.client.update_stack().stack_name(&stack.id).set_template_body(body).set_template_url(url);
        match request.capabilities(Capability::CapabilityIam).set_tags(desired.tags()).send().await {
            Ok(_) => Ok(UpdateResponse::Requested),
            Err(error) if message(&error).contains("No updates are to be performed") => Ok(UpdateResponse::Unchanged),
            // Another operation started a moment earlier; CloudFormation's message then names the state.
            Err(error) if message(&error).contains("_IN_PROGRESS state and can not be updated") => {
                Ok(UpdateResponse::Busy)
            }
            Err(error) => Err(self.aws.failed(&format!("change the stack `{}`", desired.name), error)),
        }
    }

    /// Waits until the operation has ended, and returns the stack; an error if the operation did not succeed.
    async fn wait_for_success(&self, name: &str, id: &str, operation: Operation) -> Result<Stack> {
        let Some(stack) = self.wait(name, id).await? else {
            let message = format!("cannot {} the stack `{name}`: it was deleted by another process", operation.name());
            return Err(Error::new(ErrorKind::Aws, message).with_hint("run the same command again"));
        };
        if matches!(stack.status, StackStatus::CreateComplete | StackStatus::UpdateComplete) {
            return Ok(stack);
        }
        Err(self.failure(name, &stack, operation).await)
    }

    /// Deletes the stack with all its resources, and waits until it no longer exists.
    ///
    /// If an earlier deletion of the stack failed, the resources in `keep` are retained.
    pub(crate) async fn delete(&self, stack: &Stack, keep: &[&str]) -> Result<()> {
        let Some(stack) = self.find_settled(&stack.id).await? else { return Ok(()) };
        step(&format!("deleting the stack `{}`", stack.name));
        if stack.status != StackStatus::DeleteInProgress {
            // The earlier deletion failed because of the resources to keep, which CloudFormation now retains.
            let keep = keep.iter().map(ToString::to_string).collect::<Vec<_>>();
            let keep = Some(keep).filter(|keep| !keep.is_empty() && stack.status == StackStatus::DeleteFailed);
            let response = self.client.delete_stack().stack_name(&stack.id).set_retain_resources(keep).send().await;
            response.map_err(|error| self.aws.failed(&format!("delete the stack `{}`", stack.name), error))?;
        }
        match self.wait(&stack.name, &stack.id).await? {
            None => Ok(()),
            Some(remaining) => Err(self.failure(&stack.name, &remaining, Operation::Delete).await),
        }
    }

    /// Waits until no operation on the stack is in progress, and reports the events of its resources meanwhile.
    async fn wait(&self, name: &str, id: &str) -> Result<Option<Stack>> {
        let (mut pause, mut reported) = (POLL_INTERVAL.0, None);
        loop {
            let Some(stack) = self.find(id).await? else { return Ok(None) };
            let in_progress = matches!(stack.next(), Next::Wait);
            if reported.is_some() || in_progress {
                reported = Some(self.report_events(name, id, reported).await?);
            }
            if !in_progress {
                return Ok(Some(stack));
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(POLL_INTERVAL.1);
        }
    }
}

fn time(time: Option<aws_smithy_types::DateTime>) -> SystemTime {
    time.and_then(|time| SystemTime::try_from(time).ok()).unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Stack {
    fn of(stack: cloudformation::types::Stack) -> Self {
        let changed = time(stack.last_updated_time.or(stack.creation_time));
        let output = |output: Output| Some((output.output_key?, output.output_value?));
        Self {
            name: stack.stack_name.unwrap_or_default(),
            id: stack.stack_id.unwrap_or_default(),
            status: stack.stack_status.unwrap_or(StackStatus::from("")),
            reason: stack.stack_status_reason,
            outputs: stack.outputs.unwrap_or_default().into_iter().filter_map(output).collect(),
            created: time(stack.creation_time),
            changed,
        }
    }

    /// Returns an output that each of cloudknot's stacks of this kind has.
    ///
    /// # Errors
    /// Returns an error if this stack does not have it: it is of another kind, or incomplete.
    pub(crate) fn output(&self, key: &str) -> Result<&str> {
        self.outputs.get(key).map(String::as_str).ok_or_else(|| {
            let message = format!("cannot find `{key}` in the stack `{}`, which is {}", self.name, self.status);
            Error::new(ErrorKind::Aws, message)
                .with_hint("the stack is incomplete: run the command that creates it again")
        })
    }

    /// Returns whether the stack has all the resources that it should have.
    pub(crate) fn is_complete(&self) -> bool {
        use StackStatus::{CreateComplete, UpdateComplete, UpdateRollbackComplete};
        matches!(self.status, CreateComplete | UpdateComplete | UpdateRollbackComplete)
    }

    /// Returns whether the creation or the deletion of the stack failed, and no operation is in progress. The
    /// remaining resources of such a stack are unusable.
    pub(crate) fn is_stuck(&self) -> bool {
        matches!(self.next(), Next::Delete)
    }

    /// Returns the note for a plan if the stack is stuck, and is therefore deleted before anything is created.
    pub(crate) fn deletion_note(&self) -> Option<String> {
        let (name, status) = (&self.name, &self.status);
        self.is_stuck().then(|| format!("the stack `{name}`, which is {status}, is deleted first, and created again"))
    }

    /// Returns the region of the stack, which is part of its ARN.
    pub(crate) fn region(&self) -> &str {
        self.id.split(':').nth(3).unwrap_or_default()
    }

    /// Returns whether the stack can be updated: it exists, and neither its creation nor its deletion failed.
    pub(crate) fn can_be_changed(&self) -> bool {
        matches!(self.next(), Next::Update | Next::RollBack)
    }

    fn next(&self) -> Next {
        match &self.status {
            StackStatus::ReviewInProgress => Next::Refuse,
            StackStatus::UpdateRollbackFailed => Next::RollBack,
            StackStatus::CreateFailed
            | StackStatus::RollbackComplete
            | StackStatus::RollbackFailed
            | StackStatus::DeleteFailed => Next::Delete,
            status if status.as_str().ends_with("_IN_PROGRESS") => Next::Wait,
            _ => Next::Update,
        }
    }
}

impl DesiredStack<'_> {
    /// Returns the tags; `None` if there are none, so that the stack keeps its present tags.
    fn tags(&self) -> Option<Vec<Tag>> {
        let tags =
            self.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect::<Vec<_>>();
        Some(tags).filter(|tags| !tags.is_empty())
    }
}

impl Body {
    fn parts(&self) -> (Option<String>, Option<String>) {
        match self {
            Self::Text(text) => (Some(text.clone()), None),
            Self::Url(url) => (None, Some(url.clone())),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(super) const STACK: &str = "arn:aws:cloudformation:eu-west-1:123456789012:stack/a/1";

    #[test]
    fn failed_creation_is_recreated() {
        for status in [StackStatus::RollbackComplete, StackStatus::CreateFailed, StackStatus::DeleteFailed] {
            let stack = stack(status.clone());
            assert!(stack.is_stuck() && !stack.can_be_changed());
            assert!(stack.deletion_note().is_some_and(|note| note.contains(status.as_str())));
        }
        assert_eq!(stack(StackStatus::UpdateRollbackComplete).deletion_note(), None);
    }

    pub(super) fn stack(status: StackStatus) -> Stack {
        Stack {
            name: "a".into(),
            id: STACK.into(),
            status,
            reason: None,
            outputs: BTreeMap::new(),
            created: SystemTime::UNIX_EPOCH,
            changed: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn region_comes_from_the_arn() {
        let stack = stack(StackStatus::CreateComplete);
        assert_eq!(stack.region(), "eu-west-1");
        assert!(stack.is_complete() && stack.can_be_changed());
        assert!(stack.output("Bucket").unwrap_err().hint().is_some());
    }
}
