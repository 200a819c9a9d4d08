//! Run a Rust function over many inputs. On a laptop it runs at once, with nothing to install.
//!
//! ```
//! /// How many steps the Collatz sequence takes from `n` to 1.
//! #[cloudknot::remote]
//! fn steps(n: u64) -> u32 {
//!     let next = |n: u64| if n % 2 == 0 { n / 2 } else { 3 * n + 1 };
//!     let steps = std::iter::successors(Some(n), |&n| (n != 1).then(|| next(n))).count() - 1;
//!     u32::try_from(steps).expect("the number of steps fits in a u32")
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
//! - [`remote`] makes a function remote; [`main`] lets a program run its items in separate processes, which [`init`] prepares.
//! - [`RemoteFn::map`] returns a [`Map`]: await it for all values, or [`submit`](Map::submit) it for a [`Run`], which gives
//!   results as they complete, partial results if items fail, and an ID with which any program can attach to it.
//! - [`data()`] returns the path of a file of the package, on this machine and in the image.
//! - A panic, a crash, an out-of-memory kill or a timeout affects one item only: see [`ItemError`].
//!
//! # Where a map runs
//!
//! A map runs on AWS Batch, on the Knot that `cargo knot deploy` recorded in `.cloudknot/`. Without a recorded Knot, it
//! runs on this machine, with one item process per core and the folder `.cloudknot/` beside the crate as the store. A
//! program without [`main`] (a test harness) runs its items on threads of its own process: there a panic fails one
//! item, but an abort, a fault or a stack overflow ends the program, timeouts are not enforced, and [`Map::env`] sets
//! nothing.
//!
//! | variable | meaning |
//! |---|---|
//! | `CLOUDKNOT_BACKEND` | backend of maps: `local`, `docker` or `batch` |
//! | `CLOUDKNOT_DATA` | folder of the files that [`data()`] finds on this machine, if not that of the package; an absolute path |
//! | `CLOUDKNOT_HOME` | folder of runs, and of the records of Knot and image; relative to the folder in which the program is started |
//! | `CLOUDKNOT_PROGRESS` | progress on the terminal: `off`, `plain` or `bar` |
//!
//! # Features
//!
//! - `progress` (default): shows on the terminal where a map runs, its progress, and its failures.
//! - `aws`: maps on AWS Batch, and the S3 store in their workers. Compiles a part of the AWS SDK, which takes minutes the first
//!   time. `cargo knot deploy` names the command that enables it, and enables it itself with `--add-feature`.
//! - `deploy`: builds a program's worker and image, pushes the image to a registry, and deploys to AWS, from code. Can use the
//!   local Docker engine to run maps and for base images.
//!
//! A worker has the same public API. In a worker, operations of a host return an error, `Backend::docker` returns the
//! local backend, and the doctor returns that error as a finding.
//!
//! The command `cargo knot` is in a separate package, `cargo-knot`.

#![cfg_attr(docsrs, feature(doc_cfg))]
// A worker or a build without some feature lacks callers and bodies. The complete build reports unused code.
#![cfg_attr(
    any(cloudknot_worker, not(all(feature = "deploy", feature = "progress"))),
    allow(dead_code, unreachable_pub, unused_imports, unused_macros)
)]
#![cfg_attr(
    cloudknot_worker,
    allow(unused_mut, unused_variables, clippy::needless_pass_by_value, clippy::unused_async)
)]

#[cfg(cloudknot_allocator = "mimalloc")]
mod allocator;
#[cfg(all(feature = "aws", not(cloudknot_worker)))]
mod aws;
mod backend;
#[cfg(feature = "deploy")]
mod build;
mod data;
#[cfg(feature = "deploy")]
mod deploy;
mod error;
mod event;
mod failures;
mod home;
#[cfg_attr(cloudknot_worker, path = "host_absent.rs")]
mod host;
pub mod look;
mod map;
mod orders;
mod pending;
mod program;
mod provenance;
mod record;
mod remote;
mod run;
mod settings;
#[cfg(all(feature = "progress", not(cloudknot_worker)))]
mod terminal;

