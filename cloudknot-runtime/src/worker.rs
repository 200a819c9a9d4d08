//! A worker: the first process of a container. It determines the items of its child, and supervises them. It depends on
//! the contract and the store, not on the scheduler that started the container.

use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use crate::contract::{self, ItemProcess, Round, RunKeys, StoreAt, Task, Types, exit};
use crate::machine::{self, Description};
use crate::process::{self, Launcher};
use crate::store::{DirStore, Store, StoreError};
use crate::supervisor::{self, Control, Event, FlushLimits, Isolation, SupervisorError, Work};
use crate::text::printable;
use crate::trace_process::TraceError;
use crate::{engine, function};

/// Runs the items of this child and exits with one of the codes of [`exit`].
pub fn main() -> ! {
    let result = if std::env::var_os(contract::ENV_DESCRIBE).is_some() {
        describe().map(|()| exit::DONE).map_err(Stop::from)
    } else {
        run()
    };
    let code = match result {
        Ok(code) => code,
        Err(stop) => {
            eprintln!("error: {}", stop.message);
            stop.code
        }
    };
    std::process::exit(code)
}

/// Prints the functions of this worker and their types, so that a host can compare them before it submits.
fn describe() -> Result<(), TraceError> {
    let functions: Vec<_> = function::all().collect();
    // One process for all of them.
    function::trace(&functions)?;
    let types = |function: &&'static function::Function| {
        let schema = function.schema()?;
        Ok(Types { function: function.id.to_string(), fingerprint: schema.fingerprint, schema: schema.text.clone() })
    };
    let all = functions.iter().map(types).collect::<Result<Vec<_>, TraceError>>()?;
    print!("{}", Types::line(&all));
    Ok(())
}

/// Error that prevents the worker from doing its work.
struct Stop {
    code: i32,
    message: String,
}

impl Stop {
    fn wrong_worker(message: impl Into<String>) -> Self {
        Self { code: exit::WRONG_WORKER, message: message.into() }
    }

    fn infrastructure(error: &dyn std::error::Error, hint: Option<&str>) -> Self {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let message = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        let hint = hint.map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
        Self { code: exit::INFRASTRUCTURE, message: message + &hint }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::infrastructure(&error, error.hint())
    }
}

impl From<TraceError> for Stop {
    fn from(error: TraceError) -> Self {
        Self::infrastructure(&error, None)
    }
}

impl From<SupervisorError> for Stop {
    fn from(error: SupervisorError) -> Self {
        match error {
            SupervisorError::Store(error) => error.into(),
            other => Self::infrastructure(&other, None),
        }
    }
}

fn run() -> Result<i32, Stop> {
    let started = SystemTime::now();
    // Before anything that takes time: the first process of a container gets no signal that it has no handler for.
    let control = Arc::new(Control::default());
    stop_on_sigterm(&control);
    let task = task()?;
    check_function(&task)?;
    // Not earlier: it would reap the process that traces types.
    reap_orphans();
    let vcpus = vcpus(&task);
    let machine = Description::begin(machine::describe(vcpus, started));
    let store = open(&task.store)?;
    let keys = RunKeys::new(&task.knot, &task.run);
    let mut ranges = child_items(&task, &*store, &keys)?;
    let flush = if matches!(task.store, StoreAt::Folder(_)) { FlushLimits::FOLDER } else { FlushLimits::OBJECTS };
    if !task.has_no_outcomes || number(contract::ENV_ATTEMPT)?.unwrap_or(1) > 1 {
        ranges = engine::block_on(still_missing(&task, &*store, &keys, ranges))?;
    }
    let work = Work {
        store,
        keys,
        round: task.round,
        submitted: SystemTime::UNIX_EPOCH + Duration::from_millis(task.submitted_ms),
        machine,
        inputs: task.inputs,
        chunk: task.chunk,
        parallel: task.parallel,
        retries: task.retries,
        isolation: Isolation::Processes(launcher(&task, vcpus)),
        flush,
    };
    supervisor::supervise(&work, ranges, &control, &log)?;
    Ok(if control.stop.load(Ordering::Relaxed) { exit::INTERRUPTED } else { exit::DONE })
}

fn task() -> Result<Task, Stop> {
    let task = std::env::var(contract::ENV_TASK).map_err(|_| {
        Stop::wrong_worker(format!(
            "cannot start the worker: `{}`, which AWS Batch and Docker set, is not set; a worker cannot start itself\n  \
             hint: run the program itself to submit a map, and another program in a remote function",
            contract::ENV_TASK
        ))
    })?;
    let damaged = |reason: String| {
        Stop::wrong_worker(format!(
            "cannot read `{}`: {reason}\n  hint: deploy again with the cloudknot that submits",
            contract::ENV_TASK
        ))
    };
    let task: Task = serde_json::from_str(&task).map_err(|error| damaged(error.to_string()))?;
    task.check().map_err(damaged)?;
    Ok(task)
}

fn check_function(task: &Task) -> Result<(), Stop> {
    let function = function::find(&task.function).map_err(Stop::wrong_worker)?;
    let fingerprint = function.fingerprint()?;
    if fingerprint == task.fingerprint {
        return Ok(());
    }
    Err(Stop::wrong_worker(format!(
        "cannot run `{}`: its types {fingerprint} differ from the run's types {}\n  hint: deploy again",
        task.function, task.fingerprint
    )))
}

