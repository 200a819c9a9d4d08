//! A retry of a run: records a round with the items that have no value, and attaches to it.

use std::fmt;
use std::time::Duration;

use cloudknot_runtime::contract::{BatchResources, Round};

use super::{Run, attach};
use crate::backend::{Backend, Code};
use crate::error::Result;
use crate::event;
use crate::pending::{Pending, wait};
use crate::provenance;
use crate::record::ledger::End;
use crate::record::{Record, limits};

/// A retry of the items of a run that have no value, with options. Does nothing until it is awaited or waited for. See
/// [`Run::retry_failed`].
#[must_use = "a retry does nothing until it is awaited"]
pub struct Retry<T> {
    run: Run<T>,
    options: Options,
}

#[derive(Debug)]
struct Options {
    memory: Option<String>,
    timeout: Option<Duration>,
    retries: Option<u32>,
    code: Code,
}

impl<T> Retry<T> {
    pub(super) fn new(run: Run<T>) -> Self {
        Self { run, options: Options { memory: None, timeout: None, retries: None, code: Code::Current } }
    }

    /// Sets the memory of each job, such as `"16 GiB"`. Overrides [`Map::memory_on_retry`](crate::Map::memory_on_retry). Enforced in
    /// Docker and on Batch, but not by the local backend.
    pub fn memory(mut self, memory: impl Into<String>) -> Self {
        self.options.memory = Some(memory.into());
        self
    }

    /// Sets the timeout of one attempt of an item, in place of the run's. Must be more than 0.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Sets how often a failed item is retried within the round, in place of the run's number.
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = Some(retries);
        self
    }

    /// Runs the image and the job definition of the last round, instead of those that are deployed now. Only on AWS Batch, which keeps
    /// them.
    pub fn old_code(mut self) -> Self {
        self.options.code = Code::Old;
        self
    }
}

impl<T: Send + 'static> Retry<T> {
    /// Waits on this thread until the retry has begun.
    ///
    /// # Errors
    /// `Types` or `NotFound` if the deployed program does not have the function, or has it with other types. `Config` if an option is
    /// invalid, or another program has retried meanwhile. `Store` if the store cannot be read or written.
    pub fn wait(self) -> Result<Run<T>> {
        wait(self.into_future())
    }

    async fn begin(self) -> Result<Run<T>> {
        let Self { run, options } = self;
        let deployed = |run: &Run<T>| -> Result<_> {
            Ok(run.backend.executor().renewed()?.unwrap_or_else(|| run.backend.clone()))
        };
        provenance::prepare();
        // What cannot succeed is refused before the run is waited for.
        options.round(&run, &deployed(&run)?)?;
        let run = ended(run).await?;
        let backend = deployed(&run)?;
        let Run { ledger, function, decode, .. } = &run;
        let (number, round) = options.round(&run, &backend)?;
        let round = Round { provenance: Some(provenance::of_this_program(function).await), ..round };
        ledger.record_round(number, &round).await?;
        report_differences(&ledger.record, number, &round);
        attach(&ledger.record.manifest.run, function, *decode, backend).await
    }
}

impl<T: Send + 'static> IntoFuture for Retry<T> {
    type Output = Result<Run<T>>;
    type IntoFuture = Pending<Run<T>>;

    fn into_future(self) -> Pending<Run<T>> {
        Pending::new(self.begin())
    }
}

impl<T> fmt::Debug for Retry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("run", &self.run).field("options", &self.options).finish()
    }
}

impl Options {
    /// Returns the next round of the run, with its number.
    fn round<T>(&self, run: &Run<T>, backend: &Backend) -> Result<(u32, Round)> {
        let (number, mut round) = run.ledger.next_round()?;
        round.resources.memory_mib =
            self.memory.as_deref().map(|memory| limits::memory_mib("retry", "memory", memory)).transpose()?;
        round.timeout_ms = self.timeout.map(|timeout| limits::timeout_ms("retry", timeout)).transpose()?;
        round.retries = self.retries.unwrap_or(round.retries);
        backend.executor().fill_round(&mut round, &run.ledger.record, run.function, self.code)?;
        Ok((number, round))
    }
}

/// Waits until no more outcomes of the run will come. If it was only looked at, it may go on without this program, and is followed.
async fn ended<T>(run: Run<T>) -> Result<Run<T>> {
    if !matches!(run.ledger.finished().await, End::Unfollowed(_)) {
        return Ok(run);
    }
    let followed = attach(run.id(), run.function, run.decode, run.backend.clone()).await?;
    followed.ledger.finished().await;
    Ok(followed)
}

/// Reports in what the next round differs from the last one.
fn report_differences(last: &Record, number: u32, round: &Round) {
    let memory = |mib: Option<u64>| mib.map(|mib| format!("{mib} MiB of memory"));
    let timeout = |ms: Option<u64>| ms.map(|ms| format!("a timeout of {:?}", Duration::from_millis(ms)));
    let (manifest, batch) = (&last.manifest, last.manifest.batch_in(round));
    let image = |batch: Option<&BatchResources>| batch.map(|batch| format!("the image `{}`", batch.image));
    let changes = [
        change(image(last.batch()), image(batch)),
        change(memory(last.resources().memory_mib), memory(manifest.resources_in(number, round).memory_mib)),
        change(timeout(last.timeout_ms()), timeout(manifest.timeout_in(round))),
    ];
    let changes: Vec<String> = changes.into_iter().flatten().collect();
    if !changes.is_empty() {
        event::step(&format!("round {number} of run {} has {}", manifest.run, changes.join(", and ")));
    }
}

/// Describes a setting that differs from the last round.
fn change(last: Option<String>, next: Option<String>) -> Option<String> {
    match (last, next) {
        (last, next) if last == next => None,
        (Some(last), Some(next)) => Some(format!("{next} instead of {last}")),
        (None, Some(next)) => Some(next),
        (Some(last), None) => Some(format!("the deployed setting instead of {last}")),
        (None, None) => None,
    }
}
