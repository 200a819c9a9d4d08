//! Tests of maps in a test harness, which has no generated main: items run on threads of this process.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use cloudknot::look::{RunState, Runs};
use cloudknot::{ErrorKind, ItemErrorKind};
use tempfile::TempDir;

/// Doubles a number if it is even.
#[cloudknot::remote]
fn double(number: u64) -> Result<u64, Odd> {
    match number {
        13 => panic!("13 is unlucky"),
        number if number % 2 == 1 => Err(Odd(number, Cause)),
        number => Ok(2 * number),
    }
}

#[derive(Debug)]
struct Odd(u64, Cause);

impl std::fmt::Display for Odd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is odd", self.0)
    }
}

impl std::error::Error for Odd {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.1)
    }
}

#[derive(Debug)]
struct Cause;

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("so it is")
    }
}

impl std::error::Error for Cause {}

static ATTEMPTS: AtomicU32 = AtomicU32::new(0);

#[cloudknot::remote(retries = 2)]
fn succeeds_at_third_attempt() -> Result<u32, String> {
    match ATTEMPTS.fetch_add(1, Ordering::SeqCst) + 1 {
        3 => Ok(3),
        attempt => Err(format!("attempt {attempt}")),
    }
}

static SLEEPING: AtomicU32 = AtomicU32::new(0);

#[cloudknot::remote]
async fn sleeps(milliseconds: u64) -> u64 {
    SLEEPING.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    milliseconds
}

#[cloudknot::remote]
fn maps() -> String {
    let error = double.map([2]).wait().expect_err("a map inside a remote function");
    format!("{:?}: {error}", error.kind())
}

static INITIALIZED: AtomicU32 = AtomicU32::new(0);

#[cloudknot::init]
fn initialize() {
    INITIALIZED.fetch_add(1, Ordering::SeqCst);
}

/// Folder of the runs, for the tests of this process that run at the same time.
static HOME: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());

/// Sets the folder of the runs to a temporary folder, which the last test that holds it removes.
pub(super) fn set_home() -> Arc<TempDir> {
    let mut shared = HOME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(home) = shared.upgrade() {
        return home;
    }
    let home = Arc::new(tempfile::tempdir().expect("a temporary folder can be created"));
    *shared = Arc::downgrade(&home);
    // SAFETY: only Rust code reads the environment here, and the standard library locks it.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("CLOUDKNOT_HOME", home.path());
    }
    home
}

#[test]
fn values_come_in_order() {
    let _home = set_home();
    assert_eq!(
        double.map((0..1_000).map(|number| 2 * number)).wait().unwrap(),
        (0..1_000).map(|n| 4 * n).collect::<Vec<_>>()
    );
}