fn open(at: &StoreAt) -> Result<Arc<dyn Store>, Stop> {
    match at {
        StoreAt::Folder(path) => Ok(Arc::new(DirStore::new(path))),
        #[cfg(feature = "s3")]
        StoreAt::S3 { bucket, prefix } => Ok(Arc::new(engine::block_on(crate::store::S3Store::open(bucket, prefix))?)),
        #[cfg(not(feature = "s3"))]
        StoreAt::S3 { bucket, .. } => Err(Stop::wrong_worker(format!(
            "cannot open the bucket `{bucket}`: the worker was built without the feature `aws` of cloudknot"
        ))),
    }
}

/// Returns the items of this child.
fn child_items(task: &Task, store: &dyn Store, keys: &RunKeys) -> Result<Vec<Range<u64>>, Stop> {
    // A child beyond the last one has no items.
    let child = task.first_child.saturating_add(number(contract::ENV_CHILD)?.unwrap_or(0));
    let first = child.saturating_mul(task.chunk);
    if task.round == 1 {
        // The first round has all items, so no request is needed.
        #[allow(clippy::single_range_in_vec_init)]
        let all = Round { items: vec![0..task.items], retries: task.retries, ..Round::default() };
        return Ok(all.slice(first, task.chunk));
    }
    Ok(scheduled(task, store, keys)?.slice(first, task.chunk))
}

/// Reads the items that the round schedules.
fn scheduled(task: &Task, store: &dyn Store, keys: &RunKeys) -> Result<Round, Stop> {
    let key = keys.round(task.round);
    let damaged = |reason: String| {
        let hint = "the run's record is damaged: submit the map again";
        Stop::wrong_worker(format!("cannot read `{key}` in {}: {reason}\n  hint: {hint}", store.describe()))
    };
    let size = engine::block_on(store.size(&key))?.ok_or_else(|| damaged("the object does not exist".into()))?;
    if size > Round::max_len(task.items) {
        return Err(damaged(format!("it has {size} bytes, more than any round of {} items", task.items)));
    }
    let bytes = engine::block_on(store.get_range(&key, 0..size))?;
    Round::parse(&bytes, task.items).map_err(damaged)
}

/// Removes the items whose outcomes an earlier attempt of this child has stored.
async fn still_missing(
    task: &Task,
    store: &dyn Store,
    keys: &RunKeys,
    ranges: Vec<Range<u64>>,
) -> crate::store::Result<Vec<Range<u64>>> {
    let objects = store.list(&keys.all(), None).await?;
    let parts: Vec<_> = objects.iter().filter_map(|object| contract::part_of(&object.key)).collect();
    let mut failed = std::collections::HashSet::new();
    for object in &objects {
        if let Some(failure) = contract::failure_of(&object.key)
            && failure.round == task.round
            && failure.attempt >= contract::last_attempt(task.retries)
        {
            failed.insert(failure.item);
        }
    }
    let is_missing =
        |item: &u64| !failed.contains(item) && !parts.iter().any(|part| (part.first..=part.last).contains(item));
    Ok(ranges.into_iter().flatten().filter(is_missing).map(|item| item..item + 1).collect())
}

/// Returns the number of virtual CPUs that the items of this worker share.
fn vcpus(task: &Task) -> f64 {
    let deployed = || std::env::var(contract::ENV_VCPUS).ok()?.parse().ok();
    task.vcpus.or_else(deployed).unwrap_or(1.0)
}

fn launcher(task: &Task, vcpus: f64) -> Launcher {
    // The number of CPUs is small; less than one CPU gives one thread.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let cpus = vcpus as usize;
    let item_process = ItemProcess {
        function: task.function.clone(),
        fingerprint: task.fingerprint,
        timeout_ms: task.timeout_ms,
        recycle: task.recycle,
        ..ItemProcess::default()
    };
    Launcher::new(item_process, task.env.clone(), cpus, task.parallel)
}

/// Stops the supervisor on SIGTERM, which Spot interruptions, cancelled jobs and `docker stop` send some time before SIGKILL.
fn stop_on_sigterm(control: &Arc<Control>) {
    use tokio::signal::unix::{SignalKind, signal};
    let control = Arc::clone(control);
    match engine::enter(|| signal(SignalKind::terminate())) {
        Ok(mut terminate) => {
            engine::spawn(async move {
                terminate.recv().await;
                eprintln!("cloudknot: stopping on a signal; finished items are stored");
                control.stop.store(true, Ordering::Relaxed);
            });
        }
        Err(error) => eprintln!("cloudknot: cannot listen for SIGTERM: {error}"),
    }
}

/// Reaps orphans, if this is the first process of a container, which becomes their parent.
fn reap_orphans() {
    use tokio::signal::unix::{SignalKind, signal};
    if std::process::id() != 1 {
        return;
    }
    match engine::enter(|| signal(SignalKind::child())) {
        Ok(mut ended) => {
            engine::spawn(async move {
                while ended.recv().await.is_some() {
                    process::reap_orphans();
                }
            });
        }
        Err(error) => eprintln!("cloudknot: cannot listen for SIGCHLD: {error}"),
    }
}

/// Writes an event to the worker's log.
fn log(event: Event) {
    match event {
        Event::Stored(_) => {}
        Event::Failed { item, error, last } => {
            let again = if last { "" } else { "; retrying" };
            eprintln!("cloudknot: item {item} {}{again}", printable(&error.to_string()));
        }
        Event::Log(output) => {
            // If the log is closed, the error cannot be reported.
            let _ = std::io::stderr().write_all(&output.with_prefixes());
        }
    }
}

fn number(name: &str) -> Result<Option<u64>, Stop> {
    let Ok(value) = std::env::var(name) else { return Ok(None) };
    value
        .parse()
        .map(Some)
        .map_err(|_| Stop::wrong_worker(format!("invalid `{name}`: must be a number, but is `{value}`")))
}
