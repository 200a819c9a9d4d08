//! The program of a run, and what it needs to run an item again.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use bytes::Bytes;
use cloudknot_runtime::contract::Program;
use cloudknot_runtime::fingerprint::Fingerprint;

use crate::error::{Error, ErrorKind, Result};
use crate::look::{Items, Look};
use crate::pending::Pending;
use crate::record::{Record, read};

/// Program of a run, as the run's record describes it. Anyone may have written a record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunProgram {
    /// ID of the function.
    pub function: String,
    /// Fingerprint of the function's types.
    pub fingerprint: u64,
    /// Name of the package.
    pub package: String,
    /// Kind of the target: `bin`, `example` or `lib`.
    pub kind: Option<String>,
    /// Name of the target.
    pub target: Option<String>,
    /// Profile, such as `dev`.
    pub profile: Option<String>,
    /// Features of the package; `None` if they are unknown.
    pub features: Option<Vec<String>>,
    /// Path of the package's `Cargo.toml` on the machine that built the program.
    pub manifest: Option<String>,
    /// Git revision of the package's repository at submission.
    pub revision: Option<String>,
    /// `true` if the repository had no uncommitted changes.
    pub is_clean: Option<bool>,
    /// Environment variables of the run's items.
    pub env: BTreeMap<String, String>,
}

impl Look {
    /// Returns the program of the run.
    ///
    /// # Errors
    /// Returns an error if the record of the run cannot be read.
    pub fn program(&self) -> Result<RunProgram> {
        let manifest = &self.opened.readable()?.ledger.record.manifest;
        let Program { package, kind, target, profile, features, manifest: path, revision, is_clean, .. } =
            manifest.provenance.program.clone();
        let Fingerprint(fingerprint) = manifest.fingerprint;
        let (function, env) = (manifest.function.clone(), manifest.env.clone());
        Ok(RunProgram {
            function,
            fingerprint,
            package,
            kind,
            target,
            profile,
            features,
            manifest: path,
            revision,
            is_clean,
            env,
        })
    }

    /// Returns the selected items of the run, as ranges in order.
    ///
    /// # Errors
    /// `Config` if the run has fewer items.
    pub fn select(&self, items: &Items) -> Result<Vec<RangeInclusive<u64>>> {
        items.of(&self.opened.readable()?.ledger)
    }

    /// Returns the folder of the runs, if the run is on the local backend.
    pub fn home(&self) -> Option<PathBuf> {
        self.opened.found.backend.executor().home()
    }

    /// Reads the encoded input of an item: a frame.
    ///
    /// # Errors
    /// `Config` if there is no such item. `Store` if the inputs were deleted or are damaged.
    pub fn input(&self, item: u64) -> Pending<Bytes> {
        let look = self.clone();
        Pending::new(async move {
            look.select(&Items::all().within([item..=item]))?;
            input(&look.opened.readable()?.ledger.record, item).await
        })
    }
}

async fn input(record: &Record, item: u64) -> Result<Bytes> {
    let Record { store, keys, manifest, .. } = record;
    let run = &manifest.run;
    let key = keys.inputs();
    if store.size(&key).await?.is_none() {
        let message = format!("cannot read the input of item {item} of run {run}: its inputs were deleted");
        return Err(Error::new(ErrorKind::Store, message).with_hint("submit the map again"));
    }
    let (mut frames, _) = read::inputs(record, &(item..item + 1), 0).await?;
    Ok(frames.swap_remove(0))
}
