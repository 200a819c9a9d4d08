//! Notices when nothing moves any more. Does not know what is to move.
//!
//! The HTTP client's own limit would not do: it begins with a request and ends with its answer, so that it is a limit for
//! a whole upload, however well that goes on.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Something may take as long as it likes, so long as it goes on.
pub(super) struct Watch {
    patience: Duration,
    times: Mutex<Times>,
}

#[derive(Clone, Copy)]
struct Times {
    begun: Instant,
    /// When it is over, unless something moves before.
    end: Instant,
}

impl Watch {
    pub(super) fn new(patience: Duration) -> Self {
        let now = Instant::now();
        Self { patience, times: Mutex::new(Times { begun: now, end: now + patience }) }
    }

    /// Something begins.
    pub(super) fn begin(&self) {
        let now = Instant::now();
        *self.times() = Times { begun: now, end: now + self.patience };
    }

    /// It goes on.
    pub(super) fn moved(&self) {
        self.times().end = Instant::now() + self.patience;
    }

    /// The last of it was handed over. Some of it lies in buffers of this machine and leaves at the pace of the rest, so it
    /// has as long again before the other side is expected to answer.
    pub(super) fn sent(&self) {
        let now = Instant::now();
        let mut times = self.times();
        times.end = now + self.patience + (now - times.begun);
    }

    /// Waits until nothing has moved for too long.
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
        // Nothing panics while it is held, and times cannot be left half changed.
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
