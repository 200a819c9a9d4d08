//! The clock of leases: that of the machine, or a virtual one in the tests of schedules.

use std::time::Duration;

/// A clock that never goes back or is set.
#[derive(Debug, Clone, Copy)]
pub(super) enum Clock {
    /// The time since the machine was started, including the time it was asleep.
    Machine,
    /// The virtual time of tokio.
    #[cfg(test)]
    Virtual(tokio::time::Instant),
}

impl Clock {
    /// Returns the time since a fixed moment.
    pub(super) fn now(self) -> Duration {
        match self {
            Self::Machine => cloudknot_runtime::clock::now(),
            #[cfg(test)]
            Self::Virtual(start) => start.elapsed(),
        }
    }
}
