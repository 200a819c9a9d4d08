//! The known state of a run: which items have a value or a final failure, in the order in which they became known.
//! Filled by a backend, read by `Run` and `Results`. Independent of the function's types; holds no values.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::{Instant, SystemTime};

use cloudknot_runtime::contract::{self, FailedAttempt, IndexEntry, Manifest, Part, Round, RunState, unix_ms};
use cloudknot_runtime::failure::ItemError;
use cloudknot_runtime::log::Printed;
use cloudknot_runtime::store::Object;
use cloudknot_runtime::supervisor::Control;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{self, Event};
use crate::record::local_log::LocalLog;
use crate::record::{Record, SettledOutcome, index};

/// Half-open ranges of items, in order.
type Ranges = Vec<Range<u64>>;

/// The known state of one round of a run.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) record: Record,
    /// Stops the backend, and holds the number of items that the backend is running.
    pub(crate) control: Arc<Control>,
    began: Instant,
    state: Mutex<LedgerState>,
    /// Items without a value that the round leaves as they are.
    left_out: Bits,
    /// Reason of the user for the cancellation, which may be empty; set once the round is known to be cancelled.
    cancelled: OnceLock<String>,
    /// Log of a run in a folder.
    log: OnceLock<LocalLog>,
    /// Serializes progress reports, so that the last one reported is the newest.
    report_lock: Mutex<()>,
}

#[derive(Debug, Default)]
struct LedgerState {
    settled: Vec<SettledOutcome>,
    values: Bits,
    failures: Bits,
    end: Option<End>,
    /// Time of the last outcome or of the cancellation.
    last_change: Option<SystemTime>,
    wakers: Vec<Waker>,
}

/// The end of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Every item has a value or a final failure.
    Complete,
    /// The round was cancelled, for this reason.
    Cancelled(String),
    /// All work has ended, and some items have no outcome, for this reason.
    Unfinished(String),
    /// The store or the machine failed, or this program was interrupted, for this reason. The round may go on.
    Failed(String),
    /// This program only looks at the round, which may go on: the reason why items have no outcome.
    Unfollowed(String),
}

impl Ledger {
    pub(crate) fn new(record: Record) -> Arc<Self> {
        let bits = || Bits::new(record.manifest.items);
        let state = LedgerState { values: bits(), failures: bits(), ..LedgerState::default() };
        let mut left_out = bits();
        for range in record.scheduled.left_out.iter().filter(|range| !range.is_empty()) {
            left_out.set_all(Part { first: range.start, last: range.end - 1 });
        }
        let ledger = Arc::new(Self {
            left_out,
            record,
            control: Arc::default(),
            began: Instant::now(),
            state: Mutex::new(state),
            cancelled: OnceLock::new(),
            log: OnceLock::new(),
            report_lock: Mutex::default(),
        });
        event::stop_with_the_program(&ledger.control);
        ledger
    }

