//! Runs containers of the program's image over the folder of runs: as AWS Batch does, but on this machine. Depends on
//! the contract with workers, but not on the engine's API: its client is in `build/docker.rs`.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloudknot_runtime::contract::{self, Resources, RunKeys, StoreAt, Task, exit};
use cloudknot_runtime::engine;
use cloudknot_runtime::failure::{Failure, ItemError, ItemErrorKind};
use cloudknot_runtime::function::Function;
use cloudknot_runtime::log::{PrefixedLines, Printed};
use cloudknot_runtime::store::{BoxFuture, DirStore, Object, Store};

use super::folder_lock::{self, FolderLock};
use super::{Activity, Chunking, Executor, cores, max_concurrent};
use crate::build::docker::Engine;
use crate::build::docker::engine::container::{ContainerExit, ContainerSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::home;
use crate::home::built::Built;
use crate::record::ledger::{End, Ledger};
use crate::record::{Record, Start};

#[derive(Debug)]
pub(super) struct Containers;

/// Path of the folder of runs in a container.
const FOLDER: &str = "/cloudknot-runs";
/// Maximum number of containers of a run if the user sets no chunk size: starting one takes about half a second.
const MAX_CHILDREN: u64 = 16;
/// Maximum number of times that a container is started if its exit code does not explain what happened to its items.
const MAX_ATTEMPTS: u32 = 3;
/// Interval between two inspections of the folder while containers run.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

impl Executor for Containers {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn store(&self) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(DirStore::new(home::of_this_program())))
    }

    fn knot(&self, function: &Function) -> String {
        function.id.package.to_owned()
    }

    fn cancel_ended(&self, ledger: &Arc<Ledger>) -> BoxFuture<'static, Result<()>> {
        folder_lock::cancel(&home::of_this_program(), ledger)
    }

    fn activity(&self, ledger: &Arc<Ledger>, _: &[Object]) -> BoxFuture<'static, Result<Activity>> {
        Box::pin(std::future::ready(folder_lock::activity(&home::of_this_program(), ledger)))
    }

    fn is_held(&self, keys: &RunKeys) -> BoxFuture<'static, Result<bool>> {
        Box::pin(std::future::ready(folder_lock::is_held(&home::of_this_program(), keys)))
    }

    fn check(&self, function: &'static Function) -> Result<()> {
        image(function)?;
        Ok(())
    }

    fn chunking(&self, _: &Function, _: &Resources, items: u64) -> Chunking {
        Chunking { chunk: items.div_ceil(MAX_CHILDREN).max(1), parallel: 1 }
    }

    fn launch(
        &self,
        ledger: &Arc<Ledger>,
        function: &'static Function,
        start: Start,
    ) -> BoxFuture<'static, Result<()>> {
        Box::pin(std::future::ready(begin(ledger, function, start)))
    }
}

fn begin(ledger: &Arc<Ledger>, function: &'static Function, start: Start) -> Result<()> {
    // Checked again, because a run that is attached to was checked by another program, and an image can be built at any
    // time.
    let built = image(function)?;
    let home = home::of_this_program();
    let lock = FolderLock::open(&home, ledger, start)?;
    let containers = (max_concurrent(function, &ledger.record.resources()) / ledger.record.manifest.parallel).max(1);
    let parallel = containers.saturating_mul(ledger.record.manifest.parallel);
    ledger.started(&format!("in Docker, {containers} at a time, image {}", built.name), parallel);
    let is_new = start == Start::New;
    let fleet = Fleet { ledger: Arc::clone(ledger), function, built, home, lock, containers, is_new };
    folder_lock::start(ledger, move || fleet.drive(start))
}

/// Returns the image of the program, if it contains the function with the types that the program has.
fn image(function: &Function) -> Result<Built> {
    let built = Built::of_this_program()?;
    built.check(function)?;
    Ok(built)
}

/// The containers of one run.
struct Fleet {
    ledger: Arc<Ledger>,
    function: &'static Function,
    built: Built,
    home: PathBuf,
    lock: FolderLock,
    /// Number of containers that run at once.
    containers: u32,
    /// `true` if nothing can be stored yet, so that the workers need not search the store.
    is_new: bool,
}

/// A child of the round: the items of one container.
struct Child {
    number: u64,
    items: Vec<Range<u64>>,
}

impl Fleet {
    fn drive(&self, start: Start) {
        folder_lock::drive(&self.ledger, &self.lock, start, || engine::block_on(self.compute()));
    }

    async fn compute(&self) -> Result<End> {
        let docker = Engine::connect().await?;
        docker.sweep().await?;
        if docker.id_of(&self.built.name).await?.is_none() {
            docker.load_archive(&self.built.archive).await?;
        }
        let children = Mutex::new(self.children());
        let slots = (0..self.containers).map(|_| self.slot(&docker, &children));
        let mut all = std::pin::pin!(futures_util::future::try_join_all(slots));
        loop {
            tokio::select! {
                done = &mut all => {
                    done?;
                    break;
                }
                () = tokio::time::sleep(POLL_INTERVAL) => self.refresh().await?,
            }
        }
        folder_lock::round_end(&self.ledger).await
    }

    /// Records what the containers have stored.
    async fn refresh(&self) -> Result<()> {
        self.ledger.refresh().await?;
        self.ledger.enforce_max_failures();
        Ok(())
    }

