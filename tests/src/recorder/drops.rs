//! Futures that are dropped midway: `kill -9` within one process.
//!
//! A killed program leaves behind what its requests have changed by then, and sends no more of them. A dropped future
//! may leave spawned tasks behind, which continue. So each such future uses its own recorders, which are cut off when
//! it is dropped: requests that were let through by then are completed, as AWS does for a program that has died, and
//! nothing later reaches moto. A recorder keeps its port until it is dropped itself, so that a task that retries does
//! not reach anything else there.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::Recorder;

/// Moment at which a future is dropped, unless it is ready before.
#[derive(Debug, Clone, Copy)]
pub enum DropAt<'r> {
    /// As soon as this recorder holds a request.
    Held(&'r Recorder),
    /// After this number of polls.
    Polls(u64),
    /// After this time. Requires a tokio runtime.
    Time(Duration),
}

/// Polls a future until it is ready or has to be dropped, then cuts off its recorders. Returns the output of the future
/// if it was ready, and the number of polls.
pub async fn drop_at<F: Future>(at: DropAt<'_>, recorders: &[&Recorder], future: F) -> (Option<F::Output>, u64) {
    let mut polls = 0;
    let output = {
        let (mut future, mut end) = (pin!(future), pin!(reached(at)));
        std::future::poll_fn(|context| {
            polls += 1;
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            end.as_mut().poll(context).map(|()| None)
        })
        .await
    };
    for recorder in recorders {
        recorder.cut_off();
    }
    (output, polls)
}

/// Completes when the future that is polled with it has to be dropped.
async fn reached(at: DropAt<'_>) {
    match at {
        DropAt::Held(recorder) => recorder.held().await,
        DropAt::Time(time) => tokio::time::sleep(time).await,
        DropAt::Polls(polls) => {
            let mut remaining = polls;
            std::future::poll_fn(|_| {
                remaining = remaining.saturating_sub(1);
                if remaining == 0 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }
}

impl Recorder {
    /// Returns the number of requests so far that have reached moto and were answered.
    ///
    /// # Panics
    /// If the file cannot be read.
    pub fn answered(&self) -> u64 {
        self.requests().iter().filter(|request| request.status.is_some()).count() as u64
    }

    /// Waits until a request is held.
    pub async fn held(&self) {
        loop {
            // Registered before the plan is inspected, so that no later change is missed.
            let changed = self.state.held.notified();
            if self.plan().held > 0 {
                return;
            }
            changed.await;
        }
    }
}
