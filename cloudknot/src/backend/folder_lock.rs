//! Shares a run in a folder between programs: one computes, others follow, and any of them may cancel.

use std::fs::{File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cloudknot_runtime::contract::{self, ENV_HOME, RunKeys};
use cloudknot_runtime::store::{BoxFuture, DirStore};
use cloudknot_runtime::{engine, files};

use super::{Activity, Hold};
use crate::error::{Error, ErrorKind, Result};
use crate::record::ledger::{End, Ledger};
use crate::record::local_log::LocalLog;
use crate::record::{Record, Start};

/// Interval between two inspections of what other programs have stored.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Number of times that a lock is tried before another program is taken to hold it.
const LOCK_ATTEMPTS: u32 = 4;
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(2);
/// Maximum time to wait for a program that computes a cancelled round.
const STOP_TIMEOUT: Duration = Duration::from_mins(1);

/// The lock of a run in a folder, held by the one program that computes the run. It is released when that program ends, for
/// whatever reason.
#[derive(Debug)]
pub(super) struct FolderLock {
    folder: DirStore,
    key: String,
    /// The file, or the reason why it cannot be opened.
    file: Result<File, String>,
}

impl FolderLock {
    /// Opens the lock of the ledger's run in this folder.
    ///
    /// # Errors
    /// Returns an error if a new run cannot be locked. A run that is resumed cannot be computed then, but it can be read.
    pub(super) fn open(folder: &Path, ledger: &Ledger, start: Start) -> Result<Self> {
        let key = ledger.record.keys.lock();
        let folder = DirStore::new(folder);
        let opened = folder.open_lock(&key).map_err(Error::from);
        if start == Start::Resume {
            return Ok(Self { folder, key, file: opened.map_err(|error| error.in_one_line()) });
        }
        let lock = Self { folder, key, file: Ok(opened?) };
        lock.try_acquire()?;
        Ok(lock)
    }

    /// Tries to acquire the lock, and returns whether this program holds it. A program that looks at the run holds a shared lock
    /// for a moment, so a lock that is held is tried again.
    fn try_acquire(&self) -> Result<bool> {
        let file = self.file.as_ref().map_err(|why| Error::new(ErrorKind::Store, why.as_str()))?;
        for attempt in 1.. {
            match file.try_lock() {
                Ok(()) => return Ok(true),
                Err(TryLockError::WouldBlock) if attempt < LOCK_ATTEMPTS => std::thread::sleep(LOCK_RETRY_INTERVAL),
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(error)) => return Err(lock_error(&self.key, error)),
            }
        }
        Ok(false)
    }
}

/// Returns whether a program computes the run with these keys in this folder. Changes nothing.
pub(super) fn is_held(folder: &Path, keys: &RunKeys) -> Result<bool> {
    Ok(DirStore::new(folder).is_locked(&keys.lock())?)
}

/// Acquires the lock of a run for as long as the result exists. Returns `None` if a program computes the run.
pub(super) fn hold(folder: &Path, keys: &RunKeys) -> Result<Option<Hold>> {
    let (folder, key) = (DirStore::new(folder), keys.lock());
    let lock = FolderLock { file: Ok(folder.open_lock(&key)?), folder, key };
    Ok(lock.try_acquire()?.then(|| Hold(lock.file.ok())))
}

/// Returns whether a program computes the ledger's round in this folder.
pub(super) fn activity(folder: &Path, ledger: &Ledger) -> Result<Activity> {
    let Record { keys, manifest, .. } = &ledger.record;
    if is_held(folder, keys)? {
        // A supervisor that has items runs as many as it may.
        return Ok(Activity::Computed { running: manifest.parallel.into(), waiting_because: None });
    }
    let (function, run) = (ledger.record.function_name(), &manifest.run);
    let word = contract::word_of(run);
    Ok(Activity::Abandoned(format!(
        "no program computes it: `cargo knot retry {word}` or `{function}.attach(\"{run}\")` continues it"
    )))
}

/// Cancels a round that another program may compute, and waits until that program has stopped.
pub(super) fn cancel(folder: &Path, ledger: &Arc<Ledger>) -> BoxFuture<'static, Result<()>> {
    let (folder, ledger) = (folder.to_owned(), Arc::clone(ledger));
    Box::pin(async move {
        ledger.record_cancellation().await?;
        let began = Instant::now();
        while is_held(&folder, &ledger.record.keys)? {
            if began.elapsed() > STOP_TIMEOUT {
                let message =
                    format!("the program that computes it has not stopped within {} s", STOP_TIMEOUT.as_secs());
                return Err(Error::new(ErrorKind::Infrastructure, message).with_hint("end that program"));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    })
}

fn lock_error(key: &str, error: std::io::Error) -> Error {
    let has_no_locks = files::has_no_locks(&error);
    let failed = Error::new(ErrorKind::Store, format!("cannot lock `{key}`")).with_source(error);
    if !has_no_locks {
        return failed;
    }
    failed.with_hint(format!("this file system has no locks: set {ENV_HOME} to a folder on a disk of this machine"))
}

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
pub(super) fn drive(ledger: &Ledger, lock: &FolderLock, start: Start, compute: impl FnOnce() -> Result<End>) {
    // Waiters must be notified of the end of the run, even after an error or a panic.
    let end = match catch_unwind(AssertUnwindSafe(|| acquire(ledger, lock, start, compute))) {
        Ok(end) => end.unwrap_or_else(|error| End::Failed(error.in_one_line())),
        Err(_) => End::Failed("the thread that drives the run panicked".into()),
    };
    engine::block_on(ledger.conclude(end));
}

/// Computes the run once no other program does; until then, records what the other program stores.
fn acquire(ledger: &Ledger, lock: &FolderLock, start: Start, compute: impl FnOnce() -> Result<End>) -> Result<End> {
    let mut is_new = start == Start::New;
    loop {
        let acquired = lock.try_acquire()?;
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
            ledger.keep_output(LocalLog::new(lock.folder.clone(), ledger.record.keys.clone(), ledger.record.round));
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
    if let Some(failed) = ledger.too_many_failures() {
        ledger.cancel().await?;
        return Ok(End::Cancelled(format!(
            "the run was stopped after {failed} failed {}; `retry_failed()` runs the remaining items",
            if failed == 1 { "item" } else { "items" }
        )));
    }
    if ledger.control.stop.load(Ordering::Relaxed) {
        return Ok(cancelled());
    }
    Ok(End::Unfinished("some items have no outcome; `retry_failed()` runs them".into()))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// L10: some network file systems have no locks.
    #[test]
    fn error_of_a_file_system_without_locks_names_the_remedy() {
        const ENOSYS_ENOLCK: [i32; 2] = if cfg!(target_os = "linux") { [38, 37] } else { [78, 77] };
        for number in ENOSYS_ENOLCK {
            let error = lock_error("knots/k/runs/r/lock", std::io::Error::from_raw_os_error(number));
            assert_eq!(error.to_string(), "cannot lock `knots/k/runs/r/lock`");
            assert!(error.hint().is_some_and(|hint| hint.contains("set CLOUDKNOT_HOME to")), "{error:?}");
        }
        let other = lock_error("knots/k/runs/r/lock", std::io::ErrorKind::PermissionDenied.into());
        assert_eq!(other.hint(), None);
    }
}
