//! Events of a stack: progress while an operation runs, and the cause if it fails.

use std::collections::BTreeSet;

use aws_sdk_cloudformation::types::{ResourceStatus, StackEvent};

use super::{Stack, Stacks};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{self, Event};

/// Operation on a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    Change,
    /// Continuation of a rollback that failed.
    RollBack,
    Delete,
}

impl Stacks {
    /// Reports the events since the last one that was reported, and returns the ID of the newest event. The first call
    /// reports none, because its events are earlier.
    pub(super) async fn report_events(&self, name: &str, id: &str, reported: Option<String>) -> Result<String> {
        let events = self.events(name, id).await?;
        let newest = events.first().and_then(|event| event.event_id.clone()).unwrap_or_default();
        if let Some(reported) = reported {
            let new: Vec<_> = events.iter().take_while(|event| event.event_id.as_ref() != Some(&reported)).collect();
            for event in new.into_iter().rev().filter(|event| !is_of_the_stack(event, id)) {
                event::report(&Event::Resource {
                    stack: name,
                    resource: event.logical_resource_id().unwrap_or_default(),
                    kind: event.resource_type().unwrap_or_default(),
                    status: status(event),
                    reason: event.resource_status_reason(),
                });
            }
        }
        Ok(newest)
    }

    /// Returns the events of a stack and its resources since the start of its last operation, and some earlier ones, sorted
    /// newest first.
    async fn events(&self, name: &str, id: &str) -> Result<Vec<StackEvent>> {
        let mut pages = self.client.describe_stack_events().stack_name(id).into_paginator().send();
        let mut events = Vec::new();
        while let Some(page) = pages.next().await {
            let page =
                page.map_err(|error| self.aws.failed(&format!("read the events of the stack `{name}`"), error))?;
            events.extend(page.stack_events.unwrap_or_default());
            if events.iter().any(|event| Operation::INITIAL.iter().any(|operation| operation.is_start(event, id))) {
                break;
            }
        }
        Ok(events)
    }

    /// Returns the error of a failed operation. Its source is the resource that failed first, which caused the other
    /// failures.
    pub(super) async fn failure(&self, name: &str, stack: &Stack, operation: Operation) -> Error {
        let events = match self.events(name, &stack.id).await {
            Ok(events) => events,
            Err(error) => return error,
        };
        let message = format!("cannot {} the stack `{name}`", operation.name());
        let failed = failures(&events, &stack.id, operation);
        let (cause, hint) = match failed.first() {
            Some(event) => {
                let (resource, kind) = (event.logical_resource_id(), event.resource_type());
                let reason = event.resource_status_reason().unwrap_or("no reason was given");
                (
                    format!("{} ({}): {reason}", resource.unwrap_or_default(), kind.unwrap_or_default()),
                    format!("fix that, then run the same command; the stack is {}", stack.status),
                )
            }
            None => (
                stack.reason.clone().unwrap_or_else(|| format!("its status is {}", stack.status)),
                "run the same command again".to_owned(),
            ),
        };
        let hint = if operation == Operation::RollBack { rollback_hint(stack, &failed) } else { hint };
        Error::new(ErrorKind::Aws, message).with_source(cause).with_hint(hint)
    }
}

impl Operation {
    /// Operations that are independent of the operation before them.
    const INITIAL: [Self; 3] = [Self::Create, Self::Change, Self::Delete];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Change => "change",
            Self::RollBack => "roll back",
            Self::Delete => "delete",
        }
    }

    /// Returns whether the event is the start of this operation by the stack itself.
    fn is_start(self, event: &StackEvent, id: &str) -> bool {
        let start = match self {
            Self::Create => "CREATE_IN_PROGRESS",
            Self::Change => "UPDATE_IN_PROGRESS",
            Self::RollBack => "UPDATE_ROLLBACK_IN_PROGRESS",
            Self::Delete => "DELETE_IN_PROGRESS",
        };
        is_of_the_stack(event, id) && status(event) == start
    }
}

/// Returns the hint for a stack that cannot be rolled back.
fn rollback_hint(stack: &Stack, failed: &[&StackEvent]) -> String {
    let failed_updates = failed.iter().filter(|event| status(event) == "UPDATE_FAILED");
    let failed_updates: BTreeSet<&str> = failed_updates.filter_map(|event| event.logical_resource_id()).collect();
    let failed_updates = if failed_updates.is_empty() {
        vec!["<each that is UPDATE_FAILED>"]
    } else {
        failed_updates.into_iter().collect()
    };
    format!(
        "fix that, then run the same command, which continues the rollback. If it cannot be fixed, let CloudFormation skip \
         it: `aws cloudformation continue-update-rollback --region {} --stack-name {} --resources-to-skip {}`, then run \
         the same command; or clobber it, and create it again",
        stack.region(),
        stack.name,
        failed_updates.join(" ")
    )
}

