//! Submits a map: reads and writes the inputs, writes the manifest last, and then launches the run. If a run of equal inputs goes on
//! (`resume`), the inputs are dropped, and nothing becomes visible.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use cloudknot_runtime::codec::{Codec, PartOrder};
use cloudknot_runtime::contract::{MAX_RECORD_LEN, Manifest, RunKeys, WORD_LEN, WORD_LETTERS};
use cloudknot_runtime::function::{self, Function};
use cloudknot_runtime::item;
use cloudknot_runtime::store::{BoxFuture, Store, Writer};

use super::Map;
use super::inputs::{BUFFER_LEN, Recording, inside};
use super::resume;
use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::pending::wait;
use crate::provenance;
use crate::record::ledger::Ledger;
use crate::record::{Record, Start, index};
use crate::run::{self, Run};

/// Time for which the iterator is driven before other tasks of the same executor can run.
const TIME_SLICE: Duration = Duration::from_millis(10);

/// A submission of a map. Await it, or call [`wait`](Self::wait) where there is no async.
#[must_use = "nothing is submitted until this is awaited"]
pub struct Submit<It, Args, Output>(Box<Submission<It, Args, Output>>);

struct Submission<It, Args, Output> {
    map: Map<It, Args, Output>,
    state: State,
    recording: Recording,
    /// The run, once it is recorded.
    run: Option<Run<Output>>,
}

// A hand-written state machine, because it must have a name and be `Send` exactly when the iterator is.
enum State {
    New,
    Writing(Box<dyn Writer>),
    Busy(BoxFuture<'static, Result<Box<dyn Writer>>>),
    Closing(Closing),
    Launching(BoxFuture<'static, Result<()>>),
    Done,
}

impl<It, Args, Output> Submit<It, Args, Output>
where
    It: Iterator<Item = Args>,
{
    pub(super) fn new(map: Map<It, Args, Output>) -> Self {
        Self(Box::new(Submission { map, state: State::New, recording: Recording::new(), run: None }))
    }

    /// Waits on this thread until the run is submitted.
    pub fn wait(self) -> Result<Run<Output>> {
        wait(self)
    }
}

impl<It: Iterator<Item = Args>, Args, Output> Future for Submit<It, Args, Output> {
    type Output = Result<Run<Output>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self.0;
        loop {
            this.state = match std::mem::replace(&mut this.state, State::Done) {
                State::New => this.begin()?,
                State::Busy(mut future) => match future.as_mut().poll(context) {
                    Poll::Ready(writer) => State::Writing(writer?),
                    Poll::Pending => {
                        this.state = State::Busy(future);
                        return Poll::Pending;
                    }
                },
                State::Writing(writer) => match this.read_inputs()? {
                    SliceEnd::Full => State::Busy(this.recording.write(writer)),
                    SliceEnd::End => State::Closing(this.close(writer)?),
                    SliceEnd::Yield => {
                        this.state = State::Writing(writer);
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                },
                State::Closing(mut future) => match future.as_mut().poll(context) {
                    Poll::Ready(closed) => State::Launching(this.launch(closed?)),
                    Poll::Pending => {
                        this.state = State::Closing(future);
                        return Poll::Pending;
                    }
                },
                State::Launching(mut future) => match future.as_mut().poll(context) {
                    Poll::Ready(launched) => {
                        launched?;
                        return Poll::Ready(Ok(this.run.take().expect("the run is set before it is launched")));
                    }
                    Poll::Pending => {
                        this.state = State::Launching(future);
                        return Poll::Pending;
                    }
                },
                State::Done => unreachable!("a future is not polled again after it is ready"),
            }
        }
    }
}

// No field is structurally pinned: the iterator is only called through `&mut`.
impl<It, Args, Output> Unpin for Submit<It, Args, Output> {}

impl<It, Args, Output> fmt::Debug for Submit<It, Args, Output> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map.fmt(f)
    }
}

/// Run that follows from the inputs: a new one, or one that goes on.
struct Closed {
    ledger: Arc<Ledger>,
    start: Start,
}

type Closing = BoxFuture<'static, Result<Closed>>;

/// Reason for which the iterator is not driven further.
enum SliceEnd {
    Full,
    Yield,
    End,
}

