//! A map: one function over many inputs. It records the inputs in the store, and only then launches the run.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use cloudknot_runtime::contract::{InputLayout, Manifest, Resources, RunKeys};
use cloudknot_runtime::function::Function;
use cloudknot_runtime::store::{BoxFuture, Store, Writer};
use cloudknot_runtime::{engine, function, item};

use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::Record;
use crate::quantity;
use crate::remote::{Decode, Encode, RemoteFn};
use crate::run::{self, Pending, Run};

impl<Args, Output, F> RemoteFn<Args, Output, F> {
    /// The function over many inputs: await it for all values in order, or [`submit`](Map::submit) it.
    ///
    /// ```
    /// #[cloudknot::remote]
    /// fn double(x: u32) -> u32 {
    ///     2 * x
    /// }
    ///
    /// # async fn run() -> cloudknot::Result<()> {
    /// let doubled = double.map(1..=3).await?;
    /// assert_eq!(doubled, [2, 4, 6]);
    /// # Ok(())
    /// # }
    /// # pollster::block_on(run()).unwrap();
    /// ```
    pub fn map<I: IntoIterator<Item = Args>>(&self, inputs: I) -> Map<I::IntoIter, Args, Output> {
        let options = Options {
            chunk: None,
            parallel: None,
            retries: self.function.resources.retries,
            timeout: self.function.resources.timeout,
            max_failures: None,
            env: BTreeMap::new(),
            tags: BTreeMap::new(),
            vcpus: None,
            memory: None,
            memory_on_retry: None,
            gpus: None,
            independent: false,
            backend: None,
        };
        Map { inputs: inputs.into_iter(), function: self.function, encode: self.encode, decode: self.decode, options }
    }

    /// The function on one input, where maps run.
    ///
    /// ```
    /// # #[cloudknot::remote]
    /// # fn double(x: u32) -> u32 { 2 * x }
    /// assert_eq!(double.call(21).wait()?, 42);
    /// # Ok::<(), cloudknot::Error>(())
    /// ```
    pub fn call(&self, input: Args) -> Pending<Output>
    where
        Args: Send,
        Output: Send,
    {
        let map = self.map([input]);
        Pending::new(async move {
            let mut values = map.await?;
            Ok(values.pop().expect("a map of one input has one value"))
        })
    }

    /// A run that was submitted before, by this program or another: what is stored is read, what is missing is
    /// computed.
    ///
    /// # Errors
    /// `NotFound`, or `Types` where the function's types are not those of the run.
    pub fn attach(&self, run: &str) -> Pending<Run<Output>>
    where
        Output: Send,
    {
        let (run, function, decode) = (run.to_owned(), self.function, self.decode);
        Pending::new(async move {
            refuse_nesting(function)?;
            run::attach(&run, function, decode, Backend::chosen()?).await
        })
    }
}

/// One function over many inputs, with its options. Nothing happens until it is awaited or submitted.
#[must_use = "a map does nothing until it is awaited, or submitted"]
pub struct Map<It, Args, Output> {
    inputs: It,
    function: &'static Function,
    encode: Encode<Args>,
    decode: Decode<Output>,
    options: Options,
}

#[derive(Debug)]
struct Options {
    chunk: Option<u64>,
    parallel: Option<u32>,
    retries: u32,
    timeout: Option<Duration>,
    max_failures: Option<u64>,
    env: BTreeMap<String, String>,
    tags: BTreeMap<String, String>,
    vcpus: Option<f64>,
    memory: Option<String>,
    memory_on_retry: Option<String>,
    gpus: Option<u32>,
    independent: bool,
    backend: Option<Backend>,
}

impl<It, Args, Output> Map<It, Args, Output> {
    /// So many items are stored together, and (on Batch) run by one job. At least 1.
    pub fn chunk(mut self, items: u64) -> Self {
        self.options.chunk = Some(items);
        self
    }

    /// So many items run at once: here in all, on Batch in each worker, where they share what the job has. At least 1.
    pub fn parallel(mut self, items: u32) -> Self {
        self.options.parallel = Some(items);
        self
    }

