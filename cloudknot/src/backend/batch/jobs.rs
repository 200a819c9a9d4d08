//! The jobs of a run: lists them, ends them, and closes rounds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use cloudknot_runtime::contract::{self, BatchResources, LeaseState, LeasedJob};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::time::Instant;

use super::MAX_CONCURRENT;
use super::clock::Clock;
use super::lease::{CLOSING_DELAY, LISTING_DELAY, LastLease, Leases};
use super::patience::{Flow, Interrupt, Patience};
use super::scheduler::Scheduler;
use crate::aws::batch::{self, JobDescription};
use crate::backend::{LogStream, LogStreams};
use crate::error::{Error, ErrorKind, Result};
use crate::event;
use crate::record::job::{Job, JobAttempt};
use crate::record::ledger::Ledger;
use crate::record::{Record, read};

/// Maximum time to wait for terminated jobs: a container has 30 seconds to stop, and AWS Batch responds with a delay.
const TERMINATION_TIMEOUT: Duration = Duration::from_mins(3);
/// Bounds of the interval between two polls while jobs end.
const POLL_BOUNDS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// Maximum number of jobs that are described to find their logs.
const MAX_LOGS: usize = 1_000;

/// Reason for the end of a job of a cancelled run.
const CANCELLED: &str = "the run was cancelled";
/// Maximum number of characters of a reason (`TerminateJob` in the API reference of AWS Batch).
const MAX_REASON_LEN: usize = 1024;
/// Reason for the end of a job that was submitted without a lease.
pub(super) const SUPERSEDED: &str = "another job runs its items";

/// The jobs of a run, of all rounds.
#[derive(Clone)]
pub(super) struct RunJobs {
    pub(super) scheduler: Arc<dyn Scheduler>,
    pub(super) ledger: Arc<Ledger>,
    /// Batch resources of the round, as recorded.
    pub(super) settings: BatchResources,
    pub(super) leases: Leases,
    pub(super) patience: Patience,
}

/// Name of a job, after the name of its run. It is unique, except for a request that AWS Batch accepted more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct JobName {
    pub(super) round: u32,
    /// Epoch of the lease with which the job was submitted.
    pub(super) epoch: u32,
    /// First child of the round that the job runs.
    pub(super) first: u64,
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}-e{}-c{}", self.round, self.epoch, self.first)
    }
}

impl JobName {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (round, rest) = text.strip_prefix('r')?.split_once("-e")?;
        let (epoch, first) = rest.split_once("-c")?;
        Some(Self { round: round.parse().ok()?, epoch: epoch.parse().ok()?, first: first.parse().ok()? })
    }
}

/// A job that AWS Batch lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedJob {
    pub(super) name: JobName,
    pub(super) job: LeasedJob,
    is_over: bool,
    created_ms: i64,
}

/// A round that no program submits any more.
#[derive(Debug)]
struct ClosedRound {
    jobs: Vec<LeasedJob>,
    /// `false` if nothing was submitted before the round was closed.
    has_begun: bool,
}

impl RunJobs {
    pub(super) fn new(
        scheduler: Arc<dyn Scheduler>,
        ledger: &Arc<Ledger>,
        settings: BatchResources,
        clock: Clock,
    ) -> Self {
        let (leases, patience) = (Leases::new(ledger, clock), Patience::new(ledger));
        Self { scheduler, ledger: Arc::clone(ledger), settings, leases, patience }
    }

    /// Returns this for a request of the user, which fails at once.
    pub(super) fn impatient(mut self) -> Self {
        self.patience = self.patience.impatient();
        self
    }

    /// Returns the full name of a job.
    pub(super) fn name(&self, name: JobName) -> String {
        format!("{}-{name}", self.prefix())
    }

    /// Returns the name of the run, with which the names of all of its jobs begin.
    fn prefix(&self) -> String {
        let manifest = &self.ledger.record.manifest;
        format!("{}-{}", manifest.knot, manifest.run)
    }

    /// Returns the number of children of the round.
    pub(super) fn children(&self) -> u64 {
        self.ledger.record.children()
    }

    /// Lists the jobs of the run in the queue of this round: those that are not over first, and of these the oldest. New jobs may be
    /// missing for [`LISTING_DELAY`].
    pub(super) async fn listed(&self, round: u32) -> Flow<Vec<ListedJob>> {
        self.listed_in(&self.queue_of(round).await?).await
    }

