//! A simulation of S3 and AWS Batch in virtual time, with their delays and faults. It notes each violation of what the submission
//! of jobs promises.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cloudknot_runtime::contract::{self, FailedAttempt, Manifest, Part, Round, RunKeys};
use cloudknot_runtime::store::{self, BoxFuture, Object, Store, StoreError, StoreErrorKind, Writer};
use tokio::time::{Instant, sleep, sleep_until};

use super::super::jobs::JobName;
use super::super::scheduler::Scheduler;
use crate::aws::batch::{JobDescription, JobRequest, SubmitError};
use crate::backend::{LogPage, LogPageRequest};
use crate::error::{Error, ErrorKind, Outage, Result};
use crate::record::read;

/// Time by which every request that a program sends has arrived.
const MAX_TRANSIT: Duration = Duration::from_secs(9);
/// Maximum time until AWS Batch lists a job, and until it describes one.
const MAX_LISTING_LAG: Duration = Duration::from_secs(30);
const MAX_DESCRIPTION_LAG: Duration = Duration::from_secs(30);

/// `SplitMix64`: a seed repeats the sequence.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// Returns a time below this one. Half of the times are below an eighth of it.
    pub(super) fn time(&mut self, end: Duration) -> Duration {
        let end = u64::try_from(end.as_millis()).expect("a time of a schedule fits");
        let end = if self.percent(50) { end / 8 } else { end };
        Duration::from_millis(self.below(end.max(1)))
    }
}

/// The faults of a schedule.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    /// Chance in percent that a request or its response is lost.
    pub(super) lost: u64,
    /// Chance in percent that a request takes some seconds.
    pub(super) slow: u64,
    /// Chance in percent that a program is paused between its last check and the sending of a job.
    pub(super) late: u64,
    /// Chance in percent that a job ends without an outcome of its items.
    pub(super) failing: u64,
    /// `true` if AWS Batch forgets jobs some time after their end.
    pub(super) forgets: bool,
}

/// A job of AWS Batch.
#[derive(Debug, Clone)]
pub(super) struct SimulatedJob {
    pub(super) name: JobName,
    queue: String,
    pub(super) children: Range<u64>,
    full_name: String,
    /// `true` if its program was paused between the last check and the sending.
    pub(super) is_late: bool,
    pub(super) sender: usize,
    accepted: Instant,
    listed: Instant,
    described: Instant,
    /// Time at which each child ends, and whether it stores its values.
    ends: Vec<(Instant, bool)>,
    /// Children whose end was processed.
    stored: Vec<bool>,
    forgotten: Instant,
    /// Time at which it was terminated.
    terminated: Option<Instant>,
}

impl SimulatedJob {
    fn is_over(&self, child: usize, now: Instant) -> bool {
        self.ends[child].0 <= now
    }

    fn status(&self, child: usize, now: Instant) -> &'static str {
        match self.ends[child] {
            (end, true) if end <= now => "SUCCEEDED",
            (end, false) if end <= now => "FAILED",
            _ => "RUNNING",
        }
    }

    pub(super) fn is_terminated(&self) -> bool {
        self.terminated.is_some()
    }

    /// Returns whether a child is computed and nobody has ended it.
    fn is_alive(&self, now: Instant) -> bool {
        self.terminated.is_none() && (0..self.ends.len()).any(|child| !self.is_over(child, now))
    }
}

/// The state of S3 and AWS Batch.
pub(super) struct World {
    pub(super) random: Random,
    pub(super) faults: Faults,
    start: Instant,
    manifest: Manifest,
    keys: RunKeys,
    objects: BTreeMap<String, (Bytes, Instant)>,
    pub(super) jobs: BTreeMap<String, SimulatedJob>,
    /// Number of submissions that are accepted, and whose responses are lost.
    pub(super) lose_submissions: u64,
    /// Number of submissions that AWS Batch accepts twice.
    pub(super) accept_twice: u64,
    /// Number of accepted jobs after which AWS Batch refuses submissions.
    pub(super) refuse_after: u64,
    /// Programs that were killed or interrupted.
    pub(super) gone: BTreeSet<usize>,
    /// Number of all accepted jobs.
    pub(super) accepted: u64,
    /// Time at which a job or child ends next, or a job is forgotten.
    next_end: Instant,
    /// Rounds up to this one were cancelled, and the cancel has returned.
    pub(super) cancelled: u32,
    pub(super) violations: Vec<String>,
    pub(super) log: Vec<String>,
}

