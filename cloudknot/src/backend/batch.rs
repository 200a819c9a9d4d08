//! AWS Batch: which jobs a run takes, how they are submitted once and not twice, and how their end is seen. Knows the contract;
//! what speaks to Batch is in `batch.rs`. The store is the truth here, too: what Batch says of a job is a hint to look.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use cloudknot_runtime::contract::{self, InputLayout, Manifest, OnBatch, Resources, StoreAt, Task};
use cloudknot_runtime::engine;
use cloudknot_runtime::function::Function;
use cloudknot_runtime::store::{BoxFuture, S3Store, Store, s3};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{Chunking, Place, turns};
use crate::aws::Aws;
use crate::batch::{self, Batch, Described, Order};
use crate::error::{Error, ErrorKind, Result};
use crate::hook::{self, Event};
use crate::ledger::{End, Ledger, Record};
use crate::names;
use crate::note::KnotNote;
use crate::{program, run};

mod explain;
mod jobs;

/// So many items a job takes at most, where the user does not say: with more, a run takes several arrays.
const LARGEST_CHUNK: u64 = 1_000;
/// How often Batch is asked: a fiftieth of the time that the run has taken by then, within these.
const SOONEST: Duration = Duration::from_millis(500);
const LATEST: Duration = Duration::from_secs(15);
/// How often results are listed at most while jobs run: after a tenth of the time, within these. Each listing is a request.
const LISTING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(1));
/// After so long a job of which Batch knows nothing is taken for one that it has forgotten.
const FORGOTTEN: Duration = Duration::from_mins(5);
/// After so long without a job that runs, it is said why.
const STUCK: Duration = Duration::from_mins(1);
/// How long jobs are waited for that were ended: a container has 30 seconds, and Batch takes its time.
const ENDING: Duration = Duration::from_mins(3);
/// How long it can take until a job that was submitted is found by its name.
const UNSEEN: Duration = Duration::from_secs(30);
/// So many jobs are submitted, or ended, at once; Batch takes 50 a second.
const AT_ONCE: usize = 8;
/// On top of what the items of a job may take, for what is around them; and the least that Batch takes.
const MARGIN: Duration = Duration::from_mins(1);

/// The queue and the bucket of a Knot.
pub(super) struct OnKnot {
    note: KnotNote,
    opened: OnceLock<Opened>,
}

#[derive(Clone)]
struct Opened {
    aws: Aws,
    store: Arc<dyn Store>,
}

impl OnKnot {
    pub(super) fn new(note: KnotNote) -> Self {
        Self { note, opened: OnceLock::new() }
    }

    /// The Knot that was noted beside the crate.
    ///
    /// # Errors
    /// Where none is.
    pub(super) fn noted() -> Result<Self> {
        let home = program::home();
        let note = KnotNote::read(&home)?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("failed to find the Knot of this program: `{}` has none", home.display()),
            )
            .with_hint("run `cargo knot deploy`; or `cargo knot use <name>`, if the Knot was deployed elsewhere")
        })?;
        Ok(Self::new(note))
    }

    fn opened(&self) -> &Opened {
        self.opened.get_or_init(|| {
            let (region, profile) = (self.note.region.clone(), self.note.profile.clone());
            // Files are read for it, and nothing is asked. This thread may be one of another runtime.
            let loaded = engine::spawn(async move { Aws::of_region(&region, profile.as_deref()).await });
            let aws = run::wait(loaded).expect("a configuration is loaded or lacks parts; it does not panic");
            // Not adaptive, as on a worker: see there.
            let config = aws.config.to_builder().retry_config(s3::retries()).build();
            let store = Arc::new(S3Store::new(&config, &self.note.bucket, &self.note.prefix));
            Opened { aws, store }
        })
    }
}

