//! A run: one submitted map. It has an ID, outlives the program, and can be read from its store alone.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloudknot_runtime::contract::{InputsHash, Manifest, RunKeys};
use cloudknot_runtime::failure::ItemError;
use cloudknot_runtime::function::Function;
use cloudknot_runtime::store::{BoxFuture, Store};

use crate::backend::{Activity, Backend};
use crate::error::{Error, ErrorKind, Result};
use crate::pending::Pending;
use crate::provenance;
use crate::record::job::Job;
use crate::record::ledger::{End, Ledger};
use crate::record::{Record, Start, read};
use crate::remote::Decode;

mod measurements;
mod results;
pub(crate) mod retry;

pub(crate) use crate::record::read::first_round;
pub use measurements::MeasuredAttempt;
pub use results::Results;
pub use retry::Retry;

/// A handle to a run. Provides the status, and the results as they complete, and can cancel the run.
///
/// Dropping the handle does not affect the run. The ID is enough to attach to the run again, from this program or another:
/// `f.attach(id)`.
///
/// ```
/// # #[cloudknot::remote]
/// # fn double(x: u32) -> u32 { 2 * x }
/// let run = double.map([1, 2, 3]).submit().wait()?;
/// let id = run.id().to_owned();
/// assert_eq!(run.values().wait()?, [2, 4, 6]);
/// assert_eq!(double.attach(&id).wait()?.values().wait()?, [2, 4, 6]);
/// # Ok::<(), cloudknot::Error>(())
/// ```
pub struct Run<T> {
    ledger: Arc<Ledger>,
    backend: Backend,
    function: &'static Function,
    decode: Decode<T>,
}

/// Number of items of a run in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// Number of all items.
    pub items: u64,
    /// Number of items that have a value.
    pub succeeded: u64,
    /// Number of items whose last attempt failed.
    pub failed: u64,
    /// Number of items that this program is running at the moment.
    pub running: u64,
    /// Number of items that have no outcome yet and are not running.
    pub waiting: u64,
    /// Number of items that will have no outcome, because the run was cancelled or its infrastructure failed.
    pub unfinished: u64,
    /// `true` once no more outcomes will come.
    pub finished: bool,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { items, succeeded, failed, running, waiting, unfinished, .. } = self;
        write!(
            f,
            "{items} items: {succeeded} succeeded, {failed} failed, {running} running, {waiting} waiting, {unfinished} unfinished"
        )
    }
}

impl<T> Run<T> {
    pub(crate) fn launch(
        ledger: Arc<Ledger>,
        start: Start,
        backend: Backend,
        function: &'static Function,
        decode: Decode<T>,
    ) -> (Self, BoxFuture<'static, Result<()>>) {
        let run = Self { ledger, backend, function, decode };
        let launched = run.begin(start);
        (run, launched)
    }

    fn begin(&self, start: Start) -> BoxFuture<'static, Result<()>> {
        if self.ledger.missing().is_empty() {
            let ledger = Arc::clone(&self.ledger);
            return Box::pin(async move {
                ledger.conclude(End::Complete).await;
                Ok(())
            });
        }
        self.backend.executor().launch(&self.ledger, self.function, start)
    }

    /// Returns the ID, by which any program can attach to the run. IDs sort by time.
    pub fn id(&self) -> &str {
        &self.ledger.record.manifest.run
    }

    /// Returns the number of items in each state.
    pub fn status(&self) -> Status {
        let items = self.ledger.record.manifest.items;
        // Read before the counts: nothing is counted after the end, so the counts of a finished run are final.
        let finished = self.ledger.end().is_some_and(|end| !matches!(end, End::Unfollowed(_)));
        let (succeeded, failed) = self.ledger.counts();
        let open = items - succeeded - failed;
        let running = self.ledger.control.running.load(Ordering::Relaxed).min(open);
        let (running, waiting, unfinished) = if finished { (0, 0, open) } else { (running, open - running, 0) };
        Status { items, succeeded, failed, running, waiting, unfinished, finished }
    }

    /// Returns a stream of each item's outcome with its index, in the order of completion.
    pub fn results(&self) -> Results<T> {
        Results::new(&self.ledger, self.decode)
    }
}

