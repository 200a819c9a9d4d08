//! Run a Rust function over many inputs: on this machine, or on AWS Batch. (Documentation to come.)

mod backend;
#[cfg(all(feature = "docker", not(cloudknot_worker)))]
pub mod docker;
mod error;
mod hook;
#[cfg(all(feature = "deploy", not(cloudknot_worker)))]
pub mod image;
mod ledger;
mod map;
mod program;
#[cfg(all(feature = "deploy", not(cloudknot_worker)))]
pub mod registry;
mod remote;
mod run;
#[cfg(all(feature = "progress", not(cloudknot_worker)))]
mod terminal;

pub use backend::Backend;
pub use cloudknot_macros::{main, remote};
pub use cloudknot_runtime::failure::{ItemError, ItemErrorKind};
pub use error::{Error, ErrorKind, Result};
pub use hook::{Event, Hook, set_hook};
pub use map::{Map, MapFuture, Submit};
pub use remote::RemoteFn;
pub use run::{Pending, Results, Run, Status};

#[doc(hidden)]
pub mod __private;
