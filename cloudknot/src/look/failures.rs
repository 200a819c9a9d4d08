//! The failures of a run by their causes, which the keys of failures state: one read for each cause shows its message.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use cloudknot_runtime::contract::FailedAttempt;
use cloudknot_runtime::engine;
use cloudknot_runtime::failure::{Cause, ItemError};

use crate::error::Result;
use crate::failures::FailureGroup;
use crate::record::SettledOutcome;
use crate::record::ledger::Ledger;

/// Maximum number of causes whose messages are read.
const MAX_CAUSES: usize = 20;

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
    let mut reads = reads.into_iter();
    let mut groups = Vec::with_capacity(all.len());
    for failures in &all {
        let group = FailureGroup::new(failures[0].cause.kind, failures.iter().map(|failure| failure.item));
        let bytes = match reads.next() {
            Some(read) => read.await.expect("reading a failure does not panic")?.unwrap_or_default(),
            None => Bytes::new(),
        };
        // A failure that cannot be read is counted nevertheless.
        groups.push(match serde_json::from_slice::<ItemError>(&bytes) {
            Ok(error) => group.with_example(error),
            Err(_) => group,
        });
    }
    Ok(groups)
}
