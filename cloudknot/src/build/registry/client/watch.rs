//! Detects an operation that makes no more progress. Does not depend on what the operation is.
//!
//! A timeout of the HTTP client is not sufficient: it begins with a request and ends with its response, so it limits the
//! duration of a whole upload, even one that makes progress.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Time limit that restarts whenever there is progress, so that an operation as a whole may take any time.
pub(super) struct Watch {
    timeout: Duration,
    times: Mutex<Times>,
}

#[derive(Clone, Copy)]
struct Times {
    start: Instant,
    /// Time at which the limit is reached, unless there is progress before.
    end: Instant,
}

impl Watch {
    pub(super) fn new(timeout: Duration) -> Self {
        let now = Instant::now();
        Self { timeout, times: Mutex::new(Times { start: now, end: now + timeout }) }
    }

    /// Starts the time limit of an operation.
    pub(super) fn begin(&self) {
        let now = Instant::now();
        *self.times() = Times { start: now, end: now + self.timeout };
    }

    /// Records progress.
    pub(super) fn progressed(&self) {
        self.times().end = Instant::now() + self.timeout;
    }

    /// Records that the last chunk was handed over. Part of the data is still in buffers of this machine and is sent at
    /// the rate of the rest, so the time taken so far is added before the registry is expected to respond.
    pub(super) fn sent(&self) {
        let now = Instant::now();
        let mut times = self.times();
        times.end = now + self.timeout + (now - times.start);
    }

    /// Waits until the limit is reached.
    pub(super) async fn expired(&self) {
        loop {
            let end = self.times().end;
            if Instant::now() >= end {
                return;
            }
            sleep_until(end).await;
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        // Nothing panics while the lock is held, and the times are never partially changed.
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
