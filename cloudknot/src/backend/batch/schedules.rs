//! Random schedules: programs that submit, attach to, retry and cancel one run at the same time, and are paused, cut off and killed,
//! over a simulation of S3 and AWS Batch in virtual time. In each schedule:
//!
//! - no item is computed by two jobs at once, unless a program is paused between its last check and the sending of a job;
//! - no job runs after a cancel, or after the end of the run;
//! - no item is reported failed while a job computes it;
//! - no condition that passes ends a round.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use cloudknot_runtime::contract::{BatchResources, Manifest, Resources, RunKeys};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::clock::Clock;
use super::jobs::RunJobs;
use super::patience::{Flow, Patience};
use super::scheduler::Scheduler;
use super::{Follower, KnotNote};
use crate::error::Result;
use crate::record::ledger::{End, Ledger};
use crate::record::{Record, Start, read, sample};

mod findings;
mod simulation;

use simulation::{Cloud, Faults, Network};

/// Maximum virtual time of a schedule.
const MAX_TIME: Duration = Duration::from_hours(24);

fn manifest(items: u64, chunk: u64, independent: bool) -> Manifest {
    Manifest {
        backend: "batch".into(),
        chunk,
        batch: Some(BatchResources {
            region: "eu-west-1".into(),
            queue: "queue".into(),
            job_definition: "definition".into(),
            image: String::new(),
            log_group: String::new(),
            share_identifier: None,
            independent,
        }),
        ..sample::manifest(items)
    }
}

fn note() -> KnotNote {
    KnotNote {
        knot: "sweep".into(),
        profile: None,
        region: "eu-west-1".into(),
        bucket: "bucket".into(),
        prefix: String::new(),
        log_group: String::new(),
        queue: "queue".into(),
        job_definitions: BTreeMap::new(),
        image: String::new(),
        types: None,
        jobs: None,
        gpu_image: None,
        tags: 0,
        share_identifier: None,
        features: Vec::new(),
    }
}

/// A user's program, which has one handle to the run at a time.
struct Program {
    network: Network,
    manifest: Manifest,
    clock: Clock,
}

impl Program {
    fn new(cloud: &Cloud, number: usize, manifest: &Manifest, start: Instant) -> Self {
        Self { network: Network::new(cloud, number), manifest: manifest.clone(), clock: Clock::Virtual(start) }
    }

    fn keys(&self) -> RunKeys {
        RunKeys::new(&self.manifest.knot, &self.manifest.run)
    }

    fn run_jobs(&self, ledger: &Arc<Ledger>) -> RunJobs {
        let scheduler: Arc<dyn Scheduler> = Arc::new(self.network.clone());
        let settings = ledger.record.batch().cloned().expect("the run is one of AWS Batch");
        let mut run = RunJobs::new(scheduler, ledger, settings, self.clock);
        run.patience.has_terminal = false;
        run
    }

    fn ledger(&self, round: u32, scheduled: cloudknot_runtime::contract::Round) -> Arc<Ledger> {
        let store = Arc::new(self.network.clone());
        Ledger::new(Record { store, keys: self.keys(), manifest: self.manifest.clone(), round, scheduled })
    }

    /// Returns a handle to the last round, as an attach does.
    async fn attach(&self) -> Flow<Arc<Ledger>> {
        let first = self.ledger(1, read::first_round(&self.manifest));
        let patience = Patience::new(&first);
        let (store, keys) = (self.network.clone(), self.keys());
        let (round, scheduled) = patience.wait_for(|| read::last_round(&store, &keys, &self.manifest)).await?;
        let ledger = self.ledger(round, scheduled);
        patience.wait_for(|| ledger.refresh()).await?;
        Ok(ledger)
    }

    /// Follows the round to its end.
    async fn follow(&self, ledger: &Arc<Ledger>, start: Start) -> End {
        let mut follower = Follower::new(self.run_jobs(ledger), note(), Resources::default(), start);
        let end = match follower.begin(start).await {
            Ok(Some(end)) => end,
            Ok(None) => follower.follow().await,
            Err(error) if error.outage().is_some() && !follower.jobs.is_empty() => End::Failed(error.in_one_line()),
            Err(_) => End::Failed(follower.detached()),
        };
        ledger.finish(end.clone());
        end
    }
}

/// Records the next round. The Knot was deployed again meanwhile, with another queue.
async fn retry(ledger: &Ledger) -> Result<()> {
    let (number, mut round) = ledger.next_round(None)?;
    let of_run = ledger.record.manifest.batch.clone();
    round.batch = of_run.map(|of_run| BatchResources { queue: format!("queue-{number}"), ..of_run });
    ledger.record_round(number, &round).await
}

/// Something that the user does while the program follows a round.
#[derive(Debug, Clone, Copy)]
enum Action {
    Wait,
    Cancel,
    Interrupt,
}

