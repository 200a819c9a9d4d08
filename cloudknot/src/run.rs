//! A run: one submitted map. It has an id, outlives the program, and is read from its store alone.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use cloudknot_runtime::codec;
use cloudknot_runtime::contract::{self, Manifest, Part, Round, RunKeys};
use cloudknot_runtime::engine;
use cloudknot_runtime::failure::{Failure, ItemError, ItemErrorKind};
use cloudknot_runtime::function::Function;
use cloudknot_runtime::store::{BoxFuture, Store, StoreError};
use futures_core::Stream;

use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::{Bits, End, Ledger, Record, Settled, damaged};
use crate::remote::Decode;

/// A handle to a run: its results as they complete, its state, and the means to end it.
///
/// Dropping the handle leaves the run as it is. Its id is enough to take it up again, from this program or another:
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

/// How many items of a run are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// All of them.
    pub items: u64,
    /// They have a value.
    pub succeeded: u64,
    /// Their last attempt failed.
    pub failed: u64,
    /// They are being run by this program at this moment.
    pub running: u64,
    /// Nothing has come of them yet.
    pub waiting: u64,
    /// Nothing will come of them: the run was cancelled, or its surroundings failed.
    pub left: u64,
    /// Nothing more will come.
    pub finished: bool,
}

/// A job of a run on AWS Batch: one of its own, or a child of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Job {
    /// Its id.
    pub id: String,
    /// Batch's word for its state: `SUBMITTED`, `PENDING`, `RUNNABLE`, `STARTING`, `RUNNING`, `SUCCEEDED`, `FAILED`. A job
    /// succeeds once the outcomes of all its items are stored, be they failures.
    pub status: String,
    /// What Batch says to that.
    pub reason: Option<String>,
    /// Its items: ranges, first included, last excluded.
    pub items: Vec<Range<u64>>,
    /// Those that have ended, in their order.
    pub attempts: Vec<JobAttempt>,
    /// Where the console shows the log of its last attempt, once there is one.
    pub log_url: Option<String>,
}

/// One attempt of a job that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobAttempt {
    /// The exit code of its container, if that ended by itself.
    pub exit_code: Option<i32>,
    /// Why it ended, in Batch's words.
    pub reason: Option<String>,
    /// Where the console shows its log.
    pub log_url: Option<String>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { items, succeeded, failed, running, waiting, left, .. } = self;
        write!(
            f,
            "{items} items: {succeeded} succeeded, {failed} failed, {running} running, {waiting} waiting, {left} left"
        )
    }
}

impl<T> Run<T> {
    pub(crate) fn launch(
        record: Record,
        backend: Backend,
        function: &'static Function,
        decode: Decode<T>,
    ) -> (Self, BoxFuture<'static, Result<()>>) {
        let ledger = Ledger::new(record);
        let run = Self { ledger, backend, function, decode };
        let launched = run.begin(true);
        (run, launched)
    }

    fn begin(&self, known: bool) -> BoxFuture<'static, Result<()>> {
        if self.ledger.missing().is_empty() && known {
            self.ledger.finish(End::Complete);
            return Box::pin(std::future::ready(Ok(())));
        }
        self.backend.place().launch(&self.ledger, self.function, known)
    }

    /// The id, by which any program finds the run again. Ids sort by time.
    pub fn id(&self) -> &str {
        &self.ledger.record.manifest.run
    }

    /// How many items are in which state.
    pub fn status(&self) -> Status {
        let items = self.ledger.record.manifest.items;
        // In this order: nothing is counted after the end.
        let finished = self.ledger.end().is_some();
        let (succeeded, failed) = self.ledger.counts();
        let open = items - succeeded - failed;
        let running = self.ledger.control.running.load(Ordering::Relaxed).min(open);
        let (running, waiting, left) = if finished { (0, 0, open) } else { (running, open - running, 0) };
        Status { items, succeeded, failed, running, waiting, left, finished }
    }

    /// Each item's outcome with its index, as they complete: a stream.
    pub fn results(&self) -> Results<T> {
        Results {
            ledger: Arc::clone(&self.ledger),
            decode: self.decode,
            at: 0,
            given: Bits::new(self.ledger.record.manifest.items),
            reading: VecDeque::new(),
            open: None,
            left: 0,
        }
    }
}

