//! The points of a trace at which a type may end the process. If it does, the next process stops at the same point instead.
//!
//! Points are numbered, in each part of the types. The tracer passes one whenever it has learned something, so that a trace that stops at a point
//! knows exactly what the trace knew that ended after it. Tracing is deterministic, so the numbers are the same each time.

use std::collections::BTreeSet;

use super::Part;
use super::trace::{Finished, Tracer};

impl Tracer {
    /// Begins with a part, whose type ends the process at these points.
    pub(super) fn begin_part(&mut self, part: Part, ends: Option<&BTreeSet<u64>>) {
        self.steps.point = 0;
        self.steps.ends = ends.cloned().unwrap_or_default();
        if let Some(observer) = &self.steps.observer {
            observer.begins(part);
        }
    }

    /// Passes the next point. Called after each change of what is known, before the type continues.
    pub(super) fn pass_point(&mut self) {
        self.steps.point += 1;
        if let Some(observer) = &self.steps.observer {
            observer.passes(self.steps.point);
        }
        if self.steps.ends.contains(&self.steps.point) {
            self.stop();
        }
    }

    /// Hands the tracer over to another thread. This thread sleeps forever, because the type would continue on it.
    fn stop(&mut self) -> ! {
        let tracer = std::mem::take(self);
        if let Some(finished) = tracer.steps.finished.clone() {
            // Fails if nobody waits for the tracer any more.
            let _ = finished.send(Finished::Stopped(tracer));
        }
        loop {
            std::thread::park();
        }
    }
}
