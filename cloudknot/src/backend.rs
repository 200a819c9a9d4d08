//! The backends that run maps. A backend handles bytes, ranges and states, never the function's types.

use std::fmt;
use std::fs::File;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use cloudknot_runtime::contract::{self, Manifest, Resources, Round, RunKeys};
use cloudknot_runtime::function::{self, Function};
use cloudknot_runtime::store::{BoxFuture, Object, Store};

use crate::error::{Absent, Error, ErrorKind, Result};
use crate::home;
use crate::home::knot_note::KnotNote;
use crate::host::host;
use crate::record::job::Job;
use crate::record::ledger::Ledger;
use crate::record::{Record, Start};

#[cfg(all(feature = "aws", not(cloudknot_worker)))]
mod batch;
#[cfg(all(feature = "deploy", not(cloudknot_worker)))]
mod docker;
mod folder_lock;
mod local;

/// A backend: the place where a map runs.
///
/// Without `.on(..)`, the environment variable `CLOUDKNOT_BACKEND` (`local`, `docker`, `batch`) chooses the backend. If it
/// is not set, maps run on the Knot that `cargo knot deploy` recorded in `.cloudknot/`, or on this machine if no Knot
/// is recorded. A test harness ignores the record.
///
/// The record is read beside the crate, or in the folder that `CLOUDKNOT_HOME` names. An installed program, whose crate does not
/// exist on its machine, heeds a record only if `CLOUDKNOT_HOME` is set: the folder in which it is started never decides where
/// inputs are sent. Its runs are stored in `.cloudknot/` in that folder.
///
/// ```
/// # #[cloudknot::remote]
/// # fn double(x: u32) -> u32 { 2 * x }
/// let doubled = double.map([1, 2, 3]).on(cloudknot::Backend::local()).wait()?;
/// assert_eq!(doubled, [2, 4, 6]);
/// # Ok::<(), cloudknot::Error>(())
/// ```
#[derive(Clone)]
pub struct Backend(Arc<dyn Executor>);

impl Backend {
    /// Returns the local backend: one item process per core on this machine, with a folder as the store.
    pub fn local() -> Self {
        Self(Arc::new(local::Local::default()))
    }

    /// Returns the Docker backend: containers of the program's image in the Docker engine of this machine, with the same
    /// folder as the store. A container is limited to the CPUs and the memory that the map or the function
    /// requests.
    ///
    /// The image is the one that `cargo knot build` built last.
    #[cfg(feature = "deploy")]
    pub fn docker() -> Self {
        host!(Self(Arc::new(docker::Containers)))
    }

    /// Returns the local backend over the runs in this folder.
    pub(crate) fn folder(home: PathBuf) -> Self {
        Self(Arc::new(local::Local::of(home)))
    }

    /// Returns the backend that the environment chooses, or else the backend of the recorded Knot.
    pub(crate) fn chosen() -> Result<Self> {
        match std::env::var(contract::ENV_BACKEND).as_deref() {
            Err(_) | Ok("") => Self::recorded(),
            Ok(name) => Self::named(name, contract::ENV_BACKEND),
        }
    }

    /// Returns the backend of this name, which `given` has.
    pub(crate) fn named(name: &str, given: &str) -> Result<Self> {
        match name {
            "local" => Ok(Self::local()),
            "batch" => Self::batch(),
            #[cfg(feature = "deploy")]
            "docker" => Ok(Self::docker()),
            other => {
                let message = format!("invalid `{given}`: `{other}` is not a backend");
                let hint = match other {
                    "docker" => {
                        "this program was built without the feature `deploy`: run `cargo add cloudknot --features deploy`, then the program again"
                    }
                    _ => "set it to `local`, `docker` or `batch`",
                };
                Err(Error::new(ErrorKind::Config, message).with_hint(hint))
            }
        }
    }

