//! Detects an operation that makes no more progress. Does not depend on what the operation is.
//!
//! A timeout of the HTTP client would not do: it begins with a request and ends with its answer, so it limits the duration of a
//! whole upload, even one that makes progress.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Time limit that restarts whenever there is progress, so that an operation as a whole may take any time.
pub(super) struct Watch {
    patience: Duration,
    times: Mutex<Times>,
}

#[derive(Clone, Copy)]
struct Times {
    begun: Instant,
    /// Time at which the limit is reached, unless there is progress before.
    end: Instant,
}

impl Watch {
    pub(super) fn new(patience: Duration) -> Self {
        let now = Instant::now();
        Self { patience, times: Mutex::new(Times { begun: now, end: now + patience }) }
    }

    /// Starts the time limit of an operation.
    pub(super) fn begin(&self) {
        let now = Instant::now();
        *self.times() = Times { begun: now, end: now + self.patience };
    }

    /// Records progress.
    pub(super) fn moved(&self) {
        self.times().end = Instant::now() + self.patience;
    }

    /// Records that the last piece was handed over. Part of the data is still in buffers of this machine and leaves at the rate
    /// of the rest, so the time taken so far is added before the other side is expected to answer.
    pub(super) fn sent(&self) {
        let now = Instant::now();
        let mut times = self.times();
        times.end = now + self.patience + (now - times.begun);
    }

    /// Waits until the limit is reached.
    pub(super) async fn over(&self) {
        loop {
            let end = self.times().end;
            if Instant::now() >= end {
                return;
            }
            sleep_until(end).await;
        }
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        // Nothing panics while the lock is held, and the times cannot be left half changed.
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