/// The state of S3 and AWS Batch, for all programs.
#[derive(Clone)]
pub(super) struct Cloud(Arc<Mutex<World>>);

impl Cloud {
    pub(super) fn new(seed: u64, manifest: Manifest, faults: Faults) -> Self {
        let keys = RunKeys::new(&manifest.knot, &manifest.run);
        let world = World {
            random: Random::new(seed),
            faults,
            start: Instant::now(),
            manifest,
            keys,
            objects: BTreeMap::new(),
            jobs: BTreeMap::new(),
            lose_submissions: 0,
            accept_twice: 0,
            refuse_after: u64::MAX,
            gone: BTreeSet::new(),
            accepted: 0,
            next_end: Instant::now(),
            cancelled: 0,
            violations: Vec::new(),
            log: Vec::new(),
        };
        Self(Arc::new(Mutex::new(world)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        let mut world = self.0.lock().expect("no schedule panics while it holds the lock");
        world.advance();
        world
    }

    pub(super) fn note(&self, text: impl fmt::Display) {
        self.lock().note(text);
    }

    pub(super) fn into_world(self) -> World {
        let Ok(world) = Arc::try_unwrap(self.0) else { panic!("a program has not ended") };
        world.into_inner().expect("no schedule panics while it holds the lock")
    }
}

impl World {
    fn note(&mut self, text: impl fmt::Display) {
        let text = format!("{:>9.3} {text}", self.start.elapsed().as_secs_f64());
        self.log.push(text);
    }

    fn violation(&mut self, text: String) {
        self.note(format!("VIOLATION: {text}"));
        self.violations.push(text);
    }

    fn round(&self, number: u32) -> Round {
        let stored = self.objects.get(&self.keys.round(number));
        stored.map_or_else(
            || read::first_round(&self.manifest),
            |(bytes, _)| serde_json::from_slice(bytes).expect("a round"),
        )
    }

    fn items(&self, job: &SimulatedJob, child: usize) -> Vec<Range<u64>> {
        let chunk = self.manifest.chunk;
        self.round(job.name.round).slice((job.children.start + child as u64) * chunk, chunk)
    }

    /// Stores the values of the children that have ended since.
    fn advance(&mut self) {
        let now = Instant::now();
        if now < self.next_end {
            return;
        }
        let mut ended = Vec::new();
        for job in self.jobs.values_mut() {
            for child in 0..job.ends.len() {
                let (end, succeeds) = job.ends[child];
                if end <= now && !std::mem::replace(&mut job.stored[child], true) && succeeds {
                    ended.push((job.clone(), child, end));
                }
            }
        }
        for (job, child, end) in ended {
            for items in self.items(&job, child) {
                let part = self.keys.part(Part { first: items.start, last: items.end - 1 });
                self.objects.entry(part).or_insert_with(|| (Bytes::new(), end));
            }
        }
        if self.faults.forgets {
            self.jobs.retain(|_, job| job.forgotten > now);
        }
        self.find_next_end(now);
    }

    fn find_next_end(&mut self, now: Instant) {
        let ends = self.jobs.values().flat_map(|job| job.ends.iter().map(|(end, _)| *end).chain([job.forgotten]));
        self.next_end = ends.filter(|end| *end > now).min().unwrap_or(now + Duration::from_hours(100));
    }

    /// Returns the items that are computed by a job that nobody has ended.
    fn computed(&self, skip_late: bool) -> HashMap<u64, JobName> {
        let now = Instant::now();
        let mut computed = HashMap::new();
        for job in self.jobs.values().filter(|job| job.terminated.is_none() && !(skip_late && job.is_late)) {
            for child in (0..job.ends.len()).filter(|child| !job.is_over(*child, now)) {
                computed.extend(self.items(job, child).into_iter().flatten().map(|item| (item, job.name)));
            }
        }
        computed
    }

    fn submit(&mut self, order: &JobRequest, sender: usize, is_late: bool) -> std::result::Result<String, SubmitError> {
        if self.accepted >= self.refuse_after {
            let error = Error::new(ErrorKind::NotFound, "cannot submit the job: the queue is disabled");
            return Err(SubmitError { error: error.with_hint("run `cargo knot deploy`"), may_be_accepted: false });
        }
        let id = self.accept(order, sender, is_late);
        if self.accept_twice > 0 {
            self.accept_twice -= 1;
            self.accept(order, sender, true);
        }
        if self.lose_submissions > 0 {
            self.lose_submissions -= 1;
            return Err(Failed::Lost.of_submission());
        }
        Ok(id)
    }

    fn accept(&mut self, order: &JobRequest, sender: usize, is_late: bool) -> String {
        let now = Instant::now();
        let prefix = format!("{}-{}-", self.manifest.knot, self.manifest.run);
        let name = JobName::parse(order.name.strip_prefix(&prefix).expect("the name of the run")).expect("a name");
        let children = name.first..name.first + order.children;
        let runtime = Duration::from_mins(15);
        let ends = (0..order.children).map(|_| {
            let end = now + Duration::from_secs(1) + self.random.time(runtime);
            (end, !self.random.percent(self.faults.failing))
        });
        let ends: Vec<_> = ends.collect();
        let last = ends.iter().map(|(end, _)| *end).max().expect("a child");
        let job = SimulatedJob {
            name,
            queue: order.queue.clone(),
            children,
            full_name: order.name.clone(),
            is_late,
            sender,
            accepted: now,
            listed: now + self.random.time(MAX_LISTING_LAG),
            described: now + self.random.time(MAX_DESCRIPTION_LAG),
            stored: vec![false; ends.len()],
            ends,
            // AWS Batch keeps jobs for a day at least.
            forgotten: last + Duration::from_hours(1) + self.random.time(Duration::from_hours(1)),
            terminated: None,
        };
        self.check_accepted(&job);
        self.accepted += 1;
        let id = format!("job-{}", self.accepted);
        self.note(format!("accepts {} {id} of program {sender}{}", job.name, if is_late { ", late" } else { "" }));
        self.jobs.insert(id.clone(), job);
        self.find_next_end(now);
        id
    }

    /// Notes a violation if an item of this job is computed already, or if its round was cancelled.
    fn check_accepted(&mut self, job: &SimulatedJob) {
        if job.is_late {
            return;
        }
        if job.name.round <= self.cancelled {
            self.violation(format!("{} was submitted after a cancel", job.name));
        }
        let computed = self.computed(true);
        let mut items = (0..job.ends.len()).flat_map(|child| self.items(job, child)).flatten();
        if let Some(other) = items.find_map(|item| computed.get(&item)) {
            self.violation(format!("{} computes an item that {other} computes", job.name));
        }
    }

    fn terminate(&mut self, id: &str, reason: &str) {
        let now = Instant::now();
        let stop = now + self.random.time(Duration::from_secs(40));
        self.note(format!("terminates {id}: {reason}"));
        let Some(job) = self.jobs.get_mut(id) else { return };
        if job.terminated.is_none() && job.ends.iter().any(|(end, _)| *end > now) {
            job.terminated = Some(now);
            for end in job.ends.iter_mut().filter(|(end, _)| *end > now) {
                *end = (stop.min(end.0), false);
            }
        }
        self.find_next_end(now);
    }

    fn describe(&self, id: &str) -> Option<JobDescription> {
        let now = Instant::now();
        let (parent, child) = id.split_once(':').map_or((id, None), |(parent, child)| (parent, child.parse().ok()));
        let job = self.jobs.get(parent).filter(|job| job.described <= now)?;
        let mut children: HashMap<String, u64> = HashMap::new();
        for child in 0..job.ends.len() {
            *children.entry(job.status(child, now).to_owned()).or_default() += 1;
        }
        let status = match child {
            Some(child) => job.status(child, now),
            None if children.contains_key("RUNNING") => "RUNNING",
            None if children.contains_key("FAILED") => "FAILED",
            None => "SUCCEEDED",
        };
        let size = (job.ends.len() > 1 && child.is_none()).then_some(job.ends.len() as u64);
        Some(JobDescription {
            id: id.to_owned(),
            name: job.full_name.clone(),
            status: status.to_owned(),
            children,
            size,
            is_terminated: job.terminated.is_some() && status == "FAILED",
            ..JobDescription::default()
        })
    }

    fn list_jobs(&self, queue: &str, prefix: &str) -> Vec<JobDescription> {
        let now = Instant::now();
        let is_listed =
            |job: &SimulatedJob| job.listed <= now && job.queue == queue && job.full_name.starts_with(prefix);
        let listed = self.jobs.iter().filter(|(_, job)| is_listed(job));
        let summary = |(id, job): (&String, &SimulatedJob)| {
            let all_over = (0..job.ends.len()).all(|child| job.is_over(child, now));
            JobDescription {
                id: id.clone(),
                name: job.full_name.clone(),
                status: if all_over { "FAILED" } else { "RUNNING" }.to_owned(),
                size: (job.ends.len() > 1).then_some(job.ends.len() as u64),
                created_ms: i64::try_from((job.accepted - self.start).as_millis()).expect("a short time"),
                ..JobDescription::default()
            }
        };
        // The newest first, as AWS Batch lists jobs with a filter.
        let mut listed: Vec<_> = listed.map(summary).collect();
        listed.sort_by_key(|job| std::cmp::Reverse(job.created_ms));
        listed
    }

    fn put(&mut self, key: &str, bytes: Bytes) {
        if let Some(FailedAttempt { item, round, .. }) = contract::failure_of(key)
            && let Some(job) = self.computed(true).get(&item).filter(|job| job.round == round)
        {
            self.violation(format!("item {item} is reported failed while {job} computes it"));
        }
        if !key.ends_with("/clock") && !key.contains("/failures/") {
            self.note(format!(
                "stores {} {}",
                key.rsplit("/runs/").next().unwrap_or_default(),
                String::from_utf8_lossy(&bytes)
            ));
        }
        self.objects.insert(key.to_owned(), (bytes, Instant::now()));
    }

    /// Returns the jobs that nobody has ended.
    /// Accepts a job of one child again that was sent late, and that runs for hours.
    pub(super) fn send_late(&mut self, name: JobName) {
        let other = self.jobs.values().next().expect("a job").clone();
        let full_name = format!("{}-{}-{name}", self.manifest.knot, self.manifest.run);
        let (now, ends) = (Instant::now(), vec![(Instant::now() + Duration::from_hours(10), true)]);
        let late =
            SimulatedJob { name, full_name, is_late: true, accepted: now, listed: now, described: now, ends, ..other };
        self.jobs.insert("job-late".into(), late);
        self.find_next_end(now);
    }

    /// Ends all children of a job that have not ended, without outcomes.
    pub(super) fn fail(&mut self, id: &str) {
        let now = Instant::now();
        let job = self.jobs.get_mut(id).expect("the job exists");
        for end in job.ends.iter_mut().filter(|end| end.0 > now) {
            *end = (now, false);
        }
        self.find_next_end(now);
    }

    /// Returns the number of stored failures.
    pub(super) fn failures(&self) -> usize {
        self.objects.keys().filter(|key| contract::failure_of(key).is_some()).count()
    }

    /// Returns the jobs of rounds up to this one that nobody has ended. Late jobs are ended by their senders.
    pub(super) fn alive(&self, up_to: u32) -> Vec<JobName> {
        let now = Instant::now();
        let jobs = self.jobs.values().filter(|job| job.name.round <= up_to && !job.is_late);
        jobs.filter(|job| job.is_alive(now)).map(|job| job.name).collect()
    }

    /// Returns the jobs that nobody has ended, except late jobs whose senders are gone, and jobs that run the same items.
    pub(super) fn remaining(&self) -> Vec<JobName> {
        let now = Instant::now();
        let is_excused = |job: &SimulatedJob| job.is_late && self.gone.contains(&job.sender);
        let items = |job: &SimulatedJob| -> Vec<u64> {
            (0..job.ends.len()).flat_map(|child| self.items(job, child)).flatten().collect()
        };
        let excused: BTreeSet<u64> = self.jobs.values().filter(|job| is_excused(job)).flat_map(items).collect();
        let alive = self.jobs.values().filter(|job| job.is_alive(now) && !is_excused(job));
        let is_covered = |job: &&SimulatedJob| items(job).iter().any(|item| excused.contains(item));
        alive.filter(|job| !is_covered(job)).map(|job| job.name).collect()
    }

    fn time_of(&self, stored: Instant) -> SystemTime {
        // S3 gives whole seconds.
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + (stored - self.start).as_secs())
    }
}

/// The connection of a program to S3 and AWS Batch.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) cloud: Cloud,
    pub(super) program: usize,
    pub(super) state: Arc<Mutex<NetworkState>>,
}