impl Place for OnKnot {
    fn name(&self) -> &'static str {
        "batch"
    }

    fn store(&self) -> Result<Arc<dyn Store>> {
        Ok(Arc::clone(&self.opened().store))
    }

    fn knot(&self, _: &Function) -> String {
        self.note.knot.clone()
    }

    fn check(&self, function: &'static Function) -> Result<()> {
        let (knot, id) = (&self.note.knot, function.id.to_string());
        let again = "run `cargo knot deploy`, then the program again";
        if !self.note.job_definitions.contains_key(&id) {
            let message = format!("failed to submit: the Knot `{knot}` was deployed without `{id}`");
            return Err(Error::new(ErrorKind::NotFound, message).with_hint(again));
        }
        let Some(types) = &self.note.types else { return Ok(()) };
        let deployed = types.iter().find(|types| types.function == id);
        let here = function.schema();
        match deployed {
            Some(deployed) if deployed.fingerprint != here.fingerprint => {
                let mut message =
                    format!("failed to submit: the types of `{id}` have changed since the Knot `{knot}` was deployed");
                if !deployed.schema.is_empty() {
                    message = format!("{message}\n{}", here.difference(&deployed.schema));
                }
                Err(Error::new(ErrorKind::Types, message).with_hint(again))
            }
            _ => Ok(()),
        }
    }

    fn chunking(&self, _: &Function, _: &Resources, items: u64) -> Chunking {
        Chunking { chunk: items.div_ceil(batch::LARGEST_ARRAY).clamp(1, LARGEST_CHUNK), parallel: 1 }
    }

    fn pin(&self, manifest: &mut Manifest, function: &Function, independent: bool) -> Result<()> {
        let note = &self.note;
        if let Some(jobs) = &note.jobs {
            let asked = manifest.resources;
            manifest.resources = jobs.given(&function.resources, asked)?;
            jobs.given(&function.resources, Resources { memory_mib: asked.memory_in(2), ..asked })?;
        }
        names::check_tags(&manifest.tags.clone().into_iter().collect::<Vec<_>>())?;
        let definition = note.job_definitions.get(&manifest.function).cloned().unwrap_or_default();
        manifest.batch = Some(OnBatch {
            region: note.region.clone(),
            queue: note.queue.clone(),
            job_definition: definition,
            image: note.image.clone(),
            log_group: note.log_group.clone(),
            independent,
        });
        // The longest that there can be of what is not known yet.
        let longest = manifest.task(store_of(note), 1, manifest.retries, u64::MAX);
        let task = Task { inputs: InputLayout::Offsets(u64::MAX), ..longest };
        let length = length_of(&environment(manifest, &task));
        if length > batch::LARGEST_OVERRIDE {
            let message = format!(
                "failed to submit: the variables of the run take {length} characters, and AWS Batch takes {} of a run",
                batch::LARGEST_OVERRIDE
            );
            return Err(Error::new(ErrorKind::Config, message).with_hint(
                "give what is the same for every run to `cargo knot deploy --env`, and what is large to the inputs",
            ));
        }
        Ok(())
    }

    fn launch(&self, ledger: &Arc<Ledger>, function: &'static Function, known: bool) -> BoxFuture<'static, Result<()>> {
        let ledger = Arc::clone(ledger);
        let Some(on) = ledger.record.manifest.batch.clone() else {
            let run = &ledger.record.manifest.run;
            let message =
                format!("failed to go on with run {run}: it was submitted to `{}`", ledger.record.manifest.backend);
            let error = Error::new(ErrorKind::Config, message)
                .with_hint("attach to it on the backend that it was submitted to");
            return Box::pin(std::future::ready(Err(error)));
        };
        let Opened { aws, .. } = self.opened().clone();
        let mut follower = Follower {
            batch: Batch::new(&aws),
            aws,
            note: self.note.clone(),
            on,
            ledger,
            function,
            fresh: known,
            sent: Vec::new(),
            explained: 0,
        };
        Box::pin(async move {
            let began = follower.begin().await?;
            engine::spawn(async move {
                let ledger = Arc::clone(&follower.ledger);
                let following = engine::spawn(async move {
                    match began {
                        Some(end) => Ok(end),
                        None => follower.follow().await,
                    }
                });
                // Whoever waits for the run must hear of its end, whatever became of it.
                let end = match following.await {
                    Ok(end) => end.unwrap_or_else(|error| End::Trouble(error.in_one_line())),
                    Err(_) => End::Trouble("the task that follows the run panicked".into()),
                };
                // Whoever is told may not come back: a program that was interrupted is about to end.
                tokio::task::spawn_blocking(move || ledger.finish(end));
            });
            Ok(())
        })
    }

    fn jobs(&self, ledger: &Arc<Ledger>) -> BoxFuture<'static, Result<Vec<crate::Job>>> {
        let (Opened { aws, .. }, ledger) = (self.opened().clone(), Arc::clone(ledger));
        Box::pin(async move { jobs::of(&aws, &ledger).await })
    }

    fn cancel_item(&self, ledger: &Arc<Ledger>, item: u64) -> BoxFuture<'static, Result<()>> {
        let (Opened { aws, .. }, ledger) = (self.opened().clone(), Arc::clone(ledger));
        Box::pin(async move { jobs::cancel_item(&aws, &ledger, item).await })
    }
}

