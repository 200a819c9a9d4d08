//! The stored outcomes of a run, in the order of its items, without the types of its function.

use std::collections::VecDeque;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use cloudknot_runtime::contract::RunState;
use cloudknot_runtime::engine;
use cloudknot_runtime::failure::{Failure, ItemError, ItemErrorKind};
use cloudknot_runtime::fingerprint::json::{JsonError, StoredValue};
use cloudknot_runtime::fingerprint::{Part as TypePart, RawForm, Structure};

use super::items::{Items, contains};
use super::open::{Opened, OpenedRecord};
use crate::error::{Error, ErrorKind, Result};
use crate::failures::ranges;
use crate::record::SettledOutcome;
use crate::record::frames::{PartFrames, bytes_of, damaged_outcome, failure_of, without_outcome};
use crate::record::ledger::Bits;
use crate::record::tables::winning;

/// The stored outcomes of a run, in the order of its items. See [`Look::results`](super::Look::results).
///
/// A few parts are read ahead; nothing else is held in memory.
pub struct StoredResults {
    opened: Arc<Opened>,
    /// Parts and failures that are not being read yet.
    rest: VecDeque<Segment>,
    reading: VecDeque<(Segment, tokio::task::JoinHandle<Result<Bytes, String>>)>,
    /// Items whose outcomes are being returned.
    open: Option<OpenSegment>,
}

/// Items whose outcomes are in one object.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    /// Ranges in order.
    items: Vec<RangeInclusive<u64>>,
    /// `None` for items without an outcome.
    settled: Option<SettledOutcome>,
}

enum OpenSegment {
    Part(Segment, PartFrames),
    Unfinished(std::iter::Flatten<std::vec::IntoIter<RangeInclusive<u64>>>),
}

/// A stored value, without its type.
#[derive(Clone)]
pub struct EncodedValue {
    opened: Arc<Opened>,
    frame: Bytes,
}

impl StoredResults {
    pub(super) fn new(opened: &Arc<Opened>, items: &Items) -> Result<Self> {
        let record = opened.readable()?;
        let selected = items.of(&record.ledger)?;
        let rest = segments(record, &selected).into();
        Ok(Self { opened: Arc::clone(opened), rest, reading: VecDeque::new(), open: None })
    }

    /// Returns the next item with its outcome, or `None` after the last one. An item that has no outcome yet is left out.
    ///
    /// # Errors
    /// The error of an item whose outcome cannot be read says so; the others can be read nevertheless.
    pub async fn next(&mut self) -> Option<(u64, Result<EncodedValue, ItemError>)> {
        loop {
            if let Some(next) = self.next_of_open() {
                return Some(next);
            }
            self.read_ahead();
            let Some((segment, read)) = self.reading.pop_front() else {
                let segment = self.rest.pop_front()?;
                self.open = Some(OpenSegment::Unfinished(segment.items.into_iter().flatten()));
                continue;
            };
            let bytes = read.await.expect("reading an outcome does not panic");
            match segment.settled {
                Some(SettledOutcome::Values(part)) => {
                    self.open = Some(OpenSegment::Part(segment, PartFrames::new(part, bytes)));
                }
                Some(settled @ SettledOutcome::Failure(failure)) => {
                    return Some((
                        failure.item,
                        Err(failure_of(&readable(&self.opened).ledger.record, settled, bytes)),
                    ));
                }
                None => unreachable!("only outcomes are read"),
            }
        }
    }

    /// Starts reads of the next outcomes, up to an item without an outcome.
    fn read_ahead(&mut self) {
        let record = &readable(&self.opened).ledger.record;
        while self.reading.len() < record.store.parallel_reads().max(1)
            && let Some(settled) = self.rest.front().and_then(|segment| segment.settled)
        {
            let segment = self.rest.pop_front().expect("there is a first one");
            let (opened, store, key) = (Arc::clone(&self.opened), Arc::clone(&record.store), record.key_of(settled));
            let read = engine::spawn(async move {
                let read = store.get(&key).await;
                bytes_of(&readable(&opened).ledger.record, settled, read)
            });
            self.reading.push_back((segment, read));
        }
    }

    /// Returns the next outcome of the open segment.
    fn next_of_open(&mut self) -> Option<(u64, Result<EncodedValue, ItemError>)> {
        let record = readable(&self.opened);
        match self.open.as_mut()? {
            OpenSegment::Part(segment, frames) => {
                while let Some((item, frame)) = frames.next(&record.ledger.record) {
                    if contains(&segment.items, item) {
                        let settled = segment.settled.expect("a part is an outcome");
                        return Some((item, EncodedValue::of(&self.opened, settled, frame)));
                    }
                }
            }
            OpenSegment::Unfinished(items) => {
                if let Some(item) = items.next() {
                    return Some((item, Err(unfinished(record.state))));
                }
            }
        }
        self.open = None;
        None
    }
}

/// Returns the record of a run whose results are read.
fn readable(opened: &Opened) -> &OpenedRecord {
    opened.readable().expect("`StoredResults::new` has checked that the record can be read")
}

