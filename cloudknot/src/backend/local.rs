//! This machine: a supervisor on a thread of the user's program, over a folder.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cloudknot_runtime::contract::{ItemProcess, Manifest};
use cloudknot_runtime::engine;
use cloudknot_runtime::function::Function;
use cloudknot_runtime::process::Launcher;
use cloudknot_runtime::store::{DirStore, Store};
use cloudknot_runtime::supervisor::{self, Commit, Isolation, Trouble, Work};

use super::{Chunking, Place};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::{End, Ledger};
use crate::program;

#[derive(Debug)]
pub(super) struct Local;

/// How many parts a run is cut into at most, where the user does not say: a file each.
const PARTS: u64 = 10_000;
/// How often another program's doings are looked at.
const LOOK: Duration = Duration::from_millis(200);

impl Place for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn store(&self) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(DirStore::new(program::home())))
    }

    fn knot(&self, function: &Function) -> String {
        function.id.package.to_owned()
    }

    fn chunking(&self, function: &Function, items: u64) -> Chunking {
        // A function that asks for several CPUs gets them.
        let each = function.resources.vcpus.map_or(1, |vcpus| to_usize(vcpus.ceil()).max(1));
        let parallel = u32::try_from((cores() / each).max(1)).unwrap_or(u32::MAX);
        Chunking { chunk: items.div_ceil(PARTS).max(1), parallel }
    }

    fn launch(&self, ledger: &Arc<Ledger>, function: &'static Function, known: bool) -> Result<()> {
        let isolation = isolation(&ledger.record.manifest, function);
        let parallel = ledger.record.manifest.parallel;
        ledger.started(&match isolation {
            Isolation::Processes(_) => {
                format!("on this machine, {}", counted(parallel, "item process", "item processes"))
            }
            Isolation::Threads(_) => format!("in this process, {}", counted(parallel, "thread", "threads")),
        });
        let driver =
            Driver { ledger: Arc::clone(ledger), isolation, lock: program::home().join(ledger.record.keys.lock()) };
        std::thread::Builder::new()
            .name("cloudknot-run".into())
            .spawn(move || driver.drive(known))
            .map_err(|error| Error::new(ErrorKind::Infrastructure, "failed to start a thread").with_source(error))?;
        let ledger = Arc::clone(ledger);
        engine::spawn(async move { watch_for_cancel(&ledger).await });
        Ok(())
    }
}

struct Driver {
    ledger: Arc<Ledger>,
    isolation: Isolation,
    lock: PathBuf,
}

impl Driver {
    fn drive(&self, known: bool) {
        // Whoever waits for the run must hear of its end, whatever became of it.
        let end = match catch_unwind(AssertUnwindSafe(|| self.take_turns(known))) {
            Ok(end) => end.unwrap_or_else(|error| End::Trouble(trouble(&error))),
            Err(_) => End::Trouble("the thread that drives the run panicked".into()),
        };
        self.ledger.finish(end);
    }

    /// One program computes a run at a time; another that attaches to it looks on, and takes over when the first is
    /// gone.
    fn take_turns(&self, mut known: bool) -> Result<End> {
        let store_error = |error: std::io::Error| {
            Error::new(ErrorKind::Store, format!("failed to lock `{}`", self.lock.display())).with_source(error)
        };
        let lock = File::create(&self.lock).map_err(store_error)?;
        loop {
            match lock.try_lock() {
                Ok(()) => {
                    if !known {
                        engine::block_on(self.ledger.refresh())?;
                    }
                    return self.compute();
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(store_error(error)),
            }
            known = false;
            engine::block_on(self.ledger.refresh())?;
            if self.ledger.missing().is_empty() {
                return Ok(End::Complete);
            }
            if engine::block_on(self.ledger.is_cancelled())? {
                return Ok(cancelled());
            }
            std::thread::sleep(LOOK);
        }
    }

    fn compute(&self) -> Result<End> {
        let record = &self.ledger.record;
        let manifest = &record.manifest;
        let missing = self.ledger.missing();
        if !missing.is_empty() && engine::block_on(self.ledger.is_cancelled())? {
            return Ok(cancelled());
        }
        let work = Work {
            store: Arc::clone(&record.store),
            keys: record.keys.clone(),
            round: record.round,
            inputs: manifest.inputs,
            chunk: manifest.chunk,
            parallel: manifest.parallel,
            retries: record.taken_up.retries,
            isolation: self.isolation.clone(),
            commit: Commit::FOLDER,
        };
        // Another program may have been killed just before it noted that.
        self.ledger.stop_after_too_many();
        let report = |event| match event {
            supervisor::Event::Stored(part) => self.ledger.stored(part),
            supervisor::Event::Failed { item, error, last } => self.ledger.failed(item, &error, last),
            supervisor::Event::Log(text) => self.ledger.printed(&text),
        };
        supervisor::supervise(&work, missing, &self.ledger.control, &report).map_err(|trouble| match trouble {
            Trouble::Store(error) => error.into(),
            other => Error::new(ErrorKind::Infrastructure, with_causes(&other)),
        })?;
        if self.ledger.missing().is_empty() {
            return Ok(End::Complete);
        }
        let failed = self.ledger.counts().1;
        if manifest.max_failures.is_some_and(|most| failed >= most) {
            engine::block_on(self.ledger.cancel())?;
            return Ok(End::Cancelled(format!(
                "the run was stopped after {failed} failed {}; `retry_failed()` takes up what is left",
                if failed == 1 { "item" } else { "items" }
            )));
        }
        Ok(cancelled())
    }
}

fn cancelled() -> End {
    End::Cancelled("the run was cancelled; `retry_failed()` takes up what is left".into())
}

/// Stops the round when anybody, this program or another, notes in the store that it is cancelled.
async fn watch_for_cancel(ledger: &Ledger) {
    let mut finished = std::pin::pin!(ledger.finished());
    loop {
        tokio::select! {
            _ = &mut finished => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        // If the store cannot be read, the supervisor will say so.
        if ledger.is_cancelled().await.unwrap_or(false) {
            ledger.control.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Item processes where this program can be started again as one, else threads.
fn isolation(manifest: &Manifest, function: &'static Function) -> Isolation {
    if !program::has_started() {
        return Isolation::Threads(function);
    }
    let mut env = threads_for(manifest.parallel);
    env.extend(manifest.env.clone());
    Isolation::Processes(Launcher {
        program: this_program(),
        order: ItemProcess { function: manifest.function.clone(), fingerprint: manifest.fingerprint },
        env,
        timeout: manifest.timeout(),
    })
}

/// The file that is running, even where a rebuild has put another in its place.
#[cfg(target_os = "linux")]
fn this_program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

#[cfg(not(target_os = "linux"))]
fn this_program() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| std::env::args_os().next().unwrap_or_default().into())
}

/// A function that uses rayon or OpenMP would take all cores in every process at once.
fn threads_for(parallel: u32) -> BTreeMap<String, String> {
    let each = (cores() / parallel.max(1) as usize).max(1).to_string();
    ["RAYON_NUM_THREADS", "OMP_NUM_THREADS"]
        .into_iter()
        .filter(|name| std::env::var_os(name).is_none())
        .map(|name| (name.to_owned(), each.clone()))
        .collect()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

fn to_usize(number: f64) -> usize {
    // The macro has checked that it is a small positive number.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let number = number as usize;
    number
}

fn counted(number: u32, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// What is told of an error that ended a round: in one line, with its causes and hint.
fn trouble(error: &Error) -> String {
    let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    with_causes(error) + &hint
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