impl<T: Send + 'static> Run<T> {
    /// All outcomes, in the order of the inputs, once nothing more will come.
    pub fn outcomes(&self) -> Pending<Vec<Result<T, ItemError>>> {
        let mut results = self.results();
        let items = self.ledger.record.manifest.items;
        Pending::new(async move {
            let items = usize::try_from(items).expect("a run that was submitted from this memory fits it");
            let mut outcomes: Vec<Option<Result<T, ItemError>>> = std::iter::repeat_with(|| None).take(items).collect();
            while let Some((index, outcome)) = results.next().await {
                outcomes[index] = Some(outcome);
            }
            Ok(outcomes.into_iter().map(|outcome| outcome.expect("the results give every item once")).collect())
        })
    }

    /// All values, in the order of the inputs.
    ///
    /// # Errors
    /// `ItemsFailed` where some have none: it names them, and the values that there are stay readable. `Cancelled`
    /// where that is for no other reason; `Infrastructure` where the store or the machine failed meanwhile.
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
                Some(End::Trouble(why)) => Error::could_not_go_on(function, run, &why, failed),
                _ => Error::items_failed(function, run, items, failed),
            })
        })
    }

    /// Waits until nothing more will come, without reading values.
    pub fn finished(&self) -> Pending<Status> {
        let run = Self { ledger: Arc::clone(&self.ledger), backend: self.backend.clone(), ..*self };
        Pending::new(async move {
            run.ledger.finished().await;
            Ok(run.status())
        })
    }

    /// Ends the run: what is running is stopped, what has a value keeps it, the rest is `Cancelled`.
    ///
    /// # Errors
    /// `Infrastructure` where what is running could not be stopped; `Store` where the store cannot be written to.
    pub fn cancel(&self) -> Pending<()> {
        let ledger = Arc::clone(&self.ledger);
        Pending::new(async move {
            if ledger.end().is_some() {
                return Ok(());
            }
            ledger.cancel().await?;
            match ledger.finished().await {
                End::Trouble(why) => {
                    let (function, run) = (ledger.record.function_name(), &ledger.record.manifest.run);
                    let hint = format!("`{function}.attach(\"{run}\")` ends what is left of it");
                    Err(Error::new(ErrorKind::Infrastructure, format!("failed to cancel run {run}: {why}"))
                        .with_hint(hint))
                }
                End::Complete | End::Cancelled(_) => Ok(()),
            }
        })
    }

    /// Ends one item: what it has stored stays, else it is `Cancelled`. Only where it has a job of its own, which is on AWS Batch
    /// with one item a job.
    pub fn cancel_item(&self, index: usize) -> Pending<()> {
        let cancelled = self.backend.place().cancel_item(&self.ledger, index as u64);
        Pending::new(cancelled)
    }

    /// The jobs of the run that the scheduler still knows, in the order of their items; none on this machine.
    pub fn jobs(&self) -> Pending<Vec<Job>> {
        Pending::new(self.backend.place().jobs(&self.ledger))
    }

    /// Runs the items that have no value again, once this run has finished. The id stays the same.
    pub fn retry_failed(&self) -> Pending<Run<T>> {
        let (ledger, backend, function, decode) =
            (Arc::clone(&self.ledger), self.backend.clone(), self.function, self.decode);
        Pending::new(async move {
            ledger.finished().await;
            let Record { store, keys, manifest, round, .. } = &ledger.record;
            let taken_up = Round { items: ledger.without_value(), retries: manifest.retries };
            let next = round + 1;
            let bytes = serde_json::to_vec(&taken_up).expect("a round is numbers");
            if !store.create(&keys.round(next), bytes.into()).await? {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("failed to begin round {next} of run {}: another program has", manifest.run),
                )
                .with_hint("attach to the run to follow it"));
            }
            attach(&manifest.run, function, decode, backend).await
        })
    }
}

