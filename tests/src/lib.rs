//! What the tests share: suites that every implementation of a kind passes. Knows no implementation.

pub mod skip;
pub mod store_suite;
pub mod trial;
