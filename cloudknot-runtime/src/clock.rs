//! A clock that goes on while the machine sleeps, unlike that of [`std::time::Instant`].

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

// On macOS, this clock goes on while the machine sleeps (clock_gettime(3)).
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;

/// Returns the time since a fixed moment, such as the start of the machine. It never decreases.
pub fn now() -> Duration {
    let time = clock_gettime(CLOCK);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes() {
        let (before, pause) = (now(), Duration::from_millis(20));
        std::thread::sleep(pause);
        assert!(now() >= before + pause);
    }
}