/// The times until which a program is impaired.
#[derive(Debug)]
pub(super) struct NetworkState {
    /// The program does not run.
    pub(super) frozen: Instant,
    /// No request arrives.
    pub(super) down: Instant,
    /// The login has expired.
    pub(super) logged_out: Instant,
}

/// The fate of a request.
enum Failed {
    /// It was not accepted.
    Login,
    Throttled,
    /// There was no response.
    Lost,
}

impl Network {
    pub(super) fn new(cloud: &Cloud, program: usize) -> Self {
        let now = Instant::now();
        let state = NetworkState { frozen: now, down: now, logged_out: now };
        Self { cloud: cloud.clone(), program, state: Arc::new(Mutex::new(state)) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, NetworkState> {
        self.state.lock().expect("no schedule panics while it holds the lock")
    }

    /// Sends a request. It takes effect even if the program has ended or does not wait for the response.
    async fn request<T: Send + 'static>(
        &self,
        effect: impl FnOnce(&mut World) -> T + Send + 'static,
    ) -> std::result::Result<T, Failed> {
        let now = Instant::now();
        let (is_down, is_logged_out) = {
            let state = self.state();
            (state.down > now, state.logged_out > now)
        };
        // If the connection breaks, the request arrives after the program has noticed this.
        let (there, back, is_broken, is_lost, is_unanswered, is_throttled) = {
            let mut world = self.cloud.lock();
            let Faults { lost, slow, .. } = world.faults;
            let longest = if world.random.percent(slow) { MAX_TRANSIT } else { Duration::from_millis(200) };
            let there = world.random.time(longest);
            let back = if world.random.percent(20) { world.random.time(longest) } else { Duration::ZERO };
            let mut is_chosen = || world.random.percent(lost);
            (there, back, is_chosen(), is_chosen(), is_chosen(), is_chosen())
        };
        if is_down || is_lost {
            sleep(Duration::from_secs(3)).await;
            return Err(Failed::Lost);
        }
        if is_logged_out || is_throttled {
            sleep(there).await;
            return Err(if is_logged_out { Failed::Login } else { Failed::Throttled });
        }
        let cloud = self.cloud.clone();
        let (answer, answered) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            sleep(there).await;
            let response = effect(&mut cloud.lock());
            let _ = answer.send(response);
        });
        if is_broken {
            return Err(Failed::Lost);
        }
        let response = answered.await.expect("the request takes effect");
        if !back.is_zero() {
            sleep(back).await;
        }
        if is_unanswered || self.state().down > Instant::now() {
            sleep(Duration::from_secs(3)).await;
            return Err(Failed::Lost);
        }
        Ok(response)
    }

    async fn of_batch<T: Send + 'static>(&self, effect: impl FnOnce(&mut World) -> T + Send + 'static) -> Result<T> {
        self.request(effect).await.map_err(|failed| failed.error())
    }

    async fn of_store<T: Send + 'static>(
        &self,
        effect: impl FnOnce(&mut World) -> T + Send + 'static,
    ) -> store::Result<T> {
        self.request(effect).await.map_err(|failed| {
            let kind = match failed {
                Failed::Login => StoreErrorKind::Credentials,
                Failed::Throttled | Failed::Lost => StoreErrorKind::Unavailable,
            };
            StoreError::new(kind, "use the store", None)
        })
    }
}