#[test]
fn init_function_runs_once_in_the_process() {
    let _home = set_home();
    for _ in 0..2 {
        assert_eq!(double.map((0..20).map(|number| 2 * number)).wait().unwrap().len(), 20);
        assert_eq!(INITIALIZED.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn any_executor_can_poll_a_map() {
    let _home = set_home();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(async { double.map([2, 4]).await }).unwrap(), [4, 8]);
    assert_eq!(pollster::block_on(async { double.map([2, 4]).await }).unwrap(), [4, 8]);
    assert_eq!(cloudknot::__private::block_on_main(async { double.call(2).await }).unwrap(), 4);
}

#[test]
fn empty_map_has_no_values() {
    let _home = set_home();
    assert!(double.map([]).wait().unwrap().is_empty());
}

#[test]
fn failures_are_data() {
    let _home = set_home();
    let run = double.map([2, 3, 13, 4]).submit().wait().unwrap();
    let outcomes = run.outcomes().wait().unwrap();
    assert_eq!((outcomes[0].as_ref().ok(), outcomes[3].as_ref().ok()), (Some(&4), Some(&8)));
    let returned = outcomes[1].as_ref().unwrap_err();
    assert_eq!((returned.kind(), returned.message()), (ItemErrorKind::Returned, "3 is odd"));
    assert_eq!(returned.chain(), ["so it is"]);
    let panicked = outcomes[2].as_ref().unwrap_err();
    assert_eq!((panicked.kind(), panicked.message()), (ItemErrorKind::Panicked, "13 is unlucky"));
    assert!(panicked.location().unwrap().starts_with("tests/tests/local/in_process.rs:"), "{panicked:?}");
    assert!(panicked.backtrace().unwrap().contains("double") || !cfg!(debug_assertions));
    let error = run.values().wait().unwrap_err();
    assert_eq!((error.kind(), error.run()), (ErrorKind::ItemsFailed, Some(run.id())));
    assert_eq!(error.failed().iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn failed_item_is_retried() {
    let _home = set_home();
    assert_eq!(succeeds_at_third_attempt.map([()]).wait().unwrap(), [3]);
}

#[test]
fn max_failures_stops_the_rest() {
    let _home = set_home();
    let run = double.map((0..100).map(|number| 2 * number + 1)).max_failures(3).parallel(1).submit().wait().unwrap();
    let outcomes = run.outcomes().wait().unwrap();
    let kinds: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().unwrap_err().kind()).collect();
    assert_eq!(kinds[..3], [ItemErrorKind::Returned; 3]);
    assert!(kinds[3..].iter().all(|kind| *kind == ItemErrorKind::Cancelled), "{kinds:?}");
}

/// Without its program, only a run on AWS Batch can be retried: nothing is recorded of the attempt.
#[test]
fn look_does_not_retry_a_run_of_this_machine() {
    let _home = set_home();
    let run = double.map([1, 2]).submit().wait().unwrap();
    assert!(run.values().wait().is_err());
    let look = Runs::of_this_program().unwrap().find(run.id()).wait().unwrap();
    let error = look.retry().wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.hint().is_some_and(|hint| hint.contains("cargo knot retry")), "{error:?}");
    assert_eq!(look.again().wait().unwrap().summary().state, Some(RunState::Failed));
}

#[test]
fn cancel_waits_for_running_items_and_starts_none() {
    let _home = set_home();
    let run = sleeps.map([300; 50]).parallel(2).submit().wait().unwrap();
    while SLEEPING.load(Ordering::SeqCst) < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    run.cancel().wait().unwrap();
    let status = run.status();
    assert!(status.finished && status.unfinished > 0 && status.succeeded >= 2, "{status}");
    assert_eq!(run.values().wait().unwrap_err().kind(), ErrorKind::Cancelled);
    let again = run.retry_failed().wait().unwrap();
    again.cancel().wait().unwrap();
    assert!(again.status().finished);
}

#[test]
fn run_can_be_attached_and_read_twice() {
    let _home = set_home();
    let run = double.map([2, 4, 6]).submit().wait().unwrap();
    // During the run, the other handle follows it, even in the same process.
    let other = double.attach(run.id()).wait().unwrap();
    assert_eq!(other.values().wait().unwrap(), [4, 8, 12]);
    assert_eq!(run.values().wait().unwrap(), [4, 8, 12]);
    assert_eq!(run.values().wait().unwrap(), [4, 8, 12]);
    let mut streamed: Vec<_> = run.results().wait().map(|(index, value)| (index, value.unwrap())).collect();
    streamed.sort_unstable();
    assert_eq!(streamed, [(0, 4), (1, 8), (2, 12)]);
}

#[test]
fn nested_map_is_refused() {
    let _home = set_home();
    assert_eq!(maps.call(()).wait().unwrap(), "Nested: cannot map `double`: a remote function cannot map");
}

#[test]
fn several_maps_run_at_once() {
    let _home = set_home();
    let runs: Vec<_> = (0..4).map(|_| double.map((0..50).map(|number| 2 * number)).submit().wait().unwrap()).collect();
    let ids: std::collections::HashSet<_> = runs.iter().map(|run| run.id().to_owned()).collect();
    assert_eq!(ids.len(), 4);
    for run in runs {
        assert_eq!(run.values().wait().unwrap().iter().sum::<u64>(), 4 * 49 * 50 / 2);
    }
}

/// Records the events of `tracing` as lines.
struct Messages(Mutex<Vec<String>>);

impl tracing::Subscriber for Messages {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("cloudknot")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        use std::fmt::Write;
        struct Fields(String);
        impl tracing::field::Visit for Fields {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                write!(self.0, "{field}={value:?} ").expect("writing to a `String` does not fail");
            }
        }
        let mut fields = Fields(format!("{} ", event.metadata().level()));
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn run_is_traced() {
    let _home = set_home();
    let messages = Arc::new(Messages(Mutex::default()));
    tracing::subscriber::set_global_default(Arc::clone(&messages)).expect("no other test sets a subscriber");
    let run = double.map([2, 3]).submit().wait().unwrap();
    run.outcomes().wait().unwrap();
    let messages = messages.0.lock().unwrap();
    let run_messages: Vec<_> = messages.iter().filter(|line| line.contains(run.id())).collect();
    for part in ["INFO message=a run begins", "WARN message=an attempt failed", "3 is odd", "INFO message=a run ended"]
    {
        assert!(run_messages.iter().any(|line| line.contains(part)), "`{part}` is not in {run_messages:?}");
    }
}

/// Records the reported progress of each run, slowly.
struct Slow(Arc<Mutex<Vec<(String, u64)>>>);

impl cloudknot::Hook for Slow {
    fn report(&self, event: &cloudknot::Event<'_>) {
        if let cloudknot::Event::Progress { run, done, .. } = *event {
            // A report of less progress takes longer: with two concurrent reports, the newer one would be recorded
            // first.
            std::thread::sleep(Duration::from_millis(20_u64.saturating_sub(done)));
            self.0.lock().unwrap().push((run.to_owned(), done));
        }
    }
}

#[test]
fn reported_progress_never_decreases() {
    let _home = set_home();
    let reports = Arc::new(Mutex::new(Vec::new()));
    cloudknot::set_hook(Some(Box::new(Slow(Arc::clone(&reports)))));
    let run = double.map((0..20).map(|number| 2 * number)).chunk(1).parallel(4).submit().wait().unwrap();
    run.values().wait().unwrap();
    cloudknot::set_hook(None);
    let reports = reports.lock().unwrap();
    let progress: Vec<_> = reports.iter().filter(|(id, _)| id == run.id()).map(|&(_, done)| done).collect();
    assert!(progress.is_sorted(), "{progress:?}");
    assert_eq!(progress.last(), Some(&20));
}