impl<It: Iterator<Item = Args>, Args, Output> Submission<It, Args, Output> {
    fn begin(&mut self) -> Result<State> {
        let Map { function, options, .. } = &self.map;
        refuse_nesting(function)?;
        options.check()?;
        provenance::prepare();
        function::find(&function.id.to_string()).map_err(|message| Error::new(ErrorKind::Config, message))?;
        refuse_unsupported(function)?;
        if let Some(unordered) = function.schema()?.unordered.as_ref().filter(|_| options.resume) {
            let what = format!("they contain `{unordered}`, whose entries have no fixed order");
            resume::refuse_unordered(function, options.name.as_deref(), &what)?;
        }
        let backend = options.backend.clone().map_or_else(Backend::chosen, Ok)?;
        backend.executor().check(function)?;
        let store = backend.executor().store()?;
        self.recording.run = new_run_id();
        let key = RunKeys::new(&backend.executor().knot(function), &self.recording.run).inputs();
        self.recording.store = Some(Arc::clone(&store));
        self.recording.backend = Some(backend);
        Ok(State::Busy(inside(async move { Ok(store.writer(&key).await?) })))
    }

    /// Drives the iterator until the buffer is full, the time slice is used up, or the iterator ends.
    fn read_inputs(&mut self) -> Result<SliceEnd> {
        let began = Instant::now();
        while self.recording.buffer.len() < BUFFER_LEN {
            let Some(input) = self.map.inputs.next() else { return Ok(SliceEnd::End) };
            self.recording.append(input, self.map.encode)?;
            self.refuse_random_order()?;
            if self.recording.items.is_multiple_of(64) && began.elapsed() > TIME_SLICE {
                return Ok(SliceEnd::Yield);
            }
        }
        Ok(SliceEnd::Full)
    }

    /// Returns an error if the inputs are to be compared, and have a part without a fixed order that their types do not show.
    fn refuse_random_order(&self) -> Result<()> {
        let Map { function, options, .. } = &self.map;
        if self.recording.order == PartOrder::Fixed || !options.resume {
            return Ok(());
        }
        let item = self.recording.items - 1;
        let what = format!("input {item} has entries without a fixed order, such as those of a `HashMap`");
        resume::refuse_unordered(function, options.name.as_deref(), &what)
    }

    /// Writes the remaining inputs, then the manifest, which completes the record. If a run goes on, writes nothing instead.
    fn close(&mut self, writer: Box<dyn Writer>) -> Result<Closing> {
        let Map { function, options, .. } = &self.map;
        let function = *function;
        let recording = &mut self.recording;
        let store = recording.store.take().expect("`begin` sets the store");
        let chosen_backend = recording.backend.clone().expect("`begin` sets the backend");
        let backend = chosen_backend.executor();
        let knot = backend.knot(function);
        let mut manifest = options.manifest(function, recording, backend.name(), &knot)?;
        let chosen = backend.chunking(function, &manifest.resources, recording.items);
        manifest.chunk = options.chunk.unwrap_or(chosen.chunk);
        manifest.parallel = options.parallel.unwrap_or(chosen.parallel);
        backend.fill_manifest(&mut manifest, function, options.independent)?;
        let keys = RunKeys::new(&knot, &recording.run);
        let rest = Bytes::from(std::mem::take(&mut recording.buffer));
        let offsets = recording.offsets.take();
        let by_hash = recording.order == PartOrder::Fixed && function.schema()?.unordered.is_none();
        let is_resumed = options.resume;
        Ok(inside(async move {
            manifest.provenance = provenance::of_this_program(function.id.package).await;
            if is_resumed {
                let inputs_hash = manifest.inputs_hash.filter(|_| by_hash);
                let wanted = Manifest { inputs_hash, ..manifest.clone() };
                // The writer is dropped, so that nothing of the inputs becomes visible.
                if let Some(ledger) = resume::find(&*store, &chosen_backend, function, &wanted).await? {
                    resume::report(&ledger, &wanted);
                    return Ok(Closed { ledger, start: Start::Resume });
                }
            }
            let bytes = manifest_bytes(&manifest)?;
            finish_inputs(writer, rest, offsets.as_deref().unwrap_or_default()).await?;
            let record = write_record(store, keys, manifest, bytes).await?;
            Ok(Closed { ledger: Ledger::new(record), start: Start::New })
        }))
    }

    fn launch(&mut self, Closed { ledger, start }: Closed) -> BoxFuture<'static, Result<()>> {
        let backend = self.recording.backend.take().expect("`begin` sets the backend");
        let (run, launched) = Run::launch(ledger, start, backend, self.map.function, self.map.decode);
        self.run = Some(run);
        inside(launched)
    }
}

/// Writes the remaining frames and the offsets of all.
async fn finish_inputs(mut writer: Box<dyn Writer>, rest: Bytes, offsets: &[u64]) -> Result<()> {
    if !rest.is_empty() {
        writer.write(rest).await?;
    }
    for block in offsets.chunks(BUFFER_LEN / 8) {
        writer.write(block.iter().flat_map(|offset| offset.to_le_bytes()).collect()).await?;
    }
    Ok(writer.finish().await?)
}