impl Failed {
    fn of_submission(&self) -> SubmitError {
        SubmitError { error: self.error(), may_be_accepted: matches!(self, Self::Lost) }
    }

    fn error(&self) -> Error {
        let outage = match self {
            Self::Login => Outage::Login,
            Self::Throttled | Self::Lost => Outage::Service,
        };
        Error::new(ErrorKind::Aws, "cannot use AWS Batch: no response").with_outage(Some(outage))
    }
}

impl Scheduler for Network {
    fn submit<'a>(&'a self, job: &'a JobRequest) -> BoxFuture<'a, std::result::Result<String, SubmitError>> {
        Box::pin(async move {
            let pause = {
                let mut world = self.cloud.lock();
                let late = world.faults.late;
                world.random.percent(late).then(|| world.random.time(Duration::from_mins(10)))
            };
            if let Some(pause) = pause {
                // The whole program stops between its decision to send and the sending.
                self.cloud.note(format!("program {} is paused before it sends, {pause:?}", self.program));
                let until = Instant::now() + pause;
                self.state().frozen = until;
                sleep_until(until).await;
            }
            self.cloud.note(format!("program {} sends {}", self.program, job.name));
            let (order, sender) = (job.clone(), self.program);
            let response = self.request(move |world| world.submit(&order, sender, pause.is_some())).await;
            response.unwrap_or_else(|failed| Err(failed.of_submission()))
        })
    }

