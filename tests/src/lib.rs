//! Code that the tests share: suites that every implementation of a kind must pass, and the real counterparts that the
//! rest is tested against. Independent of any implementation.

pub mod authority;
#[cfg(feature = "counterparts")]
pub mod cloud;
pub mod counterparts;
pub mod debian;
pub mod memory;
#[cfg(feature = "counterparts")]
pub mod moto;
pub mod proxy;
pub mod random;
pub mod recorded;
#[cfg(feature = "counterparts")]
pub mod recorder;
#[cfg(feature = "counterparts")]
pub mod s3_server;
#[cfg(feature = "counterparts")]
pub mod schema;
pub mod shared;
pub mod skip;
pub mod store_suite;
pub mod trial;
pub mod walk;
pub mod worker;
pub mod workspaces;

/// Returns the time in nanoseconds since 1970, from the same clock in every process of this machine.
///
/// # Panics
/// If the time is before 1970 or after 2554.
pub fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the clock is set after 1970");
    now.as_nanos().try_into().expect("the clock is set before 2554")
}