/// Returns the selected items by the objects with their outcomes, in order. Items without an outcome are included once the run has
/// ended.
fn segments(record: &OpenedRecord, selected: &[RangeInclusive<u64>]) -> Vec<Segment> {
    let ledger = &record.ledger;
    let mut settled = Bits::new(ledger.record.manifest.items);
    let mut all: Vec<(RangeInclusive<u64>, Option<SettledOutcome>)> = Vec::new();
    for winner in winning(ledger) {
        winner.items.iter().cloned().flatten().for_each(|item| settled.set(item));
        all.extend(winner.items.into_iter().map(|items| (items, Some(SettledOutcome::Values(winner.part)))));
    }
    for outcome in ledger.all_settled() {
        if let SettledOutcome::Failure(failure) = outcome
            && !settled.get(failure.item)
        {
            settled.set(failure.item);
            all.push((failure.item..=failure.item, Some(outcome)));
        }
    }
    if record.state.is_end() {
        let unfinished = ranges((0..ledger.record.manifest.items).filter(|item| !settled.get(*item)));
        all.extend(unfinished.into_iter().map(|items| (items, None)));
    }
    all.sort_unstable_by_key(|(items, _)| *items.start());
    let mut segments: Vec<Segment> = Vec::new();
    for (items, settled) in all {
        for items in intersection(&items, selected) {
            match segments.last_mut() {
                // Not read again.
                Some(last) if last.settled == settled => last.items.push(items),
                _ => segments.push(Segment { items: vec![items], settled }),
            }
        }
    }
    segments
}

/// Returns the parts of a range that are in these ranges, which are in order.
fn intersection(
    range: &RangeInclusive<u64>,
    with: &[RangeInclusive<u64>],
) -> impl Iterator<Item = RangeInclusive<u64>> {
    let first = with.partition_point(|other| other.end() < range.start());
    let overlapping = with[first..].iter().take_while(|other| other.start() <= range.end());
    overlapping.map(|other| *range.start().max(other.start())..=*range.end().min(other.end()))
}

fn unfinished(state: RunState) -> ItemError {
    let failure = match state {
        RunState::Cancelled => {
            Failure::new(ItemErrorKind::Cancelled, "the run was cancelled before the item had an outcome")
        }
        _ => Failure::new(ItemErrorKind::Infrastructure, "the run ended without an outcome for this item"),
    };
    ItemError::new(failure, 0)
}

impl EncodedValue {
    /// Creates the value from its frame, which is verified.
    fn of(opened: &Arc<Opened>, settled: SettledOutcome, frame: Result<Bytes, String>) -> Result<Self, ItemError> {
        let value = Self { opened: Arc::clone(opened), frame: frame.map_err(without_outcome)? };
        let nothing = Structure::default();
        let manifest = value.manifest();
        let structure = manifest.types.as_ref().unwrap_or(&nothing);
        let verified =
            StoredValue::new(structure, TypePart::Output, manifest.codec, manifest.fingerprint, &value.frame);
        match verified {
            Ok(_) => Ok(value),
            Err(error) => {
                let record = &readable(opened).ledger.record;
                Err(without_outcome(damaged_outcome(record, settled, &error.to_string())))
            }
        }
    }

    fn manifest(&self) -> &cloudknot_runtime::contract::Manifest {
        &readable(&self.opened).ledger.record.manifest
    }

    /// Returns the encoded value: a frame, whose header states its length, codec and types.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// Converts the value to JSON on one line, as `serde_json` prints it.
    ///
    /// # Errors
    /// `Types` if only the program can convert the value; `Store` if the types in the record do not fit the value.
    pub fn to_json(&self) -> Result<String> {
        let manifest = self.manifest();
        let Some(structure) = &manifest.types else { return Err(opaque_error("its record has no types")) };
        let value = StoredValue::new(structure, TypePart::Output, manifest.codec, manifest.fingerprint, &self.frame);
        value.map_err(JsonError::from).and_then(|value| value.to_json()).map_err(|error| match error {
            JsonError::Opaque(reason) => opaque_error(&reason),
            error => {
                let message = format!("cannot convert a value of run {} to JSON: {error}", manifest.run);
                Error::new(ErrorKind::Store, message)
                    .with_hint("the types in its manifest are damaged; read it with its program")
            }
        })
    }
}

pub(super) fn raw_form(opened: &Opened) -> Option<RawForm> {
    opened.readable().ok()?.ledger.record.manifest.types.as_ref()?.raw_form(TypePart::Output)
}

fn opaque_error(reason: &str) -> Error {
    Error::new(ErrorKind::Types, format!("the value can be converted to JSON only by its program: {reason}"))
        .with_hint("the program reads it with `f.look(id)`")
}

impl fmt::Debug for StoredResults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredResults({})", self.opened.found.run)
    }
}

impl fmt::Debug for EncodedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncodedValue({} bytes)", self.frame.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_selection() {
        let cut = |range: RangeInclusive<u64>| intersection(&range, &[2..=3, 5..=5, 8..=u64::MAX]).collect::<Vec<_>>();
        assert_eq!(cut(0..=1), []);
        assert_eq!(cut(0..=9), [2..=3, 5..=5, 8..=9]);
        assert_eq!(cut(3..=5), [3..=3, 5..=5]);
        assert_eq!(cut(4..=4), []);
        assert_eq!(cut(100..=100), [100..=100]);
    }
}
