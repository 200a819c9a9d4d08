//! Events that the library reports while it works. The library never prints: events go to a hook (`#[cloudknot::main]`
//! installs one for the terminal) and to `tracing`.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use cloudknot_runtime::failure::ItemError;
use cloudknot_runtime::supervisor::Control;

/// An event of a run, a build or a deploy.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A run begins, or is resumed.
    Started {
        /// ID of the run.
        run: &'a str,
        /// Name of the function.
        function: &'a str,
        /// Description of the backend that computes the run.
        backend: &'a str,
        /// Number of items.
        items: u64,
        /// Number of items that already have a value.
        done: u64,
        /// Number of items that run at once; on AWS Batch, in one worker.
        parallel: u32,
    },
    /// Values were stored, or items failed. The reports of a run are serialized: the last one is the newest.
    Progress {
        /// ID of the run.
        run: &'a str,
        /// Number of items that have a value.
        done: u64,
        /// Number of items that failed for good.
        failed: u64,
    },
    /// An attempt failed.
    Failed {
        /// ID of the run.
        run: &'a str,
        /// Index of the item.
        item: u64,
        /// Error of the attempt.
        error: &'a ItemError,
        /// `true` if no further attempt follows.
        last: bool,
    },
    /// An item printed output.
    Log {
        /// ID of the run.
        run: &'a str,
        /// Index of the item; `None` for output before the first item of a process. What other threads print after the item has
        /// returned is attributed to the next one, or to none.
        item: Option<u64>,
        /// Number of the item's attempt, from 1.
        attempt: Option<u32>,
        /// Raw bytes of the output; lines may be incomplete. The terminal shows them as they are, since they are the output of the
        /// user's own program.
        text: &'a [u8],
    },
    /// No job of a run has been running for a while.
    Waiting {
        /// ID of the run.
        run: &'a str,
        /// Time without a running job so far.
        since: Duration,
        /// Reason, as the scheduler reports it.
        reason: &'a str,
    },
    /// A run ended.
    Finished {
        /// ID of the run.
        run: &'a str,
        /// Number of items that have a value.
        done: u64,
        /// Number of items that failed for good.
        failed: u64,
        /// Number of unfinished items: the run was cancelled, or its infrastructure failed.
        unfinished: u64,
        /// Reason for the unfinished items.
        reason: Option<&'a str>,
        /// Time since the run began.
        elapsed: Duration,
    },
    /// An image is being pushed to a registry. `sent` may decrease if a connection was lost.
    Pushing {
        /// Repository that receives the image.
        repository: &'a str,
        /// Number of bytes that are in the registry or in transit.
        sent: u64,
        /// Number of all bytes.
        bytes: u64,
    },
    /// A push ended.
    PushFinished {
        /// Repository that receives the image.
        repository: &'a str,
        /// Number of bytes that the registry lacked; `None` if the push failed.
        sent: Option<u64>,
    },
    /// A step of a deploy or a clobber begins, such as "creating the stack `cloudknot-pars-lab`".
    Step {
        /// Description of the step.
        action: &'a str,
    },
    /// A resource of a stack changed its status.
    Resource {
        /// Name of the stack.
        stack: &'a str,
        /// Name of the resource in the template.
        resource: &'a str,
        /// Type of the resource, such as `AWS::S3::Bucket`.
        kind: &'a str,
        /// Status of the resource in CloudFormation's terms, such as `CREATE_COMPLETE`.
        status: &'a str,
        /// Reason that CloudFormation gives for the status.
        reason: Option<&'a str>,
    },
    /// An operation outside of this machine failed temporarily, and is retried after a pause.
    Retrying {
        /// Description of the operation.
        action: &'a str,
        /// Reason for the failure.
        reason: &'a str,
        /// Length of the pause.
        wait: Duration,
    },
}

/// A receiver of events.
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
    /// Handles an event. Called often, from any thread, and the run waits for it to return: be quick.
    fn report(&self, event: &Event<'_>);
}

impl fmt::Debug for dyn Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

static HOOK: RwLock<Option<Arc<dyn Hook>>> = RwLock::new(None);

/// Sends events to this hook from now on, instead of the previous one; `None` disables reports.
///
/// The hook that `#[cloudknot::main]` installs also handles Ctrl-C, SIGTERM and SIGHUP once a run has begun: finished items are
/// stored before the program ends. With another hook, this is up to the program. Ctrl-Z stops the program, but not the item
/// that an item process is running.
pub fn set_hook(hook: Option<Box<dyn Hook>>) {
    *HOOK.write().unwrap_or_else(PoisonError::into_inner) = hook.map(Arc::from);
}

pub(crate) fn report(event: &Event<'_>) {
    trace(event);
    // Not called under the lock, because a hook may install another one.
    let hook = HOOK.read().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(hook) = hook {
        // A panic of the hook must not end the run; it is printed like any other panic.
        let _ = catch_unwind(AssertUnwindSafe(|| hook.report(event)));
    }
}

/// Sends the event to `tracing`, for programs that collect it.
fn trace(event: &Event<'_>) {
    match *event {
        Event::Started { run, function, backend, items, done, .. } => {
            tracing::info!(run, function, backend, items, done, "a run begins");
        }
        Event::Progress { run, done, failed } => tracing::debug!(run, done, failed, "a run made progress"),
        Event::Failed { run, item, error, last } => {
            tracing::warn!(run, item, attempt = error.attempt(), last, %error, "an attempt failed");
        }
        // The function's output does not belong in the library's logs.
        Event::Log { .. } => {}
        Event::Waiting { run, since, reason } => tracing::warn!(run, ?since, reason, "no item of a run is running"),
        Event::Finished { run, done, failed, unfinished, reason, elapsed } => {
            tracing::info!(run, done, failed, unfinished, reason, ?elapsed, "a run ended");
        }
        Event::Pushing { repository, sent, bytes } => tracing::debug!(repository, sent, bytes, "an image is pushed"),
        Event::PushFinished { repository, sent } => tracing::info!(repository, sent, "a push ended"),
        Event::Step { action } => tracing::info!("{action}"),
        Event::Resource { stack, resource, kind, status, reason } => {
            tracing::info!(stack, resource, kind, status, reason, "a resource changed");
        }
        Event::Retrying { action, reason, wait } => tracing::warn!(action, reason, ?wait, "retrying"),
    }
}

/// Reports a step of a deploy or a clobber, which may take a while.
pub(crate) fn step(action: &str) {
    report(&Event::Step { action });
}

/// Rounds that an interrupt stops. Some may have ended.
static ROUNDS: Mutex<Vec<Weak<Control>>> = Mutex::new(Vec::new());

/// Set by an interrupt, after which no further round begins.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Registers a round to be stopped by [`stop_all`], or immediately if that was called before.
pub(crate) fn stop_with_the_program(control: &Arc<Control>) {
    let mut rounds = ROUNDS.lock().unwrap_or_else(PoisonError::into_inner);
    rounds.retain(|round| round.strong_count() > 0);
    rounds.push(Arc::downgrade(control));
    control.stop.store(STOPPED.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// Stops all present and future rounds: running items are ended, finished ones are stored. Nothing is cancelled.
pub(crate) fn stop_all() {
    STOPPED.store(true, Ordering::Relaxed);
    for round in ROUNDS.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
        round.stop.store(true, Ordering::Relaxed);
    }
}
