//! Where a map runs. A backend speaks bytes, ranges and states, never the function's types.

use std::fmt;
use std::sync::Arc;

use cloudknot_runtime::contract::{self, Manifest, Resources};
use cloudknot_runtime::function::Function;
use cloudknot_runtime::store::{BoxFuture, Store};

use crate::error::{Error, ErrorKind, Result};
#[cfg(not(cloudknot_worker))]
use crate::home;
use crate::record::job::Job;
use crate::record::ledger::Ledger;

#[cfg(all(feature = "aws", not(cloudknot_worker)))]
mod batch;
#[cfg(all(feature = "docker", not(cloudknot_worker)))]
mod docker;
mod folder_lock;
mod local;

/// Where a map runs.
///
/// Without `.on(..)` it is what `CLOUDKNOT_BACKEND` says (`local`, `docker`, `batch`), else the Knot that `cargo knot deploy`
/// noted beside the crate, else this machine. In a test harness a Knot that is noted is not looked for.
///
/// ```
/// # #[cloudknot::remote]
/// # fn double(x: u32) -> u32 { 2 * x }
/// let doubled = double.map([1, 2, 3]).on(cloudknot::Backend::local()).wait()?;
/// assert_eq!(doubled, [2, 4, 6]);
/// # Ok::<(), cloudknot::Error>(())
/// ```
#[derive(Clone)]
pub struct Backend(Arc<dyn Place>);

impl Backend {
    /// This machine: one item process per core, over a folder.
    pub fn local() -> Self {
        Self(Arc::new(local::Local))
    }

    /// Containers of the program's image, in the Docker engine of this machine, over the same folder: what a worker in
    /// the cloud will do, with its limits of CPUs and memory, tried here.
    ///
    /// The image is the one that `cargo knot build` made last.
    #[cfg(feature = "docker")]
    pub fn docker() -> Self {
        #[cfg(not(cloudknot_worker))]
        let place = docker::Containers;
        // A worker submits nothing, but the program's code is in it.
        #[cfg(cloudknot_worker)]
        let place = local::Local;
        Self(Arc::new(place))
    }

    /// AWS Batch: the Knot that `cargo knot deploy` noted beside the crate.
    ///
    /// ```no_run
    /// # #[cloudknot::remote]
    /// # fn double(x: u32) -> u32 { 2 * x }
    /// let doubled = double.map([1, 2, 3]).on(cloudknot::Backend::batch()?).wait()?;
    /// # Ok::<(), cloudknot::Error>(())
    /// ```
    ///
    /// # Errors
    /// `NotFound` where none is noted.
    #[cfg(feature = "aws")]
    pub fn batch() -> Result<Self> {
        #[cfg(not(cloudknot_worker))]
        let place = batch::OnKnot::noted()?;
        // A worker submits nothing, but the program's code is in it.
        #[cfg(cloudknot_worker)]
        let place = local::Local;
        Ok(Self(Arc::new(place)))
    }

    /// AWS Batch: this Knot.
    #[cfg(all(feature = "deploy", not(cloudknot_worker)))]
    pub(crate) fn knot(note: crate::home::knot_note::KnotNote) -> Self {
        Self(Arc::new(batch::OnKnot::new(note)))
    }

    /// The one that the environment asks for, or the Knot that is noted.
    pub(crate) fn chosen() -> Result<Self> {
        match std::env::var(contract::ENV_BACKEND).as_deref() {
            Err(_) | Ok("") => Self::noted(),
            Ok("local") => Ok(Self::local()),
            #[cfg(feature = "aws")]
            Ok("batch") => Self::batch(),
            #[cfg(not(feature = "aws"))]
            Ok("batch") => Err(without_aws(&format!("`{}` is `batch`", contract::ENV_BACKEND), &[])),
            #[cfg(feature = "docker")]
            Ok("docker") => Ok(Self::docker()),
            #[cfg(not(feature = "docker"))]
            Ok("docker") => Err(Error::new(
                ErrorKind::Config,
                format!(
                    "failed to choose a backend: `{}` is `docker`, which this program was built without",
                    contract::ENV_BACKEND
                ),
            )
            .with_hint("give cloudknot the feature `docker` in Cargo.toml")),
            Ok(other) => Err(Error::new(
                ErrorKind::Config,
                format!("failed to choose a backend: `{}` is `{other}`", contract::ENV_BACKEND),
            )
            .with_hint("it can be: local, docker, batch")),
        }
    }

