//! AWS Batch: a run as array jobs on a Knot. `submit` submits one job for each child of a round, under a `lease`; `follow` watches
//! how the jobs end, and `explain` determines why; `jobs` lists and ends them. The code that sends requests to Batch is in
//! `aws/batch.rs`. The store is authoritative, as in other backends: it decides which program submits, and the state that Batch
//! reports for a job only determines when the store is listed.

use std::ops::{Range, RangeInclusive};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cloudknot_runtime::contract::{
    self, BatchResources, InputLayout, LeasedJob, Manifest, Resources, Round, StoreAt, Task,
};
use cloudknot_runtime::engine;
use cloudknot_runtime::fingerprint::{self, Fingerprint};
use cloudknot_runtime::function::{self, Function};
use cloudknot_runtime::store::{BoxFuture, Object, S3Store, Store, s3};
use tokio::time::Instant;

use super::{Activity, Backend, Chunking, Code, Executor, LogPage, LogPageRequest, LogStreams};
use crate::aws::Aws;
use crate::aws::batch::{self, JobDescription};
use crate::error::{Error, ErrorKind, Result};
use crate::home;
use crate::home::knot_note::KnotNote;
use crate::pending;
use crate::record::job::Job;
use crate::record::ledger::{End, Ledger};
use crate::record::{Record, Start};
use crate::settings::names;

mod clock;
mod explain;
mod follow;
mod jobs;
mod lease;
mod look;
mod patience;
mod scheduler;
#[cfg(test)]
mod schedules;
mod submit;

use clock::Clock;
use jobs::RunJobs;
use scheduler::{AwsScheduler, Scheduler};
use submit::Sent;

/// Maximum number of items of a job if the user sets no chunk size. A run that needs larger jobs has several array
/// jobs.
const MAX_CHUNK: u64 = 1_000;
/// Time after which a job that Batch does not describe is looked up, and submitted again if Batch has forgotten it.
const JOB_LOOKUP_TIMEOUT: Duration = Duration::from_mins(5);
/// Maximum number of jobs that are submitted or ended concurrently; Batch accepts 50 a second.
const MAX_CONCURRENT: usize = 8;

/// The backend of a Knot: its queue and its bucket.
pub(super) struct KnotBackend {
    note: KnotNote,
    connection: OnceLock<Connection>,
}

#[derive(Clone)]
struct Connection {
    scheduler: Arc<dyn Scheduler>,
    store: Arc<dyn Store>,
}

impl KnotBackend {
    pub(super) fn new(note: KnotNote) -> Self {
        Self { note, connection: OnceLock::new() }
    }

    /// Returns the backend of the Knot that is recorded in `.cloudknot/`.
    ///
    /// # Errors
    /// Returns an error if no Knot is recorded.
    pub(super) fn recorded() -> Result<Self> {
        let note = KnotNote::of_this_program()?.ok_or_else(|| {
            const HINT: &str =
                "run `cargo knot deploy`; or `cargo knot use <name>`, if the Knot was deployed elsewhere";
            let (message, hint) = match home::of_notes() {
                Some(home) => (format!("`{}` has none", home.display()), HINT),
                None => (home::NO_CRATE.to_owned(), home::NO_CRATE_HINT),
            };
            Error::new(ErrorKind::NotFound, format!("cannot find the Knot of this program: {message}")).with_hint(hint)
        })?;
        Ok(Self::new(note))
    }

    fn connection(&self) -> &Connection {
        self.connection.get_or_init(|| {
            let (region, profile) = (self.note.region.clone(), self.note.profile.clone());
            // Loading reads files and sends no request. It is spawned, because this thread may belong to another runtime.
            let loaded = engine::spawn(async move { Aws::of_region(&region, profile.as_deref()).await });
            let aws = pending::wait(loaded).expect("loading the configuration does not panic");
            // Not in adaptive mode, as on a worker: see `s3::retries`.
            let config = aws.config.to_builder().retry_config(s3::retries()).build();
            let store = Arc::new(S3Store::new(&config, &self.note.bucket, &self.note.prefix));
            Connection { scheduler: Arc::new(AwsScheduler::new(&aws)), store }
        })
    }

    /// Returns the jobs of the ledger's run.
    ///
    /// # Errors
    /// Returns an error if the run was not submitted to AWS Batch.
    fn run_jobs(&self, ledger: &Arc<Ledger>) -> Result<RunJobs> {
        let manifest = &ledger.record.manifest;
        let settings = ledger.record.batch().cloned().ok_or_else(|| {
            let message = format!("cannot continue run {}: it was submitted to `{}`", manifest.run, manifest.backend);
            Error::new(ErrorKind::Config, message).with_hint("attach to it on the backend that it was submitted to")
        })?;
        Ok(RunJobs::new(Arc::clone(&self.connection().scheduler), ledger, settings, Clock::Machine))
    }

