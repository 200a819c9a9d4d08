//! The runtime of a worker: the contract between host and worker, the codec, the stores, the registry of remote
//! functions, the supervisor and its item processes. This crate does not depend on Batch, Docker or cargo.
//!
//! This crate has no stable API: programs use `cloudknot`, which depends on exactly this version.

pub mod clock;
pub mod codec;
pub mod contract;
#[cfg(feature = "s3")]
mod ecs;
pub mod engine;
pub mod failure;
pub mod files;
pub mod fingerprint;
pub mod frame;
pub mod function;
pub mod inputs;
pub mod item;
pub mod log;
pub mod machine;
pub mod measurements;
pub mod process;
pub mod reports;
pub mod store;
pub mod supervisor;
pub mod text;
pub mod trace_child;
pub mod trace_process;
pub mod worker;