    /// Returns the backend of the Knot that is recorded in `.cloudknot/`; the local backend if none is recorded, in a
    /// test harness, and in a worker.
    fn recorded() -> Result<Self> {
        if !home::main_has_run() {
            return Ok(Self::local());
        }
        KnotNote::of_this_program()?.map_or_else(|| Ok(Self::local()), Self::knot)
    }

    pub(crate) fn executor(&self) -> &dyn Executor {
        &*self.0
    }
}

#[cfg(feature = "aws")]
impl Backend {
    /// Returns the AWS Batch backend, for the Knot that `cargo knot deploy` recorded in `.cloudknot/`.
    ///
    /// ```no_run
    /// # #[cloudknot::remote]
    /// # fn double(x: u32) -> u32 { 2 * x }
    /// let doubled = double.map([1, 2, 3]).on(cloudknot::Backend::batch()?).wait()?;
    /// # Ok::<(), cloudknot::Error>(())
    /// ```
    ///
    /// # Errors
    /// `NotFound` if no Knot is recorded.
    pub fn batch() -> Result<Self> {
        host!(Ok(Self(Arc::new(batch::KnotBackend::recorded()?))))
    }

    /// Returns the AWS Batch backend for this Knot.
    #[allow(clippy::unnecessary_wraps, reason = "a worker and a program without the feature have none")]
    pub(crate) fn knot(note: KnotNote) -> Result<Self> {
        host!(Ok(Self(Arc::new(batch::KnotBackend::new(note)))))
    }
}

/// Errors for the backends that this program was built without.
#[cfg(not(feature = "aws"))]
impl Backend {
    fn batch() -> Result<Self> {
        let note = KnotNote::of_this_program().ok().flatten();
        Err(Self::without_aws(&format!("`{}` is `batch`", contract::ENV_BACKEND), note.as_ref()))
    }

    #[expect(clippy::needless_pass_by_value, reason = "with the feature, the backend keeps the note")]
    pub(crate) fn knot(note: KnotNote) -> Result<Self> {
        Err(Self::without_aws(&format!("the maps of this program run on the Knot `{}`", note.knot), Some(&note)))
    }

    fn without_aws(why: &str, note: Option<&KnotNote>) -> Error {
        let remedy = match note.map(|note| note.features.join(" ")).filter(|features| !features.is_empty()) {
            None => "run `cargo add cloudknot --features aws`, then the program again".to_owned(),
            Some(features) => format!("run the program with the features of its deploy: `cargo run {features}`"),
        };
        let message =
            format!("cannot choose a backend: {why}, but the program was built without the feature `aws` of cloudknot");
        Error::new(ErrorKind::Config, message)
            .with_hint(format!("{remedy}; {}=local runs maps on this machine", contract::ENV_BACKEND))
    }
}

/// The backend that [`Backend::docker`] returns in a worker, which submits nothing.
impl Absent for Backend {
    fn absent() -> Self {
        Self::local()
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({})", self.0.name())
    }
}

/// The operations of a backend.
pub(crate) trait Executor: Send + Sync {
    /// Returns the name, as spelled in `CLOUDKNOT_BACKEND`.
    fn name(&self) -> &'static str;

    /// Returns the store that keeps the runs.
    fn store(&self) -> Result<Arc<dyn Store>>;

    /// Returns the name of the Knot that runs of this function belong to.
    fn knot(&self, function: &Function) -> String;

    /// Returns an error for a function that cannot run on this backend. Called before anything is read or stored.
    fn check(&self, _: &'static Function) -> Result<()> {
        Ok(())
    }

    /// Returns the default number of items in a part, and of items that run at once.
    fn chunking(&self, function: &Function, resources: &Resources, items: u64) -> Chunking;

    /// Freezes the backend's settings in the manifest, so that later deploys do not affect this run.
    fn fill_manifest(&self, _: &mut Manifest, _: &Function, _independent: bool) -> Result<()> {
        Ok(())
    }

