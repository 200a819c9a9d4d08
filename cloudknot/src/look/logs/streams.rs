//! The log streams of a run's jobs: those that workers have stored with their outcomes, and those that AWS Batch still knows.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use cloudknot_runtime::contract::{self, FailedAttempt, Part, PartEnd};
use cloudknot_runtime::engine;
use cloudknot_runtime::failure::ItemError;
use cloudknot_runtime::measurements::Machine;
use cloudknot_runtime::store::{Object, Store};

use super::super::open::{Opened, OpenedRecord};
use crate::backend::{LogStream, LogStreams};
use crate::error::Result;
use crate::failures::ranges;
use crate::record::ledger::Bits;

/// Maximum number of outcomes that are read to find the logs of their jobs.
const MAX_OUTCOMES: usize = 1_000;
/// Number of jobs from which AWS Batch is asked only for those that have stored no outcome.
const MAX_JOBS: u64 = 100;

/// Group and name of a log stream.
pub(super) type StreamKey = (String, String);

/// The log streams of some items.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// The streams, each with its round if that is known.
    pub(super) all: BTreeMap<StreamKey, Option<u32>>,
    /// `true` if some outcomes were not read, or some jobs not described, because there are too many.
    pub(super) is_cut: bool,
}

impl Streams {
    /// Adds the streams that were found later.
    pub(super) fn extend(&mut self, later: Self) {
        for ((group, stream), round) in later.all {
            self.add(Some(group), Some(stream), round);
        }
        self.is_cut |= later.is_cut;
    }

    fn add(&mut self, group: Option<String>, stream: Option<String>, round: Option<u32>) -> bool {
        let Some(key) = group.zip(stream) else { return false };
        let known = self.all.entry(key).or_default();
        *known = known.or(round);
        true
    }
}

/// An outcome whose object names the log of its worker.
#[derive(Debug, Clone)]
enum Outcome {
    Part(Part),
    Failure(FailedAttempt),
}

impl Outcome {
    fn of(object: &Object) -> Option<Self> {
        let part = contract::part_of(&object.key).map(Self::Part);
        part.or_else(|| contract::failure_of(&object.key).map(Self::Failure))
    }

    fn items(&self) -> RangeInclusive<u64> {
        match self {
            Self::Part(part) => part.first..=part.last,
            Self::Failure(failure) => failure.item..=failure.item,
        }
    }

    /// Reads the machine of the worker, and the round. Returns `None` for an object that is damaged, or gone.
    async fn read(&self, store: &dyn Store, object: &Object) -> Result<Option<(Machine, Option<u32>)>> {
        match self {
            Self::Part(part) => {
                let from = object.size.saturating_sub(PartEnd::max_len(*part));
                let bytes = store.get_range(&object.key, from..object.size).await?;
                let end = PartEnd::parse(*part, &bytes).ok();
                Ok(end.map(|end| (end.machine, end.rows.first().map(|row| row.round))))
            }
            Self::Failure(failure) => {
                let bytes = store.get(&object.key).await?.unwrap_or_default();
                let error: Option<ItemError> = serde_json::from_slice(&bytes).ok();
                Ok(error.and_then(|error| Some((error.machine()?.clone(), Some(failure.round)))))
            }
        }
    }
}

/// Finds the log streams of these items.
pub(super) async fn find(opened: &Opened, record: &OpenedRecord, items: &[RangeInclusive<u64>]) -> Result<Streams> {
    let mut streams = Streams::default();
    let manifest = &record.ledger.record.manifest;
    let mut known = Bits::new(manifest.items);
    let is_selected = |outcome: &Outcome| {
        let of = outcome.items();
        *of.end() < manifest.items && items.iter().any(|range| range.start() <= of.end() && of.start() <= range.end())
    };
    let outcomes = opened.listing.objects.iter().filter_map(|object| Some((Outcome::of(object)?, object.clone())));
    let mut outcomes: Vec<_> = outcomes.filter(|(outcome, _)| is_selected(outcome)).collect();
    streams.is_cut = outcomes.len() > MAX_OUTCOMES;
    outcomes.truncate(MAX_OUTCOMES);
    let store = &record.ledger.record.store;
    for batch in outcomes.chunks(store.parallel_reads().max(1)) {
        let reads: Vec<_> = batch
            .iter()
            .cloned()
            .map(|(outcome, object)| {
                let store = Arc::clone(store);
                engine::spawn(async move { outcome.read(&*store, &object).await })
            })
            .collect();
        for ((outcome, _), read) in batch.iter().zip(reads) {
            let Some((machine, round)) = read.await.expect("reading an outcome does not panic")? else { continue };
            if streams.add(machine.log_group, machine.log_stream, round) {
                outcome.items().for_each(|item| known.set(item));
            }
        }
    }
    let jobs: u64 = items.iter().map(|range| (range.end() - range.start()) / manifest.chunk + 1).sum();
    // Items without an outcome may still print lines.
    let unsettled = if record.state.is_end() { Vec::new() } else { record.ledger.missing() };
    let is_open = |item: u64| !known.get(item) || unsettled.iter().any(|range| range.contains(&item));
    let asked = if jobs <= MAX_JOBS {
        items.to_vec()
    } else {
        ranges(items.iter().cloned().flatten().filter(|item| is_open(*item)))
    };
    let described = described(opened, record, asked).await?;
    for LogStream { group, stream, round } in described.all {
        streams.add(Some(group), Some(stream), round);
    }
    streams.is_cut |= described.is_cut;
    Ok(streams)
}

/// Returns the streams that AWS Batch names for the jobs of these items.
async fn described(opened: &Opened, record: &OpenedRecord, items: Vec<RangeInclusive<u64>>) -> Result<LogStreams> {
    let executor = opened.found.backend.executor();
    let scheduled = |range: &RangeInclusive<u64>| {
        let round = &record.ledger.record.scheduled.items;
        round.iter().any(|of_round| of_round.start <= *range.end() && *range.start() < of_round.end)
    };
    let items: Vec<_> = items.into_iter().filter(scheduled).collect();
    if items.is_empty() { Ok(LogStreams::default()) } else { executor.log_streams(&record.ledger, items).await }
}

#[cfg(test)]
mod tests {
    use super::super::super::items::contains;
    use super::*;

    #[test]
    fn outcomes_of_items_are_recognized_by_their_keys() {
        let keys = contract::RunKeys::new("k", "r");
        let object = |key: String| Object { key, size: 1, stored: std::time::SystemTime::UNIX_EPOCH };
        let part = Outcome::of(&object(keys.part(Part { first: 3, last: 5 }))).unwrap();
        assert!(contains(&[part.items()], 4) && !contains(&[part.items()], 6));
        assert!(Outcome::of(&object(keys.manifest())).is_none());
        assert!(Outcome::of(&object(keys.log(1))).is_none());
    }

    #[test]
    fn a_stream_is_read_once() {
        let mut streams = Streams::default();
        assert!(!streams.add(Some("g".into()), None, Some(1)));
        assert!(streams.add(Some("g".into()), Some("s".into()), None));
        assert!(streams.add(Some("g".into()), Some("s".into()), Some(2)));
        assert_eq!(streams.all, BTreeMap::from([(("g".to_owned(), "s".to_owned()), Some(2))]));
    }
}
