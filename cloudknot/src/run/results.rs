//! The results of a run, in the order of completion: settled outcomes are read ahead from the store in that order.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use cloudknot_runtime::codec::CodecError;
use cloudknot_runtime::contract::{FailedAttempt, Part};
use cloudknot_runtime::engine;
use cloudknot_runtime::failure::{Failure, ItemError, ItemErrorKind};
use cloudknot_runtime::store::{BoxFuture, StoreError};
use futures_core::Stream;

use crate::error::Result;
use crate::pending::wait;
use crate::record::SettledOutcome;
use crate::record::frames::{PartFrames, bytes_of, damaged_outcome, failure_of, without_outcome};
use crate::record::ledger::{Bits, End, Ledger};
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
    /// A part whose values are being returned.
    open: Option<(Part, PartFrames)>,
    /// Item at which the search for unfinished items continues.
    next_unfinished: u64,
}

/// A read from the store, in progress or done.
enum Reading {
    InProgress(SettledOutcome, BoxFuture<'static, Result<Option<Bytes>, StoreError>>),
    Done(SettledOutcome, Result<Option<Bytes>, StoreError>),
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
        let (part, frames) = self.open.as_mut()?;
        let record = &self.ledger.record;
        while let Some((item, frame)) = frames.next(record) {
            if self.returned.get(item) {
                continue;
            }
            self.returned.set(item);
            let damaged = |why: CodecError| damaged_outcome(record, SettledOutcome::Values(*part), &why.to_string());
            let outcome = frame.and_then(|frame| (self.decode)(&frame).map_err(damaged));
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
        let bytes = bytes_of(record, settled, bytes);
        match settled {
            SettledOutcome::Values(part) => {
                self.open = Some((part, PartFrames::new(part, bytes)));
                None
            }
            SettledOutcome::Failure(FailedAttempt { item, .. }) if self.returned.get(item) => None,
            SettledOutcome::Failure(FailedAttempt { item, .. }) => {
                self.returned.set(item);
                Some((index(item), Err(failure_of(record, settled, bytes))))
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

fn index(item: u64) -> usize {
    usize::try_from(item).expect("the index of an item fits into memory")
}