    /// Freezes the backend's settings in the round after `last`, so that later deploys do not affect it. The resources are those of
    /// the function's attribute.
    ///
    /// # Errors
    /// Returns an error if the backend cannot run this code.
    fn fill_round(&self, _: &mut Round, last: &Record, _: &function::Resources, code: Code) -> Result<()> {
        match code {
            Code::Current => Ok(()),
            Code::Old => Err(old_code_error(&last.manifest)),
        }
    }

    /// Returns this backend as it is deployed now; `None` if it has not changed since this one was created.
    fn renewed(&self) -> Result<Option<Backend>> {
        Ok(None)
    }

    /// Starts to compute the missing items of the ledger's round. Reports progress to the ledger, and finally the end.
    fn launch(&self, ledger: &Arc<Ledger>, function: &'static Function, start: Start)
    -> BoxFuture<'static, Result<()>>;

    /// Starts to compute the ledger's round, without the function: what computes it has the function itself. Otherwise as
    /// [`launch`](Self::launch), except that all of the round is submitted when this is done. The resources are those of the function's
    /// attribute.
    ///
    /// # Errors
    /// `Config` on this machine, where the program of the function computes the round.
    fn launch_deployed(&self, ledger: &Arc<Ledger>, _: &function::Resources) -> BoxFuture<'static, Result<()>> {
        let Manifest { run, backend, .. } = &ledger.record.manifest;
        let message = format!("cannot retry run {run}: the backend `{backend}` runs the items in the program itself");
        let error = Error::new(ErrorKind::Config, message).with_hint("retry it in the program with `retry_failed()`");
        Box::pin(std::future::ready(Err(error)))
    }

    /// Cancels a round that this program no longer follows, although jobs of it may run.
    fn cancel_ended(&self, _: &Arc<Ledger>) -> BoxFuture<'static, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Returns the only Knot whose runs are in the store; `None` if the store is a folder, which has those of several packages.
    fn only_knot(&self) -> Option<&str> {
        None
    }

    /// Returns the folder of the runs on the local backend.
    fn home(&self) -> Option<PathBuf> {
        None
    }

    /// Returns the AWS region of the store.
    fn region(&self) -> Option<&str> {
        None
    }

    /// Returns what computes the ledger's round, which has items without an outcome. `objects` are those of the run. Sends only
    /// requests that read.
    fn activity(&self, ledger: &Arc<Ledger>, objects: &[Object]) -> BoxFuture<'static, Result<Activity>>;

    /// Returns whether a program holds the lock of a run, which only folders have.
    fn is_held(&self, _: &RunKeys) -> BoxFuture<'static, Result<bool>> {
        Box::pin(std::future::ready(Ok(false)))
    }

    /// Holds the lock of a run, so that no program computes it until this is dropped. Returns `None` if a program does. Only folders
    /// have locks.
    fn hold(&self, _: &RunKeys) -> BoxFuture<'static, Result<Option<Hold>>> {
        Box::pin(std::future::ready(Ok(Some(Hold(None)))))
    }

    /// Removes the empty folders that a deletion leaves in a folder of objects.
    fn remove_empty_folders(&self, _: &str) -> BoxFuture<'static, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Returns the jobs of the run; empty on backends without jobs.
    fn jobs(&self, _: &Arc<Ledger>) -> BoxFuture<'static, Result<Vec<Job>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Returns the log streams of the jobs that run these items in the ledger's round, as far as the backend still knows the jobs. Sends
    /// only requests that read.
    fn log_streams(&self, _: &Arc<Ledger>, _items: Vec<RangeInclusive<u64>>) -> BoxFuture<'static, Result<LogStreams>> {
        Box::pin(std::future::ready(Ok(LogStreams::default())))
    }

    /// Reads a page of log streams. A backend without jobs has none.
    ///
    /// # Errors
    /// `NotFound` if the group or one of the streams does not exist.
    fn read_log(&self, _: LogPageRequest) -> BoxFuture<'static, Result<LogPage>> {
        Box::pin(std::future::ready(Ok(LogPage::default())))
    }

    /// Cancels these items, all or none.
    ///
    /// # Errors
    /// `Config` if an item has no job of its own.
    fn cancel_items(&self, ledger: &Arc<Ledger>, items: Vec<u64>) -> BoxFuture<'static, Result<()>> {
        let item = items.first().copied().unwrap_or_default();
        let message =
            format!("cannot cancel item {item} of run {}: it has no job of its own", ledger.record.manifest.run);
        let error = Error::new(ErrorKind::Config, message).with_hint("cancel the run, or run it on AWS Batch");
        Box::pin(std::future::ready(Err(error)))
    }
}