    fn lock(&self) -> MutexGuard<'_, LedgerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn started(&self, backend: &str, parallel: u32) {
        let (done, _) = self.counts();
        let Record { manifest, .. } = &self.record;
        let function = self.record.function_name();
        let items = manifest.items;
        event::report(&Event::Started { run: &manifest.run, function, backend, items, done, parallel });
    }

    /// Records that the values of a part are stored.
    pub(crate) fn stored(&self, part: Part) {
        self.settle(|state| {
            // A part beyond the run's items was not written by this crate. It is ignored, like any unknown object.
            if state.values.has_room_for(part) {
                state.values.set_all(part);
                state.settled.push(SettledOutcome::Values(part));
                state.changed(SystemTime::now());
            }
        });
    }

    /// Reports an attempt whose failure is stored, and records the failure if the attempt was the last.
    pub(crate) fn failed(&self, item: u64, error: &ItemError, last: bool) {
        event::report(&Event::Failed { run: &self.record.manifest.run, item, error, last });
        if last {
            let failure = self.record.failed_attempt(item, error);
            self.settle(|state| {
                state.failure(failure);
                state.changed(SystemTime::now());
            });
            self.enforce_max_failures();
        }
    }

    /// Keeps output of the items in this log from now on.
    pub(crate) fn keep_output(&self, log: LocalLog) {
        // Only the first one counts: one program computes a round once.
        let _ = self.log.set(log);
    }

    /// Reports output of an item, and keeps it.
    pub(crate) fn printed(&self, printed: &Printed) {
        if let Some(log) = self.log.get() {
            log.write(printed);
        }
        let (item, attempt) = (printed.source.map(|of| of.item), printed.source.map(|of| of.attempt));
        event::report(&Event::Log { run: &self.record.manifest.run, item, attempt, text: &printed.text });
    }

    fn settle(&self, change: impl FnOnce(&mut LedgerState)) {
        let mut state = self.lock();
        change(&mut state);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        // Counted under the lock: several threads settle outcomes, and the last report has to be the newest.
        let report_guard = self.report_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, failed) = self.counts();
        event::report(&Event::Progress { run: &self.record.manifest.run, done, failed });
        drop(report_guard);
    }

    /// Stops the backend once the number of failed items has reached the user's limit.
    pub(crate) fn enforce_max_failures(&self) {
        if self.too_many_failures().is_some() {
            self.control.stop.store(true, Ordering::Relaxed);
        }
    }

    /// Returns the number of items that have failed in this round, if it has reached the user's limit.
    pub(crate) fn too_many_failures(&self) -> Option<u64> {
        let limit = self.record.manifest.max_failures?;
        Some(self.lock().failures_except(&self.left_out)).filter(|failed| *failed >= limit)
    }

    /// Lists the store, and records outcomes that are not known yet: values in the order in which they were stored.
    pub(crate) async fn refresh(&self) -> Result<()> {
        // One listing for all objects, because each listing is a request.
        let objects = self.record.store.list(&self.record.keys.all(), None).await?;
        let mut new_failures = Vec::new();
        self.settle(|state| new_failures = state.add(objects, &self.record));
        self.report_failures(&new_failures).await
    }

    /// Records the outcomes that a listing of the run shows, without reporting them.
    pub(crate) fn take_listing(&self, objects: Vec<Object>) {
        self.lock().add(objects, &self.record);
    }

    /// Reports the first of these failures; all of them are counted.
    async fn report_failures(&self, failures: &[FailedAttempt]) -> Result<()> {
        const MAX_REPORTED: usize = 32;
        let Record { store, keys, manifest, .. } = &self.record;
        for &failure in failures.iter().take(MAX_REPORTED) {
            let item = failure.item;
            let bytes = store.get(&keys.failure(failure)).await?.unwrap_or_default();
            // A failure that cannot be read is reported when the item's outcome is requested.
            if let Ok(error) = serde_json::from_slice(&bytes) {
                event::report(&Event::Failed { run: &manifest.run, item, error: &error, last: true });
            }
        }
        Ok(())
    }

    /// Returns the items that have neither a value nor a final failure in this round, except for those that the round leaves out. An
    /// item that the round neither scheduled nor left out had a value when the round began: if the value was removed since, the
    /// item is missing as well.
    pub(crate) fn missing(&self) -> Vec<Range<u64>> {
        let state = self.lock();
        let words = state.values.words.iter().zip(&state.failures.words).zip(&self.left_out.words);
        unset_ranges(words.map(|((values, failures), left_out)| values | failures | left_out), state.values.len)
    }

    /// Returns the items that have no value.
    fn without_value(&self) -> Vec<Range<u64>> {
        let state = self.lock();
        unset_ranges(state.values.words.iter().copied(), state.values.len)
    }

    /// Ends the round, as [`finish`](Self::finish) does, after the end is noted in the index.
    pub(crate) async fn conclude(&self, end: End) {
        if let Some(entry) = self.index_entry(&end) {
            index::write(&*self.record.store, &self.record.manifest, &entry).await;
        }
        self.finish(end);
    }

    /// Returns the entry of an end in the index; `None` if the round may go on without this program. It is the same for each program
    /// that finds the end in the store.
    fn index_entry(&self, end: &End) -> Option<IndexEntry> {
        let (done, failed) = self.counts();
        let state = match end {
            End::Complete if done == self.record.manifest.items => RunState::Done,
            End::Complete | End::Unfinished(_) => RunState::Failed,
            // An interrupted program stops its round as if it was cancelled.
            End::Cancelled(_) if self.cancelled.get().is_some() => RunState::Cancelled,
            End::Cancelled(_) | End::Failed(_) | End::Unfollowed(_) => return None,
        };
        let at_ms = unix_ms(self.lock().last_change.unwrap_or_else(SystemTime::now));
        Some(IndexEntry::Ended { round: self.record.round, state, done, failed, at_ms })
    }

    /// Lists the store, and ends the round for this program alone, as the stored outcomes show it. Reports nothing.
    pub(crate) async fn end_at_a_look(&self) -> Result<()> {
        let Record { store, keys, round, manifest, .. } = &self.record;
        let objects = store.list(&keys.all(), None).await?;
        let cancelled = keys.cancelled(*round);
        let is_cancelled = objects.iter().any(|object| object.key == cancelled);
        self.take_listing(objects);
        let (function, run) = (self.record.function_name(), &manifest.run);
        let end = if self.missing().is_empty() {
            End::Complete
        } else if is_cancelled {
            End::Cancelled("the run was cancelled; `retry_failed()` runs the remaining items".into())
        } else {
            End::Unfollowed(format!(
                "it had no outcome when the run was looked at; `{function}.attach(\"{run}\")` continues or follows the run"
            ))
        };
        self.lock().end = Some(end);
        Ok(())
    }

    /// Returns the state of the run after an end that the known outcomes alone show.
    pub(crate) fn known_state(&self, is_cancelled: bool) -> Option<RunState> {
        let (values, _) = self.counts();
        match values == self.record.manifest.items {
            true => Some(RunState::Done),
            _ if is_cancelled => Some(RunState::Cancelled),
            _ => self.missing().is_empty().then_some(RunState::Failed),
        }
    }

    /// Returns the number of these items that have a value.
    pub(crate) fn values_in(&self, items: &[Range<u64>]) -> u64 {
        let state = self.lock();
        items.iter().map(|range| state.values.count_in(range)).sum()
    }

    /// Returns the settled outcomes, in the order of settlement. A failure may be superseded by a value.
    pub(crate) fn all_settled(&self) -> Vec<SettledOutcome> {
        self.lock().settled.clone()
    }

    /// Returns whether the item has a value.
    pub(crate) fn has_value(&self, item: u64) -> bool {
        let state = self.lock();
        item < state.values.len && state.values.get(item)
    }

    /// Returns whether the item has no outcome in this round.
    pub(crate) fn is_missing(&self, item: u64) -> bool {
        let state = self.lock();
        item < state.values.len && !state.values.get(item) && !state.failures.get(item)
    }

    /// Ends the round: no more outcomes will come.
    pub(crate) fn finish(&self, end: End) {
        let reason = match &end {
            End::Complete => None,
            End::Cancelled(reason) | End::Unfinished(reason) | End::Failed(reason) | End::Unfollowed(reason) => {
                Some(reason.as_str())
            }
        };
        let Manifest { run, items, .. } = &self.record.manifest;
        let (done, failed) = self.counts();
        let (unfinished, elapsed) = (items - done - failed, self.began.elapsed());
        // Reported before the waiters are woken: the program may end as soon as they run.
        event::report(&Event::Finished { run, done, failed, unfinished, reason, elapsed });
        let mut state = self.lock();
        state.end = Some(end);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Returns the number of items with a value, and the number of items with only a final failure.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let state = self.lock();
        (state.values.count, state.failures_only())
    }

    pub(crate) fn end(&self) -> Option<End> {
        self.lock().end.clone()
    }

    /// Returns the outcome at this position in the order of settlement. If there is none yet, returns `Err` with the
    /// end of the round, or with `None` if the round continues; in that case, the waker is called at the next change.
    pub(crate) fn settled(&self, position: usize, waker: &Waker) -> Result<SettledOutcome, Option<End>> {
        let mut state = self.lock();
        if let Some(&settled) = state.settled.get(position) {
            return Ok(settled);
        }
        if state.end.is_none() && !state.wakers.iter().any(|registered| registered.will_wake(waker)) {
            state.wakers.push(waker.clone());
        }
        Err(state.end.clone())
    }

    /// Returns the next round, with its number. It schedules these items, or all without a value.
    ///
    /// # Errors
    /// `Config` if one of the items has a value, or does not exist. `Store` if the run has too many rounds.
    pub(crate) fn next_round(&self, items: Option<&BTreeSet<u64>>) -> Result<(u32, Round)> {
        let Record { manifest, round, .. } = &self.record;
        let next = round.checked_add(1).ok_or_else(|| {
            Error::new(ErrorKind::Store, format!("cannot retry run {}: it has {round} rounds", manifest.run))
                .with_hint("submit the map again")
        })?;
        let (items, left_out) = match items {
            None => (self.without_value(), Vec::new()),
            Some(items) => self.divide(items)?,
        };
        let recorded_ms = unix_ms(SystemTime::now());
        Ok((next, Round { items, left_out, retries: manifest.retries, recorded_ms, ..Round::default() }))
    }

    /// Divides the items without a value into these items and the others.
    fn divide(&self, items: &BTreeSet<u64>) -> Result<(Ranges, Ranges)> {
        let Manifest { run, items: all, .. } = &self.record.manifest;
        let refused = |item: u64, why: &str| {
            let error = Error::new(ErrorKind::Config, format!("cannot retry item {item} of run {run}: {why}"));
            Err(error.with_hint("name only items without a value, or none for all of these"))
        };
        let mut scheduled = Bits::new(*all);
        for &item in items {
            if item >= *all {
                return refused(item, &format!("the run has {all} items, counted from 0"));
            }
            if self.has_value(item) {
                return refused(item, &format!("item {item} has a value"));
            }
            scheduled.set(item);
        }
        let state = self.lock();
        let without = |word: fn((u64, u64)) -> u64| {
            let words = state.values.words.iter().copied().zip(scheduled.words.iter().copied());
            unset_ranges(words.map(word), *all)
        };
        Ok((without(|(_, scheduled)| !scheduled), without(|(values, scheduled)| values | scheduled)))
    }

    /// Records the next round in the store.
    ///
    /// # Errors
    /// `Config` if another program has recorded it.
    pub(crate) async fn record_round(&self, next: u32, scheduled: &Round) -> Result<()> {
        let Record { store, keys, manifest, .. } = &self.record;
        let run = &manifest.run;
        let bytes = serde_json::to_vec(scheduled).expect("a round serializes to JSON");
        if bytes.len() as u64 > Round::max_len(manifest.items) {
            let message =
                format!("cannot start round {next} of run {run}: the names of its AWS resources are too long");
            return Err(
                Error::new(ErrorKind::Config, message).with_hint("run `cargo knot deploy`, then the program again")
            );
        }
        if store.create(&keys.round(next), bytes.into()).await? {
            let entry = IndexEntry::Round { round: next, items: scheduled.len(), at_ms: scheduled.recorded_ms };
            index::write(&**store, manifest, &entry).await;
            return Ok(());
        }
        let message = format!("cannot start round {next} of run {run}: another program has already started it");
        Err(Error::new(ErrorKind::Config, message).with_hint("attach to the run to follow it"))
    }

    /// Records in the store that the round is cancelled, and stops the backend.
    pub(crate) async fn cancel(&self) -> Result<()> {
        // A cancellation stored for an ended round would block the recomputation of outcomes that are removed later.
        if self.end().is_some() {
            return Ok(());
        }
        self.record_cancellation().await?;
        self.control.stop.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Records in the store that the round is cancelled, so that other programs stop as well.
    pub(crate) async fn record_cancellation(&self) -> Result<()> {
        self.record_cancellation_for("").await
    }

    /// Records in the store that the round is cancelled for this reason of the user. An earlier reason stays.
    pub(crate) async fn record_cancellation_for(&self, reason: &str) -> Result<()> {
        let key = self.record.keys.cancelled(self.record.round);
        if !self.record.store.create(&key, reason.to_owned().into()).await? {
            self.is_cancelled().await?;
        }
        self.cancelled.get_or_init(|| reason.to_owned());
        self.lock().changed(SystemTime::now());
        Ok(())
    }

    /// Returns whether this program or another has cancelled the round.
    pub(crate) async fn is_cancelled(&self) -> Result<bool> {
        if self.cancelled.get().is_none() {
            let key = self.record.keys.cancelled(self.record.round);
            if let Some(reason) = self.record.store.get(&key).await? {
                self.cancelled.get_or_init(|| String::from_utf8_lossy(&reason).into_owned());
            }
        }
        Ok(self.cancelled.get().is_some())
    }

    /// Returns the reason of the user for the cancellation; `None` if the round is not known to be cancelled, or no reason was given.
    pub(crate) fn cancellation_reason(&self) -> Option<&str> {
        self.cancelled.get().map(String::as_str).filter(|reason| !reason.is_empty())
    }

    /// Waits until no more outcomes will come.
    pub(crate) async fn finished(&self) -> End {
        std::future::poll_fn(|context| match self.settled(usize::MAX, context.waker()) {
            Err(Some(end)) => std::task::Poll::Ready(end),
            _ => std::task::Poll::Pending,
        })
        .await
    }
}