/// What follows one round of a run.
struct Follower {
    aws: Aws,
    batch: Batch,
    note: KnotNote,
    on: OnBatch,
    ledger: Arc<Ledger>,
    function: &'static Function,
    /// Nothing is stored of what is submitted.
    fresh: bool,
    sent: Vec<Sent>,
    /// How many children had failed when it was last looked why.
    explained: u64,
}

/// A job of the round.
struct Sent {
    id: String,
    /// The round's children that it has.
    children: Range<u64>,
    /// What Batch said of it last.
    seen: Described,
    absent_since: Option<Instant>,
}

impl Sent {
    fn new(id: String, children: Range<u64>) -> Self {
        Self { id, children, seen: Described::default(), absent_since: None }
    }

    fn is_over(&self) -> bool {
        self.seen.is_over() || self.absent_since.is_some_and(|since| since.elapsed() > FORGOTTEN)
    }

    /// How many of its children have ended.
    fn ended(&self) -> u64 {
        if self.is_over() { self.children.end - self.children.start } else { self.seen.count(&["SUCCEEDED", "FAILED"]) }
    }

    /// The id of one of its children.
    fn child(&self, child: u64) -> String {
        if self.children.end - self.children.start == 1 {
            return self.id.clone();
        }
        batch::child_id(&self.id, child - self.children.start)
    }
}

impl Follower {
    /// Sees to it that every child of the round that is needed has a job; how the round ended, if it has.
    async fn begin(&mut self) -> Result<Option<End>> {
        let all = 0..children(&self.ledger.record);
        if self.fresh {
            let jobs = all.end;
            self.submit(vec![all]).await?;
            self.announce(jobs);
            return Ok(None);
        }
        self.ledger.refresh().await?;
        if self.ledger.missing().is_empty() {
            return Ok(Some(End::Complete));
        }
        // Whoever has cancelled it, or has seen too many fail, may have been killed before its jobs were ended.
        self.ledger.stop_after_too_many();
        if self.ledger.is_cancelled().await? {
            self.ledger.control.stop.store(true, Ordering::Relaxed);
        }
        if self.is_stopped() {
            return Ok(None);
        }
        // What is stored can be read, whatever becomes of the rest.
        Ok(self.take_up().await.err().map(|error| {
            let gone = "the queue or the job definition that the run was submitted with is gone: what is stored stays readable; \
                        map the inputs that are left anew";
            let error = if error.kind() == ErrorKind::NotFound { error.with_hint(gone) } else { error };
            End::Trouble(error.in_one_line())
        }))
    }

    /// Submits what has no job, of a run that was submitted before.
    async fn take_up(&mut self) -> Result<()> {
        self.find_jobs().await?;
        let left = self.children_left();
        let Record { manifest, taken_up, .. } = &self.ledger.record;
        let has_job = |child: &u64| self.sent.iter().any(|sent| sent.children.contains(child));
        let without: Vec<u64> = left.keys().copied().filter(|child| !has_job(child)).collect();
        // What lacks every outcome need not look for one: this has just been done for it.
        let items = |child: u64| taken_up.slice(child * manifest.chunk, manifest.chunk).into_iter().flatten().count();
        self.fresh = without.iter().all(|child| left[child].len() == items(*child));
        self.submit(ranges(&without)).await?;
        self.announce(left.len() as u64);
        Ok(())
    }

    /// Takes in the jobs of this round that were not known, whoever has submitted them.
    async fn find_jobs(&mut self) -> Result<()> {
        for found in sent(&self.batch, &self.ledger.record, &self.on).await? {
            if self.sent.iter().all(|sent| sent.id != found.id) {
                self.sent.push(found);
            }
        }
        Ok(())
    }

    fn announce(&self, jobs: u64) {
        let KnotNote { knot, region, .. } = &self.note;
        let jobs = if jobs == 1 { "one job".to_owned() } else { format!("{jobs} jobs") };
        self.ledger.started(&format!("on AWS Batch, {jobs} of the Knot `{knot}` in {region}"));
    }