    /// Returns an error if a run requests GPUs that nothing in the Knot's image could use.
    fn check_gpu_image(&self, requested: &Resources) -> Result<()> {
        if requested.gpus.is_none_or(|gpus| gpus == 0) || self.note.gpu_image != Some(false) {
            return Ok(());
        }
        let message = format!(
            "cannot submit: the run requests GPUs, and the image of the Knot `{}` has no base, so that nothing in it can use them",
            self.note.knot
        );
        Err(Error::new(ErrorKind::Config, message).with_hint(
            "set `base-image` in [package.metadata.cloudknot] (see docs/image.md), and run `cargo knot deploy`",
        ))
    }

    /// Returns the resources that the jobs of a function use, as they are deployed now.
    fn deployed(&self, function: &str, independent: bool) -> BatchResources {
        let note = &self.note;
        BatchResources {
            region: note.region.clone(),
            queue: note.queue.clone(),
            job_definition: note.job_definitions.get(function).cloned().unwrap_or_default(),
            image: note.image.clone(),
            log_group: note.log_group.clone(),
            share_identifier: note.share_identifier.clone(),
            independent,
        }
    }

    /// Returns the resources of the jobs of a round. Their validity was checked before the run was recorded.
    fn resources(&self, attribute: &function::Resources, record: &Record) -> Resources {
        let requested = record.resources();
        let deployed = self.note.jobs.as_ref().map(|jobs| jobs.job_resources(attribute, requested));
        deployed.and_then(Result::ok).unwrap_or(requested)
    }

    /// Checks that the Knot has this function, with types of this fingerprint, which covers the codec. `schema` describes them.
    ///
    /// # Errors
    /// `NotFound` or `Types` if it has not.
    fn check_deployed(&self, id: &str, fingerprint: Fingerprint, schema: &str) -> Result<()> {
        let knot = &self.note.knot;
        let hint = "run `cargo knot deploy`, then the program again";
        if !self.note.job_definitions.contains_key(id) {
            let message = format!("cannot submit: the Knot `{knot}` was deployed without `{id}`");
            return Err(Error::new(ErrorKind::NotFound, message).with_hint(hint));
        }
        let deployed = self.note.types.iter().flatten().find(|types| types.function == id);
        match deployed {
            Some(deployed) if deployed.fingerprint != fingerprint => {
                let mut message =
                    format!("cannot submit: the types of `{id}` have changed since the Knot `{knot}` was deployed");
                if !deployed.schema.is_empty() {
                    message = format!("{message}\n{}", fingerprint::difference(&deployed.schema, schema));
                }
                Err(Error::new(ErrorKind::Types, message).with_hint(hint))
            }
            _ => Ok(()),
        }
    }

    /// Returns the follower of the ledger's round.
    fn follower(&self, ledger: &Arc<Ledger>, attribute: &function::Resources, start: Start) -> Result<Follower> {
        let resources = self.resources(attribute, &ledger.record);
        Ok(Follower::new(self.run_jobs(ledger)?, self.note.clone(), resources, start))
    }
}

