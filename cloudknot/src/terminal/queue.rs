//! A bounded queue between the threads of a run and the one thread that prints. Whoever reads the output may stop reading: then
//! the queue fills, and the run waits, as it would for any pipe. The handler of signals never waits for it without a limit.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cloudknot_runtime::engine;

/// Number of bytes in the queue from which further messages wait.
const MAX_BYTES: usize = 1 << 20;
/// Size that each message is counted with, besides that of its text.
const MESSAGE_BYTES: usize = 128;

/// A message with text of any length.
pub(super) trait Measured {
    /// Returns the length of the text in bytes.
    fn bytes(&self) -> usize;
}

/// Queue of messages to one thread.
#[derive(Debug)]
pub(super) struct Queue<M> {
    state: Mutex<State<M>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<M> {
    messages: VecDeque<M>,
    bytes: usize,
    /// Numbers of messages that were appended and printed since the start.
    pushed: u64,
    printed: u64,
    /// `true` once nobody may wait any more: the program is about to exit.
    released: bool,
}

impl<M: Measured> Queue<M> {
    pub(super) const fn new() -> Self {
        let state = State { messages: VecDeque::new(), bytes: 0, pushed: 0, printed: 0, released: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Appends a message. Waits while the queue is full; once it is released, a message that does not fit is dropped.
    pub(super) fn push(&self, message: M) {
        if let Err(message) = self.push_if_fitting(message) {
            engine::blocking(|| self.push_when_fitting(message));
        }
    }

    /// Appends a message, or returns it if the queue is full.
    pub(super) fn push_if_fitting(&self, message: M) -> Result<(), M> {
        self.lock().push(message)?;
        self.changed.notify_all();
        Ok(())
    }

    fn push_when_fitting(&self, mut message: M) {
        let mut state = self.lock();
        while let Err(returned) = state.push(message) {
            if state.released {
                return;
            }
            message = returned;
            state = self.wait(state, None);
        }
        self.changed.notify_all();
    }

    /// Appends a message although the queue is full.
    pub(super) fn push_always(&self, message: M) {
        self.lock().append(message);
        self.changed.notify_all();
    }

    /// Prints the messages one after another, for ever.
    pub(super) fn print(&self, mut print: impl FnMut(M)) -> ! {
        loop {
            let message = self.take();
            print(message);
            self.lock().printed += 1;
            self.changed.notify_all();
        }
    }

    fn take(&self) -> M {
        let mut state = self.lock();
        loop {
            if let Some(message) = state.messages.pop_front() {
                state.bytes -= size(&message);
                self.changed.notify_all();
                return message;
            }
            state = self.wait(state, None);
        }
    }

    /// Waits until all messages so far are printed, or the queue is released.
    pub(super) fn flush(&self) {
        engine::blocking(|| {
            let mut state = self.lock();
            let pushed = state.pushed;
            while state.printed < pushed && !state.released {
                state = self.wait(state, None);
            }
        });
    }

    /// Waits until all messages so far are printed, for at most `timeout`.
    pub(super) fn flush_within(&self, timeout: Duration) {
        let end = Instant::now() + timeout;
        let mut state = self.lock();
        let pushed = state.pushed;
        while state.printed < pushed && Instant::now() < end {
            state = self.wait(state, Some(end.saturating_duration_since(Instant::now())));
        }
    }

    /// Wakes all threads that wait, and lets none wait any more.
    pub(super) fn release(&self) {
        self.lock().released = true;
        self.changed.notify_all();
    }

    fn wait<'q>(&self, state: MutexGuard<'q, State<M>>, timeout: Option<Duration>) -> MutexGuard<'q, State<M>> {
        match timeout {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => self.changed.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0,
        }
    }

    /// Locks the state. The lock is never held over an output.
    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Measured> State<M> {
    /// Appends a message, or returns it if the queue is full. A message of any size fits into an empty queue.
    fn push(&mut self, message: M) -> Result<(), M> {
        if self.bytes > 0 && self.bytes + size(&message) > MAX_BYTES {
            return Err(message);
        }
        self.append(message);
        Ok(())
    }

    fn append(&mut self, message: M) {
        self.bytes += size(&message);
        self.pushed += 1;
        self.messages.push_back(message);
    }
}

fn size(message: &impl Measured) -> usize {
    MESSAGE_BYTES + message.bytes()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    impl Measured for usize {
        fn bytes(&self) -> usize {
            *self
        }
    }

    /// M10: a reader that has stopped holds up the output, but not the end of the program.
    #[test]
    fn released_queue_lets_nobody_wait() {
        let queue = Queue::new();
        queue.push(MAX_BYTES);
        assert_eq!(queue.push_if_fitting(1), Err(1));
        std::thread::scope(|scope| {
            let (pushing, flushing) = (scope.spawn(|| queue.push(1)), scope.spawn(|| queue.flush()));
            queue.release();
            pushing.join().expect("the thread returns");
            flushing.join().expect("the thread returns");
        });
        queue.push_always(7);
        queue.flush_within(Duration::from_millis(1));
        let mut state = queue.lock();
        assert_eq!(state.messages.drain(..).collect::<Vec<_>>(), [MAX_BYTES, 7]);
    }

    #[test]
    fn messages_are_printed_in_order_and_wait_for_room() {
        let queue = Arc::new(Queue::new());
        let (sent, received) = std::sync::mpsc::channel();
        let printing = Arc::clone(&queue);
        std::thread::spawn(move || printing.print(|message| sent.send(message).expect("the test receives")));
        let messages = (1..50).map(|number| number * 10_000);
        messages.clone().for_each(|message| queue.push(message));
        queue.flush();
        assert_eq!(received.try_iter().collect::<Vec<_>>(), messages.collect::<Vec<_>>());
    }
}
