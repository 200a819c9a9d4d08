//! The backends that run maps. A backend handles bytes, ranges and states, never the function's types.

use std::fmt;
use std::sync::Arc;

use cloudknot_runtime::contract::{self, Manifest, Resources};
use cloudknot_runtime::function::Function;
use cloudknot_runtime::store::{BoxFuture, Store};

use crate::error::{Error, ErrorKind, Result};
#[cfg(not(cloudknot_worker))]
use crate::home;
use crate::record::Start;
use crate::record::job::Job;
use crate::record::ledger::Ledger;

#[cfg(all(feature = "aws", not(cloudknot_worker)))]
mod batch;
#[cfg(all(feature = "docker", not(cloudknot_worker)))]
mod docker;
mod folder_lock;
mod local;

/// A backend: the place where a map runs.
///
/// Without `.on(..)`, the environment variable `CLOUDKNOT_BACKEND` (`local`, `docker`, `batch`) chooses the backend. If it
/// is not set, maps run on the Knot that `cargo knot deploy` noted beside the crate, or on this machine if there is no such
/// note. A test harness ignores the note.
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
        Self(Arc::new(local::Local))
    }

    /// Returns the Docker backend: containers of the program's image in the Docker engine of this machine, with the same
    /// folder as the store. It shows on this machine what a worker in the cloud does within its limits of CPUs and memory.
    ///
    /// The image is the one that `cargo knot build` built last.
    #[cfg(feature = "docker")]
    pub fn docker() -> Self {
        #[cfg(not(cloudknot_worker))]
        let place = docker::Containers;
        // A worker submits nothing, but contains the program's code.
        #[cfg(cloudknot_worker)]
        let place = local::Local;
        Self(Arc::new(place))
    }

    /// Returns the AWS Batch backend, for the Knot that `cargo knot deploy` noted beside the crate.
    ///
    /// ```no_run
    /// # #[cloudknot::remote]
    /// # fn double(x: u32) -> u32 { 2 * x }
    /// let doubled = double.map([1, 2, 3]).on(cloudknot::Backend::batch()?).wait()?;
    /// # Ok::<(), cloudknot::Error>(())
    /// ```
    ///
    /// # Errors
    /// `NotFound` if no Knot is noted.
    #[cfg(feature = "aws")]
    pub fn batch() -> Result<Self> {
        #[cfg(not(cloudknot_worker))]
        let place = batch::OnKnot::noted()?;
        // A worker submits nothing, but contains the program's code.
        #[cfg(cloudknot_worker)]
        let place = local::Local;
        Ok(Self(Arc::new(place)))
    }

    /// Returns the AWS Batch backend for this Knot.
    #[cfg(all(feature = "deploy", not(cloudknot_worker)))]
    pub(crate) fn knot(note: crate::home::knot_note::KnotNote) -> Self {
        Self(Arc::new(batch::OnKnot::new(note)))
    }

    /// Returns the backend that the environment chooses, or else the backend of the noted Knot.
    pub(crate) fn chosen() -> Result<Self> {
        match std::env::var(contract::ENV_BACKEND).as_deref() {
            Err(_) | Ok("") => Self::noted(),
            Ok("local") => Ok(Self::local()),
            #[cfg(feature = "aws")]
            Ok("batch") => Self::batch(),
            #[cfg(not(feature = "aws"))]
            Ok("batch") => {
                Err(without_aws(&format!("`{}` is `batch`", contract::ENV_BACKEND), &Self::features_of_the_knot()))
            }
            #[cfg(feature = "docker")]
            Ok("docker") => Ok(Self::docker()),
            #[cfg(not(feature = "docker"))]
            Ok("docker") => Err(Error::new(
                ErrorKind::Config,
                format!(
                    "cannot choose a backend: `{}` is `docker`, but this program was built without the feature `docker`",
                    contract::ENV_BACKEND
                ),
            )
            .with_hint("enable the feature `docker` of cloudknot in Cargo.toml")),
            Ok(other) => Err(Error::new(
                ErrorKind::Config,
                format!("cannot choose a backend: `{}` is `{other}`", contract::ENV_BACKEND),
            )
            .with_hint("it can be: local, docker, batch")),
        }
    }

    /// Returns the backend of the Knot that is noted beside the crate; the local backend without such a note, and in a test
    /// harness.
    #[cfg(all(feature = "aws", not(cloudknot_worker)))]
    fn noted() -> Result<Self> {
        if !home::main_has_run() {
            return Ok(Self::local());
        }
        let note = crate::home::knot_note::KnotNote::read(&home::of_this_program())?;
        Ok(note.map_or_else(Self::local, |note| Self(Arc::new(batch::OnKnot::new(note)))))
    }

    /// Returns the options of cargo with which the Knot was deployed that is noted beside the crate, if one is.
    #[cfg(not(feature = "aws"))]
    fn features_of_the_knot() -> Vec<String> {
        #[cfg(cloudknot_worker)]
        let noted = None::<Vec<String>>;
        #[cfg(not(cloudknot_worker))]
        let noted =
            crate::home::knot_note::KnotNote::read(&home::of_this_program()).ok().flatten().map(|note| note.features);
        noted.unwrap_or_default()
    }

    #[cfg(all(not(feature = "aws"), not(cloudknot_worker)))]
    fn noted() -> Result<Self> {
        if !home::main_has_run() {
            return Ok(Self::local());
        }
        match crate::home::knot_note::KnotNote::read(&home::of_this_program())? {
            None => Ok(Self::local()),
            Some(note) => {
                Err(without_aws(&format!("the maps of this program run on the Knot `{}`", note.knot), &note.features))
            }
        }
    }

    #[cfg(cloudknot_worker)]
    #[expect(clippy::unnecessary_wraps, reason = "on a host it can fail")]
    fn noted() -> Result<Self> {
        Ok(Self::local())
    }

    pub(crate) fn executor(&self) -> &dyn Executor {
        &*self.0
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

    /// Starts to compute the missing items of the ledger's round. Reports progress to the ledger, and finally the end.
    fn launch(&self, ledger: &Arc<Ledger>, function: &'static Function, start: Start)
    -> BoxFuture<'static, Result<()>>;

    /// Returns the jobs of the run; empty on backends without jobs.
    fn jobs(&self, _: &Arc<Ledger>) -> BoxFuture<'static, Result<Vec<Job>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Cancels one item.
    fn cancel_item(&self, ledger: &Arc<Ledger>, item: u64) -> BoxFuture<'static, Result<()>> {
        let message =
            format!("cannot cancel item {item} of run {}: it has no job of its own", ledger.record.manifest.run);
        let error = Error::new(ErrorKind::Config, message).with_hint("cancel the run, or run it on AWS Batch");
        Box::pin(std::future::ready(Err(error)))
    }
}

/// Returns the error of a program without the feature `aws` that would run on AWS; `deployed` are the features that it was
/// deployed with.
#[cfg(not(feature = "aws"))]
fn without_aws(why: &str, deployed: &[String]) -> Error {
    let way = if deployed.is_empty() {
        "run `cargo add cloudknot --features aws`, then the program again".to_owned()
    } else {
        format!("run it with the features that it was deployed with: `cargo run {}`", deployed.join(" "))
    };
    let message = format!("cannot choose a backend: {why}, and it was built without the feature `aws` of cloudknot");
    Error::new(ErrorKind::Config, message).with_hint(format!("{way}; {}=local runs maps here", contract::ENV_BACKEND))
}

/// The division of a run: the number of items per part, and of items that run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunking {
    pub(crate) chunk: u64,
    pub(crate) parallel: u32,
}

/// Returns the number of items of this function that keep the machine busy: one per core, fewer if each needs several CPUs.
fn at_once(function: &Function, resources: &Resources) -> u32 {
    // The value was checked to be a small positive number.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let each = resources.vcpus.or(function.resources.vcpus).map_or(1, |vcpus| vcpus.ceil().max(1.0) as usize);
    u32::try_from((cores() / each).max(1)).unwrap_or(u32::MAX)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}
