//! What the tests share: suites that every implementation of a kind passes, and the servers that they run against.

#[cfg(feature = "s3")]
pub mod s3_server;
pub mod skip;
pub mod store_suite;
