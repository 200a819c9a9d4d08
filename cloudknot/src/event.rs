//! What the library reports while it works. It never prints: a hook does, and `#[cloudknot::main]` installs one for
//! the terminal; and whoever collects what is told by `tracing`.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use cloudknot_runtime::failure::ItemError;
use cloudknot_runtime::supervisor::Control;

/// Something that happened to a run.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A run begins, or is taken up again.
    Started {
        /// The run's id.
        run: &'a str,
        /// The function's name.
        function: &'a str,
        /// Where it runs, in words.
        place: &'a str,
        /// How many items it has.
        items: u64,
        /// How many of them have a value already.
        done: u64,
    },
    /// Values were stored, or items failed. One after the other for a run: what is told last is the newest.
    Progress {
        /// The run's id.
        run: &'a str,
        /// How many items have a value.
        done: u64,
        /// How many items failed for good.
        failed: u64,
    },
    /// An attempt failed.
    Failed {
        /// The run's id.
        run: &'a str,
        /// The item.
        item: u64,
        /// What went wrong.
        error: &'a ItemError,
        /// No further attempt follows.
        last: bool,
    },
    /// The function printed this.
    Log {
        /// The run's id.
        run: &'a str,
        /// Bytes as they came; lines may be incomplete.
        text: &'a [u8],
    },
    /// Nothing of a run has been running for a while.
    Waiting {
        /// The run's id.
        run: &'a str,
        /// For how long.
        since: Duration,
        /// Why, in the scheduler's words.
        reason: &'a str,
    },
    /// A run ended.
    Finished {
        /// The run's id.
        run: &'a str,
        /// How many items have a value.
        done: u64,
        /// How many items failed for good.
        failed: u64,
        /// How many items have neither: the run was cancelled, or its surroundings failed.
        left: u64,
        /// Why items are left.
        reason: Option<&'a str>,
        /// Since it began.
        elapsed: Duration,
    },
    /// An image goes into a registry. It may take a step back, where a connection was lost.
    Pushing {
        /// Where to.
        repository: &'a str,
        /// How many of its bytes are there, or on their way.
        sent: u64,
        /// How many there are.
        bytes: u64,
    },
    /// A push ended.
    PushFinished {
        /// Where to.
        repository: &'a str,
        /// How many bytes the registry had lacked; `None` where the push failed.
        sent: Option<u64>,
    },
    /// A step of a deploy or a clobber begins, such as "creating the stack `cloudknot-pars-lab`".
    Step {
        /// What is being done.
        doing: &'a str,
    },
    /// Something happened to a resource of a stack.
    Resource {
        /// The stack's name.
        stack: &'a str,
        /// What the template calls it.
        resource: &'a str,
        /// Its type, such as `AWS::S3::Bucket`.
        kind: &'a str,
        /// CloudFormation's word for it, such as `CREATE_COMPLETE`.
        status: &'a str,
        /// What CloudFormation says to that.
        reason: Option<&'a str>,
    },
    /// Something outside of this machine failed in passing, and is tried again after a pause.
    Retrying {
        /// What is tried again.
        doing: &'a str,
        /// Why.
        reason: &'a str,
        /// The pause.
        wait: Duration,
    },
}

/// Where reports go.
///
/// ```
/// struct Lines;
///
/// impl cloudknot::Hook for Lines {
///     fn report(&self, event: &cloudknot::Event<'_>) {
///         eprintln!("{event:?}");
///     }
/// }
///
/// cloudknot::set_hook(Some(Box::new(Lines)));
/// ```
pub trait Hook: Send + Sync {
    /// Called from any thread, often, and in the way of the run: be quick.
    fn report(&self, event: &Event<'_>);
}

impl fmt::Debug for dyn Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

static HOOK: RwLock<Option<Arc<dyn Hook>>> = RwLock::new(None);

/// Takes reports to this hook from now on, in place of the one before; `None` for silence.
pub fn set_hook(hook: Option<Box<dyn Hook>>) {
    *HOOK.write().unwrap_or_else(PoisonError::into_inner) = hook.map(Arc::from);
}

pub(crate) fn report(event: &Event<'_>) {
    trace(event);
    // Not called under the lock: a hook may install another one.
    let hook = HOOK.read().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(hook) = hook {
        // A hook that panics must not take the run with it; its panic is printed like any other.
        let _ = catch_unwind(AssertUnwindSafe(|| hook.report(event)));
    }
}

/// The same for the program's logs, if it has any.
fn trace(event: &Event<'_>) {
    match *event {
        Event::Started { run, function, place, items, done } => {
            tracing::info!(run, function, place, items, done, "a run begins");
        }
        Event::Progress { run, done, failed } => tracing::debug!(run, done, failed, "a run goes on"),
        Event::Failed { run, item, error, last } => {
            tracing::warn!(run, item, attempt = error.attempt(), last, %error, "an attempt failed");
        }
        // What a function prints is no event of ours.
        Event::Log { .. } => {}
        Event::Waiting { run, since, reason } => tracing::warn!(run, ?since, reason, "nothing of a run is running"),
        Event::Finished { run, done, failed, left, reason, elapsed } => {
            tracing::info!(run, done, failed, left, reason, ?elapsed, "a run ended");
        }
        Event::Pushing { repository, sent, bytes } => tracing::debug!(repository, sent, bytes, "an image is pushed"),
        Event::PushFinished { repository, sent } => tracing::info!(repository, sent, "a push ended"),
        Event::Step { doing } => tracing::info!("{doing}"),
        Event::Resource { stack, resource, kind, status, reason } => {
            tracing::info!(stack, resource, kind, status, reason, "a resource changed");
        }
        Event::Retrying { doing, reason, wait } => tracing::warn!(doing, reason, ?wait, "it is tried again"),
    }
}

/// Reports a step of a deploy or a clobber, which may take a while.
#[cfg(all(feature = "deploy", not(cloudknot_worker)))]
pub(crate) fn step(doing: &str) {
    report(&Event::Step { doing });
}

/// The rounds that an interrupt stops. Some may have ended.
static ROUNDS: Mutex<Vec<Weak<Control>>> = Mutex::new(Vec::new());

/// Set by an interrupt: no further round begins.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Registers a round to be stopped by [`stop_all`], at once if that was called before.
pub(crate) fn stop_with_the_program(control: &Arc<Control>) {
    let mut rounds = ROUNDS.lock().unwrap_or_else(PoisonError::into_inner);
    rounds.retain(|round| round.strong_count() > 0);
    rounds.push(Arc::downgrade(control));
    control.stop.store(STOPPED.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// Stops all rounds, and those to come: running items are ended, finished ones are stored. Nothing is cancelled.
#[cfg(all(feature = "progress", not(cloudknot_worker)))]
pub(crate) fn stop_all() {
    STOPPED.store(true, Ordering::Relaxed);
    for round in ROUNDS.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
        round.stop.store(true, Ordering::Relaxed);
    }
}
