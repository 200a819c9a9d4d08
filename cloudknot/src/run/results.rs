//! The results of a run, in the order of completion: settled outcomes are read ahead from the store in that order.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use cloudknot_runtime::contract::{FailedAttempt, Part, PartEnd};
use cloudknot_runtime::engine;
use cloudknot_runtime::failure::{Failure, ItemError, ItemErrorKind};
use cloudknot_runtime::frame::frame_length;
use cloudknot_runtime::store::{BoxFuture, StoreError};
use futures_core::Stream;

use crate::error::{Error, Result};
use crate::pending::wait;
use crate::record::ledger::{Bits, End, Ledger};
use crate::record::{Record, SettledOutcome};
use crate::remote::Decode;

/// The outcome of each item with its index, in the order of completion. Every item is returned once. See
/// [`Run::results`](crate::Run::results).
///
/// This is a [`Stream`], for use with combinators. Without combinators, call [`next`](Self::next); without async,
/// [`wait`](Self::wait) returns an [`Iterator`]. Values are read from the store as they are requested.
pub struct Results<T> {
    ledger: Arc<Ledger>,
    decode: Decode<T>,
    /// Position up to which the ledger has been followed.
    position: usize,
    returned: Bits,
    reading: VecDeque<Reading>,
    open: Option<OpenPart>,
    /// Item at which the search for unfinished items continues.
    next_unfinished: u64,
}

/// A read from the store, in progress or done.
enum Reading {
    InProgress(SettledOutcome, BoxFuture<'static, Result<Option<Bytes>, StoreError>>),
    Done(SettledOutcome, Result<Option<Bytes>, StoreError>),
}

/// A part whose values are being returned.
struct OpenPart {
    part: Part,
    next: u64,
    /// The remaining frames, or the error message for frames that cannot be read.
    frames: Result<Bytes, String>,
}

impl<T> Results<T> {
    pub(super) fn new(ledger: &Arc<Ledger>, decode: Decode<T>) -> Self {
        Self {
            ledger: Arc::clone(ledger),
            decode,
            position: 0,
            returned: Bits::new(ledger.record.manifest.items),
            reading: VecDeque::new(),
            open: None,
            next_unfinished: 0,
        }
    }