    /// Submits these children of the round.
    async fn submit(&mut self, children: Vec<Range<u64>>) -> Result<()> {
        let largest = if self.on.independent { 1 } else { batch::LARGEST_ARRAY };
        let pieces: Vec<_> = children.into_iter().flat_map(|range| split(range, largest)).collect();
        for pieces in pieces.chunks(AT_ONCE) {
            let orders: Vec<Order> = pieces.iter().map(|piece| self.order(piece)).collect();
            let submitted = futures_util::future::join_all(orders.iter().map(|order| self.batch.submit(order))).await;
            for (id, piece) in submitted.into_iter().zip(pieces) {
                let id = id.map_err(|error| self.of_run(error))?;
                self.sent.push(Sent::new(id, piece.clone()));
            }
        }
        Ok(())
    }

    /// The run is recorded, and can be gone on with where its Knot is there.
    fn of_run(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::NotFound {
            return error;
        }
        let Record { manifest, .. } = &self.ledger.record;
        let hint = error.hint().map(|hint| format!("{hint}; ")).unwrap_or_default();
        let function = self.ledger.record.function_name();
        error.with_hint(format!("{hint}the inputs are kept: `{function}.attach(\"{}\")` submits them", manifest.run))
    }

    fn order(&self, children: &Range<u64>) -> Order {
        let Record { manifest, round, taken_up, .. } = &self.ledger.record;
        let task = manifest.task(store_of(&self.note), *round, taken_up.retries, children.start);
        let task = Task { fresh: self.fresh, ..task };
        Order {
            name: format!("{}{}", name_of_round(&self.ledger.record), children.start),
            queue: self.on.queue.clone(),
            definition: self.on.job_definition.clone(),
            children: children.end - children.start,
            environment: environment(manifest, &task),
            resources: self.resources(*round),
            timeout: timeout(manifest, taken_up.retries),
            knot: manifest.knot.clone(),
            run: manifest.run.clone(),
            tags: manifest.tags.clone().into_iter().collect(),
        }
    }

    /// What its jobs get in this round. That there are such was checked before it was recorded.
    fn resources(&self, round: u32) -> Resources {
        let asked = self.ledger.record.manifest.resources;
        let asked = Resources { memory_mib: asked.memory_in(round), ..asked };
        let given = self.note.jobs.as_ref().map(|jobs| jobs.given(&self.function.resources, asked));
        given.and_then(Result::ok).unwrap_or(asked)
    }

    /// Asks until all jobs are over, or all that is wanted is stored.
    async fn follow(&mut self) -> Result<End> {
        let began = Instant::now();
        let (mut looked, mut ended, mut polls) = (began, 0, 0_u32);
        let mut stuck = Stuck::new();
        loop {
            self.pause((began.elapsed() / 50).clamp(SOONEST, LATEST)).await;
            if self.is_stopped() {
                return self.stop().await;
            }
            self.look_at_jobs().await?;
            polls += 1;
            let over = self.sent.iter().all(Sent::is_over);
            let now: u64 = self.sent.iter().map(Sent::ended).sum();
            let news = now != ended || polls.is_multiple_of(10);
            if over || (news && looked.elapsed() >= (began.elapsed() / 10).clamp(LISTING.0, LISTING.1)) {
                self.take_in(over).await?;
                if self.ledger.missing().is_empty() {
                    return Ok(End::Complete);
                }
                self.ledger.stop_after_too_many();
                (looked, ended) = (Instant::now(), now);
            }
            if over {
                return turns::outcome(&self.ledger).await;
            }
            stuck.look(self).await?;
        }
    }

    async fn pause(&self, time: Duration) {
        const GLANCE: Duration = Duration::from_millis(100);
        let began = Instant::now();
        while began.elapsed() < time && !self.is_stopped() {
            tokio::time::sleep(GLANCE.min(time.saturating_sub(began.elapsed()))).await;
        }
    }

    fn is_stopped(&self) -> bool {
        self.ledger.control.stop.load(Ordering::Relaxed)
    }

    async fn look_at_jobs(&mut self) -> Result<()> {
        let open: Vec<String> = self.sent.iter().filter(|sent| !sent.is_over()).map(|sent| sent.id.clone()).collect();
        let mut found: BTreeMap<String, Described> =
            self.batch.describe(&open).await?.into_iter().map(|job| (job.id.clone(), job)).collect();
        for sent in self.sent.iter_mut().filter(|sent| !sent.is_over()) {
            match found.remove(&sent.id) {
                Some(job) => (sent.seen, sent.absent_since) = (job, None),
                // Not yet, or not any more.
                None => _ = sent.absent_since.get_or_insert_with(Instant::now),
            }
        }
        let running: u64 = self.sent.iter().map(|sent| sent.seen.count(&["STARTING", "RUNNING"])).sum();
        let at_once = u64::from(self.ledger.record.manifest.parallel).min(self.ledger.record.manifest.chunk);
        self.ledger.control.running.store(running * at_once, Ordering::Relaxed);
        Ok(())
    }

