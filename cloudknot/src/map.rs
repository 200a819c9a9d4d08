//! A map: one function applied to many inputs. `options` holds the user's settings. `submit` writes the inputs (`inputs`)
//! and the manifest to the store, and only then launches the run. `resume`
//! finds the run that goes on instead.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cloudknot_runtime::contract::{Manifest, Parent};
use cloudknot_runtime::function::Function;

use crate::backend::Backend;
use crate::error::Result;
use crate::pending::{Pending, wait};
use crate::remote::{Decode, Encode, RemoteFn};
use crate::run::{self, Run};

mod inputs;
mod options;
mod resume;
mod submit;

use options::Options;
pub use submit::Submit;
use submit::refuse_nesting;

impl<Args, Output, F> RemoteFn<Args, Output, F> {
    /// Maps the function over many inputs. Await the map for all values in input order, or [`submit`](Map::submit) it.
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

    /// Runs the function on one input, on the backend that maps use.
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

    /// Attaches to a run that was submitted before, by this program or another: reads the stored outcomes and computes the
    /// missing ones.
    ///
    /// # Errors
    /// `NotFound` if there is no such run, `Types` if the function's types are not those of the run.
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

    /// Opens a run to read what is stored of it. Unlike [`attach`](Self::attach), this computes nothing and submits nothing.
    ///
    /// The handle shows the run as it was at this moment: an item without an outcome has an error that says so, of the kind
    /// [`Infrastructure`](crate::ItemErrorKind::Infrastructure) if the run has not ended. [`Run::cancel`] cancels the run itself, and
    /// [`Run::retry_failed`] first attaches to it, waits for its end, and then runs the failed items again.
    ///
    /// ```
    /// # #[cloudknot::remote]
    /// # fn double(x: u32) -> u32 { 2 * x }
    /// # let id = double.map([1, 2, 3]).submit().wait()?;
    /// # id.finished().wait()?;
    /// # let id = id.id();
    /// let run = double.look(id).wait()?;
    /// assert_eq!(run.status().succeeded, 3);
    /// assert_eq!(run.values().wait()?, [2, 4, 6]);
    /// # Ok::<(), cloudknot::Error>(())
    /// ```
    ///
    /// # Errors
    /// `NotFound` if there is no such run, `Types` if the function's types are not those of the run.
    pub fn look(&self, run: &str) -> Pending<Run<Output>>
    where
        Output: Send,
    {
        let (run, function, decode) = (run.to_owned(), self.function, self.decode);
        Pending::new(async move { run::look(&run, function, decode, Backend::chosen()?).await })
    }
}

/// A function and its inputs, with options. Does nothing until it is awaited or submitted.
#[must_use = "a map does nothing until it is awaited, or submitted"]
pub struct Map<It, Args, Output> {
    inputs: It,
    function: &'static Function,
    encode: Encode<Args>,
    decode: Decode<Output>,
    options: Options,
}