    /// Returns the queue of a round: each has that of the Knot when it was recorded.
    async fn queue_of(&self, round: u32) -> Flow<String> {
        let Record { store, keys, manifest, round: own, .. } = &self.ledger.record;
        if round == *own {
            return Ok(self.settings.queue.clone());
        }
        let recorded = self.patience.wait_for(|| read::round(&**store, keys, manifest, round)).await?;
        Ok(manifest.batch_in(&recorded).unwrap_or(&self.settings).queue.clone())
    }

    async fn listed_in(&self, queue: &str) -> Flow<Vec<ListedJob>> {
        let prefix = format!("{}-", self.prefix());
        let found = self.patience.wait_for(|| self.scheduler.named(queue, &prefix)).await?;
        let parsed = found.into_iter().filter_map(|job| {
            let name = JobName::parse(job.name.strip_prefix(&prefix)?)?;
            let children = name.first..name.first.checked_add(job.size.unwrap_or(1))?;
            // Anyone can give a job such a name.
            let is_possible = name.round != self.ledger.record.round || children.end <= self.children();
            let (is_over, created_ms) = (job.is_over(), job.created_ms);
            is_possible.then_some(ListedJob { name, job: LeasedJob { id: job.id, children }, is_over, created_ms })
        });
        let mut listed: Vec<ListedJob> = parsed.collect();
        listed.sort_by(|a, b| (a.is_over, a.created_ms, &a.job.id).cmp(&(b.is_over, b.created_ms, &b.job.id)));
        Ok(listed)
    }

    pub(super) async fn describe(&self, ids: &[String]) -> Flow<HashMap<String, JobDescription>> {
        let found = self.patience.wait_for(|| self.scheduler.describe(ids)).await?;
        Ok(found.into_iter().map(|job| (job.id.clone(), job)).collect())
    }

    /// Ends these jobs.
    pub(super) async fn terminate(&self, ids: Vec<String>, reason: &str) -> Flow<()> {
        let ended = ids
            .into_iter()
            .map(|id| async move { self.patience.wait_for(|| self.scheduler.terminate(&id, reason)).await });
        stream::iter(ended).buffer_unordered(MAX_CONCURRENT).try_collect::<()>().await
    }

    /// Returns the jobs that run the children of this round, and the IDs of strays: the jobs of its last lease and, if its owner may
    /// have submitted others, those that are listed.
    async fn of_lease(&self, round: u32, last: &LastLease) -> Flow<(Vec<LeasedJob>, Vec<String>)> {
        if last.interrupted_epoch().is_none() {
            return Ok((last.lease.jobs.clone(), Vec::new()));
        }
        Ok(split_strays(round, last, self.listed(round).await?))
    }

    /// Returns the jobs that run the children of this round, and ends the strays.
    pub(super) async fn claim(&self, round: u32, last: &LastLease) -> Flow<Vec<LeasedJob>> {
        let (jobs, strays) = self.of_lease(round, last).await?;
        self.terminate(strays, SUPERSEDED).await?;
        Ok(jobs)
    }

    /// Ends the jobs of this round that run in vain, because their owner had lost its lease when they were submitted.
    pub(super) async fn end_strays(&self) -> Flow<()> {
        let round = self.ledger.record.round;
        let Some(last) = self.patience.wait_for(|| self.leases.last(round)).await? else { return Ok(()) };
        let (_, strays) = split_strays(round, &last, self.listed(round).await?);
        self.terminate(strays, SUPERSEDED).await
    }

    /// Closes a round, so that no program submits any more of its jobs, and returns the jobs that were submitted.
    async fn close(&self, round: u32) -> Flow<ClosedRound> {
        let closed = loop {
            let last = self.patience.wait_for(|| self.leases.last(round)).await?;
            let (epoch, jobs, interrupted) = match last {
                Some(last) if matches!(last.lease.state, LeaseState::Closed { .. }) => break last,
                None => (1, Vec::new(), false),
                Some(LastLease { epoch, lease }) => (next(epoch)?, lease.jobs, lease.state == LeaseState::Submitting),
            };
            // If another program was faster, the next iteration reads what it has written.
            self.patience.wait_for(|| self.leases.close(round, epoch, jobs.clone(), interrupted)).await?;
        };
        if closed.lease.state == (LeaseState::Closed { interrupted: true }) {
            // A request of the interrupted program may be on its way, and its job is listed with a delay.
            let mut is_reported = false;
            loop {
                let age = self.patience.wait_for(|| self.leases.age(round, closed.epoch)).await?;
                if age >= CLOSING_DELAY {
                    break;
                }
                if !std::mem::replace(&mut is_reported, true) {
                    let (run, wait) = (&self.ledger.record.manifest.run, CLOSING_DELAY.as_secs());
                    event::step(&format!("waiting up to {wait} s until AWS Batch lists all jobs of run {run}"));
                }
                self.patience.sleep(CLOSING_DELAY.saturating_sub(age)).await?;
            }
        }
        Ok(ClosedRound { jobs: self.claim(round, &closed).await?, has_begun: closed.epoch > 1 })
    }