/// Returns the manifest as it is stored.
///
/// # Errors
/// `Config` if it is longer than what is read again.
fn manifest_bytes(manifest: &Manifest) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(manifest).expect("a manifest serializes to JSON");
    if bytes.len() as u64 > MAX_RECORD_LEN {
        bytes = serde_json::to_vec(manifest).expect("a manifest serializes to JSON");
    }
    if bytes.len() as u64 <= MAX_RECORD_LEN {
        return Ok(bytes);
    }
    let (run, len) = (&manifest.run, bytes.len());
    let message = format!("cannot submit run {run}: its manifest would have {len} bytes, more than {MAX_RECORD_LEN}");
    let hint = match manifest.parent {
        Some(_) => "retry fewer items, for example one half and then the other",
        None => "shorten the variables of `.env(..)`",
    };
    Err(Error::new(ErrorKind::Config, message).with_hint(hint))
}

/// Writes the manifest, and the entry of the run in the index.
async fn write_record(store: Arc<dyn Store>, keys: RunKeys, manifest: Manifest, bytes: Vec<u8>) -> Result<Record> {
    if let Err(error) = store.put(&keys.manifest(), bytes.into()).await {
        // Inputs without a manifest could never be found again. If deleting them fails as well, the first error is
        // reported.
        let _ = store.delete(&[keys.inputs()]).await;
        return Err(error.into());
    }
    index::write_submitted(&*store, &manifest).await;
    let scheduled = run::first_round(&manifest);
    Ok(Record { store, keys, manifest, round: 1, scheduled })
}

/// Returns an error inside a remote function: a nested map would start processes without end, and on Batch it would need
/// permissions that the worker does not have.
pub(super) fn refuse_nesting(function: &Function) -> Result<()> {
    if !item::is_running() {
        return Ok(());
    }
    let name = function.id.name;
    Err(Error::new(ErrorKind::Nested, format!("cannot map `{name}`: a remote function cannot map"))
        .with_hint(format!("call `{name}(..)` in the remote function, or map outside of it")))
}

/// Returns an error if the function's codec cannot carry one of its types: else this would be found when an input is
/// encoded or, after all items are computed, a result.
fn refuse_unsupported(function: &Function) -> Result<()> {
    let Some(reason) = &function.schema()?.unsupported else { return Ok(()) };
    let hint = match function.codec {
        Codec::Bincode => "use #[cloudknot::remote(codec = \"messagepack\")]",
        Codec::Messagepack => "use an enum for the inner type, or leave `codec` out for bincode",
    };
    Err(Error::new(ErrorKind::Config, format!("cannot map `{}`: {reason}", function.id.name)).with_hint(hint))
}

/// Returns a new run ID, such as `20261121-231502123-7f3k9a`: the time in UTC to the millisecond, then six random
/// characters.
fn new_run_id() -> String {
    use std::hash::BuildHasher;
    let now = SystemTime::now();
    let time: String = humantime::format_rfc3339_millis(now).to_string().chars().filter(char::is_ascii_digit).collect();
    // The hasher's keys come from the system's random source, and differ for each thread and each call.
    let mut random = std::hash::RandomState::new().hash_one((now, std::process::id()));
    let suffix: String = std::iter::repeat_with(|| {
        let digit = WORD_LETTERS[(random % 32) as usize];
        random /= 32;
        char::from(digit)
    })
    .take(WORD_LEN)
    .collect();
    format!("{}-{}-{suffix}", &time[..8], &time[8..])
}

// Compile-time check: a submission is `Send` if its inputs are.
#[allow(dead_code)]
fn assert_send<Args: Send>(submit: Submit<std::vec::IntoIter<Args>, Args, ()>) -> impl Send {
    let _: PhantomData<Args> = PhantomData;
    submit
}

#[cfg(test)]
mod tests {
    use cloudknot_runtime::contract::Parent;

    use super::*;
    use crate::record::sample;

    fn manifest(ranges: u64) -> Manifest {
        let items = (0..ranges).map(|range| 2 * range..2 * range + 1).collect();
        Manifest { parent: Some(Parent { run: "r".into(), items }), ..sample::manifest(ranges) }
    }

    #[test]
    fn a_manifest_can_be_read_again_or_is_refused() {
        for ranges in [3, 400_000] {
            let manifest = manifest(ranges);
            assert_eq!(Manifest::parse(&manifest_bytes(&manifest).unwrap()).unwrap(), manifest);
        }
        let error = manifest_bytes(&manifest(600_000)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.hint().is_some_and(|hint| hint.contains("retry fewer items")), "{error:?}");
    }
}