    fn named<'a>(&'a self, queue: &'a str, prefix: &'a str) -> BoxFuture<'a, Result<Vec<JobDescription>>> {
        let (queue, prefix) = (queue.to_owned(), prefix.to_owned());
        Box::pin(self.of_batch(move |world| world.list_jobs(&queue, &prefix)))
    }

    fn describe<'a>(&'a self, ids: &'a [String]) -> BoxFuture<'a, Result<Vec<JobDescription>>> {
        let ids = ids.to_vec();
        Box::pin(self.of_batch(move |world| ids.iter().filter_map(|id| world.describe(id)).collect()))
    }

    fn terminate<'a>(&'a self, id: &'a str, reason: &'a str) -> BoxFuture<'a, Result<()>> {
        let (id, reason) = (id.to_owned(), reason.to_owned());
        Box::pin(self.of_batch(move |world| world.terminate(&id, &reason)))
    }

    fn end_of_log<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<String>> {
        Box::pin(std::future::ready(Ok(String::new())))
    }

    fn filter_log<'a>(&'a self, _: &'a LogPageRequest) -> BoxFuture<'a, Result<LogPage>> {
        Box::pin(std::future::ready(Ok(LogPage::default())))
    }

    fn log_page(&self, _: &str, _: &str) -> String {
        String::new()
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Network({})", self.program)
    }
}