    /// Takes in what is stored, and explains what ended without an outcome.
    async fn take_in(&mut self, over: bool) -> Result<()> {
        self.ledger.refresh().await?;
        let failed: u64 = self.sent.iter().map(|sent| sent.seen.count(&["FAILED"])).sum();
        if self.ledger.missing().is_empty() || (!over && failed == self.explained) {
            return Ok(());
        }
        // What another program has cancelled is no failure.
        if self.ledger.is_cancelled().await? {
            self.ledger.control.stop.store(true, Ordering::Relaxed);
            return Ok(());
        }
        self.explained = failed;
        explain::what_ended(self, over).await
    }

    /// The run was cancelled, or too many items have failed: its jobs are ended. Or this program is about to end: they are not.
    async fn stop(&mut self) -> Result<End> {
        let Record { manifest, .. } = &self.ledger.record;
        let too_many = manifest.max_failures.is_some_and(|most| self.ledger.counts().1 >= most);
        if !too_many && !self.ledger.is_cancelled().await? {
            return Ok(End::Trouble(format!(
                "the run goes on, on AWS Batch, without this program; `{}.attach(\"{}\")` follows it, and `.cancel()` on that ends it",
                self.ledger.record.function_name(),
                manifest.run
            )));
        }
        self.end_jobs().await?;
        // What was finished by then is stored.
        self.ledger.refresh().await?;
        turns::outcome(&self.ledger).await
    }

    /// Ends what goes on of the round, and waits for it.
    async fn end_jobs(&mut self) -> Result<()> {
        let began = Instant::now();
        let mut told = HashSet::new();
        loop {
            // One whose submission was answered to nobody may be found later than it was made.
            self.find_jobs().await?;
            self.look_at_jobs().await?;
            let open = self.sent.iter().filter(|sent| !sent.is_over()).map(|sent| sent.id.clone());
            let open: Vec<String> = open.filter(|id| told.insert(id.clone())).collect();
            let ending = open.into_iter().map(|id| {
                let batch = self.batch.clone();
                async move { batch.terminate(&id, "the run was cancelled").await }
            });
            stream::iter(ending).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
            if self.sent.iter().all(Sent::is_over) || began.elapsed() > ENDING {
                return Ok(());
            }
            tokio::time::sleep((began.elapsed() / 10).clamp(SOONEST, LATEST)).await;
        }
    }

    /// The round's children that have items without an outcome, with those.
    fn children_left(&self) -> BTreeMap<u64, Vec<u64>> {
        let Record { manifest, taken_up, .. } = &self.ledger.record;
        let missing = self.ledger.missing();
        let mut left: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let mut before = 0;
        for range in &taken_up.items {
            let first = missing.partition_point(|missing| missing.end <= range.start);
            for missing in missing[first..].iter().take_while(|missing| missing.start < range.end) {
                for item in missing.start.max(range.start)..missing.end.min(range.end) {
                    left.entry((before + item - range.start) / manifest.chunk).or_default().push(item);
                }
            }
            before += range.end - range.start;
        }
        left
    }
}

/// Why nothing runs, as far as Batch says it; it is told, and nothing is ended for it.
struct Stuck {
    since: Instant,
    asked: Option<Instant>,
    told: Option<String>,
}

impl Stuck {
    fn new() -> Self {
        Self { since: Instant::now(), asked: None, told: None }
    }

    async fn look(&mut self, of: &Follower) -> Result<()> {
        let waiting = of.sent.iter().find(|sent| !sent.is_over());
        if of.ledger.control.running.load(Ordering::Relaxed) > 0 {
            self.since = Instant::now();
        }
        let due = self.since.elapsed() > STUCK && self.asked.is_none_or(|asked| asked.elapsed() > STUCK);
        let Some(sent) = waiting.filter(|_| due) else { return Ok(()) };
        self.asked = Some(Instant::now());
        // An array says nothing itself; its first child that waits does.
        let child = sent.children.start
            + sent.seen.count(&["SUCCEEDED", "FAILED"]).min(sent.children.end - sent.children.start - 1);
        let reason = of
            .batch
            .describe(&[sent.child(child)])
            .await?
            .into_iter()
            .find_map(|job| job.reason.filter(|_| batch::is_waiting(&job.status)));
        let reason = reason
            .or_else(|| sent.seen.reason.clone())
            .unwrap_or_else(|| "AWS Batch does not say why; machines take some minutes to start".to_owned());
        if self.told.as_ref() != Some(&reason) {
            hook::report(&Event::Waiting {
                run: &of.ledger.record.manifest.run,
                since: self.since.elapsed(),
                reason: &reason,
            });
            self.told = Some(reason);
        }
        Ok(())
    }
}