impl Executor for KnotBackend {
    fn name(&self) -> &'static str {
        "batch"
    }

    fn store(&self) -> Result<Arc<dyn Store>> {
        Ok(Arc::clone(&self.connection().store))
    }

    fn knot(&self, _: &Function) -> String {
        self.note.knot.clone()
    }

    fn check(&self, function: &'static Function) -> Result<()> {
        let schema = function.schema()?;
        self.check_deployed(&function.id.to_string(), schema.fingerprint, &schema.text)
    }

    fn chunking(&self, _: &Function, _: &Resources, items: u64) -> Chunking {
        Chunking { chunk: items.div_ceil(batch::MAX_ARRAY_SIZE).clamp(1, MAX_CHUNK), parallel: 1 }
    }

    fn fill_manifest(&self, manifest: &mut Manifest, function: &Function, independent: bool) -> Result<()> {
        let note = &self.note;
        if let Some(jobs) = &note.jobs {
            let requested = manifest.resources;
            manifest.resources = jobs.job_resources(&function.resources, requested)?;
            jobs.job_resources(&function.resources, Resources { memory_mib: requested.memory_in(2), ..requested })?;
        }
        self.check_gpu_image(&manifest.resources)?;
        names::check_run_tags(note.tags, &manifest.tags.clone().into_iter().collect::<Vec<_>>())?;
        manifest.batch = Some(self.deployed(&manifest.function, independent));
        // Values that are not known yet, also those of later rounds, get their maximum length.
        let round = Round { retries: u32::MAX, timeout_ms: Some(u64::MAX), ..Round::default() };
        let longest = manifest.task(store_of(note), u32::MAX, &round, u64::MAX);
        let task = Task { inputs: InputLayout::Offsets(u64::MAX), ..longest };
        let length = length_of(&environment(&task));
        if length > batch::MAX_OVERRIDES_LEN {
            let message = format!(
                "cannot submit: the environment variables have {length} characters, and AWS Batch accepts at most {}",
                batch::MAX_OVERRIDES_LEN
            );
            return Err(Error::new(ErrorKind::Config, message).with_hint(
                "set variables that are the same for every run with `cargo knot deploy --env`, and pass large values as inputs",
            ));
        }
        Ok(())
    }

    fn fill_round(&self, round: &mut Round, last: &Record, attribute: &function::Resources, code: Code) -> Result<()> {
        round.batch = match code {
            Code::Old => last.batch().cloned(),
            Code::Current => {
                let Manifest { function, fingerprint, schema, .. } = &last.manifest;
                self.check_deployed(function, *fingerprint, schema)?;
                let independent = last.batch().is_some_and(|batch| batch.independent);
                Some(self.deployed(&last.manifest.function, independent))
            }
        };
        let requested = last.manifest.resources_in(last.round.saturating_add(1), round);
        if let Some(jobs) = &self.note.jobs {
            jobs.job_resources(attribute, requested)?;
        }
        self.check_gpu_image(&requested)
    }

    fn renewed(&self) -> Result<Option<Backend>> {
        let Some(note) = KnotNote::of_this_program()? else { return Ok(None) };
        let place = |note: &KnotNote| [&note.knot, &note.region, &note.bucket, &note.prefix].map(Clone::clone);
        if place(&note) != place(&self.note) {
            return Ok(None);
        }
        let has_same_login = note.profile == self.note.profile;
        let connection = if has_same_login { self.connection.clone() } else { OnceLock::new() };
        Ok(Some(Backend(Arc::new(Self { note, connection }))))
    }

    fn launch(
        &self,
        ledger: &Arc<Ledger>,
        function: &'static Function,
        start: Start,
    ) -> BoxFuture<'static, Result<()>> {
        let follower = self.follower(ledger, &function.resources, start);
        Box::pin(async move {
            let mut follower = follower?;
            let begun = follower.begin(start).await;
            follower.go_on(begun)
        })
    }

    fn launch_deployed(&self, ledger: &Arc<Ledger>, attribute: &function::Resources) -> BoxFuture<'static, Result<()>> {
        let follower = self.follower(ledger, attribute, Start::Resume);
        Box::pin(async move {
            let mut follower = follower?;
            let submitted = follower.begin_submitted().await;
            follower.go_on(submitted)
        })
    }

    fn jobs(&self, ledger: &Arc<Ledger>) -> BoxFuture<'static, Result<Vec<Job>>> {
        let run = self.run_jobs(ledger);
        Box::pin(async move { run?.impatient().public_jobs().await })
    }

    fn cancel_items(&self, ledger: &Arc<Ledger>, items: Vec<u64>) -> BoxFuture<'static, Result<()>> {
        let run = self.run_jobs(ledger);
        Box::pin(async move { run?.impatient().cancel_items(&items).await })
    }

    fn log_streams(
        &self,
        ledger: &Arc<Ledger>,
        items: Vec<RangeInclusive<u64>>,
    ) -> BoxFuture<'static, Result<LogStreams>> {
        let run = self.run_jobs(ledger);
        Box::pin(async move { run?.impatient().log_streams(&items).await })
    }

    fn read_log(&self, request: LogPageRequest) -> BoxFuture<'static, Result<LogPage>> {
        let scheduler = Arc::clone(&self.connection().scheduler);
        Box::pin(async move { scheduler.filter_log(&request).await })
    }

    fn only_knot(&self) -> Option<&str> {
        Some(&self.note.knot)
    }

    fn region(&self) -> Option<&str> {
        Some(&self.note.region)
    }

    fn activity(&self, ledger: &Arc<Ledger>, objects: &[Object]) -> BoxFuture<'static, Result<Activity>> {
        let (run, lease) = (self.run_jobs(ledger), look::last_lease(objects, ledger.record.round));
        Box::pin(async move { look::activity(&run?.impatient(), lease).await })
    }

    fn cancel_ended(&self, ledger: &Arc<Ledger>) -> BoxFuture<'static, Result<()>> {
        let run = self.run_jobs(ledger);
        Box::pin(async move { run?.cancel().await })
    }
}

