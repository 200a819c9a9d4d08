//! Passes over a type, on a thread of their own, until nothing more can be learned about it.

use std::any::type_name;
use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::shapes::SlotId;
use super::trace::{Finished, Tracer};

/// Maximum number of consecutive passes that learn nothing; after that, the rest is considered unreachable.
const MAX_IDLE_STEPS: usize = 16;
/// Stack of the thread, the same as that of a main thread: a debug build needs much for nested types.
const STACK_SIZE: usize = 8 << 20;

/// A type to be traced.
#[derive(Debug, Clone, Copy)]
pub(super) struct Root {
    /// Deserializes the type once, and returns whether it accepted the offered values.
    pass: fn(&mut Tracer, SlotId) -> bool,
    name: fn() -> &'static str,
}

impl Root {
    pub(super) const fn of<T: DeserializeOwned>() -> Self {
        Self { pass: pass::<T>, name: type_name::<T> }
    }

    pub(super) const fn sampled<T: Serialize + DeserializeOwned>() -> Self {
        Self { pass: sampled_pass::<T>, name: type_name::<T> }
    }

    pub(super) fn name(self) -> &'static str {
        (self.name)()
    }
}

/// Builds a value and forgets it: its destructor must not run, because nobody made the value.
fn pass<T: DeserializeOwned>(tracer: &mut Tracer, root: SlotId) -> bool {
    tracer.enter(root, PhantomData::<T>).map(std::mem::forget).is_ok()
}

/// Same as `pass`, and takes a sample of how the value is written.
fn sampled_pass<T: Serialize + DeserializeOwned>(tracer: &mut Tracer, root: SlotId) -> bool {
    let Ok(value) = tracer.enter(root, PhantomData::<T>) else { return false };
    tracer.sample(root, &value);
    std::mem::forget(value);
    true
}

impl Tracer {
    /// Traces a type, and returns its slot. `None` if this takes longer than `limit`; the thread is left behind.
    pub(super) fn explore(self, root: Root, limit: Option<Duration>) -> io::Result<Option<(Self, SlotId)>> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut tracer = self;
        let slot = tracer.new_slot();
        loop {
            let finished = tracer.run(root, slot)?;
            tracer = match receive(&finished, deadline) {
                Some(Finished::Traced(tracer)) => return Ok(Some((tracer, slot))),
                Some(Finished::Stopped(mut tracer)) => {
                    tracer.note_panic();
                    if tracer.end_pass(slot, false) {
                        return Ok(Some((tracer, slot)));
                    }
                    tracer
                }
                None => return Ok(None),
            };
        }
    }

    /// Describes a type by its name alone.
    pub(super) fn opaque(&mut self, root: Root) -> SlotId {
        let slot = self.new_slot();
        self.slots[slot].entered = true;
        self.slots[slot].opaque = Some(root.name());
        self.slots[slot].unbuildable = true;
        slot
    }

    /// Starts a thread that traces a type.
    fn run(mut self, root: Root, slot: SlotId) -> io::Result<Receiver<Finished>> {
        install_panic_hook();
        let (sender, receiver) = mpsc::channel();
        self.steps.finished = Some(sender.clone());
        let thread = thread::Builder::new().name("cloudknot-trace".into()).stack_size(STACK_SIZE);
        thread.spawn(move || {
            TRACING.set(true);
            self.pass_until_known(root, slot);
            // Fails if nobody waits for the tracer any more.
            let _ = sender.send(Finished::Traced(self));
        })?;
        Ok(receiver)
    }

    fn pass_until_known(&mut self, root: Root, slot: SlotId) {
        loop {
            self.begin_pass();
            let built = catch_unwind(AssertUnwindSafe(|| (root.pass)(self, slot))).unwrap_or_else(|payload| {
                // Made by the type, so its destructor must not run either.
                std::mem::forget(payload);
                self.note_panic();
                false
            });
            if self.end_pass(slot, built) {
                return;
            }
        }
    }

    /// Ends a pass, and returns whether it was the last one.
    fn end_pass(&mut self, root: SlotId, built: bool) -> bool {
        self.find_pending();
        let idled = !self.has_learned();
        let done = if self.refusal_recorded { self.slots[root].unbuildable && idled } else { built };
        self.idle = if idled { self.idle + 1 } else { 0 };
        (done && !self.slots[root].pending) || self.idle >= MAX_IDLE_STEPS || self.is_exhaustive()
    }
}

/// Receives the tracer of a thread. `None` if that takes too long, or if the type has ended the thread.
fn receive(finished: &Receiver<Finished>, deadline: Option<Instant>) -> Option<Finished> {
    let Some(deadline) = deadline else { return finished.recv().ok() };
    finished.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
}

thread_local! {
    static TRACING: Cell<bool> = const { Cell::new(false) };
}

/// Keeps panics of types silent while they are traced, unless they end the program.
fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !TRACING.get() || cfg!(panic = "abort") {
                previous(info);
            }
        }));
    });
}