impl LedgerState {
    fn changed(&mut self, at: SystemTime) {
        self.last_change = self.last_change.max(Some(at));
    }

    /// Records the outcomes among these objects of a run. Returns the failures that are new.
    fn add(&mut self, mut objects: Vec<Object>, record: &Record) -> Vec<FailedAttempt> {
        objects.sort_by(|a: &Object, b: &Object| (a.stored, &a.key).cmp(&(b.stored, &b.key)));
        let failed =
            |object: &Object| contract::failure_of(&object.key).filter(|failure| failure.round == record.round);
        let cancelled = record.keys.cancelled(record.round);
        let is_change = |object: &&Object| {
            contract::part_of(&object.key).is_some() || failed(object).is_some() || object.key == cancelled
        };
        if let Some(last) = objects.iter().rfind(is_change) {
            self.changed(last.stored);
        }
        for part in objects.iter().filter_map(|object| contract::part_of(&object.key)) {
            if self.values.has_room_for(part) && !self.values.has_all(part) {
                self.values.set_all(part);
                self.settled.push(SettledOutcome::Values(part));
            }
        }
        let last_attempt = contract::last_attempt(record.scheduled.retries);
        let failures = objects.iter().filter_map(failed).filter(|failure| failure.attempt >= last_attempt);
        let failures: Vec<_> = failures.filter(|&failure| self.failure(failure)).collect();
        self.add_left_out(&objects, record);
        failures
    }

