//! The failures of a run on the terminal: the first ones as they come, then those of new causes, and all of them by cause at the end.

use std::collections::HashMap;

use cloudknot_runtime::failure::{Cause, ItemError};

use crate::failures::{self, FailureGroup, failure_lines};

/// Maximum number of failures that are shown as they come, whatever their cause.
const MAX_SHOWN: u32 = 10;
/// Maximum number of further failures that are shown because their cause is new.
const MAX_NEW_CAUSES: u32 = 20;
/// Maximum number of causes at the end.
const MAX_GROUPS: usize = 5;
/// Maximum number of items of one cause that are remembered. Only the first ones are named.
const MAX_ITEMS: usize = 10_000;

/// Failures of a run so far.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Number of failures that were shown as they came.
    shown: u32,
    /// Number of failures that were shown because their cause was new.
    new_causes: u32,
    causes: HashMap<Cause, OfCause>,
}

/// Items that failed for one cause.
#[derive(Debug)]
struct OfCause {
    count: u64,
    items: Vec<u64>,
    /// Lowest item so far, and its failure.
    example: (u64, ItemError),
}

/// Display of a failure when it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Yes,
    /// It is shown, and further ones only if their causes are new.
    Last,
    No,
}

impl Failures {
    /// Records a failed attempt. `last` is `true` if no further attempt follows.
    pub(super) fn add(&mut self, item: u64, error: &ItemError, last: bool) -> Shown {
        let is_new = !self.causes.contains_key(&error.cause());
        if last {
            self.count(item, error);
        }
        if self.shown < MAX_SHOWN {
            self.shown += 1;
            return if self.shown == MAX_SHOWN { Shown::Last } else { Shown::Yes };
        }
        if last && is_new && self.new_causes < MAX_NEW_CAUSES {
            self.new_causes += 1;
            return Shown::Yes;
        }
        Shown::No
    }

    fn count(&mut self, item: u64, error: &ItemError) {
        let new = || OfCause { count: 0, items: Vec::new(), example: (item, error.clone()) };
        let of_cause = self.causes.entry(error.cause()).or_insert_with(new);
        of_cause.count += 1;
        if of_cause.items.len() < MAX_ITEMS {
            of_cause.items.push(item);
        }
        if item < of_cause.example.0 {
            of_cause.example = (item, error.clone());
        }
    }

    /// Returns the failures by cause, for the end of the run; nothing if each was shown, and has a cause of its own. `failed` is the
    /// number of all items that failed, which includes those of an earlier program.
    pub(super) fn lines(&self, failed: u64) -> Vec<String> {
        let known: u64 = self.causes.values().map(|of_cause| of_cause.count).sum();
        let earlier = failed.saturating_sub(known);
        if earlier == 0 && self.causes.values().all(|of_cause| of_cause.count == 1) && known <= u64::from(self.shown) {
            return Vec::new();
        }
        let mut lines = failure_lines(&self.groups(), MAX_GROUPS);
        if earlier > 0 && known > 0 {
            lines.push(format!("{earlier} failed before this program followed the run"));
        }
        lines
    }

    fn groups(&self) -> Vec<FailureGroup> {
        let group = |(cause, of_cause): (&Cause, &OfCause)| {
            let mut items = of_cause.items.clone();
            items.sort_unstable();
            items.dedup();
            let group = FailureGroup::new(cause.kind, items).with_example(of_cause.example.1.clone());
            FailureGroup { count: of_cause.count, ..group }
        };
        let mut groups: Vec<_> = self.causes.iter().map(group).collect();
        failures::sort(&mut groups);
        groups
    }
}

#[cfg(test)]
mod tests {
    use cloudknot_runtime::failure::{Failure, ItemErrorKind};

    use super::*;

    fn error(message: &str) -> ItemError {
        ItemError::new(Failure::new(ItemErrorKind::Returned, message), 1)
    }

    #[test]
    fn first_failures_and_new_causes_are_shown() {
        let mut failures = Failures::default();
        let shown: Vec<_> = (0..100).map(|item| failures.add(item, &error(&format!("no {item}")), true)).collect();
        assert_eq!(shown[..9], [Shown::Yes; 9]);
        assert_eq!(shown[9], Shown::Last);
        assert!(shown[10..].iter().all(|shown| *shown == Shown::No));
        assert_eq!(failures.add(100, &error("another"), true), Shown::Yes);
        assert_eq!(failures.add(101, &error("another"), true), Shown::No);
        assert_eq!(failures.add(102, &error("a retry follows"), false), Shown::No);
        assert_eq!(
            failures.lines(102),
            ["100  returned an error  items 0-99: no N", "  2  returned an error  items 100-101: another"]
        );
        assert_eq!(failures.lines(105).last().unwrap(), "3 failed before this program followed the run");
    }

    #[test]
    fn causes_that_come_without_end_are_counted() {
        let mut failures = Failures::default();
        let causes = ["a", "b", "c", "d"].iter().flat_map(|one| ["e", "f", "g"].map(|two| format!("{one}{two}")));
        let causes: Vec<_> = causes.flat_map(|cause| [format!("{cause}x"), format!("{cause}y"), cause]).collect();
        let shown = causes.iter().zip(0..).map(|(cause, item)| failures.add(item, &error(cause), true));
        assert_eq!(shown.filter(|shown| *shown != Shown::No).count(), 30);
        assert_eq!(failures.lines(36).len(), MAX_GROUPS + 1);
    }

    #[test]
    fn failures_that_were_all_shown_are_not_repeated() {
        let mut failures = Failures::default();
        failures.add(1, &error("a"), true);
        failures.add(2, &error("b"), true);
        assert!(failures.lines(2).is_empty());
        failures.add(3, &error("b"), true);
        assert_eq!(failures.lines(3).len(), 2);
    }
}