impl<T> fmt::Debug for Run<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Run({}: {})", self.id(), self.status())
    }
}

/// Takes a run up again from its store.
pub(crate) async fn attach<T>(
    run: &str,
    function: &'static Function,
    decode: Decode<T>,
    backend: Backend,
) -> Result<Run<T>> {
    let store = backend.place().store()?;
    let keys = RunKeys::new(&backend.place().knot(function), run);
    let manifest = manifest(&*store, &keys, run).await?;
    check_types(&manifest, function)?;
    let (round, taken_up) = last_round(&*store, &keys, &manifest).await?;
    let ledger = Ledger::new(Record { store, keys, manifest, round, taken_up });
    ledger.refresh().await?;
    let run = Run { ledger, backend, function, decode };
    // Another program may be computing it, so that what is missing now may be there later.
    let complete = run.ledger.missing().is_empty();
    run.begin(complete).await?;
    Ok(run)
}

async fn manifest(store: &dyn Store, keys: &RunKeys, run: &str) -> Result<Manifest> {
    let key = keys.manifest();
    let not_found = || {
        Error::new(ErrorKind::NotFound, format!("failed to attach to run `{run}`: {} has none", store.describe()))
            .with_hint("check the id, and that CLOUDKNOT_HOME and CLOUDKNOT_BACKEND are those of the program that submitted it")
    };
    if run.is_empty() || !run.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(not_found());
    }
    let bytes = store.get(&key).await?.ok_or_else(not_found)?;
    // The version first: a manifest of another one may lack what this one has.
    let Version { version } = serde_json::from_slice(&bytes).map_err(|error| damaged(&key, error))?;
    if version != Manifest::VERSION {
        return Err(damaged(&key, format!("it has version {version}, this program reads {}", Manifest::VERSION)));
    }
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| damaged(&key, error))?;
    if manifest.run != run || manifest.chunk == 0 || manifest.parallel == 0 {
        return Err(damaged(&key, "it says what no run has"));
    }
    Ok(manifest)
}

#[derive(serde::Deserialize)]
struct Version {
    version: u32,
}

fn check_types(manifest: &Manifest, function: &Function) -> Result<()> {
    let id = function.id.to_string();
    if manifest.function != id {
        let message =
            format!("failed to attach to run {}: it is of `{}`, not of `{id}`", manifest.run, manifest.function);
        return Err(Error::new(ErrorKind::Types, message).with_hint("attach with the function that was mapped"));
    }
    let here = function.schema();
    if manifest.fingerprint == here.fingerprint && manifest.codec == function.codec {
        return Ok(());
    }
    let difference = here.difference(&manifest.schema);
    let message =
        format!("failed to attach to run {}: the types of `{id}` have changed since\n{difference}", manifest.run);
    Err(Error::new(ErrorKind::Types, message)
        .with_hint("attach from a program with the types of then, or submit a new run"))
}

async fn last_round(store: &dyn Store, keys: &RunKeys, manifest: &Manifest) -> Result<(u32, Round)> {
    let rounds = store.list(&keys.rounds(), None).await?;
    let Some(round) = rounds.iter().filter_map(|object| contract::round_of(&object.key)).max() else {
        return Ok((1, first_round(manifest)));
    };
    let key = keys.round(round);
    let bytes = store.get(&key).await?.ok_or_else(|| damaged(&key, "it has vanished"))?;
    Ok((round, serde_json::from_slice(&bytes).map_err(|error| damaged(&key, error))?))
}

/// The first round is all items.
pub(crate) fn first_round(manifest: &Manifest) -> Round {
    #[allow(clippy::single_range_in_vec_init)]
    let items = vec![0..manifest.items];
    Round { items, retries: manifest.retries }
}