    /// Records the last failures of the items that the round leaves out, as earlier rounds have stored them.
    fn add_left_out(&mut self, objects: &[Object], record: &Record) {
        let left_out = &record.scheduled.left_out;
        if left_out.is_empty() {
            return;
        }
        let is_left_out = |failure: &FailedAttempt| {
            let at = left_out.partition_point(|range| range.end <= failure.item);
            left_out.get(at).is_some_and(|range| range.contains(&failure.item)) && failure.round < record.round
        };
        let failures = objects.iter().filter_map(|object| contract::failure_of(&object.key)).filter(is_left_out);
        let mut failures: Vec<_> = failures.collect();
        failures.sort_unstable_by_key(|failure| Reverse((failure.round, failure.attempt)));
        for failure in failures {
            self.failure(failure);
        }
    }

    /// Records a final failure. Returns whether it is new.
    fn failure(&mut self, failure: FailedAttempt) -> bool {
        let item = failure.item;
        let is_new = item < self.failures.len && !self.failures.get(item) && !self.values.get(item);
        if is_new {
            self.failures.set(item);
            self.settled.push(SettledOutcome::Failure(failure));
        }
        is_new
    }

    /// Returns the number of items with a failure and no value, without those in the set.
    fn failures_except(&self, excepted: &Bits) -> u64 {
        let words = self.failures.words.iter().zip(&self.values.words).zip(&excepted.words);
        words.map(|((failed, value), excepted)| u64::from((failed & !value & !excepted).count_ones())).sum()
    }

