//! A run: its record in the store, the known state of its items, and the jobs that compute it.

use std::sync::Arc;

use cloudknot_runtime::contract::{BatchResources, FailedAttempt, Manifest, Part, Resources, Round, RunKeys};
use cloudknot_runtime::failure::ItemError;
use cloudknot_runtime::store::Store;

use crate::error::Result;

pub(crate) mod frames;
pub(crate) mod index;
pub(crate) mod job;
pub(crate) mod ledger;
pub(crate) mod limits;
pub(crate) mod local_log;
pub(crate) mod read;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod tables;

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

    /// Returns the timeout in milliseconds of one attempt of an item in the round.
    pub(crate) fn timeout_ms(&self) -> Option<u64> {
        self.manifest.timeout_in(&self.scheduled)
    }

    /// Returns the resources of the round's jobs.
    pub(crate) fn resources(&self) -> Resources {
        self.manifest.resources_in(self.round, &self.scheduled)
    }

    /// Returns the AWS Batch resources of the round; `None` on another backend.
    #[allow(dead_code, reason = "only AWS Batch has them")]
    pub(crate) fn batch(&self) -> Option<&BatchResources> {
        self.manifest.batch_in(&self.scheduled)
    }

    /// Returns the object key of a settled outcome.
    pub(crate) fn key_of(&self, settled: SettledOutcome) -> String {
        match settled {
            SettledOutcome::Values(part) => self.keys.part(part),
            SettledOutcome::Failure(failure) => self.keys.failure(failure),
        }
    }

    /// Returns the failed attempt of an item in this round.
    pub(crate) fn failed_attempt(&self, item: u64, error: &ItemError) -> FailedAttempt {
        FailedAttempt { item, round: self.round, attempt: error.attempt(), cause: error.cause() }
    }

    /// Stores the failure of an item that its worker could not store.
    #[allow(dead_code, reason = "on this machine, the supervisor stores all failures")]
    pub(crate) async fn store_failure(&self, item: u64, error: &ItemError) -> Result<()> {
        let bytes = serde_json::to_vec(error).expect("an item's error serializes to JSON");
        Ok(self.store.put(&self.keys.failure(self.failed_attempt(item, error)), bytes.into()).await?)
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
    Failure(FailedAttempt),
}