pub use backend::Backend;
/// Makes a function remote: it can still be called as before, and it can be mapped over many inputs.
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
///     assert_eq!(squares(3), 14); // an ordinary call
///     let all: Vec<u64> = squares.map(1..=100).await?; // one item per input
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
/// | `retries` | `retries = 2`: a failed item is retried at most twice | 0 |
/// | `timeout` | `timeout = "5s"`, `"15m"`, `"1h 30m"`, for each attempt of an item | none |
/// | `recycle` | `recycle = 100`: an item process is replaced after so many items | when it needs to be: see [`Map::recycle`] |
/// | `codec` | `codec = "messagepack"` | `"bincode"` |
/// | `crate` | `crate = "lab::cloudknot"` | found in `Cargo.toml`, also under another name |
///
/// `"bincode"` is by far the faster codec. A type that needs a self-describing format (`serde_json::Value`, or serde's
/// `untagged`, `tag`, `flatten` and `skip_serializing_if`) requires `"messagepack"`, which does not distinguish `Some(None)`
/// and `Some(())` from `None`, and refuses them. A type that the codec can never carry is refused when a map is submitted.
///
/// # Values
///
/// A value is decoded again where it is encoded: each input before anything is submitted, and each result before it is
/// stored. What its `Deserialize` asks for is compared with what its `Serialize` wrote. An item fails, or the submission,
/// if they differ: serde's `skip` attributes and hand-written implementations can read intact bytes as another value.
///
/// - A field with `#[serde(skip)]` is not sent: the function gets its default. So is one with `skip_serializing`, under
///   `"messagepack"`.
/// - A value of an `untagged` enum is the first variant that fits, which need not be the one that was sent.
/// - Values are nested at most 128 levels deep; keep the nodes of a deep tree or list in a `Vec`. Each option, newtype,
///   struct, tuple, sequence, map, and variant with content is a level.
///
/// # Tracing of types
///
/// Host and worker compare the structure of the types, so that a worker never decodes the values of another version. The
/// structure is found by tracing: each type is deserialized several times, from made-up values, before the first map of a
/// program and in each worker. Types that validate are offered other values: dates, addresses, absolute paths. None of
/// these names anything that can exist, and no number is large.
///
/// A program with the attribute [`main`] traces in a separate process, which is a copy of the program. Whatever
/// a `Deserialize`, a conversion of `#[serde(from)]` or `try_from`, or the `Drop` of a made-up value does there:
///
/// - Panics are silent. A type that panics, aborts, exits or overflows the stack is described by its name and by what it
///   read until then, and the rest of the structure is traced as usual. Good values are not affected.
/// - A type that takes longer than 10 seconds is not traced: the input or the result is described by its name alone. Its
///   changes are not noticed.
/// - Nothing that is printed reaches the program's output, and the process and its children are killed in the end.
/// - On Linux (x86-64 and ARM64), the operating system refuses whatever has an effect outside of the process: to change or
///   remove files, to connect, to start programs, to signal other processes. To the type, it is an ordinary error. Reading
///   files and starting threads is allowed. Where the kernel supports no seccomp filter, and on macOS, nothing is refused.
///
/// A `Deserialize` should therefore depend on its input alone. One that fails without a file, for example, has another
/// structure on a machine that has the file.
///
/// Without the attribute (in a test harness, or if a library is used by another program), types are traced in the program
/// itself, on a thread. Panics are silent and the 10 seconds apply there as well, but the thread of a type that loops is left
/// behind, an abort ends the program, and nothing is refused. A complete made-up value is forgotten, so its `Drop` does not run.
/// The parts of an incomplete one are dropped: if a struct refuses its last field, the `Drop` of the first ones runs.
///
/// # Signatures
///
/// The function is a free function, sync or async, with any number of arguments. The types of arguments and result implement
/// serde's `Serialize` and `Deserialize`. An argument may be borrowed (`&str`, `&[T]`, `&Path`, `&T`); an input then has the
/// owned type. The input of a function of several arguments is a tuple:
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
/// For a function that returns a `Result`, the value of the item is the value of `Ok`; an `Err` is a failed item, with the
/// messages of the error and of its causes. The error needs to implement `Display` only. `anyhow::Result` and other aliases of
/// this name are recognized; a `Result` under another name does not compile:
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
/// The future of an async function must be `Send`. A direct call returns a boxed future:
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
/// Types must be named: `impl Trait`, `dyn Trait`, type parameters, `&mut`, `self` and borrowed results are compile
/// errors, each with a suggestion of what to write instead.
///
/// # What changes
///
/// The function's name now names a `static` of the type [`RemoteFn`], which dereferences to a function pointer. Hence:
///
/// - The function as a value is written `*f`: `numbers.iter().map(*f)`, not `numbers.iter().map(f)`.
/// - Where the function is in scope, also through a glob import, no other binding may have its name: `let f = 1;` is error
///   E0530 ("let bindings cannot shadow statics"). In the function's own body it may.
/// - `#[must_use]` and `#[track_caller]` apply only to calls of the function in its own body.
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
/// Workers identify a remote function by package, module path and name. Two remote functions in the bodies of different
/// functions of one module may not have the same name: rename one of them with `name = "…"`.
///
/// # Another name for cloudknot
///
/// The generated code names cloudknot as `Cargo.toml` does: with `ck = { package = "cloudknot", .. }`, write `#[ck::remote]`.
/// In a package that does not depend on cloudknot itself, because another crate provides it, the code uses the `cloudknot` that
/// is in scope at the function. If none is in scope, or the package has cloudknot also as a dev-dependency, the attribute has its
/// path:
///
/// ```
/// # mod lab { pub use cloudknot; }
/// use lab::cloudknot; // `lab` has `pub use cloudknot;`
///
/// #[cloudknot::remote]
/// fn double(x: f64) -> f64 {
///     x * 2.0
/// }
///
/// mod inner {
///     # use super::lab;
///     #[lab::cloudknot::remote(crate = "lab::cloudknot")]
///     pub fn triple(x: f64) -> f64 {
///         x * 3.0
///     }
/// }
/// # fn main() {
/// # assert_eq!(double(1.0) + inner::triple(1.0), 5.0);
/// # }
/// ```
pub use cloudknot_macros::remote;

