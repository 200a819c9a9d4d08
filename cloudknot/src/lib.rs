//! Run a Rust function over many inputs. On a laptop it runs at once, with nothing to install.
//!
//! ```
//! /// How many steps the Collatz sequence takes from `n` to 1.
//! #[cloudknot::remote]
//! fn steps(n: u64) -> u32 {
//!     let next = |n: u64| if n % 2 == 0 { n / 2 } else { 3 * n + 1 };
//!     let steps = std::iter::successors(Some(n), |&n| (n != 1).then(|| next(n))).count() - 1;
//!     u32::try_from(steps).expect("no small number takes that many")
//! }
//!
//! #[cloudknot::main]
//! async fn main() -> cloudknot::Result<()> {
//!     assert_eq!(steps(27), 111); // an ordinary call
//!     let all = steps.map(1..=1000).await?; // one result per input, in order
//!     assert_eq!(all.iter().max(), Some(&178));
//!     Ok(())
//! }
//! ```
//!
//! - [`remote`] makes a function remote; [`main`] makes a program able to run its items in processes of their own.
//! - [`RemoteFn::map`] gives a [`Map`]: await it for all values, or [`submit`](Map::submit) it for a [`Run`], which gives
//!   results as they complete, partial results where items fail, and an id by which any program takes it up again.
//! - An item that panics, crashes, runs out of memory or overruns costs its own item and nothing else: see
//!   [`ItemError`].
//!
//! # Where a map runs
//!
//! On the Knot of AWS Batch that `cargo knot deploy` noted beside the crate; where none is, on this machine, one item process
//! per core, over the folder `.cloudknot/` beside the crate. A program without [`main`] (a test harness) runs its items on
//! threads in-process: there a panic fails one item, but an abort, a fault or a stack overflow ends the program, timeouts are
//! not enforced, and [`Map::env`] sets nothing.
//!
//! | variable | what it sets |
//! |---|---|
//! | `CLOUDKNOT_BACKEND` | where maps run: `local`, `docker` or `batch` |
//! | `CLOUDKNOT_HOME` | the folder that keeps runs |
//! | `CLOUDKNOT_PROGRESS` | what the terminal shows: `off`, `plain` or `bar` |
//!
//! # Features
//!
//! - `progress` (default): the terminal shows where a map runs, how far it is, and what failed.
//! - `aws`: maps on AWS Batch, and the S3 store in their workers. Compiles a part of the AWS SDK, which takes minutes the first
//!   time. `cargo knot deploy` says how to turn it on, and does that with `--add-feature`.
//! - `deploy`: from a program to its worker, to an image, into a registry and onto AWS, from code.
//! - `docker`: images by the local Docker engine.
//!
//! The command `cargo knot` is a package of its own, `cargo-knot`.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(cloudknot_allocator = "mimalloc")]
mod allocator;
#[cfg(all(feature = "aws", not(cloudknot_worker)))]
mod aws;
mod backend;
#[cfg(feature = "deploy")]
mod build;
#[cfg(feature = "deploy")]
mod deploy;
mod error;
mod event;
mod home;
mod map;
mod pending;
mod program;
mod record;
mod remote;
mod run;
mod settings;
#[cfg(all(feature = "progress", not(cloudknot_worker)))]
mod terminal;

