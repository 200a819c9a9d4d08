//! What the tests share: suites that every implementation of a kind passes, and the real counterparts that the rest is
//! tested against. Knows no implementation.

pub mod counterparts;
pub mod debian;
pub mod proxy;
#[cfg(feature = "s3")]
pub mod s3_server;
pub mod skip;
pub mod store_suite;
pub mod trial;
pub mod worker;
pub mod workspaces;