    /// An environment variable of the item processes. It is kept in the run's record, so it is no place for secrets.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.env.insert(name.into(), value.into());
        self
    }

    /// A tag of the run, kept in its record; on Batch also of its jobs.
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.tags.insert(name.into(), value.into());
        self
    }

    /// Once so many items have failed for good, the rest is cancelled. At least 1.
    pub fn max_failures(mut self, items: u64) -> Self {
        self.options.max_failures = Some(items);
        self
    }

    /// How often a failed item is tried again, in place of what the attribute says.
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// How long one attempt of an item may take, in place of what the attribute says.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// How many virtual CPUs each job has, in place of what was deployed; more than 0. Here it decides how many items run at
    /// once.
    pub fn vcpus(mut self, vcpus: f64) -> Self {
        self.options.vcpus = Some(vcpus);
        self
    }

    /// How much memory each job has, such as `"8 GiB"`, in place of what was deployed. Not enforced on this machine, but in
    /// Docker and on Batch.
    pub fn memory(mut self, memory: impl Into<String>) -> Self {
        self.options.memory = Some(memory.into());
        self
    }

    /// The same for items that [`retry_failed`](Run::retry_failed) takes up again: some inputs need more than most.
    ///
    /// ```
    /// # #[cloudknot::remote(memory = "2 GiB")]
    /// # fn double(x: u32) -> u32 { 2 * x }
    /// let run = double.map([1, 2, 3]).memory_on_retry("16 GiB").submit().wait()?;
    /// # assert_eq!(run.values().wait()?, [2, 4, 6]);
    /// # Ok::<(), cloudknot::Error>(())
    /// ```
    pub fn memory_on_retry(mut self, memory: impl Into<String>) -> Self {
        self.options.memory_on_retry = Some(memory.into());
        self
    }

    /// How many GPUs each job has, in place of what was deployed. Only Batch heeds it.
    pub fn gpus(mut self, gpus: u32) -> Self {
        self.options.gpus = Some(gpus);
        self
    }

    /// A job of its own for each chunk, in place of one array job: slower to submit, and each can be seen and ended by itself in
    /// the console. Only Batch heeds it.
    pub fn independent(mut self) -> Self {
        self.options.independent = true;
        self
    }

    /// Where it runs.
    pub fn on(mut self, backend: Backend) -> Self {
        self.options.backend = Some(backend);
        self
    }
}

impl<It: Iterator<Item = Args>, Args, Output> Map<It, Args, Output> {
    /// Records the inputs and launches the run.
    ///
    /// The iterator is run through by the thread that polls this, and never held in memory as a whole. If it panics,
    /// nothing was submitted.
    pub fn submit(self) -> Submit<It, Args, Output> {
        Submit(Box::new(Submission { map: self, state: State::New, recording: Recording::default(), run: None }))
    }

    /// Waits on this thread for all values, in order.
    pub fn wait(self) -> Result<Vec<Output>>
    where
        Output: Send + 'static,
    {
        run::wait(self.into_future())
    }
}

impl<It: Iterator<Item = Args>, Args, Output: Send + 'static> IntoFuture for Map<It, Args, Output> {
    type Output = Result<Vec<Output>>;
    type IntoFuture = MapFuture<It, Args, Output>;

    fn into_future(self) -> MapFuture<It, Args, Output> {
        MapFuture(Stage::Submitting(self.submit()))
    }
}

impl<It, Args, Output> fmt::Debug for Map<It, Args, Output> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("function", &self.function.id)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// A map that is awaited: submitted first, then read.
#[derive(Debug)]
pub struct MapFuture<It, Args, Output>(Stage<It, Args, Output>);

#[derive(Debug)]
enum Stage<It, Args, Output> {
    Submitting(Submit<It, Args, Output>),
    Reading(Pending<Vec<Output>>),
}

impl<It: Iterator<Item = Args>, Args, Output: Send + 'static> Future for MapFuture<It, Args, Output> {
    type Output = Result<Vec<Output>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            self.0 = match &mut self.0 {
                Stage::Submitting(submit) => Stage::Reading(ready!(Pin::new(submit).poll(context))?.values()),
                Stage::Reading(values) => return Pin::new(values).poll(context),
            }
        }
    }
}