/// Runs a program: it submits the run or attaches to it, and does a few things at random.
async fn run_program(program: &Program, cloud: &Cloud, mut start: Start, steps: u64) {
    let number = program.network.program;
    for _ in 0..steps {
        let ledger = match start {
            Start::New => program.ledger(1, read::first_round(&program.manifest)),
            Start::Resume => match program.attach().await {
                Ok(ledger) => ledger,
                Err(interrupt) => panic!("an attach is not interrupted: {interrupt:?}"),
            },
        };
        let (action, delay) = {
            let mut world = cloud.lock();
            let action = [Action::Wait, Action::Wait, Action::Cancel, Action::Interrupt];
            let action = action[usize::try_from(world.random.below(4)).expect("a small number")];
            (action, world.random.time(Duration::from_mins(20)))
        };
        cloud.note(format!("program {number} begins round {} as {start:?}", ledger.record.round));
        let mut has_cancelled = false;
        let acting = async {
            sleep(delay).await;
            match action {
                Action::Wait => {}
                Action::Interrupt => {
                    cloud.lock().gone.insert(number);
                    ledger.control.stop.store(true, Ordering::Relaxed);
                }
                Action::Cancel => has_cancelled = ledger.cancel().await.is_ok(),
            }
            if !matches!(action, Action::Wait) {
                cloud.note(format!("program {number}: {action:?}"));
            }
            std::future::pending::<()>().await;
        };
        let end = tokio::select! {
            biased;
            end = program.follow(&ledger, start) => end,
            () = acting => unreachable!("the user waits"),
        };
        start = Start::Resume;
        cloud.note(format!("program {number}: round {} ended: {end:?}", ledger.record.round));
        check_end(cloud, &end, has_cancelled, ledger.record.round);
        let choice = cloud.lock().random.below(3);
        match end {
            End::Complete => return,
            // A handle whose round was interrupted can still cancel the run.
            End::Unfinished(_) | End::Failed(_) if choice == 0 => match program.run_jobs(&ledger).cancel().await {
                Ok(()) => check_cancelled(cloud, ledger.record.round),
                Err(error) => cloud.note(format!("program {number} does not cancel: {error}")),
            },
            End::Cancelled(_) | End::Unfinished(_) | End::Failed(_) if choice == 1 => {
                let recorded = retry(&ledger).await;
                cloud.note(format!("program {number} retries: {}", recorded.is_ok()));
            }
            _ => {}
        }
    }
}

/// Fails if a round ended for a reason that passes.
fn check_end(cloud: &Cloud, end: &End, has_cancelled: bool, round: u32) {
    let expected =
        ["on AWS Batch without this program", "run on without this program", "continues the run, and `.cancel()`"];
    match end {
        End::Unfinished(reason) | End::Failed(reason) if !expected.iter().any(|part| reason.contains(part)) => {
            cloud.lock().violations.push(format!("round {round} ended: {reason}"));
        }
        End::Cancelled(_) if has_cancelled => check_cancelled(cloud, round),
        _ => {}
    }
}

/// Notes that a cancel has returned, after which no job of this round or an earlier one runs.
fn check_cancelled(cloud: &Cloud, round: u32) {
    let mut world = cloud.lock();
    let alive = world.alive(round);
    if !alive.is_empty() {
        world.violations.push(format!("after a cancel of round {round}, these jobs run: {alive:?}"));
    }
    world.cancelled = world.cancelled.max(round);
}

/// A program that is sometimes not executed.
struct Frozen<F> {
    inner: Pin<Box<F>>,
    network: Network,
    thaw: Pin<Box<Sleep>>,
}

impl<F: Future> Future for Frozen<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let until = self.network.state().frozen;
        if until > Instant::now() {
            self.thaw.as_mut().reset(until);
            let _ = self.thaw.as_mut().poll(context);
            return Poll::Pending;
        }
        let polled = self.inner.as_mut().poll(context);
        // The program may have frozen itself.
        let until = self.network.state().frozen;
        if polled.is_pending() && until > Instant::now() {
            self.thaw.as_mut().reset(until);
            let _ = self.thaw.as_mut().poll(context);
        }
        polled
    }
}

/// Impairs a program at random, and finally returns to kill it.
async fn impair(network: &Network, cloud: &Cloud) {
    loop {
        let (pause, kind, length) = {
            let mut world = cloud.lock();
            let random = &mut world.random;
            (random.time(Duration::from_mins(15)), random.below(8), random.time(Duration::from_mins(8)))
        };
        sleep(pause).await;
        let until = Instant::now() + length;
        match kind {
            0 | 1 => network.state().frozen = until,
            2 | 3 => network.state().down = until,
            4 => network.state().logged_out = until,
            5 => return,
            _ => {}
        }
        cloud.note(format!("program {}: impairment {kind} for {length:?}", network.program));
    }
}