/// Something that is under way: await it, or `wait` for it where there is no async.
pub struct Pending<T>(BoxFuture<'static, Result<T>>);

impl<T> Pending<T> {
    pub(crate) fn new(future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self(Box::pin(engine::inside(Box::pin(future))))
    }

    /// Waits for it on this thread.
    pub fn wait(self) -> Result<T> {
        wait(self)
    }
}

/// Waits on this thread, whoever's it is.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    engine::blocking(|| pollster::block_on(future))
}

impl<T> Future for Pending<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        self.0.as_mut().poll(context)
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending")
    }
}

/// Each item's outcome with its index, as they complete: every item once. See [`Run::results`].
///
/// A [`Stream`] for those who use its combinators; [`next`](Self::next) for those who do not; an [`Iterator`], by
/// [`wait`](Self::wait), where there is no async. Values are read from the store as they are asked for.
pub struct Results<T> {
    ledger: Arc<Ledger>,
    decode: Decode<T>,
    /// How far the ledger has been followed.
    at: usize,
    given: Bits,
    reading: VecDeque<Reading>,
    open: Option<OpenPart>,
    /// Where the search for items that nothing came of has got to.
    left: u64,
}

/// A read of the store on its way.
enum Reading {
    Under(Settled, BoxFuture<'static, Result<Option<Bytes>, StoreError>>),
    Done(Settled, Result<Option<Bytes>, StoreError>),
}

/// A part whose values are being given.
struct OpenPart {
    part: Part,
    next: u64,
    /// The frames that are left, or what is told of those that cannot be had.
    frames: Result<Bytes, String>,
}

impl<T> Results<T> {
    // Not an iterator's: this one is awaited, as a stream's.
    #[allow(clippy::should_implement_trait)]
    /// The next outcome to complete, or `None` once every item has been given.
    pub fn next(&mut self) -> impl Future<Output = Option<(usize, Result<T, ItemError>)>> + Send + '_
    where
        T: Send,
    {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context))
    }

    /// The same as a blocking iterator.
    pub fn wait(mut self) -> impl Iterator<Item = (usize, Result<T, ItemError>)> {
        std::iter::from_fn(move || wait(std::future::poll_fn(|context| Pin::new(&mut self).poll_next(context))))
    }

    /// Reads ahead what has been settled, as much as serves the store.
    fn read_ahead(&mut self, context: &Context<'_>) -> Option<End> {
        let store = &self.ledger.record.store;
        while self.reading.len() < store.parallel_reads() {
            let settled = match self.ledger.settled(self.at, context.waker()) {
                Ok(settled) => settled,
                Err(end) => return end,
            };
            self.at += 1;
            let key = self.ledger.record.key_of(settled);
            let store = Arc::clone(store);
            let read = Box::pin(engine::inside(Box::pin(async move { store.get(&key).await })));
            self.reading.push_back(Reading::Under(settled, read));
        }
        None
    }

    /// The oldest read, if it is done. All are driven on.
    fn read_done(&mut self, context: &mut Context<'_>) -> Option<(Settled, Result<Option<Bytes>, StoreError>)> {
        for reading in &mut self.reading {
            if let Reading::Under(settled, future) = reading
                && let Poll::Ready(bytes) = future.as_mut().poll(context)
            {
                *reading = Reading::Done(*settled, bytes);
            }
        }
        match self.reading.pop_front()? {
            Reading::Done(settled, bytes) => Some((settled, bytes)),
            under @ Reading::Under(..) => {
                self.reading.push_front(under);
                None
            }
        }
    }

    /// The next value of the open part that has not been given.
    fn next_of_part(&mut self) -> Option<(usize, Result<T, ItemError>)> {
        let open = self.open.as_mut()?;
        while open.next <= open.part.last {
            let item = open.next;
            open.next += 1;
            let (record, settled) = (&self.ledger.record, Settled::Values(open.part));
            let damaged = |why: String| damaged_result(record, settled, &why);
            let frame = open.next_frame(damaged);
            if self.given.get(item) {
                continue;
            }
            self.given.set(item);
            let outcome = frame.and_then(|frame| (self.decode)(&frame).map_err(|error| damaged(error.to_string())));
            return Some((index(item), outcome.map_err(without_outcome)));
        }
        self.open = None;
        None
    }

    /// Takes in what has been read; an outcome where it is a failure.
    fn take_in(
        &mut self,
        settled: Settled,
        bytes: Result<Option<Bytes>, StoreError>,
    ) -> Option<(usize, Result<T, ItemError>)> {
        let record = &self.ledger.record;
        let bytes = match bytes {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(damaged_result(record, settled, "it has been removed")),
            Err(error) => Err(format!("{}; attach to the run again to read it", Error::from(error).in_one_line())),
        };
        match settled {
            Settled::Values(part) => {
                self.open = Some(OpenPart { part, next: part.first, frames: bytes });
                None
            }
            Settled::Failure { item, .. } if self.given.get(item) => None,
            Settled::Failure { item, .. } => {
                self.given.set(item);
                let damaged = |error: serde_json::Error| damaged_result(record, settled, &error.to_string());
                let read = bytes.and_then(|bytes| serde_json::from_slice(&bytes).map_err(damaged));
                Some((index(item), Err(read.unwrap_or_else(without_outcome))))
            }
        }
    }

    /// Once nothing more will come: the items that nothing came of.
    fn next_left(&mut self, end: &End) -> Option<(usize, Result<T, ItemError>)> {
        let failure = match end {
            End::Complete => Failure::new(ItemErrorKind::Infrastructure, "the run ended without an outcome for it"),
            End::Cancelled(why) => Failure::new(ItemErrorKind::Cancelled, why.clone()),
            End::Trouble(why) => Failure::new(ItemErrorKind::Infrastructure, why.clone()),
        };
        let item = (self.left..self.ledger.record.manifest.items).find(|&item| !self.given.get(item))?;
        self.left = item + 1;
        self.given.set(item);
        Some((index(item), Err(ItemError::new(failure, 0))))
    }
}