impl<It, Args, Output> Map<It, Args, Output> {
    /// Gives the run a name, by which it is shown and can be chosen in place of its ID. Several runs may have the same name. It
    /// has 1 to 64 bytes without control characters, and must look neither like `last` nor like (a part of) the ID of a run.
    ///
    /// ```
    /// # #[cloudknot::remote]
    /// # fn double(x: u32) -> u32 { 2 * x }
    /// assert_eq!(double.map([1, 2, 3]).name("sweep 3").wait()?, [2, 4, 6]);
    /// # Ok::<(), cloudknot::Error>(())
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = Some(name.into());
        self
    }

    /// Goes on with the last run of this function with equal inputs, if it has not ended: after a `kill -9` or a power cut, the same
    /// command continues where it was. If another program computes that run, this one follows it. If there is no such run, or it is
    /// done, failed or cancelled, a new one is submitted.
    ///
    /// Inputs are equal if they are encoded to the same bytes, which a hash of each shows; function, types, backend, Knot and
    /// [`name`](Self::name) must be the same as well. The run goes on with its own options and, on AWS Batch, with its image; if this
    /// program is another one than then, a line says so. Runs of this month and the two before it are considered.
    ///
    /// A `HashMap` or `HashSet` has its entries in another order in each program. Inputs that contain one are refused, unless the run
    /// has a name: it is then found by its name and its number of items.
    ///
    /// The inputs are read, encoded and written as for a new run, because only the end of the iterator shows whether they are equal.
    /// If a run goes on, they are removed again.
    ///
    /// ```
    /// # #[cloudknot::remote]
    /// # fn double(x: u32) -> u32 { 2 * x }
    /// assert_eq!(double.map([1, 2, 3]).resume().wait()?, [2, 4, 6]);
    /// # Ok::<(), cloudknot::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Input` if the inputs contain maps or sets without an order, and the run has no name.
    pub fn resume(mut self) -> Self {
        self.options.resume = true;
        self
    }

    /// Submits a new run in any case, which is the default. Undoes [`resume`](Self::resume).
    ///
    /// ```
    /// # #[cloudknot::remote]
    /// # fn double(x: u32) -> u32 { 2 * x }
    /// let map = double.map([1, 2, 3]).resume();
    /// assert_eq!(map.fresh().wait()?, [2, 4, 6]);
    /// # Ok::<(), cloudknot::Error>(())
    /// ```
    pub fn fresh(mut self) -> Self {
        self.options.resume = false;
        self
    }

    /// Sets the number of items that are stored together and, on Batch, run by one job. Must be at least 1.
    pub fn chunk(mut self, items: u64) -> Self {
        self.options.chunk = Some(items);
        self
    }

    /// Sets the number of items that run at once: in total on this machine, in each worker on Batch, where they share the
    /// job's resources. Must be at least 1.
    pub fn parallel(mut self, items: u32) -> Self {
        self.options.parallel = Some(items);
        self
    }

    /// Sets an environment variable of the item processes. The variable is kept in the run's record, so it must not hold
    /// secrets.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.env.insert(name.into(), value.into());
        self
    }

    /// Sets a tag of the run. The tag is kept in the run's record; on Batch, the run's jobs have it, too.
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.tags.insert(name.into(), value.into());
        self
    }

    /// Cancels the remaining items once this many items have failed for good. Must be at least 1.
    pub fn max_failures(mut self, items: u64) -> Self {
        self.options.max_failures = Some(items);
        self
    }

    /// Replaces each item process after so many items: for a function that leaves something behind which makes the next
    /// items fail or slower. Must be at least 1. Overrides the function's attribute.
    ///
    /// Without it, a process is replaced when an item panicked or ended it, and when its memory exceeds both twice what it
    /// was after its first item and a quarter of its share of the machine. Items of one process share its statics, threads
    /// and environment; each begins in the program's working folder.
    pub fn recycle(mut self, items: u64) -> Self {
        self.options.recycle = Some(items);
        self
    }

    /// Sets how often a failed item is retried. Overrides the function's attribute.
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// Sets the timeout of one attempt of an item. Overrides the function's attribute.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Sets the number of virtual CPUs of each job, which must be more than 0. Overrides the deployed value. On this
    /// machine, it determines how many items run at once.
    pub fn vcpus(mut self, vcpus: f64) -> Self {
        self.options.vcpus = Some(vcpus);
        self
    }

    /// Sets the memory of each job, such as `"8 GiB"`. Overrides the deployed value. Enforced in Docker and on Batch, but
    /// not by the local backend.
    pub fn memory(mut self, memory: impl Into<String>) -> Self {
        self.options.memory = Some(memory.into());
        self
    }

    /// Sets the memory of each job for items that [`retry_failed`](Run::retry_failed) runs again: some inputs need more than
    /// most.
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

    /// Sets the number of GPUs of each job. Overrides the deployed value. Only Batch uses it.
    pub fn gpus(mut self, gpus: u32) -> Self {
        self.options.gpus = Some(gpus);
        self
    }

    /// Submits a separate job for each chunk, instead of one array job. Submission is slower, but each job can be viewed and
    /// ended individually in the console. Only Batch uses it.
    pub fn independent(mut self) -> Self {
        self.options.independent = true;
        self
    }

    /// Takes over the settings of a run, whose items this map computes on another backend: all that its own backend does not decide.
    pub(crate) fn of_parent(mut self, manifest: &Manifest, items: Vec<Range<u64>>) -> Self {
        self.options.parent = Some(Parent { run: manifest.run.clone(), items });
        self.options.name.clone_from(&manifest.name);
        self.options.retries = manifest.retries;
        self.options.timeout = manifest.timeout_ms.map(Duration::from_millis);
        self.options.recycle = manifest.recycle;
        self.options.max_failures = manifest.max_failures;
        self.options.env.clone_from(&manifest.env);
        self.options.tags.clone_from(&manifest.tags);
        self
    }

    /// Sets the backend.
    pub fn on(mut self, backend: Backend) -> Self {
        self.options.backend = Some(backend);
        self
    }
}

impl<It: Iterator<Item = Args>, Args, Output> Map<It, Args, Output> {
    /// Records the inputs and launches the run.
    ///
    /// The thread that polls the submission drives the iterator. The inputs are never held in memory as a whole. If the
    /// iterator panics, nothing is submitted.
    pub fn submit(self) -> Submit<It, Args, Output> {
        Submit::new(self)
    }

    /// Waits on this thread for all values, and returns them in input order.
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

/// The future of an awaited map: submits the map, then reads the values.
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

// No field is structurally pinned: the iterator is only called through `&mut`.
impl<It, Args, Output> Unpin for MapFuture<It, Args, Output> {}