/// A submission under way: await it, or [`wait`](Self::wait) for it where there is no async.
#[must_use = "nothing is submitted until this is awaited"]
pub struct Submit<It, Args, Output>(Box<Submission<It, Args, Output>>);

struct Submission<It, Args, Output> {
    map: Map<It, Args, Output>,
    state: State,
    recording: Recording,
    /// From when on it is recorded.
    run: Option<Run<Output>>,
}

// A state machine by hand, because it has to be nameable, and `Send` exactly where the iterator is.
enum State {
    New,
    Writing(Box<dyn Writer>),
    Busy(BoxFuture<'static, Result<Box<dyn Writer>>>),
    Closing(BoxFuture<'static, Result<Record>>),
    Launching(BoxFuture<'static, Result<()>>),
    Done,
}

/// What has been read of the inputs.
#[derive(Default)]
struct Recording {
    backend: Option<Backend>,
    store: Option<Arc<dyn Store>>,
    run: String,
    buffer: Vec<u8>,
    items: u64,
    /// How many bytes of frames there are, written and buffered.
    bytes: u64,
    /// The length of each frame, as long as all have the same.
    size: u64,
    /// Where each frame begins, once they do not.
    offsets: Option<Vec<u64>>,
}

/// How much is gathered before it is written.
const BUFFER: usize = 1 << 20;
/// How long the iterator is followed before others of the same executor have a turn.
const TURN: Duration = Duration::from_millis(10);

impl<It, Args, Output> Submit<It, Args, Output>
where
    It: Iterator<Item = Args>,
{
    /// Waits for it on this thread.
    pub fn wait(self) -> Result<Run<Output>> {
        run::wait(self)
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
                    Turn::Full => State::Busy(this.recording.write(writer)),
                    Turn::End => State::Closing(this.close(writer)?),
                    Turn::Yield => {
                        this.state = State::Writing(writer);
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                },
                State::Closing(mut future) => match future.as_mut().poll(context) {
                    Poll::Ready(record) => State::Launching(this.launch(record?)),
                    Poll::Pending => {
                        this.state = State::Closing(future);
                        return Poll::Pending;
                    }
                },
                State::Launching(mut future) => match future.as_mut().poll(context) {
                    Poll::Ready(launched) => {
                        launched?;
                        return Poll::Ready(Ok(this.run.take().expect("what is launched is a run")));
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

// Nothing here is pinned: the iterator is only ever called.
impl<It, Args, Output> Unpin for Submit<It, Args, Output> {}
impl<It, Args, Output> Unpin for MapFuture<It, Args, Output> {}

impl<It, Args, Output> fmt::Debug for Submit<It, Args, Output> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map.fmt(f)
    }
}

enum Turn {
    Full,
    Yield,
    End,
}

impl<It: Iterator<Item = Args>, Args, Output> Submission<It, Args, Output> {
    fn begin(&mut self) -> Result<State> {
        let Map { function, options, .. } = &self.map;
        refuse_nesting(function)?;
        options.check()?;
        function::find(&function.id.to_string()).map_err(|message| Error::new(ErrorKind::Config, message))?;
        let backend = options.backend.clone().map_or_else(Backend::chosen, Ok)?;
        backend.place().check(function)?;
        let store = backend.place().store()?;
        self.recording.run = new_run_id();
        let key = RunKeys::new(&backend.place().knot(function), &self.recording.run).inputs();
        self.recording.store = Some(Arc::clone(&store));
        self.recording.backend = Some(backend);
        Ok(State::Busy(inside(async move { Ok(store.writer(&key).await?) })))
    }

    /// Follows the iterator until the buffer is full, the turn is over, or it ends.
    fn read_inputs(&mut self) -> Result<Turn> {
        let began = Instant::now();
        while self.recording.buffer.len() < BUFFER {
            let Some(input) = self.map.inputs.next() else { return Ok(Turn::End) };
            self.recording.take(input, self.map.encode)?;
            if self.recording.items.is_multiple_of(64) && began.elapsed() > TURN {
                return Ok(Turn::Yield);
            }
        }
        Ok(Turn::Full)
    }

    /// Writes what is left of the inputs, then the manifest: the record is complete.
    fn close(&mut self, mut writer: Box<dyn Writer>) -> Result<BoxFuture<'static, Result<Record>>> {
        let Map { function, options, .. } = &self.map;
        let recording = &mut self.recording;
        let store = recording.store.take().expect("the store was chosen at the beginning");
        let backend = recording.backend.as_ref().expect("the backend was chosen at the beginning").place();
        let knot = backend.knot(function);
        let mut manifest = options.manifest(function, recording, backend.name(), &knot)?;
        let chosen = backend.chunking(function, &manifest.resources, recording.items);
        manifest.chunk = options.chunk.unwrap_or(chosen.chunk);
        manifest.parallel = options.parallel.unwrap_or(chosen.parallel);
        backend.pin(&mut manifest, function, options.independent)?;
        let keys = RunKeys::new(&knot, &recording.run);
        let rest = Bytes::from(std::mem::take(&mut recording.buffer));
        let offsets = recording.offsets.take();
        Ok(inside(async move {
            if !rest.is_empty() {
                writer.write(rest).await?;
            }
            for block in offsets.as_deref().unwrap_or_default().chunks(BUFFER / 8) {
                writer.write(block.iter().flat_map(|offset| offset.to_le_bytes()).collect()).await?;
            }
            writer.finish().await?;
            let bytes = serde_json::to_vec_pretty(&manifest).expect("a manifest is texts and numbers");
            if let Err(error) = store.put(&keys.manifest(), bytes.into()).await {
                // Inputs without a manifest are no run: nobody would find them again. The first error is the one to tell.
                let _ = store.delete(&[keys.inputs()]).await;
                return Err(error.into());
            }
            let taken_up = run::first_round(&manifest);
            Ok(Record { store, keys, manifest, round: 1, taken_up })
        }))
    }

    fn launch(&mut self, record: Record) -> BoxFuture<'static, Result<()>> {
        let backend = self.recording.backend.take().expect("the backend was chosen at the beginning");
        let (run, launched) = Run::launch(record, backend, self.map.function, self.map.decode);
        self.run = Some(run);
        inside(launched)
    }
}

impl Recording {
    fn take<Args>(&mut self, input: Args, encode: Encode<Args>) -> Result<()> {
        let begin = self.buffer.len();
        encode(input, &mut self.buffer).map_err(|error| {
            Error::new(
                ErrorKind::Input,
                format!("failed to submit: input {} cannot be carried to a worker", self.items),
            )
            .with_source(error)
        })?;
        let size = (self.buffer.len() - begin) as u64;
        if self.items == 0 {
            self.size = size;
        }
        if let Some(offsets) = &mut self.offsets {
            offsets.push(self.bytes + size);
        } else if size != self.size {
            let uniform = (0..=self.items).map(|item| item * self.size);
            self.offsets = Some(uniform.chain([self.bytes + size]).collect());
        }
        self.items += 1;
        self.bytes += size;
        Ok(())
    }

    fn layout(&self) -> InputLayout {
        if self.offsets.is_some() { InputLayout::Offsets(self.bytes) } else { InputLayout::Uniform(self.size) }
    }

    fn write(&mut self, mut writer: Box<dyn Writer>) -> BoxFuture<'static, Result<Box<dyn Writer>>> {
        let bytes = Bytes::from(std::mem::replace(&mut self.buffer, Vec::with_capacity(BUFFER)));
        inside(async move {
            writer.write(bytes).await?;
            Ok(writer)
        })
    }
}

impl Options {
    fn check(&self) -> Result<()> {
        let zero = |what: &str| {
            Err(Error::new(ErrorKind::Config, format!("failed to submit: {what}(0) leaves nothing to do"))
                .with_hint(format!("leave .{what}(..) out, or give at least 1")))
        };
        match (self.chunk, self.parallel, self.max_failures, self.timeout) {
            (Some(0), ..) => zero("chunk"),
            (_, Some(0), ..) => zero("parallel"),
            (.., Some(0), _) => zero("max_failures"),
            (.., Some(Duration::ZERO)) => zero("timeout"),
            _ => self.check_env(),
        }?;
        if self.vcpus.is_some_and(|vcpus| !vcpus.is_finite() || vcpus <= 0.0) {
            return zero("vcpus");
        }
        self.resources().map(drop)
    }

    fn resources(&self) -> Result<Resources> {
        let mib = |what: &str, memory: &Option<String>| {
            let parsed = memory.as_deref().map(quantity::memory_mib).transpose();
            parsed.map_err(|why| Error::new(ErrorKind::Config, format!("failed to submit: .{what}(..): {why}")))
        };
        Ok(Resources {
            vcpus: self.vcpus,
            memory_mib: mib("memory", &self.memory)?,
            memory_on_retry_mib: mib("memory_on_retry", &self.memory_on_retry)?,
            gpus: self.gpus,
        })
    }

    fn check_env(&self) -> Result<()> {
        let refused = |(name, value): (&String, &String)| {
            name.is_empty()
                || name.contains(['=', '\0'])
                || value.contains('\0')
                || name.starts_with("CLOUDKNOT_")
                || name.starts_with("AWS_BATCH")
        };
        match self.env.iter().find(|&pair| refused(pair)) {
            None => Ok(()),
            Some((name, _)) => {
                Err(Error::new(ErrorKind::Config, format!("failed to submit: `{name}` cannot be set by .env(..)"))
                    .with_hint("a name without `=` that begins with neither CLOUDKNOT_ nor AWS_BATCH"))
            }
        }
    }

    fn manifest(&self, function: &Function, recording: &Recording, backend: &str, knot: &str) -> Result<Manifest> {
        // Rounded up: a timeout of nothing would fail every item.
        let millis = |timeout: Duration| {
            u64::try_from(timeout.as_micros().div_ceil(1_000)).map_err(|_| {
                Error::new(ErrorKind::Config, format!("failed to submit: a timeout of {timeout:?} is too long"))
            })
        };
        Ok(Manifest {
            version: Manifest::VERSION,
            run: recording.run.clone(),
            knot: knot.to_owned(),
            backend: backend.to_owned(),
            function: function.id.to_string(),
            signature: function.signature.to_owned(),
            fingerprint: function.schema().fingerprint,
            schema: function.schema().text.clone(),
            codec: function.codec,
            items: recording.items,
            inputs: recording.layout(),
            // As the backend chooses, once it knows the rest.
            chunk: 1,
            parallel: 1,
            retries: self.retries,
            timeout_ms: self.timeout.map(millis).transpose()?,
            max_failures: self.max_failures,
            env: self.env.clone(),
            tags: self.tags.clone(),
            resources: self.resources()?,
            batch: None,
            created: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        })
    }
}

/// A remote function that maps would start processes without end, and on Batch needs rights that it does not have.
fn refuse_nesting(function: &Function) -> Result<()> {
    if !item::is_running() {
        return Ok(());
    }
    let name = function.id.name;
    Err(Error::new(ErrorKind::Nested, format!("failed to map `{name}`: this is inside a remote function"))
        .with_hint(format!("call `{name}(..)` here, and map over all inputs outside")))
}

/// `20261121-231502123-7f3k9a`: the time in UTC to the millisecond, then a random word.
fn new_run_id() -> String {
    use std::hash::BuildHasher;
    let now = SystemTime::now();
    let time: String = humantime::format_rfc3339_millis(now).to_string().chars().filter(char::is_ascii_digit).collect();
    // The hasher's keys come from the system's randomness, anew for each thread and each call.
    let mut random = std::hash::RandomState::new().hash_one((now, std::process::id()));
    let word: String = std::iter::repeat_with(|| {
        let digit = b"0123456789abcdefghjkmnpqrstvwxyz"[(random % 32) as usize];
        random /= 32;
        char::from(digit)
    })
    .take(6)
    .collect();
    format!("{}-{}-{word}", &time[..8], &time[8..])
}

fn inside<T>(future: impl Future<Output = Result<T>> + Send + 'static) -> BoxFuture<'static, Result<T>> {
    Box::pin(engine::inside(Box::pin(future)))
}

// Maps move between threads exactly where their inputs do.
#[allow(dead_code)]
fn assert_send<Args: Send>(submit: Submit<std::vec::IntoIter<Args>, Args, ()>) -> impl Send {
    let _: PhantomData<Args> = PhantomData;
    submit
}
