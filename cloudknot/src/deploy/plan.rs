//! Preview of a deploy.

use std::fmt;

use crate::error::{ErrorKind, Result};

/// Resources that would be created, changed and removed, and their costs while nothing runs. `Display` is for humans.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// Steps, in order of execution.
    pub steps: Vec<PlannedStep>,
    /// Costs while idle, and other facts worth knowing beforehand.
    pub notes: Vec<String>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct PlannedStep {
    /// Stack of the resource; `None` if it is not in a stack.
    pub stack: Option<String>,
    /// Action on the resource.
    pub action: Action,
    /// Logical ID in the template, or a description of the resource.
    pub resource: String,
    /// Type of the resource, such as `AWS::S3::Bucket`.
    pub kind: String,
}

/// Action of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Action {
    /// Creates the resource.
    Make,
    /// Changes the resource, or replaces it where AWS cannot change it.
    Change,
    /// Removes the resource.
    Remove,
}

/// Purpose for which a Pars or a Knot is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    /// It is created or changed.
    Apply,
    /// A dry run. Missing permissions are notes of the plan.
    Plan,
    /// The user creates the stack from the template, so that permissions and quotas of the caller do not matter.
    Template,
}

/// Turns missing permissions into a note if only a plan is requested.
pub(crate) fn denied_note(checked: Result<()>, intent: Intent) -> Result<Option<String>> {
    match checked {
        Err(error) if intent == Intent::Plan && error.kind() == ErrorKind::Denied => Ok(Some(error.in_one_line())),
        checked => checked.map(|()| None),
    }
}

impl Plan {
    /// Returns `true` if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(crate) fn step(&mut self, stack: Option<&str>, action: Action, resource: &str, kind: &str) {
        let (stack, resource, kind) = (stack.map(str::to_owned), resource.to_owned(), kind.to_owned());
        self.steps.push(PlannedStep { stack, action, resource, kind });
    }

    /// Adds the steps that turn one template into the other.
    pub(crate) fn stack(&mut self, name: &str, before: Option<&str>, after: &str) {
        let before = before.map(super::template::resources).unwrap_or_default();
        let after = super::template::resources(after);
        for (resource, desired) in &after {
            match before.get(resource) {
                None => self.step(Some(name), Action::Make, resource, &desired.kind),
                Some(current) if current != desired => self.step(Some(name), Action::Change, resource, &desired.kind),
                Some(_) => {}
            }
        }
        for (resource, removed) in before.iter().filter(|(resource, _)| !after.contains_key(*resource)) {
            self.step(Some(name), Action::Remove, resource, &removed.kind);
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            writeln!(f, "nothing to do")?;
        }
        let mut stack = None;
        for step in &self.steps {
            if step.stack.is_some() && step.stack != stack {
                writeln!(f, "stack {}", step.stack.as_deref().unwrap_or_default())?;
            }
            stack.clone_from(&step.stack);
            let sign = match step.action {
                Action::Make => '+',
                Action::Change => '~',
                Action::Remove => '-',
            };
            writeln!(f, "  {sign} {} ({})", step.resource, step.kind)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}
