//! What the tests share: suites that every implementation of a kind passes, and the real counterparts that the rest is
//! tested against. Knows no implementation.

pub mod authority;
#[cfg(all(feature = "moto", feature = "s3"))]
pub mod cloud;
pub mod counterparts;
pub mod debian;
pub mod memory;
#[cfg(feature = "moto")]
pub mod moto;
pub mod proxy;
pub mod recorded;
#[cfg(feature = "moto")]
pub mod recorder;
#[cfg(feature = "s3")]
pub mod s3_server;
pub mod skip;
pub mod store_suite;
pub mod trial;
pub mod walk;
pub mod worker;
pub mod workspaces;

/// The time, in nanoseconds since 1970: the same clock in every process of this machine.
///
/// # Panics
/// Before 1970, and after 2554.
pub fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is after 1970");
    now.as_nanos().try_into().expect("it is before 2554")
}
