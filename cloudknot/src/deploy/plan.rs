//! What a deploy would do, shown before it is done.

use std::fmt;

/// What would be made, changed and removed, and what that costs while nothing runs. `Display` is for people.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// The steps, in their order.
    pub steps: Vec<PlannedStep>,
    /// What it costs while idle, and what else is worth knowing before.
    pub notes: Vec<String>,
}

/// One thing that would be done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct PlannedStep {
    /// Of which stack; none of what is not in one.
    pub stack: Option<String>,
    /// What is done to it.
    pub action: Action,
    /// What the template calls it, or what it is.
    pub resource: String,
    /// Its type, such as `AWS::S3::Bucket`.
    pub kind: String,
}

/// What would be done to something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Action {
    /// It would be made.
    Make,
    /// It would be changed, or replaced where AWS cannot change it.
    Change,
    /// It would be removed.
    Remove,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    #[cfg(all(feature = "deploy", not(cloudknot_worker)))]
    pub(crate) fn step(&mut self, stack: Option<&str>, action: Action, resource: &str, kind: &str) {
        let (stack, resource, kind) = (stack.map(str::to_owned), resource.to_owned(), kind.to_owned());
        self.steps.push(PlannedStep { stack, action, resource, kind });
    }

    /// What turns the one template into the other.
    #[cfg(all(feature = "deploy", not(cloudknot_worker)))]
    pub(crate) fn stack(&mut self, name: &str, before: Option<&str>, after: &str) {
        let before = before.map(super::template::resources).unwrap_or_default();
        let after = super::template::resources(after);
        for (resource, wanted) in &after {
            match before.get(resource) {
                None => self.step(Some(name), Action::Make, resource, &wanted.kind),
                Some(there) if there != wanted => self.step(Some(name), Action::Change, resource, &wanted.kind),
                Some(_) => {}
            }
        }
        for (resource, there) in before.iter().filter(|(resource, _)| !after.contains_key(*resource)) {
            self.step(Some(name), Action::Remove, resource, &there.kind);
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
