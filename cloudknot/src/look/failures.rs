//! The failures of a run by their causes, which the keys of failures state: one read for each cause shows its message.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use cloudknot_runtime::contract::FailedAttempt;
use cloudknot_runtime::engine;
use cloudknot_runtime::failure::{Cause, ItemError, ItemErrorKind, mask_numbers};

use super::measured::ranges;
use crate::error::Result;
use crate::record::SettledOutcome;
use crate::record::ledger::Ledger;

/// Maximum number of causes whose messages are read.
const MAX_CAUSES: usize = 20;

/// Items that failed for the same reason: failures of one kind, at one place, with one message except for its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailureGroup {
    /// Kind of the failures.
    pub kind: ItemErrorKind,
    /// Message with each number replaced by `N`, and its causes; `None` if it was not read.
    pub message: Option<String>,
    /// Source location of a panic: `file:line:column`.
    pub place: Option<String>,
    /// Number of items.
    pub count: u64,
    /// Items, as ranges in order.
    pub items: Vec<RangeInclusive<u64>>,
}

/// Returns the items whose last attempt failed by cause, those with the most items first. The messages of the first
/// [`MAX_CAUSES`] are read.
pub(super) async fn read(ledger: &Ledger) -> Result<Vec<FailureGroup>> {
    let mut by_cause: HashMap<Cause, Vec<FailedAttempt>> = HashMap::new();
    for settled in ledger.all_settled() {
        if let SettledOutcome::Failure(failure) = settled
            && !ledger.has_value(failure.item)
        {
            by_cause.entry(failure.cause).or_default().push(failure);
        }
    }
    let mut all: Vec<Vec<FailedAttempt>> = by_cause.into_values().collect();
    for failures in &mut all {
        failures.sort_unstable_by_key(|failure| failure.item);
    }
    all.sort_unstable_by_key(|failures| (std::cmp::Reverse(failures.len()), failures[0].item));
    let examples: Vec<_> = all.iter().take(MAX_CAUSES).map(|failures| failures[0]).collect();
    let reads: Vec<_> = examples
        .into_iter()
        .map(|failure| {
            let (store, key) = (Arc::clone(&ledger.record.store), ledger.record.keys.failure(failure));
            engine::spawn(async move { store.get(&key).await })
        })
        .collect();
    let mut groups: Vec<FailureGroup> = all.iter().map(|failures| FailureGroup::of(failures)).collect();
    for (group, read) in groups.iter_mut().zip(reads) {
        let bytes = read.await.expect("reading a failure does not panic")?.unwrap_or_default();
        // A failure that cannot be read is counted nevertheless.
        if let Ok(error) = serde_json::from_slice::<ItemError>(&bytes) {
            let messages = std::iter::once(error.message()).chain(error.chain().iter().map(String::as_str));
            group.message = Some(mask_numbers(&messages.collect::<Vec<_>>().join(": ")));
            group.place = error.location().map(str::to_owned);
        }
    }
    Ok(groups)
}

impl FailureGroup {
    /// Creates the group of these failures, which are in the order of their items.
    fn of(failures: &[FailedAttempt]) -> Self {
        let items = ranges(failures.iter().map(|failure| failure.item));
        Self { kind: failures[0].cause.kind, message: None, place: None, count: failures.len() as u64, items }
    }
}
