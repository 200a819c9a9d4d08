//! Limits that users set for a run or a round, in the form that the record has.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// Parses the memory of a job, in MiB. `action` is what the user does, and `option` the name of the method.
pub(crate) fn memory_mib(action: &str, option: &str, memory: &str) -> Result<u64> {
    let parsed = cloudknot_quantity::memory_mib(memory);
    parsed.map_err(|why| Error::new(ErrorKind::Config, format!("cannot {action}: .{option}(..): {why}")))
}

/// Returns a timeout in milliseconds, rounded up: a timeout of zero would fail every item.
pub(crate) fn timeout_ms(action: &str, timeout: Duration) -> Result<u64> {
    if timeout.is_zero() {
        return Err(zero("timeout"));
    }
    u64::try_from(timeout.as_micros().div_ceil(1_000))
        .map_err(|_| Error::new(ErrorKind::Config, format!("cannot {action}: a timeout of {timeout:?} is too long")))
}

/// Error message for an option that must be at least 1.
pub(crate) fn zero(option: &str) -> Error {
    Error::new(ErrorKind::Config, format!("invalid .{option}(0): must be at least 1"))
        .with_hint("leave it out for the default")
}