    /// Closes the rounds before this one, and waits until their jobs are over. Ends the jobs of cancelled rounds.
    pub(super) async fn finish_rounds_before(&self, round: u32) -> Flow<()> {
        for earlier in self.rounds().await?.into_iter().rev().filter(|earlier| *earlier < round) {
            let closed = self.close(earlier).await?;
            let Record { store, keys, .. } = &self.ledger.record;
            let key = keys.cancelled(earlier);
            let is_cancelled = self.patience.wait_for(|| async { Ok(store.get(&key).await?.is_some()) }).await?;
            self.finish(closed.jobs, is_cancelled, None).await?;
            // A round begins only once the jobs of all rounds before it are over.
            if closed.has_begun {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Cancels the run, although this program does not follow it.
    pub(super) async fn cancel(mut self) -> Result<()> {
        self.patience.ignores_stop = true;
        let recorded = self.patience.wait_for(|| self.ledger.record_cancellation()).await;
        recorded.map_err(Interrupt::into_error)?;
        self.end_all(Vec::new(), Duration::ZERO).await.map_err(Interrupt::into_error)
    }

    /// Ends all jobs of the run, and waits until they are over. No program submits any more jobs of its rounds.
    /// `jobs` are known to this program, and others are listed only from `listed_from` on.
    pub(super) async fn end_all(&self, mut jobs: Vec<LeasedJob>, listed_from: Duration) -> Flow<()> {
        let rounds = self.rounds().await?;
        self.cancel_later_rounds(&rounds).await?;
        for &round in rounds.iter().rev() {
            let closed = self.close(round).await?;
            jobs.extend(closed.jobs);
            if closed.has_begun {
                break;
            }
        }
        self.finish(jobs, true, Some(TERMINATION_TIMEOUT)).await?;
        self.patience.sleep(listed_from.saturating_sub(self.leases.now())).await?;
        let mut queues = BTreeSet::new();
        for &round in &rounds {
            queues.insert(self.queue_of(round).await?);
        }
        let mut ended = HashSet::new();
        loop {
            let is_open = |found: &ListedJob| rounds.contains(&found.name.round) && !found.is_over;
            let mut listed = Vec::new();
            for queue in &queues {
                listed.extend(self.listed_in(queue).await?);
            }
            let listed = listed.into_iter().filter(is_open).map(|found| found.job);
            // The state of a job in a listing may be old.
            let remaining: Vec<LeasedJob> = listed.filter(|job| ended.insert(job.id.clone())).collect();
            if remaining.is_empty() || !self.finish(remaining, true, Some(TERMINATION_TIMEOUT)).await? {
                return Ok(());
            }
        }
    }

    /// Returns the numbers of the run's rounds, in order. The first round has no object.
    async fn rounds(&self) -> Flow<Vec<u32>> {
        let Record { store, keys, .. } = &self.ledger.record;
        let prefix = keys.rounds();
        let objects = self.patience.wait_for(|| async { Ok(store.list(&prefix, None).await?) }).await?;
        let later = objects.iter().filter_map(|object| contract::round_of(&object.key)).filter(|round| *round > 1);
        let mut rounds: Vec<u32> = std::iter::once(1).chain(later).collect();
        rounds.sort_unstable();
        Ok(rounds)
    }

    /// Cancels the rounds after this one, which another program has begun.
    async fn cancel_later_rounds(&self, rounds: &[u32]) -> Flow<()> {
        let Record { store, keys, round, .. } = &self.ledger.record;
        for later in rounds.iter().filter(|later| *later > round) {
            let key = keys.cancelled(*later);
            self.patience.wait_for(|| async { Ok(store.create(&key, bytes::Bytes::new()).await?) }).await?;
        }
        Ok(())
    }

    /// Waits until these jobs are over, or for this time after the last of them was terminated if they are to be ended. Returns
    /// `false` if some have not ended by then.
    async fn finish(&self, jobs: Vec<LeasedJob>, end: bool, limit: Option<Duration>) -> Flow<bool> {
        let (began, mut last_end) = (Instant::now(), Instant::now());
        let (mut terminated, mut is_reported) = (HashSet::new(), false);
        let mut open: Vec<String> = jobs.into_iter().map(|job| job.id).collect();
        loop {
            let found = self.describe(&open).await?;
            // New jobs are not described yet.
            let may_be_new = began.elapsed() < LISTING_DELAY;
            open.retain(|id| found.get(id).map_or(may_be_new, |job| !job.is_over()));
            if open.is_empty() {
                return Ok(true);
            }
            if !is_reported && open.iter().any(|id| found.contains_key(id)) {
                is_reported = true;
                self.report_finishing(open.len(), end);
            }
            if end {
                let is_due = |id: &&String| found.contains_key(*id) && !terminated.contains(*id);
                let ids: Vec<String> = open.iter().filter(is_due).cloned().collect();
                if !ids.is_empty() {
                    terminated.extend(ids.iter().cloned());
                    self.terminate(ids, &self.cancellation_reason()).await?;
                    last_end = Instant::now();
                }
            }
            if limit.is_some_and(|limit| last_end.elapsed() > limit) {
                return Ok(false);
            }
            self.patience.sleep((began.elapsed() / 10).clamp(POLL_BOUNDS.0, POLL_BOUNDS.1)).await?;
        }
    }

    fn cancellation_reason(&self) -> String {
        let given = self.ledger.cancellation_reason();
        let reason = given.map_or_else(|| CANCELLED.to_owned(), |given| format!("{CANCELLED}: {given}"));
        reason.chars().take(MAX_REASON_LEN).collect()
    }

    fn report_finishing(&self, jobs: usize, end: bool) {
        let run = &self.ledger.record.manifest.run;
        let jobs = if jobs == 1 { "one job".to_owned() } else { format!("{jobs} jobs") };
        event::step(&if end {
            format!("ending {jobs} of run {run}")
        } else {
            format!("waiting for {jobs} of an earlier round of run {run}; `.cancel()` ends them")
        });
    }

    /// Returns the jobs of the run's last round.
    async fn of_last_round(&self) -> Result<Vec<LeasedJob>> {
        let round = self.ledger.record.round;
        let found = async {
            match self.patience.wait_for(|| self.leases.last(round)).await? {
                Some(last) => self.of_lease(round, &last).await.map(|(jobs, _)| jobs),
                None => Ok(Vec::new()),
            }
        };
        found.await.map_err(Interrupt::into_error)
    }

    /// Returns all jobs of the run's last round that AWS Batch still lists: plain jobs, and the children of arrays.
    pub(super) async fn public_jobs(&self) -> Result<Vec<Job>> {
        let record = &self.ledger.record;
        let submitted = self.of_last_round().await?;
        let mut children: Vec<(u64, String)> = submitted
            .iter()
            .flat_map(|job| job.children.clone().map(|child| (child, child_id(&job.id, &job.children, child))))
            .collect();
        children.sort();
        let ids: Vec<String> = children.iter().map(|(_, id)| id.clone()).collect();
        let mut descriptions = self.describe(&ids).await.map_err(Interrupt::into_error)?;
        let job = |(child, id): (u64, String)| {
            let job = descriptions.remove(&id)?;
            Some(self.to_public(job, items_of(record, child)))
        };
        Ok(children.into_iter().filter_map(job).collect())
    }

    /// Returns the log streams of the jobs that run these items in the run's last round, as far as AWS Batch still knows the jobs.
    pub(super) async fn log_streams(&self, items: &[RangeInclusive<u64>]) -> Result<LogStreams> {
        let record = &self.ledger.record;
        let has_items = |child: &u64| {
            let of_child = items_of(record, *child);
            let overlaps =
                |of: &Range<u64>| items.iter().any(|range| of.start <= *range.end() && *range.start() < of.end);
            of_child.iter().any(overlaps)
        };
        let of_job = |job: LeasedJob| {
            let children = job.children.clone().filter(has_items);
            children.map(|child| child_id(&job.id, &job.children, child)).collect::<Vec<_>>()
        };
        let mut ids: Vec<String> = self.of_last_round().await?.into_iter().flat_map(of_job).collect();
        let is_cut = ids.len() > MAX_LOGS;
        ids.truncate(MAX_LOGS);
        let described = self.describe(&ids).await.map_err(Interrupt::into_error)?;
        let mut streams = Vec::new();
        for job in described.into_values() {
            let group = job.log_group.unwrap_or_else(|| self.settings.log_group.clone());
            let of_job = job.attempts.into_iter().filter_map(|attempt| attempt.log).chain(job.log);
            streams.extend(of_job.map(|stream| LogStream { group: group.clone(), stream, round: Some(record.round) }));
        }
        Ok(LogStreams { all: streams, is_cut })
    }

    /// Ends the jobs of these items, all or none.
    pub(super) async fn cancel_items(&self, items: &[u64]) -> Result<()> {
        let jobs = self.of_last_round().await?;
        let ids = items.iter().map(|item| self.jobs_of_item(*item, &jobs)).collect::<Result<Vec<_>>>()?.concat();
        self.terminate(ids, "its item was cancelled").await.map_err(Interrupt::into_error)
    }

    /// Returns the IDs of the jobs that run only this item.
    ///
    /// # Errors
    /// `Config` if there is none, or one of them runs other items as well.
    fn jobs_of_item(&self, item: u64, jobs: &[LeasedJob]) -> Result<Vec<String>> {
        let record = &self.ledger.record;
        let run = &record.manifest.run;
        let refused =
            |why: &str| Error::new(ErrorKind::Config, format!("cannot cancel item {item} of run {run}: {why}"));
        let has_item = |child: &u64| items_of(record, *child).iter().any(|range| range.contains(&item));
        let child_with_item = |job: &LeasedJob| {
            let child = job.children.clone().find(has_item)?;
            Some((child_id(&job.id, &job.children, child), items_of(record, child)))
        };
        let found: Vec<_> = jobs.iter().filter_map(child_with_item).collect();
        if found.is_empty() {
            return Err(refused("it has no job"));
        }
        if found.iter().any(|(_, items)| items.iter().map(|range| range.end - range.start).sum::<u64>() > 1) {
            return Err(refused("its job has other items as well")
                .with_hint("submit with `.chunk(1)` to cancel items one by one, or cancel the run"));
        }
        Ok(found.into_iter().map(|(id, _)| id).collect())
    }

    fn to_public(&self, job: JobDescription, items: Vec<Range<u64>>) -> Job {
        let group = job.log_group.clone().unwrap_or_else(|| self.settings.log_group.clone());
        let page = |stream: &Option<String>| Some(self.scheduler.log_page(&group, stream.as_deref()?));
        let attempts = job.attempts.iter().map(|attempt| JobAttempt {
            exit_code: attempt.exit_code,
            reason: attempt.container_reason.clone().or_else(|| attempt.reason.clone()),
            log_url: page(&attempt.log),
        });
        let attempts = attempts.collect();
        Job { log_url: page(&job.log), id: job.id, status: job.status, reason: job.reason, items, attempts }
    }
}

/// Separates the jobs that run the children of this round, according to its last lease, from the IDs of strays that still run: jobs
/// that were submitted without the lease, or accepted twice.
fn split_strays(round: u32, last: &LastLease, listed: Vec<ListedJob>) -> (Vec<LeasedJob>, Vec<String>) {
    let mut jobs = last.lease.jobs.clone();
    let mut ids: HashSet<String> = jobs.iter().map(|job| job.id.clone()).collect();
    let mut ends: BTreeMap<u64, u64> = jobs.iter().map(|job| (job.children.start, job.children.end)).collect();
    let mut strays = Vec::new();
    // A job of a later epoch was submitted after the lease was read.
    for found in listed.into_iter().filter(|found| found.name.round == round && found.name.epoch <= last.epoch) {
        let LeasedJob { id, children } = &found.job;
        let is_free = ends.range(..children.end).next_back().is_none_or(|(_, end)| *end <= children.start);
        if ids.contains(id) {
        } else if last.interrupted_epoch() == Some(found.name.epoch) && is_free {
            ids.insert(id.clone());
            ends.insert(children.start, children.end);
            jobs.push(found.job);
        } else if !found.is_over {
            strays.push(found.job.id);
        }
    }
    (jobs, strays)
}

/// Returns the epoch after this one.
pub(super) fn next(epoch: u32) -> Result<u32> {
    epoch.checked_add(1).ok_or_else(|| {
        Error::new(ErrorKind::Store, "cannot submit jobs: the round has too many leases")
            .with_hint("map the remaining inputs again, and end the jobs of this run in the AWS console")
    })
}

/// Returns the job ID of a child of a job that runs these children.
pub(super) fn child_id(job: &str, children: &Range<u64>, child: u64) -> String {
    if children.end - children.start == 1 {
        return job.to_owned();
    }
    batch::child_id(job, child - children.start)
}

fn items_of(record: &Record, child: u64) -> Vec<Range<u64>> {
    record.scheduled.slice(child * record.manifest.chunk, record.manifest.chunk)
}