/// The code that a round after the first runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// The program as it is now.
    Current,
    /// The program of the round before.
    Old,
}

fn old_code_error(manifest: &Manifest) -> Error {
    let Manifest { run, backend, provenance, .. } = manifest;
    let message =
        format!("cannot retry run {run} with its old code: the backend `{backend}` does not keep the program");
    let remedy = match &provenance.program.revision {
        Some(revision) => format!("build the git revision {revision}, and retry from that program"),
        None => "build the earlier program again, and retry from that".to_owned(),
    };
    Error::new(ErrorKind::Config, message).with_hint(remedy)
}

/// Log streams of jobs.
#[derive(Debug, Default)]
pub(crate) struct LogStreams {
    pub(crate) all: Vec<LogStream>,
    /// `true` if there are more jobs, which were not described.
    pub(crate) is_cut: bool,
}

/// Log stream of a job's attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogStream {
    pub(crate) group: String,
    pub(crate) stream: String,
    /// Round of the job, if it is known.
    pub(crate) round: Option<u32>,
}

/// Request of a page of several log streams, in the order of their times.
#[derive(Debug, Clone)]
#[allow(dead_code, reason = "only AWS Batch has log streams")]
pub(crate) struct LogPageRequest {
    pub(crate) group: String,
    pub(crate) streams: Vec<String>,
    /// Pattern of the lines, in the syntax of CloudWatch Logs.
    pub(crate) pattern: Option<String>,
    /// Time of the first line, in milliseconds since 1970.
    pub(crate) from_ms: u64,
    /// Token of the page; `None` for the first one.
    pub(crate) token: Option<String>,
}

/// Page of log streams. It may be empty although another one follows.
#[derive(Debug, Default)]
pub(crate) struct LogPage {
    pub(crate) events: Vec<LogEvent>,
    /// Token of the next page; `None` for the last one.
    pub(crate) next: Option<String>,
}

/// A line in a log stream.
#[derive(Debug, Clone)]
pub(crate) struct LogEvent {
    /// ID, unique in the group.
    pub(crate) id: String,
    pub(crate) stream: String,
    /// Time in milliseconds since 1970.
    pub(crate) time_ms: u64,
    pub(crate) text: String,
}

/// Work on a round that has items without an outcome, as far as a look from outside shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Activity {
    /// A program computes the round, or its jobs have not ended.
    Computed {
        /// Number of items that are running; an estimate.
        running: u64,
        /// Reason why none is running, if it is known.
        waiting_because: Option<String>,
    },
    /// Nothing computes the round, for this reason. An attach continues it.
    Abandoned(String),
    /// All jobs of the round have ended.
    Over,
}

/// The lock of a run in a folder, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold(#[allow(dead_code, reason = "dropping the file releases the lock")] Option<File>);

/// The division of a run: the number of items per part, and of items that run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunking {
    pub(crate) chunk: u64,
    pub(crate) parallel: u32,
}

/// Returns the number of items of this function that use all cores: one per core, fewer if each item needs several
/// CPUs.
fn max_concurrent(function: &Function, resources: &Resources) -> u32 {
    // The value was checked to be a small positive number.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let vcpus = resources.vcpus.or(function.resources.vcpus).map_or(1, |vcpus| vcpus.ceil().max(1.0) as usize);
    u32::try_from((cores() / vcpus).max(1)).unwrap_or(u32::MAX)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}