impl<T: Send + 'static> Run<T> {
    /// Returns all outcomes in the order of the inputs, once no more outcomes will come.
    pub fn outcomes(&self) -> Pending<Vec<Result<T, ItemError>>> {
        let mut results = self.results();
        let items = self.ledger.record.manifest.items;
        Pending::new(async move {
            let items = usize::try_from(items).expect("the outcomes of all items fit into memory");
            let mut outcomes: Vec<Option<Result<T, ItemError>>> = std::iter::repeat_with(|| None).take(items).collect();
            while let Some((index, outcome)) = results.next().await {
                outcomes[index] = Some(outcome);
            }
            Ok(outcomes.into_iter().map(|outcome| outcome.expect("the results contain every item once")).collect())
        })
    }

    /// Returns all values in the order of the inputs.
    ///
    /// # Errors
    /// `ItemsFailed` if some items have no value: the error names them, and the values that exist stay readable. `Cancelled`
    /// if all of them were cancelled; `Infrastructure` if the store or the machine failed meanwhile.
    pub fn values(&self) -> Pending<Vec<T>> {
        let outcomes = self.outcomes();
        let ledger = Arc::clone(&self.ledger);
        Pending::new(async move {
            let outcomes = outcomes.await?;
            let items = outcomes.len();
            let mut values = Vec::with_capacity(items);
            let mut failed = Vec::new();
            for (index, outcome) in (0..).zip(outcomes) {
                match outcome {
                    Ok(value) => values.push(value),
                    Err(error) => failed.push((index, error)),
                }
            }
            if failed.is_empty() {
                return Ok(values);
            }
            let (function, run) = (ledger.record.function_name(), &ledger.record.manifest.run);
            Err(match ledger.end() {
                Some(End::Unfinished(why) | End::Failed(why) | End::Unfollowed(why)) => {
                    Error::run_failed(function, run, &why, failed)
                }
                _ => Error::items_failed(function, run, items, failed),
            })
        })
    }

    /// Waits until no more outcomes will come, without reading values. Returns at once if the run was only opened to look at it.
    pub fn finished(&self) -> Pending<Status> {
        let run = self.again();
        Pending::new(async move {
            run.ledger.finished().await;
            Ok(run.status())
        })
    }

    /// Cancels the run: running items are stopped, items with a value keep it, and all others are `Cancelled`. On AWS Batch, jobs of
    /// all rounds are ended, also those of other programs. Does nothing if this round has ended completely or was cancelled before.
    ///
    /// # Errors
    /// `Infrastructure` if running items could not be stopped; `Store` if the store cannot be written to.
    pub fn cancel(&self) -> Pending<()> {
        let (ledger, backend) = (Arc::clone(&self.ledger), self.backend.clone());
        Pending::new(async move {
            let (function, run) = (ledger.record.function_name(), &ledger.record.manifest.run);
            let failed = |why: &str| {
                let error = Error::new(ErrorKind::Infrastructure, format!("cannot cancel run {run}: {why}"));
                error.with_hint(format!("`{function}.attach(\"{run}\")` finishes the cancellation"))
            };
            match ledger.end() {
                Some(End::Complete | End::Cancelled(_)) => return Ok(()),
                // The round may go on without this program.
                Some(End::Unfinished(_) | End::Failed(_) | End::Unfollowed(_)) => {
                    let cancelled = backend.executor().cancel_ended(&ledger).await;
                    return cancelled.map_err(|error| failed(&error.in_one_line()));
                }
                None => {}
            }
            ledger.cancel().await?;
            match ledger.finished().await {
                End::Unfinished(why) | End::Failed(why) | End::Unfollowed(why) => Err(failed(&why)),
                End::Complete | End::Cancelled(_) => Ok(()),
            }
        })
    }

    /// Cancels one item: an outcome that it has stored stays, otherwise the item is `Cancelled`. Possible only if the item
    /// has a job of its own, that is, on AWS Batch with one item per job.
    pub fn cancel_item(&self, index: usize) -> Pending<()> {
        let cancelled = self.backend.executor().cancel_items(&self.ledger, vec![index as u64]);
        Pending::new(cancelled)
    }

    /// Returns the run's jobs that the scheduler still lists, in the order of their items. Empty on this machine.
    pub fn jobs(&self) -> Pending<Vec<Job>> {
        Pending::new(self.backend.executor().jobs(&self.ledger))
    }

    /// Runs the items without a value again, once this run has finished, with the program as it is now. The ID stays the same. Await
    /// the retry for a handle to the run.
    ///
    /// On AWS Batch, the program as it is now is the deployed one: mend the function, run `cargo knot deploy`, and retry. The types of
    /// the function must not have changed. If jobs of the run are still going on, because its program was interrupted, they are
    /// waited for; [`cancel`](Self::cancel) ends them.
    ///
    /// ```
    /// # #[cloudknot::remote]
    /// # fn double(x: u32) -> u32 { 2 * x }
    /// let run = double.map([1, 2, 3]).submit().wait()?;
    /// let again = run.retry_failed().memory("16 GiB").wait()?;
    /// assert_eq!(again.values().wait()?, [2, 4, 6]);
    /// # Ok::<(), cloudknot::Error>(())
    /// ```
    pub fn retry_failed(&self) -> Retry<T> {
        Retry::new(self.again())
    }

    /// Returns the number of the last round, from 1.
    pub(crate) fn round(&self) -> u32 {
        self.ledger.record.round
    }

    /// Returns the number of items that the last round schedules.
    pub(crate) fn scheduled(&self) -> u64 {
        self.ledger.record.scheduled.len()
    }

    /// Returns the record of the run.
    pub(crate) fn record(&self) -> &Record {
        &self.ledger.record
    }

    /// Returns these items, or all without a value, as ranges in order.
    ///
    /// # Errors
    /// `Config` if one of the items has a value, or does not exist; also if the run has not ended.
    pub(crate) fn to_retry(&self, items: Option<&BTreeSet<u64>>) -> Result<Vec<Range<u64>>> {
        if let Some(End::Unfollowed(_)) = self.ledger.end() {
            let message = format!("cannot retry run {} on another backend: it has not ended", self.id());
            return Err(Error::new(ErrorKind::Config, message).with_hint("wait for its end, or cancel it"));
        }
        Ok(self.ledger.next_round(items)?.1.items)
    }

    /// Reports that the program's source differs from that of the submission, if it is known to.
    pub(crate) async fn report_changed_source(&self) {
        let Manifest { run, provenance, .. } = &self.ledger.record.manifest;
        provenance::report_changes(run, &provenance.program).await;
    }

    /// Returns another handle to the run.
    pub(crate) fn again(&self) -> Self {
        Self { ledger: Arc::clone(&self.ledger), backend: self.backend.clone(), ..*self }
    }
}

