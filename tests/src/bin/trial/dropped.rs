//! Maps and cancels that are dropped midway, and completed by the next program; see
//! [`cloudknot_tests::recorder::drop_at`]. They are part of this program because the worker has its functions.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use cloudknot_tests::random::Random;
use cloudknot_tests::recorder::{DropAt, Recorder, drop_at};
use cloudknot_tests::trial::{Fact, counted, files, print};
use serde_json::json;

use super::{print_outcomes, submit, work};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Number of calls that are dropped at random.
const DROPS: u64 = 6;

/// Maximum number of steps to wait for anything, and the length of a step.
const POLLING: (u32, Duration) = (60_000, Duration::from_millis(5));

/// Moment at which a call is dropped.
#[derive(Debug, Clone, Copy)]
enum At {
    /// When it sends S3 one request more than this number.
    S3(u64),
    /// When it sends the other AWS services one request more than this number.
    Aws(u64),
    /// After this time.
    Time(Duration),
}

/// Addresses of S3 and of the other AWS services.
struct Addresses {
    aws: String,
    s3: String,
}

/// Recorders in front of both, for one call.
struct Recorders {
    aws: Recorder,
    s3: Recorder,
}

/// Call that was dropped, or that ended before that.
struct Interrupted {
    at: At,
    has_ended: bool,
    elapsed: Duration,
    /// Kept, with their ports, until the end of this program: tasks that the call leaves behind retry for minutes.
    recorders: Recorders,
}

impl Addresses {
    fn of_environment() -> Result<Self> {
        Ok(Self { aws: std::env::var("AWS_ENDPOINT_URL")?, s3: std::env::var("AWS_ENDPOINT_URL_S3")? })
    }

    /// Makes the backends that are opened from now on use these addresses.
    fn set(&self) {
        for (name, value) in [("AWS_ENDPOINT_URL", &self.aws), ("AWS_ENDPOINT_URL_S3", &self.s3)] {
            // SAFETY: only Rust code reads the environment here, and the standard library locks it.
            #[allow(unsafe_code)]
            unsafe {
                std::env::set_var(name, value);
            }
        }
    }

    /// Makes the backends that are opened from now on use recorders in front of these addresses.
    fn record(&self) -> Recorders {
        let recorders = Recorders { aws: Recorder::before(&self.aws), s3: Recorder::before(&self.s3) };
        Self { aws: recorders.aws.url(), s3: recorders.s3.url() }.set();
        recorders
    }

    /// Polls a call over its own recorders, and drops it. Afterwards, backends use these addresses again.
    async fn interrupt<T>(&self, at: At, call: impl Future<Output = Result<T>>) -> Result<Interrupted> {
        let recorders = self.record();
        let held_by = |recorder, requests| {
            Recorder::stop_after(recorder, requests);
            DropAt::Held(recorder)
        };
        let when = match at {
            At::S3(requests) => held_by(&recorders.s3, requests),
            At::Aws(requests) => held_by(&recorders.aws, requests),
            At::Time(time) => DropAt::Time(time),
        };
        let began = Instant::now();
        let (output, _) = drop_at(when, &[&recorders.s3, &recorders.aws], call).await;
        let elapsed = began.elapsed();
        self.set();
        Ok(Interrupted { at, has_ended: output.transpose()?.is_some(), elapsed, recorders })
    }
}

/// Calls `act` once for each request to S3, once for each other request to AWS, and at random moments of a complete
/// call.
async fn at_each_point(seed: &str, mut act: impl AsyncFnMut(At) -> Result<Interrupted>) -> Result<()> {
    let (mut calls, mut random) = (Vec::new(), Random::new(seed.parse()?));
    let mut whole = Duration::ZERO;
    for at in [At::S3 as fn(u64) -> At, At::Aws] {
        for requests in 0.. {
            calls.push(act(at(requests)).await?);
            if let Some(ended) = calls.last().filter(|call| call.has_ended) {
                whole = ended.elapsed;
                break;
            }
        }
    }
    for _ in 0..DROPS {
        let microseconds = random.below(u64::try_from(whole.as_micros())?);
        calls.push(act(At::Time(Duration::from_micros(microseconds))).await?);
    }
    for Interrupted { at, has_ended, recorders: Recorders { s3, aws }, .. } in calls {
        let answered = [s3.answered(), aws.answered()];
        assert_eq!(answered, [s3.passed(), aws.passed()], "after {at:?}");
        match at {
            At::S3(requests) => assert!(has_ended || answered[0] == requests, "{answered:?} at {at:?}"),
            At::Aws(requests) => assert!(has_ended || answered[1] == requests, "{answered:?} at {at:?}"),
            At::Time(_) => {}
        }
    }
    Ok(())
}

/// Maps, drops the call, and attaches to the run if it has a record.
pub(super) async fn maps(spec: &str, record: &Path, seed: &str) -> Result<()> {
    let addresses = Addresses::of_environment()?;
    at_each_point(seed, async |at| {
        let before = recorded(record);
        let interrupted = addresses.interrupt(at, async { Ok(submit(spec)?.await?.outcomes().await?) }).await?;
        let about =
            json!({"at": format!("{at:?}"), "ended": interrupted.has_ended, "s3": interrupted.recorders.s3.passed()});
        print(&Fact::Found(about.to_string()));
        age_leases(record)?;
        for run in recorded(record).difference(&before) {
            print_outcomes(&work.attach(run).await?).await?;
        }
        Ok(interrupted)
    })
    .await
}

/// Makes leases so old that another program takes them over at once: their owner is gone.
fn age_leases(record: &Path) -> Result<()> {
    const AGE: Duration = Duration::from_mins(5);
    let is_lease = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "submitting");
    for lease in files(record).iter().filter(|path| is_lease(path)) {
        File::options().write(true).open(lease)?.set_modified(SystemTime::now() - AGE)?;
    }
    Ok(())
}

/// Returns the runs that have a record.
fn recorded(record: &Path) -> BTreeSet<String> {
    let manifests = files(record).into_iter().filter(|path| path.ends_with("manifest.json"));
    manifests.filter_map(|path| Some(path.parent()?.file_name()?.to_str()?.to_owned())).collect()
}

/// Starts a run, cuts off its recorders, drops a call that cancels the run, and cancels it again. Waits for a file with
/// the ID of the run before it attaches.
pub(super) async fn cancels(spec: &str, started: &Path, go_on: &Path, seed: &str) -> Result<()> {
    let addresses = Addresses::of_environment()?;
    let mut closed = Vec::new();
    at_each_point(seed, async |at| {
        let started_before = counted(started).len();
        let recorders = addresses.record();
        let run = submit(spec)?.await?.id().to_owned();
        wait_for("the job to run", || counted(started).len() > started_before).await;
        recorders.s3.cut_off();
        recorders.aws.cut_off();
        closed.push(recorders);

        let interrupted = addresses.interrupt(at, async { Ok(work.attach(&run).await?.cancel().await?) }).await?;
        work.attach(&run).await?.cancel().await?;
        let about = json!({"at": format!("{at:?}"), "ended": interrupted.has_ended, "run": run});
        print(&Fact::Found(about.to_string()));
        wait_for("the test", || go_on.join(&run).exists()).await;
        print_outcomes(&work.attach(&run).await?).await?;
        Ok(interrupted)
    })
    .await
}

async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..POLLING.0 {
        if condition() {
            return;
        }
        tokio::time::sleep(POLLING.1).await;
    }
    panic!("timed out waiting for {what}");
}
