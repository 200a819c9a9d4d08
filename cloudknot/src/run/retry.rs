//! A retry of a run: records a round with the items that have no value, and attaches to it, or has it computed by what is deployed.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cloudknot_runtime::contract::{BatchResources, Manifest, Round};
use cloudknot_runtime::function;

use super::{Run, attach};
use crate::backend::{Backend, Code};
use crate::error::Result;
use crate::event;
use crate::pending::{Pending, wait};
use crate::provenance;
use crate::record::ledger::{End, Ledger};
use crate::record::{Record, limits};

/// A retry of the items of a run that have no value, with options. Does nothing until it is awaited or waited for. See
/// [`Run::retry_failed`].
#[must_use = "a retry does nothing until it is awaited"]
pub struct Retry<T> {
    run: Run<T>,
    options: Options,
}

/// Options of a retry.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Items of the round; `None` for all without a value.
    pub(crate) items: Option<BTreeSet<u64>>,
    pub(crate) memory: Option<String>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: Option<u32>,
    pub(crate) code: Code,
}

impl Default for Options {
    fn default() -> Self {
        Self { items: None, memory: None, timeout: None, retries: None, code: Code::Current }
    }
}

impl<T> Retry<T> {
    pub(super) fn new(run: Run<T>) -> Self {
        Self { run, options: Options::default() }
    }

    /// Retries only these items, in place of all that have no value. The others stay as they are, and a later retry can run them.
    ///
    /// ```
    /// # #[cloudknot::remote]
    /// # fn root(x: i32) -> Result<i32, String> { x.checked_isqrt().ok_or(format!("{x} is negative")) }
    /// let run = root.map([4, -1, -2]).submit().wait()?;
    /// assert_eq!(run.finished().wait()?.failed, 2);
    /// let again = run.retry_failed().items([1]).wait()?;
    /// assert_eq!(again.finished().wait()?.failed, 2);
    /// assert_eq!(run.retry_failed().items([0]).wait().unwrap_err().kind(), cloudknot::ErrorKind::Config);
    /// # Ok::<(), cloudknot::Error>(())
    /// ```
    pub fn items(mut self, items: impl IntoIterator<Item = u64>) -> Self {
        self.options.items = Some(items.into_iter().collect());
        self
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
    /// Waits on this thread until the retry has begun. If every item has a value, nothing is retried or recorded.
    ///
    /// # Errors
    /// `Types` or `NotFound` if the deployed program does not have the function, or has it with other types. `Config` if one of the
    /// [`items`](Self::items) has a value or does not exist, an option is invalid, or another program has retried meanwhile. `Store` if
    /// the store cannot be read or written.
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
        options.round(&run.ledger, &run.function.resources, &deployed(&run)?)?;
        let run = ended(run).await?;
        let backend = deployed(&run)?;
        let Run { ledger, function, decode, .. } = &run;
        let round = options.round(ledger, &function.resources, &backend)?;
        record(ledger, round, function.id.package).await?;
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
    /// Returns the next round of the run, with its number; `None` if there is nothing to retry. `attribute` is that of the function.
    fn round(
        &self,
        ledger: &Ledger,
        attribute: &function::Resources,
        backend: &Backend,
    ) -> Result<Option<(u32, Round)>> {
        let (number, mut round) = ledger.next_round(self.items.as_ref())?;
        if round.is_empty() {
            return Ok(None);
        }
        round.resources.memory_mib =
            self.memory.as_deref().map(|memory| limits::memory_mib("retry", "memory", memory)).transpose()?;
        round.timeout_ms = self.timeout.map(|timeout| limits::timeout_ms("retry", timeout)).transpose()?;
        round.retries = self.retries.unwrap_or(round.retries);
        backend.executor().fill_round(&mut round, &ledger.record, attribute, self.code)?;
        Ok(Some((number, round)))
    }

    /// Records the next round of a run that has ended, and has it computed by what is deployed: neither the function nor its types
    /// are needed. Returns the ledger of the round, once all of it is submitted; `None` if there is nothing to retry.
    pub(crate) async fn begin_deployed(&self, ledger: &Ledger, backend: &Backend) -> Result<Option<Arc<Ledger>>> {
        let Manifest { function, attribute, .. } = &ledger.record.manifest;
        let attribute = function::Resources {
            vcpus: attribute.vcpus,
            memory_mib: attribute.memory_mib,
            gpus: attribute.gpus.unwrap_or_default(),
            ..function::Resources::NONE
        };
        let round = self.round(ledger, &attribute, backend)?;
        let package = function.split(':').next().unwrap_or_default();
        let Some((round, scheduled)) = record(ledger, round, package).await? else { return Ok(None) };
        let Record { store, keys, manifest, .. } = &ledger.record;
        let (store, keys, manifest) = (Arc::clone(store), keys.clone(), manifest.clone());
        let next = Ledger::new(Record { store, keys, manifest, round, scheduled });
        next.refresh().await?;
        backend.executor().launch_deployed(&next, &attribute).await?;
        Ok(Some(next))
    }
}

/// Records a round, if there is one, and returns it.
async fn record(ledger: &Ledger, round: Option<(u32, Round)>, package: &str) -> Result<Option<(u32, Round)>> {
    let Some((number, round)) = round else {
        event::step(&format!("nothing to retry: every item of run {} has a value", ledger.record.manifest.run));
        return Ok(None);
    };
    let round = Round { provenance: Some(provenance::of_this_program(package).await), ..round };
    ledger.record_round(number, &round).await?;
    report_differences(&ledger.record, number, &round);
    Ok(Some((number, round)))
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