/// Makes a program's `main` able to act as its own worker: before the body runs, it checks whether this process was started to
/// work on items.
///
/// `main` is sync or async, with any return type. An async `main` runs on cloudknot's own runtime, or on that of another
/// attribute beside this one:
///
/// ```
/// #[cloudknot::main]
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> std::process::ExitCode {
///     std::process::ExitCode::SUCCESS
/// }
/// ```
///
/// Where cloudknot comes from another crate and is not in scope, the attribute has its path: `crate = "lab::cloudknot"`.
///
/// A program without this attribute works as well, but on this machine it runs its items on threads of its own process, so that
/// a crash of an item ends the program. It cannot be deployed.
pub use cloudknot_macros::main;

// The example is a crate of its own. rustdoc merges the other ones into one program, in which its function would run before the
// items of all of them.
/// Runs a function once in each process that runs items, before its first item.
///
/// An item process does not reach the program's `main`: what `main` sets (statics, a logger, the threads of a pool) exists only in
/// the program itself. A value that can be computed on first use belongs in a [`LazyLock`](std::sync::LazyLock). For the rest,
/// there is this attribute. The function remains an ordinary one, which `main` may call as well:
///
/// ```standalone_crate
/// use std::sync::OnceLock;
///
/// static STATIONS: OnceLock<Vec<String>> = OnceLock::new();
///
/// /// Reads the list of stations.
/// #[cloudknot::init]
/// fn read_stations() -> std::io::Result<()> {
///     let path = std::env::var("STATIONS").unwrap_or("stations.txt".into());
///     let names = std::fs::read_to_string(path)?.lines().map(str::to_owned).collect();
///     STATIONS.get_or_init(|| names);
///     Ok(())
/// }
///
/// #[cloudknot::remote]
/// fn station(number: usize) -> String {
///     STATIONS.get().expect("read before the first item")[number].clone()
/// }
///
/// #[cloudknot::main]
/// fn main() -> cloudknot::Result<()> {
///     let map = station.map([1, 0]);
/// #   let stations = std::env::temp_dir().join(format!("cloudknot-stations-{}.txt", std::process::id()));
/// #   std::fs::write(&stations, "Basel\nDavos\n").expect("the temporary folder can be written to");
/// #   let map = map.env("STATIONS", stations.to_str().expect("its path is UTF-8"));
///     assert_eq!(map.wait()?, ["Davos", "Basel"]);
/// #   std::fs::remove_file(stations).expect("no other process uses the file");
///     Ok(())
/// }
/// ```
///
/// - The function has no arguments, is not async, and returns nothing or `Result<(), E>`, where `E` implements `Display`.
/// - Several such functions, in the program and its crates, run in the order of their paths.
/// - They run in item processes and, in a program without the attribute [`main`](macro@main), in the program itself. They do not run
///   in a program that only submits, attaches or deploys.
/// - If one fails or panics, so does the item, with a message that names the function. The next item and each retry run in a
///   new process, which tries again; without the attribute `main`, there is only one process. If a function ends the process, the
///   first item has crashed.
/// - The variables of [`Map::env`] are set. The output belongs to the log of the first item. A function cannot map.
/// - The time does not count against the `timeout` of an item, and is not limited, except that AWS Batch ends a job that takes much
///   longer than the timeouts of its items.
///
/// Where cloudknot comes from another crate and is not in scope, the attribute has its path: `crate = "lab::cloudknot"`.
pub use cloudknot_macros::init;
pub use cloudknot_runtime::failure::{ItemError, ItemErrorKind};
pub use cloudknot_runtime::measurements::{Machine, Measurements};
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, Hook, set_hook};
pub use map::{Map, MapFuture, Submit};
pub use pending::Pending;
pub use record::job::{Job, JobAttempt};
pub use remote::RemoteFn;
pub use run::{MeasuredAttempt, Results, Retry, Run, Status};

