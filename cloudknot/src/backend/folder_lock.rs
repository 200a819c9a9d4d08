//! Shares a run in a folder between programs: one computes, others follow, and any of them may cancel.

use std::fs::{File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cloudknot_runtime::engine;

use crate::error::{Error, ErrorKind, Result};
use crate::record::Start;
use crate::record::ledger::{End, Ledger};

/// Interval between two inspections of what other programs have stored.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Drives the run on a separate thread, and stops it when it is cancelled.
pub(super) fn start(ledger: &Arc<Ledger>, drive: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new()
        .name("cloudknot-run".into())
        .spawn(drive)
        .map_err(|error| Error::new(ErrorKind::Infrastructure, "cannot start a thread").with_source(error))?;
    watch_for_cancel(ledger);
    Ok(())
}

/// Computes the run once no other program does, and reports the end to the ledger.
pub(super) fn drive(ledger: &Ledger, lock: &Path, start: Start, compute: impl FnOnce() -> Result<End>) {
    // Waiters must be notified of the end of the run, even after an error or a panic.
    let end = match catch_unwind(AssertUnwindSafe(|| acquire(ledger, lock, start, compute))) {
        Ok(end) => end.unwrap_or_else(|error| End::Failed(error.in_one_line())),
        Err(_) => End::Failed("the thread that drives the run panicked".into()),
    };
    ledger.finish(end);
}

/// Computes the run once no other program does; until then, records what the other program stores.
///
/// The lock is released when the program that holds it ends, for whatever reason.
fn acquire(ledger: &Ledger, lock: &Path, start: Start, compute: impl FnOnce() -> Result<End>) -> Result<End> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Store, format!("cannot lock `{}`", lock.display())).with_source(error)
    };
    let file = File::create(lock).map_err(failed)?;
    let mut is_new = start == Start::New;
    loop {
        let acquired = match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        };
        if !acquired || !is_new {
            engine::block_on(ledger.refresh())?;
            is_new = false;
        }
        if ledger.missing().is_empty() {
            return Ok(End::Complete);
        }
        if ledger.control.stop.load(Ordering::Relaxed) || engine::block_on(ledger.is_cancelled())? {
            return Ok(cancelled());
        }
        if acquired {
            // Another program may have been killed just before it recorded that too many items failed.
            ledger.enforce_max_failures();
            return compute();
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Determines how a round ended, once its backend has finished. Cancels the run if too many items failed.
pub(super) async fn round_end(ledger: &Ledger) -> Result<End> {
    if ledger.missing().is_empty() {
        return Ok(End::Complete);
    }
    let failed = ledger.counts().1;
    if ledger.record.manifest.max_failures.is_some_and(|limit| failed >= limit) {
        ledger.cancel().await?;
        return Ok(End::Cancelled(format!(
            "the run was stopped after {failed} failed {}; `retry_failed()` runs the remaining items",
            if failed == 1 { "item" } else { "items" }
        )));
    }
    if ledger.control.stop.load(Ordering::Relaxed) {
        return Ok(cancelled());
    }
    Ok(End::Failed("some items have no outcome; `retry_failed()` runs them".into()))
}

fn cancelled() -> End {
    End::Cancelled("the run was cancelled; `retry_failed()` runs the remaining items".into())
}

/// Stops the round once this program or another records in the store that it is cancelled.
fn watch_for_cancel(ledger: &Arc<Ledger>) {
    let ledger = Arc::clone(ledger);
    engine::spawn(async move {
        let mut finished = std::pin::pin!(ledger.finished());
        loop {
            tokio::select! {
                _ = &mut finished => return,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            // If the store cannot be read, the program that computes reports it.
            if ledger.is_cancelled().await.unwrap_or(false) {
                ledger.control.stop.store(true, Ordering::Relaxed);
            }
        }
    });
}
