//! Summary of a run, as a list shows it.

use std::time::{Duration, SystemTime};

use cloudknot_runtime::contract::{IndexEntry, RunState, submitted_at};

use super::find::Found;
use crate::run::Status;

/// Summary of a run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// ID of the run.
    pub run: String,
    /// Random word at the end of the ID, which is enough to name the run; the whole ID if it has none.
    pub word: String,
    /// Name that the user gave the run.
    pub name: Option<String>,
    /// ID of the function; `None` if the record cannot be read. A very long one begins with `…`.
    pub function: Option<String>,
    /// Name of the backend: `local`, `docker` or `batch`; `None` if the record cannot be read.
    pub backend: Option<String>,
    /// Knot (locally: package) that the run belongs to.
    pub knot: String,
    /// AWS region of the Knot.
    pub region: Option<String>,
    /// Time of the submission; `None` if it is unknown.
    pub submitted: Option<SystemTime>,
    /// Time of the end, if the run has ended.
    pub ended: Option<SystemTime>,
    /// State; `None` if the record cannot be read.
    pub state: Option<RunState>,
    /// Number of items in each state.
    pub items: Status,
    /// Rounds, the first one first.
    pub rounds: Vec<RoundSummary>,
    /// Reason why the record cannot be read: it was written by another version of cloudknot, or is damaged.
    pub problem: Option<String>,
}

/// Summary of a round: the submission, or a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoundSummary {
    /// Time at which the round was recorded; `None` if it is unknown.
    pub started: Option<SystemTime>,
    /// Number of items that the round scheduled.
    pub items: u64,
    /// Number of these that got a value; `None` if it is unknown.
    pub succeeded: Option<u64>,
    /// Time until the last outcome of the round, or until now.
    pub duration: Option<Duration>,
}

impl Summary {
    /// Returns the time that all rounds took together, as far as it is known.
    pub fn duration(&self) -> Option<Duration> {
        let known: Vec<Duration> = self.rounds.iter().filter_map(|round| round.duration).collect();
        (!known.is_empty()).then(|| known.iter().sum())
    }

    /// Creates a summary without anything that is in the record.
    pub(super) fn of_folder(found: &Found) -> Self {
        let executor = found.backend.executor();
        Self {
            run: found.run.clone(),
            word: found.word().to_owned(),
            name: found.name().map(str::to_owned),
            function: None,
            backend: None,
            knot: found.knot.clone(),
            region: executor.region().map(str::to_owned),
            submitted: submitted_at(&found.run),
            ended: None,
            state: None,
            items: Status::default(),
            rounds: Vec::new(),
            problem: None,
        }
    }

    /// Returns the summary of a run that has ended, from its entries in the index; `None` if they do not say that it has, or only
    /// that no program followed it to its end.
    pub(super) fn of_index(found: &Found) -> Option<Self> {
        let index = Index::of(&found.entries)?;
        let end = index.ended.last()?;
        let is_settled = end.done.checked_add(end.failed)? == index.items || end.state == RunState::Cancelled;
        let is_last = index.rounds.last().is_none_or(|(round, ..)| *round <= end.round);
        if !is_last || !is_settled || !end.state.is_end() {
            return None;
        }
        let submitted = submitted_at(&found.run);
        Some(Self {
            function: Some(index.function.to_owned()),
            backend: Some(index.backend.to_owned()),
            ended: Some(end.at),
            state: Some(end.state),
            items: Status {
                items: index.items,
                succeeded: end.done,
                failed: end.failed,
                unfinished: index.items.saturating_sub(end.done).saturating_sub(end.failed),
                finished: true,
                ..Status::default()
            },
            rounds: index.round_summaries(submitted),
            ..Self::of_folder(found)
        })
    }

    /// Returns the ID of the function according to the index.
    pub(super) fn function_in_index(found: &Found) -> Option<&str> {
        found.entries.iter().find_map(|entry| match entry {
            IndexEntry::Submitted { function, .. } => Some(function.as_str()),
            _ => None,
        })
    }
}

/// Entries of a run in the index, in order.
struct Index<'a> {
    backend: &'a str,
    items: u64,
    function: &'a str,
    /// Number, items and time of each round after the first.
    rounds: Vec<(u32, u64, SystemTime)>,
    ended: Vec<Ended>,
}

#[derive(Clone, Copy)]
struct Ended {
    round: u32,
    state: RunState,
    done: u64,
    failed: u64,
    at: SystemTime,
}