    /// The Knot that is noted beside the crate; this machine where none is, and in a test harness.
    #[cfg(all(feature = "aws", not(cloudknot_worker)))]
    fn noted() -> Result<Self> {
        if !home::main_has_run() {
            return Ok(Self::local());
        }
        let note = crate::home::knot_note::KnotNote::read(&home::of_this_program())?;
        Ok(note.map_or_else(Self::local, |note| Self(Arc::new(batch::OnKnot::new(note)))))
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

    pub(crate) fn place(&self) -> &dyn Place {
        &*self.0
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({})", self.0.name())
    }
}

/// What every backend does.
pub(crate) trait Place: Send + Sync {
    /// Its name, as `CLOUDKNOT_BACKEND` spells it.
    fn name(&self) -> &'static str;

    /// Where it keeps runs.
    fn store(&self) -> Result<Arc<dyn Store>>;

    /// The Knot that runs of this function belong to.
    fn knot(&self, function: &Function) -> String;

    /// Refuses, before anything is read or stored, a function that cannot run there.
    fn check(&self, _: &'static Function) -> Result<()> {
        Ok(())
    }

    /// How many items make a part, and how many run at once, where the user did not say.
    fn chunking(&self, function: &Function, resources: &Resources, items: u64) -> Chunking;

    /// Adds to the record of a run what of this backend must not change under it.
    fn pin(&self, _: &mut Manifest, _: &Function, _independent: bool) -> Result<()> {
        Ok(())
    }

    /// Begins to compute what the ledger's round is missing; then tells the ledger as it goes on, and at last that it is
    /// finished. `known` is whether the ledger has seen all that is stored: a run that was just recorded has nothing.
    fn launch(&self, ledger: &Arc<Ledger>, function: &'static Function, known: bool) -> BoxFuture<'static, Result<()>>;

    /// The jobs of the run, where there are such.
    fn jobs(&self, _: &Arc<Ledger>) -> BoxFuture<'static, Result<Vec<Job>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Ends one item.
    fn cancel_item(&self, ledger: &Arc<Ledger>, item: u64) -> BoxFuture<'static, Result<()>> {
        let message =
            format!("failed to cancel item {item} of run {}: it has no job of its own", ledger.record.manifest.run);
        let error = Error::new(ErrorKind::Config, message).with_hint("cancel the run, or run it on AWS Batch");
        Box::pin(std::future::ready(Err(error)))
    }
}

/// The error of a program without the feature `aws` that would run on AWS; `deployed` are the features that it was deployed with.
#[cfg(not(feature = "aws"))]
fn without_aws(why: &str, deployed: &[String]) -> Error {
    let way = if deployed.is_empty() {
        "run `cargo add cloudknot --features aws`, then the program again".to_owned()
    } else {
        format!("run it with the features that it was deployed with: `cargo run --features {}`", deployed.join(","))
    };
    let message = format!("cannot choose a backend: {why}, and it was built without the feature `aws` of cloudknot");
    Error::new(ErrorKind::Config, message).with_hint(format!("{way}; {}=local runs maps here", contract::ENV_BACKEND))
}

/// How a run is cut up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunking {
    pub(crate) chunk: u64,
    pub(crate) parallel: u32,
}

/// How many items of this function keep the machine busy: one a core, fewer where each asks for several CPUs.
fn at_once(function: &Function, resources: &Resources) -> u32 {
    // It was checked to be a small positive number.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let each = resources.vcpus.or(function.resources.vcpus).map_or(1, |vcpus| vcpus.ceil().max(1.0) as usize);
    u32::try_from((cores() / each).max(1)).unwrap_or(u32::MAX)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}