    /// Returns the number of items with a failure and no value: a late value supersedes the failure.
    fn failures_only(&self) -> u64 {
        let pairs = self.failures.words.iter().zip(&self.values.words);
        pairs.map(|(failed, value)| u64::from((failed & !value).count_ones())).sum()
    }
}

/// A set of items, with one bit per item.
#[derive(Debug, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
    len: u64,
    count: u64,
}

impl Bits {
    pub(crate) fn new(len: u64) -> Self {
        let words = usize::try_from(len.div_ceil(64)).expect("a bit for each item fits into memory");
        Self { words: vec![0; words], len, count: 0 }
    }

    pub(crate) fn get(&self, item: u64) -> bool {
        self.words[Self::word(item)] >> (item % 64) & 1 == 1
    }

    pub(crate) fn set(&mut self, item: u64) {
        self.count += u64::from(!self.get(item));
        self.words[Self::word(item)] |= 1 << (item % 64);
    }

    /// Returns `true` if these items are in the set's range.
    fn has_room_for(&self, part: Part) -> bool {
        part.last < self.len
    }

    /// Returns `true` if the set contains all of these items.
    fn has_all(&self, part: Part) -> bool {
        masks(part).all(|(word, mask)| self.words[word] & mask == mask)
    }

    fn set_all(&mut self, part: Part) {
        for (word, mask) in masks(part) {
            self.count += u64::from((mask & !self.words[word]).count_ones());
            self.words[word] |= mask;
        }
    }

