//! Run a Rust function over many inputs: on this machine, or on AWS Batch. (Documentation to come.)

mod remote;

pub use cloudknot_macros::{main, remote};
pub use cloudknot_runtime::failure::{ItemError, ItemErrorKind};
pub use remote::RemoteFn;

#[doc(hidden)]
pub mod __private;