impl<T> Stream for Results<T> {
    type Item = (usize, Result<T, ItemError>);

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(outcome) = this.next_of_part() {
                return Poll::Ready(Some(outcome));
            }
            let end = this.read_ahead(context);
            match (this.read_done(context), end) {
                (Some((settled, bytes)), _) => {
                    if let Some(outcome) = this.take_in(settled, bytes) {
                        return Poll::Ready(Some(outcome));
                    }
                }
                (None, Some(end)) if this.reading.is_empty() => return Poll::Ready(this.next_left(&end)),
                (None, _) => return Poll::Pending,
            }
        }
    }
}

impl<T> Unpin for Results<T> {}

impl<T> fmt::Debug for Results<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Results({})", self.ledger.record.manifest.run)
    }
}

impl OpenPart {
    /// Cuts off the next frame. Where that cannot be done, the rest of the part is lost as well.
    fn next_frame(&mut self, damaged: impl FnOnce(String) -> String) -> Result<Bytes, String> {
        let frames = self.frames.as_mut().map_err(|why| why.clone())?;
        let length = codec::frame_length(frames).map_err(|error| error.to_string());
        let cut = length.and_then(|length| match usize::try_from(length) {
            Ok(length) if length <= frames.len() => Ok(frames.split_to(length)),
            _ => Err(format!("it is truncated: {} bytes are left of {length}", frames.len())),
        });
        let cut = cut.map_err(damaged);
        if let Err(why) = &cut {
            self.frames = Err(why.clone());
        }
        cut
    }
}

/// What is told of what is there and is none.
fn damaged_result(record: &Record, settled: Settled, why: &str) -> String {
    format!(
        "failed to read `{}` in {}: {why}; remove it and attach to the run again to compute its items anew",
        record.key_of(settled),
        record.store.describe()
    )
}

/// An outcome that there may be, and cannot be read.
fn without_outcome(why: String) -> ItemError {
    ItemError::new(Failure::new(ItemErrorKind::Infrastructure, why), 0)
}

fn index(item: u64) -> usize {
    usize::try_from(item).expect("an item of a run that this memory has bits for has an index")
}
