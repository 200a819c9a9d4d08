//! The findings about submission, as fixed schedules. Their names begin with the number of the finding.

use super::*;
use crate::backend::batch::jobs::JobName;
use crate::error::Result;

/// A cloud without faults, and programs that use it.
struct Trial {
    cloud: Cloud,
    manifest: Manifest,
    start: Instant,
}

impl Trial {
    /// Creates a run of this number of items, each of which has a job.
    fn new(items: u64) -> Self {
        let manifest = manifest(items, 1, true);
        Self { cloud: Cloud::new(items, manifest.clone(), Faults::default()), manifest, start: Instant::now() }
    }

    fn program(&self, number: usize) -> Program {
        Program::new(&self.cloud, number, &self.manifest, self.start)
    }

    /// Returns the number of accepted jobs, by round and first child.
    fn accepted(&self) -> BTreeMap<(u32, u64), usize> {
        let mut accepted = BTreeMap::new();
        for JobName { round, first, .. } in self.cloud.lock().jobs.values().map(|job| job.name) {
            *accepted.entry((round, first)).or_default() += 1;
        }
        accepted
    }

    /// Fails unless each item had exactly one job in each of these rounds.
    fn check_accepted(&self, rounds: u32) {
        let expected = (1..=rounds).flat_map(|round| (0..self.manifest.items).map(move |first| ((round, first), 1)));
        assert_eq!(self.accepted(), expected.collect());
    }
}

impl Program {
    fn new_run(&self) -> Arc<Ledger> {
        self.ledger(1, read::first_round(&self.manifest))
    }

    async fn attach_and_follow(&self) -> End {
        let ledger = self.attach().await.expect("nothing stops an attach");
        self.follow(&ledger, Start::Resume).await
    }

    /// Submits the run, and follows it until it is interrupted after this time.
    async fn run_until_interrupted(&self, time: Duration) -> (Arc<Ledger>, End) {
        let ledger = self.new_run();
        let (end, ()) = tokio::join!(self.follow(&ledger, Start::New), interrupt_after(time, &ledger));
        (ledger, end)
    }

    /// Submits the run without following it.
    async fn submit(&self) -> Result<Option<End>> {
        let ledger = self.new_run();
        Follower::new(self.run_jobs(&ledger), note(), Resources::default(), Start::New).begin(Start::New).await
    }
}

async fn interrupt_after(time: Duration, ledger: &Arc<Ledger>) {
    sleep(time).await;
    ledger.control.stop.store(true, Ordering::Relaxed);
}

fn is_failed(end: &End, parts: &[&str]) -> bool {
    matches!(end, End::Failed(reason) if parts.iter().all(|part| reason.contains(part)))
}

#[test]
fn h4_missing_network_does_not_end_a_round() {
    simulate(async {
        let trial = Trial::new(20);
        let program = trial.program(0);
        let ledger = program.new_run();
        let outage = async {
            sleep(Duration::from_secs(2)).await;
            program.network.state().down = Instant::now() + Duration::from_hours(9);
        };
        let (end, ()) = tokio::join!(program.follow(&ledger, Start::New), outage);
        assert_eq!(end, End::Complete);
        assert!(trial.start.elapsed() > Duration::from_hours(9));
        trial.check_accepted(1);
        trial.cloud
    });
}

#[test]
fn h4_expired_login_ends_the_program_and_not_the_round() {
    simulate(async {
        let trial = Trial::new(20);
        let program = trial.program(0);
        let ledger = program.new_run();
        let outage = async {
            sleep(Duration::from_secs(2)).await;
            program.network.state().logged_out = Instant::now() + Duration::from_hours(2);
        };
        let (end, ()) = tokio::join!(program.follow(&ledger, Start::New), outage);
        let parts =
            ["cannot use", "the run continues on AWS Batch", "f.attach(\"20260101-000000000-abcdef\")", ".cancel()"];
        assert!(is_failed(&end, &parts), "{end:?}");
        assert!((3_600..3_700).contains(&trial.start.elapsed().as_secs()), "{:?}", trial.start.elapsed());
        sleep(Duration::from_hours(1)).await;
        assert_eq!(program.attach_and_follow().await, End::Complete);
        trial.check_accepted(1);
        trial.cloud
    });
}

#[test]
fn h4_retry_waits_for_the_jobs_of_the_round_before() {
    simulate(async {
        let trial = Trial::new(20);
        let program = trial.program(0);
        let (ledger, end) = program.run_until_interrupted(Duration::from_secs(20)).await;
        assert!(is_failed(&end, &["the run continues"]), "{end:?}");
        retry(&ledger).await.expect("the store works");
        assert_eq!(program.attach_and_follow().await, End::Complete);
        trial.check_accepted(1);
        trial.cloud
    });
}