    /// Returns the children that have items without an outcome.
    fn children(&self) -> VecDeque<Child> {
        let Record { manifest, scheduled, .. } = &self.ledger.record;
        let missing = self.ledger.missing();
        let is_missing = |item: u64| missing.iter().any(|range| range.contains(&item));
        let child = |number: u64| Child { number, items: scheduled.slice(number * manifest.chunk, manifest.chunk) };
        (0..scheduled.len().div_ceil(manifest.chunk))
            .map(child)
            .filter(|child| child.items.iter().cloned().flatten().any(is_missing))
            .collect()
    }

    /// Runs one child after another until none remains.
    async fn slot(&self, docker: &Engine, children: &Mutex<VecDeque<Child>>) -> Result<()> {
        loop {
            let next = children.lock().expect("no slot panics while it holds the lock").pop_front();
            let Some(child) = next.filter(|_| !self.stopped()) else { return Ok(()) };
            self.child(docker, &child).await?;
        }
    }

    /// Runs one child, and runs it again if its exit code does not explain what happened to its items.
    async fn child(&self, docker: &Engine, child: &Child) -> Result<()> {
        for attempt in 1..=MAX_ATTEMPTS {
            let spec = self.container_spec(child, attempt);
            self.ledger.control.running.fetch_add(1, Ordering::Relaxed);
            let mut log = PrefixedLines::default();
            let result = docker.run(&spec, self.stop(), |bytes| self.printed(&log.push(bytes))).await;
            let mut rest = Vec::new();
            log.end(&mut rest);
            self.printed(&rest);
            self.ledger.control.running.fetch_sub(1, Ordering::Relaxed);
            let result = result?;
            self.refresh().await?;
            match result.exit_code {
                code if code == i64::from(exit::WRONG_WORKER) => return Err(self.wrong_worker(&result)),
                _ if self.stopped() => return Ok(()),
                code if code == i64::from(exit::DONE) => return Ok(()),
                _ if attempt == MAX_ATTEMPTS => self.explain(child, &result).await?,
                _ => tracing::info!(child = child.number, exit_code = result.exit_code, "a container is started again"),
            }
        }
        Ok(())
    }

    fn printed(&self, printed: &[Printed]) {
        for printed in printed {
            self.ledger.printed(printed);
        }
    }

    fn container_spec(&self, child: &Child, attempt: u32) -> ContainerSpec {
        let Record { manifest, round, scheduled, .. } = &self.ledger.record;
        let requested = &self.function.resources;
        let of_round = self.ledger.record.resources();
        let default_vcpus = requested.vcpus.unwrap_or(1.0) * f64::from(manifest.parallel);
        let vcpus = of_round.vcpus.unwrap_or(default_vcpus);
        let store = StoreAt::Folder(FOLDER.to_owned());
        let task = Task {
            vcpus: Some(vcpus),
            has_no_outcomes: self.is_new,
            ..manifest.task(store, *round, scheduled, child.number)
        };
        let env = [
            format!("{}={}", contract::ENV_TASK, serde_json::to_string(&task).expect("a task serializes to JSON")),
            format!("{}={attempt}", contract::ENV_ATTEMPT),
        ];
        ContainerSpec {
            image: self.built.name.clone(),
            run: manifest.run.clone(),
            env: env.to_vec(),
            folder: (self.home.clone(), FOLDER.to_owned()),
            user: owner(&self.home),
            memory_mib: of_round.memory_mib.or(requested.memory_mib),
            // The engine rejects more CPUs than the machine has.
            vcpus: vcpus.min(f64::from(u32::try_from(cores()).unwrap_or(u32::MAX))),
        }
    }

    async fn stop(&self) {
        while !self.stopped() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn stopped(&self) -> bool {
        self.ledger.control.stop.load(Ordering::Relaxed)
    }

    fn wrong_worker(&self, result: &ContainerExit) -> Error {
        let message = format!("the image `{}` does not fit this program: {}", self.built.name, result.log.trim());
        Error::new(ErrorKind::Types, message).with_hint("run `cargo knot build`, then the program again")
    }

    /// Stores a failure with the reason for each item of the child that has no outcome.
    async fn explain(&self, child: &Child, result: &ContainerExit) -> Result<()> {
        let scheduled = &self.ledger.record.scheduled;
        let (kind, message) = if result.out_of_memory {
            (ItemErrorKind::OutOfMemory, "its container reached the memory limit".to_owned())
        } else {
            (
                ItemErrorKind::Infrastructure,
                format!("its container exited with code {} {MAX_ATTEMPTS} times", result.exit_code),
            )
        };
        let missing = self.ledger.missing();
        let unfinished =
            child.items.iter().cloned().flatten().filter(|item| missing.iter().any(|range| range.contains(item)));
        for item in unfinished {
            let mut failure = Failure::new(kind, message.clone());
            failure.exit_code = i32::try_from(result.exit_code).ok();
            let error = ItemError::new(failure, contract::last_attempt(scheduled.retries)).with_log(result.log.clone());
            self.ledger.record.store_failure(item, &error).await?;
            self.ledger.failed(item, &error, true);
        }
        Ok(())
    }
}

/// Returns the owner of the folder. A container that runs as another user could not write to the folder, or would leave
/// files that the user cannot remove.
fn owner(folder: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(folder)
        .map_or_else(|_| "65532:65532".to_owned(), |metadata| format!("{}:{}", metadata.uid(), metadata.gid()))
}