#[cfg(feature = "deploy")]
pub use build::{
    compile, docker,
    docker_image::{DockerImage, DockerImageBuilder},
    image,
    pipeline::{BuildArtifacts, Pipeline},
    registry,
};
#[cfg(feature = "deploy")]
pub use deploy::{
    doctor,
    knot::{Deployed, Knot, KnotBuilder, KnotClobber},
    pars::{Pars, ParsBuilder, ParsClobber},
    plan::{Action, Plan, PlannedStep},
    policy, prune, rehearsal,
};
#[cfg(feature = "deploy")]
pub use home::built;
#[cfg(feature = "deploy")]
pub use settings::{
    config,
    image::ImageSettings,
    knot::{Compute, KnotSettings, Log, Mount},
    login::Login,
    pars::{Internet, ParsSettings, Tenancy},
};

/// Returns the time at which the running attempt of an item times out, by the `timeout` of the attribute or of the map.
///
/// It is for functions that can stop early with a partial result. Returns `None` if the item has no timeout, outside of remote
/// functions, and in test harnesses, which do not enforce timeouts. The end of the machine (by a Spot interruption) or of the
/// run (by a cancellation) is not known in advance.
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

/// Returns the path of a file or folder that `include` in `[package.metadata.cloudknot]` puts into the image.
///
/// The path is as in `include`: relative to the folder of the package that is deployed, whose program this is. In a worker, the
/// included files are in the folder `/cloudknot`, which cannot be written to. On this machine they are in the package's folder, or
/// in the one that the variable `CLOUDKNOT_DATA` names.
///
/// ```toml
/// [package.metadata.cloudknot]
/// include = ["data/", "params.toml"]
/// ```
///
/// ```
/// #[cloudknot::remote]
/// fn values(row: usize) -> std::io::Result<Vec<f64>> {
///     let grid = std::fs::read_to_string(cloudknot::data("data/grid.csv")?)?;
///     let row = grid.lines().nth(row).unwrap_or_default();
///     row.split(',').map(|cell| cell.parse().map_err(std::io::Error::other)).collect()
/// }
/// # assert!(values(0).unwrap_err().to_string().contains("cannot find the data file `data/grid.csv`"));
/// ```
///
/// # Errors
/// `InvalidInput` if the path is absolute, empty, or contains `..`. `NotFound` if it does not exist, with a message that says what
/// to do.
pub fn data(path: impl AsRef<std::path::Path>) -> std::io::Result<std::path::PathBuf> {
    data::find(path.as_ref())
}

#[doc(hidden)]
pub mod __private;