/// Returns the resources that failed since the stack itself last started this operation, the earliest first, because
/// that failure caused the later ones. The newest event comes first in `events`, and the events of the stack itself
/// name the stack as their resource.
fn failures<'e>(events: &'e [StackEvent], id: &str, operation: Operation) -> Vec<&'e StackEvent> {
    // A resource that was in progress when another one failed ends like this: "Resource creation cancelled".
    let cancelled = |event: &StackEvent| {
        let reason = event.resource_status_reason().unwrap_or_default();
        reason.starts_with("Resource ") && reason.trim_end_matches('.').ends_with(" cancelled")
    };
    let is_start = |event: &StackEvent| {
        Operation::INITIAL.iter().chain([&operation]).any(|operation| operation.is_start(event, id))
    };
    let since_start = events.iter().take_while(|event| !is_start(event));
    let failed = since_start.filter(|event| !is_of_the_stack(event, id) && status(event).ends_with("_FAILED"));
    let mut failed: Vec<_> = failed.filter(|event| !cancelled(event)).collect();
    failed.reverse();
    failed
}

fn is_of_the_stack(event: &StackEvent, id: &str) -> bool {
    event.physical_resource_id() == Some(id)
}

fn status(event: &StackEvent) -> &str {
    event.resource_status().map_or("", ResourceStatus::as_str)
}

#[cfg(test)]
mod tests {
    use aws_sdk_cloudformation::types::StackStatus;

    use super::super::tests::{STACK, stack};
    use super::*;

    fn event(resource: &str, status: &str, reason: &str) -> StackEvent {
        let id = if resource == "a" { STACK } else { resource };
        let event = StackEvent::builder().stack_id(STACK).event_id("e").stack_name("a");
        let event = event.timestamp(aws_smithy_types::DateTime::from_secs(0)).logical_resource_id(resource);
        let event = event.physical_resource_id(id).resource_status(ResourceStatus::from(status));
        event.resource_status_reason(reason).build()
    }

    #[test]
    fn first_failure_is_the_cause() {
        let newest_first = [
            event("a", "ROLLBACK_COMPLETE", ""),
            event("Bucket", "DELETE_COMPLETE", ""),
            event("a", "ROLLBACK_IN_PROGRESS", "The following resource(s) failed to create: [JobQueue, JobRole]."),
            event("JobRole", "CREATE_FAILED", "Resource creation cancelled"),
            event("Repository", "CREATE_FAILED", "a later one"),
            event("JobQueue", "CREATE_FAILED", "not authorized to perform batch:CreateJobQueue"),
            event("JobQueue", "CREATE_IN_PROGRESS", ""),
            event("a", "CREATE_IN_PROGRESS", "User Initiated"),
            event("Bucket", "DELETE_FAILED", "of an earlier operation"),
            event("a", "DELETE_IN_PROGRESS", "User Initiated"),
        ];
        let failed = failures(&newest_first, STACK, Operation::Create);
        let failed: Vec<_> = failed.into_iter().filter_map(StackEvent::logical_resource_id).collect();
        assert_eq!(failed, ["JobQueue", "Repository"]);
        assert!(failures(&newest_first[7..8], STACK, Operation::Create).is_empty(), "a failure before anything failed");
    }

    #[test]
    fn repeated_rollback_failure_is_reported_with_a_hint() {
        let newest_first = [
            event("a", "UPDATE_ROLLBACK_FAILED", "The following resource(s) failed to update: [JobQueue]."),
            event("JobRole", "UPDATE_FAILED", "Resource update cancelled"),
            event("JobQueue", "UPDATE_FAILED", "the job was cancelled by its owner"),
            event("a", "UPDATE_ROLLBACK_IN_PROGRESS", "User Initiated"),
            event("a", "UPDATE_ROLLBACK_FAILED", ""),
            event("Environment", "UPDATE_FAILED", "fixed in the meantime"),
            event("a", "UPDATE_ROLLBACK_IN_PROGRESS", ""),
            event("JobDefinition", "UPDATE_FAILED", "the initial failure"),
            event("a", "UPDATE_IN_PROGRESS", "User Initiated"),
        ];
        let failed = failures(&newest_first, STACK, Operation::RollBack);
        assert_eq!(failed.len(), 1);
        let stack = stack(StackStatus::UpdateRollbackFailed);
        let command = "continue-update-rollback --region eu-west-1 --stack-name a --resources-to-skip JobQueue`";
        assert!(rollback_hint(&stack, &failed).contains(command), "{}", rollback_hint(&stack, &failed));
        let first = failures(&newest_first, STACK, Operation::Change)[0].logical_resource_id();
        assert_eq!(first, Some("JobDefinition"), "the failure of an update caused the rollback");
    }
}
