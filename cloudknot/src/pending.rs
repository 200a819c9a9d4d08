//! The future type that the public API returns: await it, or block on it with `wait`.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use cloudknot_runtime::engine;
use cloudknot_runtime::store::BoxFuture;

use crate::error::Result;

/// An operation of the public API. Await it, or call `wait` where there is no async.
pub struct Pending<T>(BoxFuture<'static, Result<T>>);

impl<T> Pending<T> {
    pub(crate) fn new(future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self(Box::pin(engine::inside(Box::pin(future))))
    }

    /// Waits for the result on this thread.
    pub fn wait(self) -> Result<T> {
        wait(self)
    }
}

/// Waits for the future on this thread, which may be a thread of the user or of this crate's runtime.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    engine::blocking(|| pollster::block_on(future))
}

impl<T> Future for Pending<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        self.0.as_mut().poll(context)
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending")
    }
}