/// What the names of all jobs of this round begin with; what follows is the first child of each.
fn name_of_round(record: &Record) -> String {
    format!("{}-{}-r{}-c", record.manifest.knot, record.manifest.run, record.round)
}

/// How many children the round has.
fn children(record: &Record) -> u64 {
    record.taken_up.len().div_ceil(record.manifest.chunk)
}

/// The jobs of this round that Batch knows by their names.
async fn sent(batch: &Batch, record: &Record, on: &OnBatch) -> Result<Vec<Sent>> {
    let begins = name_of_round(record);
    let mut found = batch.named(&on.queue, &begins).await?;
    if found.is_empty() && is_young(&record.manifest) {
        tokio::time::sleep(Duration::from_secs(2)).await;
        found = batch.named(&on.queue, &begins).await?;
    }
    let all = children(record);
    let sent = found.into_iter().filter_map(|job| {
        let first: u64 = job.name.strip_prefix(&begins)?.parse().ok()?;
        Some(Sent::new(job.id, first..first + job.size.unwrap_or(1)))
    });
    Ok(sent.filter(|sent| sent.children.end <= all).collect())
}

/// Its program may have been killed a moment ago, with a job that cannot be found yet.
fn is_young(manifest: &Manifest) -> bool {
    let created = humantime::parse_rfc3339(&manifest.created).ok();
    created.and_then(|created| SystemTime::now().duration_since(created).ok()).is_some_and(|age| age < UNSEEN)
}

/// Where the workers of a Knot find its runs.
fn store_of(note: &KnotNote) -> StoreAt {
    StoreAt::S3 { bucket: note.bucket.clone(), prefix: note.prefix.clone() }
}

fn environment(manifest: &Manifest, task: &Task) -> Vec<(String, String)> {
    let task = serde_json::to_string(task).expect("a task is texts and numbers");
    let own = (contract::ENV_TASK.to_owned(), task);
    manifest.env.clone().into_iter().chain([own]).collect()
}

/// How many characters these variables take in an override, as JSON.
fn length_of(environment: &[(String, String)]) -> usize {
    let pairs: Vec<_> =
        environment.iter().map(|(name, value)| serde_json::json!({"name": name, "value": value})).collect();
    serde_json::json!({"command": [], "environment": pairs}).to_string().chars().count()
}

/// How long a job may take: the supervisor in it ends its items itself, so this is for a worker that hangs.
fn timeout(manifest: &Manifest, retries: u32) -> Option<Duration> {
    let each = Duration::from_millis(manifest.timeout_ms?).saturating_mul(retries.saturating_add(1));
    let turns = manifest.chunk.div_ceil(u64::from(manifest.parallel));
    Some(each.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX)).saturating_add(MARGIN))
}

/// Pieces of at most this size, as even as can be: an array of one is none.
fn split(range: Range<u64>, largest: u64) -> Vec<Range<u64>> {
    let length = range.end - range.start;
    let pieces = length.div_ceil(largest);
    let bound = |piece: u64| range.start + piece * (length / pieces) + piece.min(length % pieces);
    (0..pieces).map(|piece| bound(piece)..bound(piece + 1)).collect()
}

/// The numbers, which are in order, as ranges.
fn ranges(numbers: &[u64]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some(range) if range.end == number => range.end += 1,
            _ => ranges.push(number..number + 1),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::single_range_in_vec_init)]
    #[test]
    fn arrays_are_even_and_none_has_one_child() {
        assert_eq!(split(0..1, 10_000), [0..1]);
        assert_eq!(split(0..20, 10_000), [0..20]);
        assert_eq!(split(0..10_001, 10_000), [0..5_001, 5_001..10_001]);
        assert_eq!(split(5..8, 1), [5..6, 6..7, 7..8]);
        assert!(split(0..0, 10_000).is_empty());
    }

    #[test]
    fn numbers_in_a_row_are_one_range() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), [0..3, 5..6, 7..9]);
        assert!(ranges(&[]).is_empty());
    }
}
