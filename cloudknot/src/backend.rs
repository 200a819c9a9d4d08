//! Where a map runs. A backend speaks bytes, ranges and states, never the function's types.

use std::fmt;
use std::sync::Arc;

use cloudknot_runtime::contract;
use cloudknot_runtime::function::Function;
use cloudknot_runtime::store::Store;

use crate::error::{Error, ErrorKind, Result};
use crate::ledger::Ledger;

#[cfg(all(feature = "docker", not(cloudknot_worker)))]
mod docker;
mod local;
mod turns;

/// Where a map runs.
///
/// Without `.on(..)` it is what `CLOUDKNOT_BACKEND` says, else this machine.
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

    /// The one that the environment asks for.
    pub(crate) fn chosen() -> Result<Self> {
        match std::env::var(contract::ENV_BACKEND).as_deref() {
            Err(_) | Ok("" | "local") => Ok(Self::local()),
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
            .with_hint("it can be: local, docker")),
        }
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

    /// How many items make a part, and how many run at once, where the user did not say.
    fn chunking(&self, function: &Function, items: u64) -> Chunking;

    /// Computes what the ledger's round is missing, tells the ledger as it goes on, and at last that it is finished.
    /// `known` is whether the ledger has seen all that is stored: a run that was just recorded has nothing.
    fn launch(&self, ledger: &Arc<Ledger>, function: &'static Function, known: bool) -> Result<()>;
}

/// How a run is cut up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunking {
    pub(crate) chunk: u64,
    pub(crate) parallel: u32,
}

/// How many items of this function keep the machine busy: one a core, fewer where each asks for several CPUs.
fn at_once(function: &Function) -> u32 {
    // The macro has checked that it is a small positive number.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let each = function.resources.vcpus.map_or(1, |vcpus| vcpus.ceil().max(1.0) as usize);
    u32::try_from((cores() / each).max(1)).unwrap_or(u32::MAX)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