pub use backend::Backend;
/// Makes a function remote: it is called as before, and can be mapped over many inputs.
///
/// ```no_run
/// /// The sum of the first `n` squares.
/// #[cloudknot::remote(vcpus = 1, memory = "512 MiB", retries = 2, timeout = "15m")]
/// fn squares(n: u64) -> u64 {
///     (1..=n).map(|k| k * k).sum()
/// }
///
/// #[cloudknot::main]
/// async fn main() -> cloudknot::Result<()> {
///     assert_eq!(squares(3), 14); // here and now
///     let all: Vec<u64> = squares.map(1..=100).await?; // wherever maps run
///     assert_eq!(all[2], 14);
///     Ok(())
/// }
/// ```
///
/// # Arguments of the attribute
///
/// | argument | example | without it |
/// |---|---|---|
/// | `name` | `name = "fit_again"` | the function's name |
/// | `vcpus` | `vcpus = 1`, `vcpus = 0.5` | the backend's choice |
/// | `memory` | `memory = "512 MiB"`, `memory = "2 GiB"` | the backend's choice |
/// | `gpus` | `gpus = 1` | none |
/// | `retries` | `retries = 2`: a failed item is tried twice more | 0 |
/// | `timeout` | `timeout = "5s"`, `"15m"`, `"1h 30m"`, for each attempt of an item | none |
/// | `codec` | `codec = "messagepack"` | `"bincode"` |
///
/// `"bincode"` is the faster by far. A type that needs a self-describing format (`serde_json::Value`, or serde's `untagged`,
/// `tag`, `flatten` and `skip_serializing_if`) takes `"messagepack"`, which in turn does not tell `Some(None)` from `None`.
///
/// # Signatures
///
/// A free function, sync or async, with any number of arguments. Arguments and result are types with serde's `Serialize`
/// and `Deserialize`. An argument may be borrowed (`&str`, `&[T]`, `&Path`, `&T`); an input is then the owned type. The
/// input of a function of several arguments is a tuple:
///
/// ```no_run
/// #[cloudknot::remote]
/// fn scaled(xs: &[f64], by: f64) -> Vec<f64> {
///     xs.iter().map(|x| x * by).collect()
/// }
///
/// let inputs: Vec<(Vec<f64>, f64)> = vec![(vec![1.0, 2.0], 0.5), (vec![3.0], 2.0)];
/// let all: Vec<Vec<f64>> = scaled.map(inputs).wait()?;
/// # Ok::<(), cloudknot::Error>(())
/// ```
///
/// A function that returns a `Result` gives its value; an `Err` is a failed item, with the error's message and those of its
/// causes. The error needs `Display` only. A `Result` is recognized by that name, `anyhow::Result` and other aliases included:
///
/// ```
/// #[cloudknot::remote]
/// fn number(text: &str) -> Result<f64, std::num::ParseFloatError> {
///     text.parse()
/// }
///
/// let map_of_values: fn(Vec<String>) -> cloudknot::Result<Vec<f64>> = |texts| number.map(texts).wait();
/// assert!(number("x").is_err());
/// ```
///
/// The future of an async function has to be `Send`. Called here, it gives a boxed future:
///
/// ```
/// #[cloudknot::remote]
/// async fn length(text: &str) -> usize {
///     text.len()
/// }
///
/// # #[cloudknot::main]
/// # async fn main() {
/// assert_eq!(length("four").await, 4);
/// # }
/// ```
///
/// Types are named: `impl Trait`, `dyn Trait`, type parameters, `&mut`, `self` and borrowed results are refused, each with what
/// to write instead.
///
/// # What changes
///
/// The function's name now names a `static` of the type [`RemoteFn`], which dereferences to a function pointer. Hence:
///
/// - a function as a value is written `*f`: `numbers.iter().map(*f)`, not `numbers.iter().map(f)`;
/// - no other binding may have its name where it is in scope, be it by a glob import: `let f = 1;` is error E0530
///   ("let bindings cannot shadow statics"). In the function's own body it may;
/// - `#[must_use]` and `#[track_caller]` reach what calls the function by itself, in its own body, and nobody else.
///
/// ```
/// #[cloudknot::remote]
/// fn double(x: f64) -> f64 {
///     x * 2.0
/// }
///
/// let doubled: Vec<f64> = [1.0, 2.0].into_iter().map(*double).collect();
/// assert_eq!(doubled, [2.0, 4.0]);
/// ```
///
/// A remote function is known to its workers by package, module path and name. Two in the bodies of different functions of one
/// module may not have one name: give one of them another by `name = "…"`.
pub use cloudknot_macros::remote;

/// Makes a program's `main` able to be its own worker: before the body runs, it asks whether this process was started to
/// work on items.
///
/// Sync or async, with any return type. An async main runs on cloudknot's own runtime, or on that of the attribute beside it:
///
/// ```
/// #[cloudknot::main]
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> std::process::ExitCode {
///     std::process::ExitCode::SUCCESS
/// }
/// ```
///
/// A program without it works as well, but runs its items on threads of its own when it runs them on this machine: a crash is
/// then the program's. It cannot be deployed.
pub use cloudknot_macros::main;
pub use cloudknot_runtime::failure::{ItemError, ItemErrorKind};
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, Hook, set_hook};
pub use map::{Map, MapFuture, Submit};
pub use pending::Pending;
pub use record::job::{Job, JobAttempt};
pub use remote::RemoteFn;
pub use run::{Results, Run, Status};

#[cfg(feature = "docker")]
#[cfg(not(cloudknot_worker))]
pub use build::docker;
#[cfg(feature = "deploy")]
pub use build::docker_image::{DockerImage, DockerImageBuilder};
#[cfg(all(feature = "deploy", not(cloudknot_worker)))]
pub use build::{
    compile, image,
    pipeline::{BuildArtifacts, Pipeline},
    registry,
};
#[cfg(all(feature = "deploy", not(cloudknot_worker)))]
pub use deploy::{doctor, policy, prune};
#[cfg(feature = "deploy")]
pub use deploy::{
    knot::{Deployed, Knot, KnotBuilder, KnotClobber},
    pars::{Pars, ParsBuilder, ParsClobber},
    plan::{Action, Plan, PlannedStep},
};
#[cfg(all(feature = "deploy", not(cloudknot_worker)))]
pub use home::built;
#[cfg(all(feature = "deploy", not(cloudknot_worker)))]
pub use settings::config;
#[cfg(feature = "deploy")]
pub use settings::{
    knot::{Compute, KnotSettings, Log, Mount},
    login::Login,
    pars::{Internet, Network, ParsSettings, Tenancy},
};

/// When the attempt of an item that is running will be ended, if anything ends it: `timeout` of the attribute or the map.
///
/// For functions that can stop early with what they have. `None` where the item has no timeout, outside of remote functions,
/// and in test harnesses, which do not enforce it. Of the machine's own end (Spot, a cancelled run) nothing is known before.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// #[cloudknot::remote(timeout = "10m")]
/// fn refine(mut guess: f64) -> f64 {
///     let in_time = || cloudknot::deadline().is_none_or(|end| Instant::now() + Duration::from_secs(5) < end);
///     while in_time() && (guess * guess - 2.0).abs() > 1e-9 {
///         guess = (guess + 2.0 / guess) / 2.0;
///     }
///     guess
/// }
/// # assert!((refine(1.0) - 2_f64.sqrt()).abs() < 1e-6);
/// ```
pub fn deadline() -> Option<std::time::Instant> {
    cloudknot_runtime::item::deadline()
}

#[doc(hidden)]
pub mod __private;