/// The task that submits and follows the jobs of one round of a run.
struct Follower {
    run: RunJobs,
    note: KnotNote,
    /// Resources of the round's jobs.
    resources: Resources,
    /// `true` if no outcome of the items that are submitted next is stored.
    has_no_outcomes: bool,
    /// Jobs that run the round's children, according to its last lease.
    jobs: Vec<SubmittedJob>,
    /// Epoch of that lease.
    epoch: u32,
    /// `true` if each child with unfinished items has a job.
    is_submitted: bool,
    sent: Sent,
    /// Epoch of the lease whose owner was last reported to be waited for.
    reported_owner: u32,
    /// Number of failed children when the failures were last explained.
    explained: u64,
}

impl Follower {
    fn new(run: RunJobs, note: KnotNote, resources: Resources, start: Start) -> Self {
        Self {
            run,
            note,
            resources,
            has_no_outcomes: start == Start::New,
            jobs: Vec::new(),
            epoch: 0,
            is_submitted: false,
            sent: Sent::default(),
            reported_owner: 0,
            explained: 0,
        }
    }
}

impl Follower {
    /// Follows the round in the background, until it ends. `begun` is its end, if it has ended, or the error of its beginning.
    fn go_on(mut self, begun: Result<Option<End>>) -> Result<()> {
        let (ended, begun) = match begun {
            Ok(ended) => (ended, Ok(())),
            Err(error) => (Some(End::Failed(self.detached())), Err(error)),
        };
        engine::spawn(async move {
            let ledger = Arc::clone(&self.run.ledger);
            let following = engine::spawn(async move {
                match ended {
                    Some(end) => end,
                    None => self.follow().await,
                }
            });
            // Waiters must be notified of the end of the run, even after an error or a panic.
            let panicked = |_| End::Failed("the task that follows the run panicked".into());
            let end = following.await.unwrap_or_else(panicked);
            // On a thread for blocking calls, because the hook may never return: an interrupted program is about to end.
            tokio::task::spawn_blocking(move || engine::block_on(ledger.conclude(end)));
        });
        begun
    }
}

/// A job of the round that has been submitted.
struct SubmittedJob {
    id: String,
    /// Children of the round that the job runs.
    children: Range<u64>,
    /// Last description of the job by Batch.
    description: JobDescription,
    absent_since: Option<Instant>,
    /// `true` if Batch does not describe the job, and all of its items have an outcome.
    is_forgotten: bool,
}

impl SubmittedJob {
    fn new(id: String, children: Range<u64>) -> Self {
        Self { id, children, description: JobDescription::default(), absent_since: None, is_forgotten: false }
    }

    fn is_over(&self) -> bool {
        self.is_forgotten || self.description.is_over()
    }

    fn leased(&self) -> LeasedJob {
        LeasedJob { id: self.id.clone(), children: self.children.clone() }
    }

    /// Returns whether Batch has not described the job for so long that it may have forgotten it.
    fn is_lost(&self) -> bool {
        !self.is_over() && self.absent_since.is_some_and(|since| since.elapsed() > JOB_LOOKUP_TIMEOUT)
    }

    /// Returns the number of the job's children that have ended.
    fn ended(&self) -> u64 {
        if self.is_over() {
            self.children.end - self.children.start
        } else {
            self.description.count(&["SUCCEEDED", "FAILED"])
        }
    }

    /// Returns the job ID of one of the job's children.
    fn child_id(&self, child: u64) -> String {
        jobs::child_id(&self.id, &self.children, child)
    }
}

/// Returns the store in which the workers of a Knot find its runs.
fn store_of(note: &KnotNote) -> StoreAt {
    StoreAt::S3 { bucket: note.bucket.clone(), prefix: note.prefix.clone() }
}

/// Returns the environment variables of a job. Those of the run are in the task: they are for item processes only.
fn environment(task: &Task) -> Vec<(String, String)> {
    vec![(contract::ENV_TASK.to_owned(), serde_json::to_string(task).expect("a task serializes to JSON"))]
}

/// Returns the number of characters that these variables take in an override, as JSON.
fn length_of(environment: &[(String, String)]) -> usize {
    let pairs: Vec<_> =
        environment.iter().map(|(name, value)| serde_json::json!({"name": name, "value": value})).collect();
    serde_json::json!({"command": [], "environment": pairs}).to_string().chars().count()
}