impl<T> fmt::Debug for Run<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Run({}: {})", self.id(), self.status())
    }
}

/// Opens a run to read what is stored of it, without computing anything.
pub(crate) async fn look<T>(
    run: &str,
    function: &'static Function,
    decode: Decode<T>,
    backend: Backend,
) -> Result<Run<T>> {
    let ledger = open(run, function, &backend).await?;
    ledger.end_at_a_look().await?;
    Ok(Run { ledger, backend, function, decode })
}

/// Reads the record of a run, without its outcomes.
async fn open(run: &str, function: &'static Function, backend: &Backend) -> Result<Arc<Ledger>> {
    let store = backend.executor().store()?;
    let knot = backend.executor().knot(function);
    let keys = RunKeys::new(&knot, run);
    let manifest = manifest(&*store, &knot, run).await?;
    check_types(&manifest, function)?;
    let (round, scheduled) = read::last_round(&*store, &keys, &manifest).await?;
    Ok(Ledger::new(Record { store, keys, manifest, round, scheduled }))
}

/// Attaches to a run by its record in the store, and resumes it.
pub(crate) async fn attach<T>(
    run: &str,
    function: &'static Function,
    decode: Decode<T>,
    backend: Backend,
) -> Result<Run<T>> {
    let ledger = open(run, function, &backend).await?;
    ledger.refresh().await?;
    let run = Run { ledger, backend, function, decode };
    run.begin(Start::Resume).await?;
    Ok(run)
}

/// A run that a map may go on with.
#[derive(Debug)]
pub(crate) enum Resumable {
    /// There is no such run, or its types or its inputs are others.
    Missing,
    /// No more outcomes will come: the run is done, has failed, or was cancelled.
    Ended,
    /// The run goes on, or can be continued.
    Open(Arc<Ledger>),
}

/// Opens a run to continue it. Sends only requests that read.
pub(crate) async fn open_resumable(
    run: &str,
    function: &'static Function,
    backend: &Backend,
    inputs: Option<InputsHash>,
) -> Result<Resumable> {
    let ledger = match open(run, function, backend).await {
        Ok(ledger) => ledger,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Types) => return Ok(Resumable::Missing),
        Err(error) => return Err(error),
    };
    let Record { store, keys, manifest, round, .. } = &ledger.record;
    if inputs.is_some() && manifest.inputs_hash != inputs {
        return Ok(Resumable::Missing);
    }
    let objects = store.list(&keys.all(), None).await?;
    let cancelled = keys.cancelled(*round);
    let is_cancelled = objects.iter().any(|object| object.key == cancelled);
    ledger.take_listing(objects.clone());
    if ledger.known_state(is_cancelled).is_some() {
        return Ok(Resumable::Ended);
    }
    Ok(match backend.executor().activity(&ledger, &objects).await? {
        Activity::Over => Resumable::Ended,
        _ => Resumable::Open(ledger),
    })
}

async fn manifest(store: &dyn Store, knot: &str, run: &str) -> Result<Manifest> {
    let not_found = || {
        Error::new(ErrorKind::NotFound, format!("cannot attach to run `{run}`: {} has no such run", store.describe()))
            .with_hint("check the ID, and that CLOUDKNOT_HOME and CLOUDKNOT_BACKEND are those of the program that submitted it")
    };
    if run.is_empty() || !run.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(not_found());
    }
    read::manifest(store, knot, run).await?.ok_or_else(not_found)
}

fn check_types(manifest: &Manifest, function: &Function) -> Result<()> {
    let id = function.id.to_string();
    if manifest.function != id {
        let message =
            format!("cannot attach to run {}: the run belongs to `{}`, not to `{id}`", manifest.run, manifest.function);
        return Err(Error::new(ErrorKind::Types, message).with_hint("attach with the function that was mapped"));
    }
    let schema = function.schema()?;
    if manifest.fingerprint == schema.fingerprint && manifest.codec == function.codec {
        return Ok(());
    }
    let difference = schema.difference(&manifest.schema);
    let message = format!(
        "cannot attach to run {}: the types of `{id}` have changed since the run was submitted\n{difference}",
        manifest.run
    );
    Err(Error::new(ErrorKind::Types, message)
        .with_hint("attach from a program with the original types, or submit a new run"))
}