    // Not `Iterator::next`: this method is awaited, like a stream's.
    #[allow(clippy::should_implement_trait)]
    /// Returns the next outcome to complete, or `None` once every item has been returned.
    pub fn next(&mut self) -> impl Future<Output = Option<(usize, Result<T, ItemError>)>> + Send + '_
    where
        T: Send,
    {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context))
    }

    /// Returns a blocking iterator over the same outcomes.
    pub fn wait(mut self) -> impl Iterator<Item = (usize, Result<T, ItemError>)> {
        std::iter::from_fn(move || wait(std::future::poll_fn(|context| Pin::new(&mut self).poll_next(context))))
    }

    /// Starts reads of settled outcomes, up to the number of parallel reads that suits the store. Returns the end of
    /// the round once there is nothing more to read.
    fn read_ahead(&mut self, context: &Context<'_>) -> Option<End> {
        let store = &self.ledger.record.store;
        while self.reading.len() < store.parallel_reads() {
            let settled = match self.ledger.settled(self.position, context.waker()) {
                Ok(settled) => settled,
                Err(end) => return end,
            };
            self.position += 1;
            let key = self.ledger.record.key_of(settled);
            let store = Arc::clone(store);
            let read = Box::pin(engine::inside(Box::pin(async move { store.get(&key).await })));
            self.reading.push_back(Reading::InProgress(settled, read));
        }
        None
    }

    /// Returns the oldest read if it is done. Polls all reads.
    fn read_done(&mut self, context: &mut Context<'_>) -> Option<(SettledOutcome, Result<Option<Bytes>, StoreError>)> {
        for reading in &mut self.reading {
            if let Reading::InProgress(settled, future) = reading
                && let Poll::Ready(bytes) = future.as_mut().poll(context)
            {
                *reading = Reading::Done(*settled, bytes);
            }
        }
        match self.reading.pop_front()? {
            Reading::Done(settled, bytes) => Some((settled, bytes)),
            reading @ Reading::InProgress(..) => {
                self.reading.push_front(reading);
                None
            }
        }
    }

    /// Returns the next value of the open part that has not been returned yet.
    fn next_of_part(&mut self) -> Option<(usize, Result<T, ItemError>)> {
        let open = self.open.as_mut()?;
        while open.next <= open.part.last {
            let item = open.next;
            open.next += 1;
            let (record, settled) = (&self.ledger.record, SettledOutcome::Values(open.part));
            let damaged = |why: String| damaged_result(record, settled, &why);
            let frame = open.next_frame(damaged);
            if self.returned.get(item) {
                continue;
            }
            self.returned.set(item);
            let outcome = frame.and_then(|frame| (self.decode)(&frame).map_err(|error| damaged(error.to_string())));
            return Some((index(item), outcome.map_err(without_outcome)));
        }
        self.open = None;
        None
    }

    /// Processes a finished read. Returns the outcome if it is a failure.
    fn process_read(
        &mut self,
        settled: SettledOutcome,
        bytes: Result<Option<Bytes>, StoreError>,
    ) -> Option<(usize, Result<T, ItemError>)> {
        let record = &self.ledger.record;
        let bytes = match bytes {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(damaged_result(record, settled, "the object was deleted")),
            Err(error) => Err(format!("{}; attach to the run again to read it", Error::from(error).in_one_line())),
        };
        match settled {
            SettledOutcome::Values(part) => {
                // Each frame is verified by itself, so that the values before a damaged end can be read.
                let frames = bytes.map(|bytes| match PartEnd::frames_len(part, &bytes) {
                    Ok(len) => bytes.slice(..len),
                    Err(_) => bytes,
                });
                self.open = Some(OpenPart { part, next: part.first, frames });
                None
            }
            SettledOutcome::Failure(FailedAttempt { item, .. }) if self.returned.get(item) => None,
            SettledOutcome::Failure(FailedAttempt { item, .. }) => {
                self.returned.set(item);
                let damaged = |error: serde_json::Error| damaged_result(record, settled, &error.to_string());
                let read = bytes.and_then(|bytes| serde_json::from_slice(&bytes).map_err(damaged));
                Some((index(item), Err(read.unwrap_or_else(without_outcome))))
            }
        }
    }

    /// Returns the next unfinished item, once no more outcomes will come.
    fn next_unfinished(&mut self, end: &End) -> Option<(usize, Result<T, ItemError>)> {
        let failure = match end {
            End::Complete => {
                Failure::new(ItemErrorKind::Infrastructure, "the run ended without an outcome for this item")
            }
            End::Cancelled(why) => Failure::new(ItemErrorKind::Cancelled, why.clone()),
            End::Unfinished(why) | End::Failed(why) | End::Unfollowed(why) => {
                Failure::new(ItemErrorKind::Infrastructure, why.clone())
            }
        };
        let item = (self.next_unfinished..self.ledger.record.manifest.items).find(|&item| !self.returned.get(item))?;
        self.next_unfinished = item + 1;
        self.returned.set(item);
        Some((index(item), Err(ItemError::new(failure, 0))))
    }
}

impl<T> Stream for Results<T> {
    type Item = (usize, Result<T, ItemError>);

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(outcome) = this.next_of_part() {
                return Poll::Ready(Some(outcome));
            }
            let end = this.read_ahead(context);
            match (this.read_done(context), end) {
                (Some((settled, bytes)), _) => {
                    if let Some(outcome) = this.process_read(settled, bytes) {
                        return Poll::Ready(Some(outcome));
                    }
                }
                (None, Some(end)) if this.reading.is_empty() => return Poll::Ready(this.next_unfinished(&end)),
                (None, _) => return Poll::Pending,
            }
        }
    }
}

impl<T> Unpin for Results<T> {}

impl<T> fmt::Debug for Results<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Results({})", self.ledger.record.manifest.run)
    }
}

impl OpenPart {
    /// Cuts off the next frame. If that fails, the rest of the part is lost as well.
    fn next_frame(&mut self, damaged: impl FnOnce(String) -> String) -> Result<Bytes, String> {
        let frames = self.frames.as_mut().map_err(|why| why.clone())?;
        let length = frame_length(frames).map_err(|error| error.to_string());
        let cut = length.and_then(|length| match usize::try_from(length) {
            Ok(length) if length <= frames.len() => Ok(frames.split_to(length)),
            _ => Err(format!("the object is truncated: {} of {length} bytes remain", frames.len())),
        });
        let cut = cut.map_err(damaged);
        if let Err(why) = &cut {
            self.frames = Err(why.clone());
        }
        cut
    }
}

/// Error message for a result object that cannot be decoded.
fn damaged_result(record: &Record, settled: SettledOutcome, why: &str) -> String {
    format!(
        "cannot read `{}` in {}: {why}; delete the object and attach to the run again to compute its items again",
        record.key_of(settled),
        record.store.describe()
    )
}

/// Returns the error of an item whose outcome may exist but cannot be read.
fn without_outcome(why: String) -> ItemError {
    ItemError::new(Failure::new(ItemErrorKind::Infrastructure, why), 0)
}

fn index(item: u64) -> usize {
    usize::try_from(item).expect("the index of an item fits into memory")
}