    /// Returns the number of items of a range that the set contains.
    fn count_in(&self, range: &Range<u64>) -> u64 {
        let range = range.start..range.end.min(self.len);
        let Some(last) = range.end.checked_sub(1).filter(|_| !range.is_empty()) else { return 0 };
        let masks = masks(Part { first: range.start, last });
        masks.map(|(word, mask)| u64::from((self.words[word] & mask).count_ones())).sum()
    }

    fn word(item: u64) -> usize {
        usize::try_from(item / 64).expect("a bit for each item fits into memory")
    }
}

/// Returns the words that hold these items, each with the bits of the items.
fn masks(part: Part) -> impl Iterator<Item = (usize, u64)> {
    let Part { first, last } = part;
    (Bits::word(first)..=Bits::word(last)).map(move |word| {
        let after = if word == Bits::word(first) { u64::MAX << (first % 64) } else { u64::MAX };
        let before = if word == Bits::word(last) { u64::MAX >> (63 - last % 64) } else { u64::MAX };
        (word, after & before)
    })
}

/// Returns the ranges of items below `len` whose bits are not set. Most words are full or empty, so a word is a step.
fn unset_ranges(words: impl Iterator<Item = u64>, len: u64) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut add = |start: u64, end: u64| match ranges.last_mut() {
        Some(range) if range.end == start => range.end = end,
        _ => ranges.push(start..end),
    };
    for (first, word) in (0..len).step_by(64).zip(words) {
        let end = len.min(first + 64);
        match word {
            u64::MAX => {}
            0 => add(first, end),
            _ => (first..end).filter(|item| word >> (item % 64) & 1 == 0).for_each(|item| add(item, item + 1)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets the items of these parts, in steps of words, and compares with a list of items.
    #[track_caller]
    fn check(len: u64, parts: &[(u64, u64)]) {
        let mut bits = Bits::new(len);
        let mut items = std::collections::BTreeSet::new();
        for &(first, last) in parts {
            let part = Part { first, last };
            assert_eq!(bits.has_all(part), (first..=last).all(|item| items.contains(&item)), "{part:?}");
            bits.set_all(part);
            items.extend(first..=last);
            assert!(bits.has_all(part) && bits.count == items.len() as u64, "{part:?}");
            for range in [0..len, first..last + 1, first..first, last..len + 7, len..len + 1] {
                let expected = items.iter().filter(|item| range.contains(item)).count() as u64;
                assert_eq!(bits.count_in(&range), expected, "{range:?}");
            }
        }
        let unset = unset_ranges(bits.words.iter().copied(), len);
        assert!(unset.is_sorted_by(|one, next| one.end < next.start), "{unset:?}");
        let expected: Vec<u64> = (0..len).filter(|item| !items.contains(item)).collect();
        assert_eq!(unset.into_iter().flatten().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn parts_are_set_by_words() {
        check(0, &[]);
        check(1, &[]);
        check(1, &[(0, 0)]);
        check(64, &[(0, 63)]);
        check(65, &[(0, 63), (64, 64)]);
        check(130, &[(0, 0), (63, 64), (127, 129), (0, 129)]);
        check(1_000, &[(1, 1), (3, 700), (3, 700), (650, 999)]);
        check(512, &[(64, 127), (200, 300)]);
    }
}
