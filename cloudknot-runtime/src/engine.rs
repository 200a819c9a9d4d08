//! The one tokio runtime of a process: it drives the stores, and the futures of async remote functions.
//! The user's own executor may be any, or none.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::sync::LazyLock;
use std::task::{Context, Poll};

use tokio::runtime::{Builder, Runtime};
use tokio::task::unconstrained;

static ENGINE: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .enable_all()
        .thread_name("cloudknot-engine")
        .on_thread_start(|| IS_ITS.set(true))
        .build()
        .expect("a process may start a few threads")
});

thread_local! {
    /// Whether this thread is one of the engine's.
    static IS_ITS: Cell<bool> = const { Cell::new(false) };
}

/// Does what waits for the engine. A thread of the engine's own hands its other tasks on meanwhile: what is waited for may be
/// one of them.
pub fn blocking<T>(wait: impl FnOnce() -> T) -> T {
    if IS_ITS.get() { tokio::task::block_in_place(wait) } else { wait() }
}

/// Makes something that belongs to the engine, such as a listener for a signal.
pub fn enter<T>(make: impl FnOnce() -> T) -> T {
    let _entered = ENGINE.enter();
    make()
}

/// Runs a future to its end on this thread.
///
/// # Panics
/// On a thread that is already driving a tokio runtime; there, await [`inside`].
pub fn block_on<F: Future>(future: F) -> F::Output {
    ENGINE.block_on(future)
}

/// Starts a task.
pub fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    ENGINE.spawn(future)
}

/// A future that finds the engine's timers and sockets whoever polls it.
pub fn inside<F: Future + Unpin>(future: F) -> Inside<F> {
    Inside(future)
}

/// See [`inside`].
#[derive(Debug)]
pub struct Inside<F>(F);

impl<F: Future + Unpin> Future for Inside<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _entered = ENGINE.enter();
        // Who waits on a thread of tokio's does so within one turn of a task, and tokio grants each turn so many reads: after
        // those its sockets would have nothing to read for ever.
        pin!(unconstrained(Pin::new(&mut self.0))).poll(context)
    }
}
