//! Futures that are dropped in the middle: `kill -9` within one process.
//!
//! A program that is killed leaves behind what its requests have changed by then, and sends no more of them. A future that is
//! dropped may leave tasks behind that it has spawned, which go on. So each such future runs over recorders of its own, which
//! are cut off when it is dropped: what was let through by then is brought to its end, as AWS does for a program that is gone,
//! and nothing later reaches moto. A recorder keeps its port until it is dropped itself: until then, a task that tries again
//! finds nobody else there.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::Recorder;

/// When a future is dropped, unless it is ready before.
#[derive(Debug, Clone, Copy)]
pub enum DropAt<'r> {
    /// As soon as this recorder holds a request.
    Held(&'r Recorder),
    /// After it has been polled so many times.
    Polls(u64),
    /// After this time. Needs a tokio runtime.
    Time(Duration),
}

/// Drives a future until it is ready or to be dropped, then cuts off the recorders that it runs over. Returns what the future
/// returned if it was ready, and how many times it was polled.
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

/// Is ready when the future that is polled with it is to be dropped.
async fn reached(at: DropAt<'_>) {
    match at {
        DropAt::Held(recorder) => recorder.held().await,
        DropAt::Time(time) => tokio::time::sleep(time).await,
        DropAt::Polls(polls) => {
            let mut left = polls;
            std::future::poll_fn(|_| {
                left = left.saturating_sub(1);
                if left == 0 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }
}

impl Recorder {
    /// The number of requests so far that have reached moto and were answered.
    ///
    /// # Panics
    /// If the file cannot be read.
    pub fn answered(&self) -> u64 {
        self.requests().iter().filter(|request| request.status.is_some()).count() as u64
    }

    /// Waits until a request is held.
    pub async fn held(&self) {
        loop {
            // Before the plan is looked at: what changes after that is then not missed.
            let changed = self.state.held.notified();
            if self.plan().held > 0 {
                return;
            }
            changed.await;
        }
    }
}