impl Store for Network {
    fn describe(&self) -> String {
        "the simulated store".into()
    }

    fn parallel_reads(&self) -> usize {
        8
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, store::Result<Option<Bytes>>> {
        let key = key.to_owned();
        Box::pin(self.of_store(move |world| world.objects.get(&key).map(|(bytes, _)| bytes.clone())))
    }

    fn size<'a>(&'a self, key: &'a str) -> BoxFuture<'a, store::Result<Option<u64>>> {
        let key = key.to_owned();
        Box::pin(self.of_store(move |world| world.objects.get(&key).map(|(bytes, _)| bytes.len() as u64)))
    }

    fn get_range<'a>(&'a self, key: &'a str, range: Range<u64>) -> BoxFuture<'a, store::Result<Bytes>> {
        Box::pin(async move {
            let bytes = self.get(key).await?.unwrap_or_default();
            let at = |at: u64| usize::try_from(at).expect("a short object");
            Ok(bytes.slice(at(range.start)..at(range.end)))
        })
    }

    fn put<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, store::Result<()>> {
        let key = key.to_owned();
        Box::pin(self.of_store(move |world| world.put(&key, bytes)))
    }

    fn create<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, store::Result<bool>> {
        let key = key.to_owned();
        Box::pin(self.of_store(move |world| {
            if world.objects.contains_key(&key) {
                return false;
            }
            world.put(&key, bytes);
            // Sometimes the response is lost, and the request is sent again by the client.
            let lost = world.faults.lost;
            !world.random.percent(lost)
        }))
    }

    fn list<'a>(&'a self, prefix: &'a str, _: Option<&'a str>) -> BoxFuture<'a, store::Result<Vec<Object>>> {
        let prefix = prefix.to_owned();
        Box::pin(self.of_store(move |world| {
            let found = world.objects.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
            let object = |(key, (bytes, stored)): (&String, &(Bytes, Instant))| Object {
                key: key.clone(),
                size: bytes.len() as u64,
                stored: world.time_of(*stored),
            };
            found.map(object).collect()
        }))
    }

    fn folders<'a>(&'a self, _: &'a str) -> BoxFuture<'a, store::Result<Vec<String>>> {
        unreachable!("a schedule lists no runs")
    }

    fn writer<'a>(&'a self, _: &'a str) -> BoxFuture<'a, store::Result<Box<dyn Writer>>> {
        unreachable!("a schedule has no inputs")
    }

    fn delete<'a>(&'a self, _: &'a [String]) -> BoxFuture<'a, store::Result<()>> {
        unreachable!("a schedule deletes nothing")
    }
}
