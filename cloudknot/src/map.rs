//! A map: one function over many inputs. `options` are what a person says of it, `submit` records its inputs (`inputs`) in the
//! store, and only then launches the run.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cloudknot_runtime::function::Function;

use crate::backend::Backend;
use crate::error::Result;
use crate::pending::{Pending, wait};
use crate::remote::{Decode, Encode, RemoteFn};
use crate::run::{self, Run};

mod inputs;
mod options;
mod submit;

use options::Options;
pub use submit::Submit;
use submit::refuse_nesting;

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
        let options = Options::of(self.function);
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
        Submit::new(self)
    }

    /// Waits on this thread for all values, in order.
    pub fn wait(self) -> Result<Vec<Output>>
    where
        Output: Send + 'static,
    {
        wait(self.into_future())
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

// Nothing here is pinned: the iterator is only ever called.
impl<It, Args, Output> Unpin for MapFuture<It, Args, Output> {}
