//! The tokio runtime of a process. It drives the stores and the futures of async remote functions.
//! The user's code may use any executor, or none.

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
        .on_thread_start(|| IS_ENGINE_THREAD.set(true))
        .build()
        .expect("the process can start threads")
});

thread_local! {
    /// `true` on the threads of the engine.
    static IS_ENGINE_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Runs a function that blocks until the engine has done something. A thread of the engine hands its other tasks to
/// another thread meanwhile, since the function may wait for one of them.
pub fn blocking<T>(wait: impl FnOnce() -> T) -> T {
    if IS_ENGINE_THREAD.get() { tokio::task::block_in_place(wait) } else { wait() }
}

/// Creates a value that belongs to the engine, such as a listener for a signal.
pub fn enter<T>(create: impl FnOnce() -> T) -> T {
    let _entered = ENGINE.enter();
    create()
}

/// Runs a future to completion on this thread.
///
/// # Panics
/// Panics on a thread that is already driving a tokio runtime; await [`inside`] there.
pub fn block_on<F: Future>(future: F) -> F::Output {
    ENGINE.block_on(future)
}

/// Spawns a task on the engine.
pub fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    ENGINE.spawn(future)
}

/// Wraps a future so that it uses the engine's timers and sockets on any executor.
pub fn inside<F: Future + Unpin>(future: F) -> Inside<F> {
    Inside(Some(future))
}

/// Future returned by [`inside`].
#[derive(Debug)]
pub struct Inside<F>(Option<F>);

// A connection that is dropped while it is opened spawns a task.
impl<F> Drop for Inside<F> {
    fn drop(&mut self) {
        let future = self.0.take();
        enter(|| drop(future));
    }
}

impl<F: Future + Unpin> Future for Inside<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _entered = ENGINE.enter();
        // Code that blocks on a tokio thread does so within one poll of a task, and tokio's cooperative budget limits the
        // reads of each poll. Once it is used up, sockets would report nothing to read forever; hence `unconstrained`.
        let future = self.0.as_mut().expect("the future is taken only when it is dropped");
        pin!(unconstrained(Pin::new(future))).poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn future_is_dropped_inside_of_the_engine() {
        struct Spawns;
        impl Drop for Spawns {
            fn drop(&mut self) {
                tokio::spawn(std::future::ready(()));
            }
        }
        let spawns = Spawns;
        drop(inside(Box::pin(async move { drop(spawns) })));
    }
}