impl<'a> Index<'a> {
    fn of(entries: &'a [IndexEntry]) -> Option<Self> {
        let mut index = Self { backend: "", items: 0, function: "", rounds: Vec::new(), ended: Vec::new() };
        let mut is_submitted = false;
        for entry in entries {
            match entry {
                IndexEntry::Submitted { backend, items, function, .. } => {
                    (index.backend, index.items, index.function) = (backend, *items, function);
                    is_submitted = true;
                }
                IndexEntry::Round { round, items, at_ms } => index.rounds.push((*round, *items, time(*at_ms))),
                IndexEntry::Ended { round, state, done, failed, at_ms } => {
                    let at = time(*at_ms);
                    index.ended.push(Ended { round: *round, state: *state, done: *done, failed: *failed, at });
                }
            }
        }
        index.rounds.sort_unstable();
        index.ended.sort_unstable_by_key(|ended| (ended.round, ended.at));
        is_submitted.then_some(index)
    }

    /// Returns the last known end of a round.
    fn end_of(&self, round: u32) -> Option<&Ended> {
        self.ended.iter().rev().find(|ended| ended.round == round)
    }

    fn round_summaries(&self, submitted: Option<SystemTime>) -> Vec<RoundSummary> {
        let first = (1, self.items, submitted);
        let later = self.rounds.iter().map(|(round, items, at)| (*round, *items, Some(*at)));
        let summary = |(round, items, started): (u32, u64, Option<SystemTime>)| {
            let end = self.end_of(round);
            let before = if round == 1 { Some(0) } else { self.end_of(round - 1).map(|end| end.done) };
            RoundSummary {
                started,
                items,
                succeeded: end.and_then(|end| end.done.checked_sub(before?)),
                duration: end.and_then(|end| end.at.duration_since(started?).ok()),
            }
        };
        std::iter::once(first).chain(later).map(summary).collect()
    }
}

/// Returns the time of a record.
pub(super) fn time(unix_ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms)).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cloudknot_runtime::store::DirStore;

    use super::*;
    use crate::backend::Backend;

    const SUBMITTED_MS: u64 = 1_795_860_930_123;

    fn of_index(entries: Vec<IndexEntry>) -> Option<Summary> {
        let submitted = IndexEntry::Submitted {
            backend: "local".into(),
            items: 10,
            inputs: None,
            function: "f".into(),
            name: None,
        };
        Summary::of_index(&Found {
            backend: Backend::local(),
            store: Arc::new(DirStore::new("/no/such/folder")),
            knot: "k".into(),
            run: "20261128-101530123-k5vzdk".into(),
            entries: [vec![submitted], entries].concat(),
        })
    }

    fn ended(round: u32, state: RunState, done: u64, failed: u64) -> IndexEntry {
        IndexEntry::Ended { round, state, done, failed, at_ms: SUBMITTED_MS + u64::from(round) * 10_000 }
    }

    fn retried() -> IndexEntry {
        IndexEntry::Round { round: 2, items: 2, at_ms: SUBMITTED_MS + 15_000 }
    }

    #[test]
    fn run_without_a_known_end_has_no_summary_in_the_index() {
        assert_eq!(of_index(vec![]), None);
        assert_eq!(of_index(vec![ended(1, RunState::Failed, 8, 2), retried()]), None);
        assert_eq!(of_index(vec![ended(1, RunState::Failed, 8, 1)]), None, "an attach may have gone on");
        assert_eq!(of_index(vec![ended(1, RunState::Running, 10, 0)]), None);
        assert_eq!(of_index(vec![ended(1, RunState::Failed, u64::MAX, 2)]), None);
    }

    #[test]
    fn rounds_of_an_ended_run_are_in_the_index() {
        let summary =
            of_index(vec![ended(2, RunState::Done, 10, 0), retried(), ended(1, RunState::Failed, 8, 2)]).unwrap();
        assert_eq!((summary.state, summary.items.succeeded, summary.items.failed), (Some(RunState::Done), 10, 0));
        assert_eq!(summary.ended, Some(time(SUBMITTED_MS + 20_000)));
        let rounds: Vec<_> =
            summary.rounds.iter().map(|round| (round.items, round.succeeded, round.duration)).collect();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(rounds, [(10, Some(8), seconds(10)), (2, Some(2), seconds(5))]);
        assert_eq!(summary.duration(), seconds(15));
        let cancelled = of_index(vec![ended(1, RunState::Cancelled, 3, 0)]).unwrap();
        assert_eq!((cancelled.items.unfinished, cancelled.rounds[0].succeeded), (7, Some(3)));
    }
}