/// Runs a random schedule, and returns the cloud afterwards.
async fn random_schedule(seed: u64) -> Cloud {
    let start = Instant::now();
    let mut random = simulation::Random::new(!seed);
    let independent = random.percent(60);
    let manifest = manifest(1 + random.below(40), 1 + random.below(2), independent);
    let cloud = Cloud::new(seed, manifest.clone(), faults(seed));
    let programs = (0..2 + usize::from(random.percent(40))).map(|number| {
        let (program, cloud) = (Program::new(&cloud, number, &manifest, start), cloud.clone());
        let delay = if number == 0 { Duration::ZERO } else { random.time(Duration::from_mins(15)) };
        let steps = 1 + random.below(4);
        tokio::spawn(async move {
            sleep(delay).await;
            let begin = if number == 0 { Start::New } else { Start::Resume };
            let inner = Box::pin(run_program(&program, &cloud, begin, steps));
            let thaw = Box::pin(sleep_until(Instant::now()));
            tokio::select! {
                biased;
                () = Frozen { inner, network: program.network.clone(), thaw } => {}
                () = impair(&program.network, &cloud) => {
                    cloud.note(format!("program {number} is killed"));
                    cloud.lock().gone.insert(number);
                }
            }
        })
    });
    for ended in futures_util::future::join_all(programs).await {
        ended.expect("a program does not panic");
    }
    // A last program, which nothing impairs, finishes the run.
    cloud.lock().faults.late = 0;
    let program = Program::new(&cloud, 9, &manifest, start);
    let finished = tokio::time::timeout(MAX_TIME, async {
        loop {
            let ledger = program.attach().await.unwrap_or_else(|interrupt| panic!("not interrupted: {interrupt:?}"));
            cloud.note(format!("the last program begins round {}", ledger.record.round));
            let end = program.follow(&ledger, Start::Resume).await;
            cloud.note(format!("the last program: round {} ended: {end:?}", ledger.record.round));
            check_end(&cloud, &end, false, ledger.record.round);
            match end {
                End::Complete | End::Cancelled(_) => return,
                End::Unfinished(_) | End::Failed(_) | End::Unfollowed(_) => {}
            }
        }
    });
    let is_finished = finished.await.is_ok();
    let mut world = cloud.lock();
    let alive = world.remaining();
    if !alive.is_empty() {
        world.violations.push(format!("after the end of the run, these jobs run: {alive:?}"));
    }
    if !is_finished {
        world.violations.push("the run was not finished".into());
    }
    drop(world);
    cloud
}

/// Runs a schedule in virtual time, and fails if it has violations.
fn simulate(schedule: impl Future<Output = Cloud>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let cloud = runtime.expect("a runtime can be created").block_on(schedule);
    let world = cloud.into_world();
    assert!(world.violations.is_empty(), "{:#?}\n{}", world.violations, world.log.join("\n"));
}

/// Returns the faults of a schedule. Every other one has no pause between the last check and the sending of a job.
fn faults(seed: u64) -> Faults {
    Faults {
        lost: [0, 1, 5, 15][usize::try_from(seed / 2 % 4).expect("a small number")],
        slow: [2, 50][usize::try_from(seed / 32 % 2).expect("a small number")],
        late: 10 * (seed % 2),
        failing: [0, 20][usize::try_from(seed / 8 % 2).expect("a small number")],
        forgets: seed / 16 % 2 == 1,
    }
}

/// Number of random schedules of each test.
const SCHEDULES: u64 = 2_500;
/// Time of each test if `CLOUDKNOT_TEST` is `full`.
const FULL_TIME: Duration = Duration::from_mins(30);

/// Runs random schedules with consecutive seeds. Each test has its own [`SCHEDULES`] seeds, which are the same each time; if
/// `CLOUDKNOT_TEST` is `full`, it has others, for half an hour. `CLOUDKNOT_STRESS_SEED` names the only one to be run.
fn check_schedules(test: u64) {
    let variable = |name| std::env::var(name).ok();
    if let Some(seed) = variable("CLOUDKNOT_STRESS_SEED") {
        return simulate(random_schedule(seed.parse().expect("a number")));
    }
    let began = SystemTime::now();
    let is_full = variable("CLOUDKNOT_TEST").is_some_and(|value| value == "full");
    let seconds = began.duration_since(SystemTime::UNIX_EPOCH).expect("the clock is set").as_secs();
    let first = if is_full { (seconds << 24) + (test << 56) } else { test << 56 };
    for seed in first.. {
        let is_over =
            if is_full { began.elapsed().is_ok_and(|time| time > FULL_TIME) } else { seed - first == SCHEDULES };
        if is_over {
            return;
        }
        let schedule = AssertUnwindSafe(|| simulate(random_schedule(seed)));
        std::panic::catch_unwind(schedule).unwrap_or_else(|_| panic!("repeat this with CLOUDKNOT_STRESS_SEED={seed}"));
    }
}

// Several tests, which run at the same time.
#[test]
fn random_schedules_0_keep_the_promises() {
    check_schedules(0);
}

#[test]
fn random_schedules_1_keep_the_promises() {
    check_schedules(1);
}

#[test]
fn random_schedules_2_keep_the_promises() {
    check_schedules(2);
}

#[test]
fn random_schedules_3_keep_the_promises() {
    check_schedules(3);
}
