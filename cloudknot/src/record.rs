//! A run: its record in the store, the known state of its items, and the jobs that compute it.

use std::sync::Arc;

use cloudknot_runtime::contract::{Manifest, Part, Round, RunKeys};
use cloudknot_runtime::store::Store;

pub(crate) mod job;
pub(crate) mod ledger;
pub(crate) mod read;

/// A run's record, as it is stored before the run starts.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: RunKeys,
    pub(crate) manifest: Manifest,
    /// Number of the round, from 1.
    pub(crate) round: u32,
    /// The items that the round schedules, and their retries.
    pub(crate) scheduled: Round,
}

impl Record {
    pub(crate) fn function_name(&self) -> &str {
        self.manifest.function.rsplit("::").next().unwrap_or(&self.manifest.function)
    }

    /// Returns the number of children of the round: the jobs, if each has one chunk of items.
    #[allow(dead_code, reason = "only AWS Batch has jobs")]
    pub(crate) fn children(&self) -> u64 {
        self.scheduled.len().div_ceil(self.manifest.chunk)
    }

    /// Returns the object key of a settled outcome.
    pub(crate) fn key_of(&self, settled: SettledOutcome) -> String {
        match settled {
            SettledOutcome::Values(part) => self.keys.part(part),
            SettledOutcome::Failure { item, attempt } => self.keys.failure(item, self.round, attempt),
        }
    }
}

/// State of the run at the start of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// The run was just recorded: no outcome is stored.
    New,
    /// The store may contain outcomes that the ledger lacks.
    Resume,
}

/// A settled outcome that can be read from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SettledOutcome {
    /// The values of a part's items.
    Values(Part),
    /// The failure of an item's last attempt.
    Failure { item: u64, attempt: u32 },
}
