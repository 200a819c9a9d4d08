//! The local backend: a supervisor on a thread of the user's program, over a folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cloudknot_runtime::contract::{ItemProcess, Resources, RunKeys};
use cloudknot_runtime::function::Function;
use cloudknot_runtime::process::Launcher;
use cloudknot_runtime::store::{BoxFuture, DirStore, Object, Store};
use cloudknot_runtime::supervisor::{self, FlushLimits, Isolation, SupervisorError, Work};
use cloudknot_runtime::{engine, machine};

use super::folder_lock::{self, FolderLock};
use super::{Activity, Chunking, Executor, Hold, cores};
use crate::error::{Error, ErrorKind, Result, with_causes};
use crate::home;
use crate::record::ledger::{End, Ledger};
use crate::record::{Record, Start};

#[derive(Debug, Default)]
pub(super) struct Local {
    /// Folder of the runs; `None` for that of this program.
    home: Option<PathBuf>,
}

impl Local {
    /// Creates the backend over the runs in this folder.
    pub(super) fn of(home: PathBuf) -> Self {
        Self { home: Some(home) }
    }

    fn home(&self) -> PathBuf {
        self.home.clone().unwrap_or_else(home::of_this_program)
    }
}

/// Number of parts of a run of quick items if the user sets no chunk size: each part is a file. Slow items are stored by
/// time (`FlushLimits`), so their parts are smaller.
const PARTS: u64 = 64;
/// Maximum number of items in such a part.
const MAX_ITEMS_IN_PART: u64 = 4_096;

impl Executor for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn store(&self) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(DirStore::new(self.home())))
    }

    fn home(&self) -> Option<PathBuf> {
        Some(Self::home(self))
    }

    fn knot(&self, function: &Function) -> String {
        function.id.package.to_owned()
    }

    fn chunking(&self, function: &Function, resources: &Resources, items: u64) -> Chunking {
        Chunking {
            chunk: items.div_ceil(PARTS).clamp(1, MAX_ITEMS_IN_PART),
            parallel: super::max_concurrent(function, resources),
        }
    }

    fn launch(
        &self,
        ledger: &Arc<Ledger>,
        function: &'static Function,
        start: Start,
    ) -> BoxFuture<'static, Result<()>> {
        Box::pin(std::future::ready(begin(&self.home(), ledger, function, start)))
    }

    fn cancel_ended(&self, ledger: &Arc<Ledger>) -> BoxFuture<'static, Result<()>> {
        folder_lock::cancel(&self.home(), ledger)
    }

    fn activity(&self, ledger: &Arc<Ledger>, _: &[Object]) -> BoxFuture<'static, Result<Activity>> {
        Box::pin(std::future::ready(folder_lock::activity(&self.home(), ledger)))
    }

    fn is_held(&self, keys: &RunKeys) -> BoxFuture<'static, Result<bool>> {
        Box::pin(std::future::ready(folder_lock::is_held(&self.home(), keys)))
    }

    fn hold(&self, keys: &RunKeys) -> BoxFuture<'static, Result<Option<Hold>>> {
        Box::pin(std::future::ready(folder_lock::hold(&self.home(), keys)))
    }

    fn remove_empty_folders(&self, prefix: &str) -> BoxFuture<'static, Result<()>> {
        let removed = DirStore::new(self.home()).remove_empty_folders(prefix);
        Box::pin(std::future::ready(removed.map_err(Error::from)))
    }
}

fn begin(home: &Path, ledger: &Arc<Ledger>, function: &'static Function, start: Start) -> Result<()> {
    let lock = FolderLock::open(home, ledger, start)?;
    let isolation = isolation(&ledger.record, function);
    let parallel = ledger.record.manifest.parallel;
    let described = match isolation {
        Isolation::Processes(_) => {
            format!("on this machine, {}", counted(parallel, "item process", "item processes"))
        }
        Isolation::Threads(_) => format!("in this process, {}", counted(parallel, "thread", "threads")),
    };
    ledger.started(&described, parallel);
    let driver = Driver { ledger: Arc::clone(ledger), isolation, lock };
    folder_lock::start(ledger, move || driver.drive(start))
}

struct Driver {
    ledger: Arc<Ledger>,
    isolation: Isolation,
    lock: FolderLock,
}

impl Driver {
    fn drive(&self, start: Start) {
        folder_lock::drive(&self.ledger, &self.lock, start, || self.compute());
    }

    fn compute(&self) -> Result<End> {
        let record = &self.ledger.record;
        let manifest = &record.manifest;
        let work = Work {
            store: Arc::clone(&record.store),
            keys: record.keys.clone(),
            round: record.round,
            submitted: SystemTime::UNIX_EPOCH + Duration::from_millis(manifest.submitted_ms),
            machine: machine::describe(u32::try_from(cores()).unwrap_or(u32::MAX).into(), SystemTime::now()).into(),
            inputs: manifest.inputs,
            chunk: manifest.chunk,
            parallel: manifest.parallel,
            retries: record.scheduled.retries,
            isolation: self.isolation.clone(),
            flush: FlushLimits::FOLDER,
        };
        let report = |event| match event {
            supervisor::Event::Stored(part) => self.ledger.stored(part),
            supervisor::Event::Failed { item, error, last } => self.ledger.failed(item, &error, last),
            supervisor::Event::Log(printed) => self.ledger.printed(&printed),
        };
        let supervised = supervisor::supervise(&work, self.ledger.missing(), &self.ledger.control, &report);
        supervised.map_err(|error| match error {
            SupervisorError::Store(error) => error.into(),
            other => Error::new(ErrorKind::Infrastructure, with_causes(&other)),
        })?;
        engine::block_on(folder_lock::round_end(&self.ledger))
    }
}

/// Returns item processes if this program can be started again as one, else threads.
fn isolation(record: &Record, function: &'static Function) -> Isolation {
    let manifest = &record.manifest;
    if !home::main_has_run() {
        return Isolation::Threads(function);
    }
    let item_process = ItemProcess {
        function: manifest.function.clone(),
        fingerprint: manifest.fingerprint,
        timeout_ms: record.timeout_ms(),
        recycle: manifest.recycle,
        ..ItemProcess::default()
    };
    Isolation::Processes(Launcher::new(item_process, manifest.env.clone(), cores(), manifest.parallel))
}

fn counted(number: u32, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