#[test]
fn h4_retry_ends_the_jobs_of_a_cancelled_round() {
    simulate(async {
        let trial = Trial::new(20);
        let program = trial.program(0);
        let (ledger, _) = program.run_until_interrupted(Duration::from_secs(5)).await;
        // The program that cancels is killed before it ends the jobs.
        ledger.record_cancellation().await.expect("the store works");
        retry(&ledger).await.expect("the store works");
        assert_eq!(program.attach_and_follow().await, End::Complete);
        assert!(trial.cloud.lock().jobs.values().any(|job| job.name.round == 1 && job.is_terminated()));
        trial.cloud
    });
}

#[test]
fn h4_cancel_ends_the_jobs_of_all_rounds() {
    simulate(async {
        let trial = Trial::new(20);
        let program = trial.program(0);
        let (ledger, end) = program.run_until_interrupted(Duration::from_secs(5)).await;
        assert!(is_failed(&end, &["the run continues"]), "{end:?}");
        retry(&ledger).await.expect("the store works");
        let ledger = program.attach().await.expect("nothing stops an attach");
        let cancel = async {
            sleep(Duration::from_secs(5)).await;
            assert!(!trial.cloud.lock().alive(1).is_empty(), "the jobs of the first round have ended");
            ledger.cancel().await.expect("the store works");
        };
        let (end, ()) = tokio::join!(program.follow(&ledger, Start::Resume), cancel);
        assert!(matches!(end, End::Cancelled(_)), "{end:?}");
        assert_eq!(trial.cloud.lock().alive(2), []);
        trial.cloud
    });
}

#[test]
fn h4_handle_of_an_interrupted_round_cancels_the_run() {
    simulate(async {
        let trial = Trial::new(20);
        let program = trial.program(0);
        let (ledger, _) = program.run_until_interrupted(Duration::from_secs(5)).await;
        assert!(!trial.cloud.lock().alive(1).is_empty());
        program.run_jobs(&ledger).cancel().await.expect("nothing fails");
        assert_eq!(trial.cloud.lock().alive(1), []);
        trial.cloud
    });
}

#[test]
fn h4_cancel_ends_rounds_that_another_program_has_begun() {
    simulate(async {
        let trial = Trial::new(20);
        trial.cloud.lock().faults.failing = 50;
        let (first, second) = (trial.program(0), trial.program(1));
        let (ledger, _) = first.run_until_interrupted(Duration::from_secs(5)).await;
        assert_eq!(second.attach_and_follow().await, End::Complete);
        retry(&second.attach().await.expect("nothing stops an attach")).await.expect("the store works");
        let cancel = async {
            sleep(Duration::from_secs(5)).await;
            assert!(!trial.cloud.lock().alive(2).is_empty(), "no job of the second round runs");
            first.run_jobs(&ledger).cancel().await.expect("nothing fails");
            assert_eq!(trial.cloud.lock().alive(2), []);
        };
        let (end, ()) = tokio::join!(second.attach_and_follow(), cancel);
        assert!(matches!(end, End::Cancelled(_)), "{end:?}");
        trial.cloud
    });
}

#[test]
fn h5_attach_during_a_submission_submits_nothing_twice() {
    simulate(async {
        let trial = Trial::new(60);
        let (submitting, attaching) = (trial.program(0), trial.program(1));
        let ledger = submitting.new_run();
        let attach = async {
            sleep(Duration::from_millis(300)).await;
            assert!(trial.cloud.lock().jobs.len() < 60, "all jobs are submitted already");
            attaching.attach_and_follow().await
        };
        let ends = tokio::join!(submitting.follow(&ledger, Start::New), attach);
        assert_eq!(ends, (End::Complete, End::Complete));
        trial.check_accepted(1);
        trial.cloud
    });
}

#[test]
fn h5_retry_and_attach_at_once_submit_nothing_twice() {
    simulate(async {
        let trial = Trial::new(20);
        trial.cloud.lock().faults.failing = 100;
        let program = trial.program(0);
        let ledger = program.new_run();
        assert_eq!(program.follow(&ledger, Start::New).await, End::Complete);
        assert_eq!(trial.cloud.lock().failures(), 20);
        trial.cloud.lock().faults.failing = 0;
        retry(&ledger).await.expect("the store works");
        let (retrying, attaching) = (trial.program(1), trial.program(2));
        let ends = tokio::join!(retrying.attach_and_follow(), attaching.attach_and_follow());
        assert_eq!(ends, (End::Complete, End::Complete));
        trial.check_accepted(2);
        trial.cloud
    });
}

