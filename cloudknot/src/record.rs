//! A run: its record in the store, what is known of its items, and the jobs that compute it.

use std::sync::Arc;

use cloudknot_runtime::contract::{Manifest, Part, Round, RunKeys};
use cloudknot_runtime::store::Store;

use crate::error::{Error, ErrorKind};

pub(crate) mod job;
pub(crate) mod ledger;

/// A run's record, as it is in the store before anything starts.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: RunKeys,
    pub(crate) manifest: Manifest,
    /// Which round this is, from 1.
    pub(crate) round: u32,
    /// What it takes up.
    pub(crate) taken_up: Round,
}

impl Record {
    pub(crate) fn function_name(&self) -> &str {
        self.manifest.function.rsplit("::").next().unwrap_or(&self.manifest.function)
    }

    /// Where something that was settled is.
    pub(crate) fn key_of(&self, settled: Settled) -> String {
        match settled {
            Settled::Values(part) => self.keys.part(part),
            Settled::Failure { item, attempt } => self.keys.failure(item, self.round, attempt),
        }
    }
}

/// Something that has been settled, and can be read from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// These items have values.
    Values(Part),
    /// This item's last attempt failed.
    Failure { item: u64, attempt: u32 },
}

/// A record that cannot be read.
pub(crate) fn damaged(what: &str, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Store, format!("failed to read `{what}`: {why}"))
        .with_hint("the run's record is damaged, or was written by another version of cloudknot")
}