#[test]
fn h5_lost_responses_are_looked_up_once_the_jobs_are_listed() {
    simulate(async {
        let trial = Trial::new(20);
        trial.cloud.lock().lose_submissions = 5;
        let program = trial.program(0);
        assert_eq!(program.follow(&program.new_run(), Start::New).await, End::Complete);
        trial.check_accepted(1);
        trial.cloud
    });
}

#[test]
fn h5_forgotten_jobs_are_submitted_by_one_program() {
    simulate(async {
        let trial = Trial::new(20);
        trial.program(0).submit().await.expect("nothing fails");
        // AWS Batch forgets the jobs before they store anything.
        trial.cloud.lock().jobs.clear();
        let (one, other) = (trial.program(1), trial.program(2));
        let ends = tokio::join!(one.attach_and_follow(), other.attach_and_follow());
        assert_eq!(ends, (End::Complete, End::Complete));
        trial.check_accepted(1);
        trial.cloud
    });
}

#[test]
fn h6_items_of_a_running_job_are_not_reported_failed() {
    simulate(async {
        let trial = Trial::new(1);
        {
            let mut world = trial.cloud.lock();
            (world.accept_twice, world.lose_submissions) = (1, 1);
        }
        let (submitting, attaching) = (trial.program(0), trial.program(1));
        let ledger = submitting.new_run();
        let fail = async {
            sleep(Duration::from_secs(1)).await;
            // Of two jobs of one name, the older one fails.
            trial.cloud.lock().fail("job-1");
            attaching.attach_and_follow().await
        };
        let ends = tokio::join!(submitting.follow(&ledger, Start::New), fail);
        assert_eq!(ends, (End::Complete, End::Complete));
        assert_eq!(trial.cloud.lock().failures(), 0);
        trial.cloud
    });
}

#[test]
fn h7_refusal_during_a_submission_says_what_runs() {
    simulate(async {
        let trial = Trial::new(60);
        trial.cloud.lock().refuse_after = 10;
        let program = trial.program(0);
        let error = program.submit().await.expect_err("the queue is disabled");
        let hint = error.hint().unwrap_or_default();
        let parts = [
            "run `cargo knot deploy`",
            "jobs for 10 of 60 items were submitted and run on",
            "`f.attach(\"20260101-000000000-abcdef\")` submits the rest",
            "`.cancel()` on that run",
        ];
        for part in parts {
            assert!(hint.contains(part), "`{part}` is not in: {hint}");
        }
        // Another program does not have to wait until the lease is old.
        trial.cloud.lock().refuse_after = u64::MAX;
        let before = Instant::now();
        let ledger = program.attach().await.expect("nothing stops an attach");
        tokio::join!(program.follow(&ledger, Start::Resume), interrupt_after(Duration::from_secs(15), &ledger));
        assert!(before.elapsed() < Duration::from_secs(30));
        trial.check_accepted(1);
        trial.cloud
    });
}

#[test]
fn h7_interrupt_during_a_submission_says_what_runs() {
    simulate(async {
        let trial = Trial::new(200);
        let program = trial.program(0);
        let (_, end) = program.run_until_interrupted(Duration::from_millis(500)).await;
        let submitted = trial.cloud.lock().jobs.len();
        assert!((8..200).contains(&submitted), "{submitted} jobs");
        let parts = [
            &*format!("jobs for {submitted} of 200 items were submitted and run on without this program"),
            "`f.attach(\"20260101-000000000-abcdef\")` submits the rest and follows the run",
            "`.cancel()` on that run",
        ];
        assert!(is_failed(&end, &parts), "{end:?}");
        assert_eq!(trial.program(1).attach_and_follow().await, End::Complete);
        trial.check_accepted(1);
        trial.cloud
    });
}

/// The sender of a late job ends it, unless it is killed first.
#[test]
fn job_that_a_killed_program_has_sent_late_is_ended_with_the_round() {
    simulate(async {
        let trial = Trial::new(1);
        let killed = trial.program(0);
        let ledger = killed.new_run();
        let leases = killed.run_jobs(&ledger).leases;
        leases.acquire(1, 1, Vec::new(), leases.now()).await.expect("the store works").expect("it is the first");
        let stray = async {
            sleep(Duration::from_secs(125)).await;
            let mut world = trial.cloud.lock();
            let (id, first) = world.jobs.iter().next().expect("the other program has submitted");
            assert_eq!((first.name.epoch, id.as_str()), (2, "job-1"));
            world.send_late(JobName { round: 1, epoch: 1, first: 0 });
        };
        let following = trial.program(1);
        let (end, ()) = tokio::join!(following.attach_and_follow(), stray);
        assert_eq!(end, End::Complete);
        assert_eq!(trial.cloud.lock().remaining(), []);
        trial.cloud
    });
}
