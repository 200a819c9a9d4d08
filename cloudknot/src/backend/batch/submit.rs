//! Submits the jobs of a round: each child has one job, submitted by the program that holds the lease of the round.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cloudknot_runtime::contract::{LeaseState, LeasedJob, Task};

use super::jobs::{JobName, next};
use super::lease::{HeldLease, LISTING_DELAY, LastLease, MAX_SENDING_AGE, RENEWAL_AGE, SUBMIT_TIMEOUT, TAKEOVER_AGE};
use super::patience::{Flow, Interrupt, Waiting};
use super::{Follower, MAX_CONCURRENT, SubmittedJob, environment, store_of};
use crate::aws::batch::{self, JobRequest, SubmitError};
use crate::error::{Error, ErrorKind, Outage, Result};
use crate::event;
use crate::home::knot_note::KnotNote;
use crate::record::ledger::End;
use crate::record::{Record, Start};

/// Time added to the timeouts of a job's items, for the start and the end of the worker; also the minimum timeout that Batch
/// accepts.
const TIMEOUT_MARGIN: Duration = Duration::from_mins(1);
/// Time added to the timeout of each attempt, for the start of a process, the transfer of a value, and its storage.
const ATTEMPT_MARGIN: Duration = Duration::from_secs(10);
/// Maximum time in which an interrupted program releases its lease.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval at which a program looks at a lease that another program holds.
const LEASE_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum time without a check while the owner of a lease waits.
const MAX_SLEEP: Duration = Duration::from_secs(10);

/// The jobs that this program has sent with a lease and that another program may not know.
#[derive(Debug, Default)]
pub(super) struct Sent {
    epoch: u32,
    /// IDs of the jobs that were accepted since this program last saw that it still holds the lease.
    unconfirmed: Vec<String>,
    /// Requests without a response, by their first child.
    unanswered: BTreeMap<u64, Range<u64>>,
    /// Latest time at which one of these jobs can have been accepted.
    last: Duration,
}

impl Sent {
    /// Returns the time from which on a listing contains all of these jobs.
    fn listed_from(&self) -> Duration {
        self.last + LISTING_DELAY
    }

    /// Returns the time from which on a listing contains the jobs that this program does not know.
    pub(super) fn known_from(&self) -> Duration {
        if self.unanswered.is_empty() { Duration::ZERO } else { self.listed_from() }
    }
}

impl Follower {
    /// Begins the round. The jobs of a new run are submitted; those of another are submitted once the round is followed, if they
    /// have to be. Returns the end of the round if it has ended.
    pub(super) async fn begin(&mut self, start: Start) -> Result<Option<End>> {
        if start == Start::Resume {
            self.announce(self.unfinished_children().len() as u64);
            return Ok(None);
        }
        let round = self.run.ledger.record.round;
        let acquired = self.run.leases.acquire(round, 1, Vec::new(), self.run.leases.now()).await;
        let acquired = acquired.map_err(|error| self.with_resume_hint(error))?;
        // The ID is shown before the first job exists: whatever happens from now on, the user can continue or cancel the run.
        self.announce(self.run.children());
        let Some(held) = acquired else { return Ok(None) };
        let all = 0..self.run.children();
        match self.submit(held, vec![all], start).await {
            Ok(()) | Err(Interrupt::Lost) => Ok(None),
            Err(Interrupt::Stop) => self.stop().await.map(Some).map_err(|error| self.with_resume_hint(error)),
            Err(Interrupt::Failed(error)) => Err(self.with_resume_hint(error)),
        }
    }

    /// Begins to follow a round that was recorded, and submits all of it. Returns the end of the round if it has ended.
    pub(super) async fn begin_submitted(&mut self) -> Result<Option<End>> {
        self.begin(Start::Resume).await?;
        match self.ensure_submitted().await {
            Ok(ended) => Ok(ended),
            Err(Interrupt::Lost) => Ok(None),
            Err(Interrupt::Stop) => self.stop().await.map(Some).map_err(|error| self.with_resume_hint(error)),
            Err(Interrupt::Failed(error)) => Err(self.with_resume_hint(error)),
        }
    }

    /// Ensures that each child with unfinished items has a job. Returns the end of the round if it has ended.
    pub(super) async fn ensure_submitted(&mut self) -> Flow<Option<End>> {
        loop {
            let submitted = self.submit_missing().await;
            if !matches!(submitted, Err(Interrupt::Lost)) {
                return submitted;
            }
        }
    }

    /// Submits the children without a job, if this program gets the lease.
    async fn submit_missing(&mut self) -> Flow<Option<End>> {
        let round = self.run.ledger.record.round;
        self.run.patience.check()?;
        let last = self.run.patience.wait_for(|| self.run.leases.last(round)).await?;
        self.withdraw(last.as_ref()).await?;
        let Some(last) = last else {
            self.run.finish_rounds_before(round).await?;
            return self.take_over(1).await.map(|()| None);
        };
        self.epoch = last.epoch;
        match last.lease.state {
            LeaseState::Closed { .. } => {
                self.check_cancelled().await?;
                return Err(self.later_round_error().into());
            }
            LeaseState::Released => self.adopt(last.lease.jobs.clone()),
            LeaseState::Submitting => {
                if let Some(end) = self.wait_for_owner(&last).await? {
                    return Ok(Some(end));
                }
                let jobs = self.run.claim(round, &last).await?;
                self.adopt(jobs);
            }
        }
        self.forget_unlisted(&last).await?;
        if self.is_complete().await? {
            return Ok(Some(End::Complete));
        }
        if last.lease.state == LeaseState::Released && self.children_without_job().is_empty() {
            self.is_submitted = true;
            return Ok(None);
        }
        self.take_over(next(last.epoch)?).await.map(|()| None)
    }

    /// Waits until a listing contains all jobs that were submitted with this lease. Returns the end of the round if it ends meanwhile.
    async fn wait_for_owner(&mut self, last: &LastLease) -> Flow<Option<End>> {
        // This program's own lease, which it has not renewed: only this program knows when it has sent the last request.
        if self.sent.epoch == last.epoch {
            self.run.patience.sleep(self.sent.listed_from().saturating_sub(self.run.leases.now())).await?;
            return Ok(None);
        }
        let round = self.run.ledger.record.round;
        let age = self.run.patience.wait_for(|| self.run.leases.age(round, last.epoch)).await?;
        if age >= TAKEOVER_AGE {
            return Ok(None);
        }
        if std::mem::replace(&mut self.reported_owner, last.epoch) != last.epoch {
            self.report_other_owner();
        }
        self.run.patience.sleep(TAKEOVER_AGE.saturating_sub(age).min(LEASE_POLL_INTERVAL)).await?;
        if self.is_complete().await? { Ok(Some(End::Complete)) } else { Err(Interrupt::Lost) }
    }

    /// Creates the lease of this epoch, and submits the children that have no job.
    async fn take_over(&mut self, epoch: u32) -> Flow<()> {
        let round = self.run.ledger.record.round;
        let jobs: Vec<LeasedJob> = self.jobs.iter().map(SubmittedJob::leased).collect();
        let since = self.run.leases.now();
        let acquired =
            self.run.patience.wait_for(|| self.run.leases.acquire(round, epoch, jobs.clone(), since)).await?;
        let held = acquired.ok_or(Interrupt::Lost)?;
        self.sent = Sent::default();
        // Outcomes may have been stored until now, and a later program sees the lease.
        self.is_complete().await?;
        let without_job = self.children_without_job();
        let unfinished = self.unfinished_children();
        let Record { manifest, scheduled, .. } = &self.run.ledger.record;
        // A worker needs to search the store for outcomes only if its child has some: the store was just listed.
        let items = |child: u64| scheduled.slice(child * manifest.chunk, manifest.chunk).into_iter().flatten().count();
        self.has_no_outcomes = without_job.iter().all(|child| unfinished[child].len() == items(*child));
        self.submit(held, ranges(&without_job), Start::Resume).await.map_err(|interrupt| match interrupt {
            Interrupt::Failed(error) if error.kind() == ErrorKind::NotFound => error
                .with_hint(
                    "the queue or the job definition of this round no longer exists: stored results stay readable; \
                     `.cancel()` and `retry_failed()` run the remaining items on the Knot as it is deployed now",
                )
                .into(),
            interrupt => interrupt,
        })
    }

    /// Submits these children of the round with a lease.
    async fn submit(&mut self, mut held: HeldLease, children: Vec<Range<u64>>, start: Start) -> Flow<()> {
        let submitted = self.send_all(&mut held, children, start).await;
        if submitted.is_ok() {
            (self.epoch, self.is_submitted) = (held.epoch, true);
        }
        // Without a response to one of its requests, this program cannot tell which jobs exist.
        if matches!(submitted, Err(Interrupt::Lost)) || !self.sent.unanswered.is_empty() {
            return submitted;
        }
        held.lease.state = LeaseState::Released;
        let write = || self.run.leases.write(&held);
        let released = if submitted.is_ok() { self.run.patience.wait_for(write).await } else { Err(Interrupt::Stop) };
        match released {
            // If this fails, another program takes the lease over, later than it could otherwise.
            Err(Interrupt::Stop) => _ = tokio::time::timeout(STOP_TIMEOUT, write()).await,
            released => released?,
        }
        submitted
    }

    /// Sends the requests of these children, and those without a response again, until each child has a job.
    async fn send_all(&mut self, held: &mut HeldLease, children: Vec<Range<u64>>, start: Start) -> Flow<()> {
        let max_children = if self.run.settings.independent { 1 } else { batch::MAX_ARRAY_SIZE };
        let mut pieces: VecDeque<_> = children.into_iter().flat_map(|range| split(range, max_children)).collect();
        let mut waiting = Waiting::default();
        self.sent.epoch = held.epoch;
        // Until its lease exists, nobody can know of a new run, so the first request needs no check.
        let mut is_checked = start == Start::New && self.run.leases.age_of(held) <= MAX_SENDING_AGE;
        loop {
            if !std::mem::take(&mut is_checked) {
                self.keep(held).await?;
            }
            self.sent.unconfirmed.clear();
            if !self.sent.unanswered.is_empty() {
                let remaining = self.sent.listed_from().saturating_sub(self.run.leases.now());
                if remaining.is_zero() {
                    pieces.extend(self.look_up(held).await?);
                } else {
                    self.run.patience.sleep(remaining.min(MAX_SLEEP)).await?;
                }
                continue;
            }
            let batch: Vec<Range<u64>> = pieces.drain(..pieces.len().min(MAX_CONCURRENT)).collect();
            if batch.is_empty() {
                return Ok(());
            }
            match self.send(held, batch, &mut pieces).await {
                Ok(()) => waiting = Waiting::default(),
                // Nothing was submitted, and the caller is told.
                Err(error)
                    if error.outage() == Some(Outage::Login) && start == Start::New && held.lease.jobs.is_empty() =>
                {
                    return Err(error.into());
                }
                Err(error) if self.sent.unanswered.is_empty() => {
                    self.run.patience.wait_out(error, &mut waiting).await?;
                }
                Err(error) => {
                    let pause = self.sent.listed_from().saturating_sub(self.run.leases.now());
                    self.run.patience.report(error, pause, &mut waiting)?;
                }
            }
        }
    }

    /// Sends the requests of these children. Those that were not accepted are put back. Returns an error if there is any.
    async fn send(
        &mut self,
        held: &mut HeldLease,
        batch: Vec<Range<u64>>,
        pieces: &mut VecDeque<Range<u64>>,
    ) -> Result<()> {
        let orders: Vec<JobRequest> = batch.iter().map(|children| self.order(held.epoch, children)).collect();
        let requests = orders.iter().map(|order| async {
            let request = tokio::time::timeout(SUBMIT_TIMEOUT, self.run.scheduler.submit(order));
            request.await.unwrap_or_else(|_| Err(timed_out(order)))
        });
        let responses = futures_util::future::join_all(requests).await;
        self.sent.last = self.run.leases.now();
        let mut failed: Option<Error> = None;
        for (response, children) in responses.into_iter().zip(batch) {
            match response {
                Ok(id) => {
                    self.sent.unconfirmed.push(id.clone());
                    held.lease.jobs.push(LeasedJob { id: id.clone(), children: children.clone() });
                    self.jobs.push(SubmittedJob::new(id, children));
                }
                Err(SubmitError { error, may_be_accepted }) => {
                    if may_be_accepted {
                        self.sent.unanswered.insert(children.start, children);
                        // The request may still be on its way.
                        self.sent.last = self.run.leases.now() + SUBMIT_TIMEOUT;
                    } else {
                        pieces.push_back(children);
                    }
                    // An error that does not pass is more important than one that does.
                    if failed.as_ref().is_none_or(|failed| failed.outage().is_some()) {
                        failed = Some(error);
                    }
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Looks for the jobs of requests without a response. Returns the children that have none.
    async fn look_up(&mut self, held: &mut HeldLease) -> Flow<Vec<Range<u64>>> {
        let mut duplicates = Vec::new();
        let mut unanswered = std::mem::take(&mut self.sent.unanswered);
        let round = self.run.ledger.record.round;
        let listed = match self.run.listed(round).await {
            Ok(listed) => listed,
            Err(interrupt) => {
                self.sent.unanswered = unanswered;
                return Err(interrupt);
            }
        };
        let known: HashSet<String> = held.lease.jobs.iter().map(|job| job.id.clone()).collect();
        for found in listed.into_iter().filter(|found| (found.name.round, found.name.epoch) == (round, held.epoch)) {
            if unanswered.remove(&found.name.first).is_some() {
                self.sent.unconfirmed.push(found.job.id.clone());
                self.jobs.push(SubmittedJob::new(found.job.id.clone(), found.job.children.clone()));
                held.lease.jobs.push(found.job);
            } else if !known.contains(&found.job.id) {
                duplicates.push(found.job.id);
            }
        }
        self.run.terminate(duplicates, super::jobs::SUPERSEDED).await?;
        Ok(unanswered.into_values().collect())
    }

    /// Renews the lease if it is due, and checks that this program still holds it and that the round goes on.
    async fn keep(&self, held: &mut HeldLease) -> Flow<()> {
        let run = &self.run;
        let (round, next) = (run.ledger.record.round, next(held.epoch)?);
        loop {
            run.patience.check()?;
            if run.leases.age_of(held) > RENEWAL_AGE {
                let mut waiting = Waiting::default();
                loop {
                    match run.leases.renew(held).await {
                        Ok(true) => break,
                        Ok(false) => return Err(Interrupt::Lost),
                        Err(error) => run.patience.wait_out(error, &mut waiting).await?,
                    }
                }
            }
            let (is_superseded, is_cancelled) = run
                .patience
                .wait_for(|| async { tokio::try_join!(run.leases.exists(round, next), run.ledger.is_cancelled()) })
                .await?;
            if is_superseded {
                return Err(Interrupt::Lost);
            }
            if is_cancelled {
                run.ledger.control.stop.store(true, Ordering::Relaxed);
                return Err(Interrupt::Stop);
            }
            if run.leases.age_of(held) <= MAX_SENDING_AGE {
                return Ok(());
            }
        }
    }

    /// Ends the jobs that this program has submitted after it had lost its lease, as far as the round's last lease does not list them.
    async fn withdraw(&mut self, last: Option<&LastLease>) -> Flow<()> {
        let Some(last) = last.filter(|last| self.sent.epoch > 0 && last.epoch > self.sent.epoch) else { return Ok(()) };
        let is_listed = |id: &str| last.lease.jobs.iter().any(|job| job.id == id);
        let mut ids: Vec<String> = self.sent.unconfirmed.iter().filter(|id| !is_listed(id)).cloned().collect();
        if !self.sent.unanswered.is_empty() {
            self.run.patience.sleep(self.sent.listed_from().saturating_sub(self.run.leases.now())).await?;
            let round = self.run.ledger.record.round;
            let listed = self.run.listed(round).await?.into_iter();
            let own = listed.filter(|found| (found.name.round, found.name.epoch) == (round, self.sent.epoch));
            ids.extend(
                own.map(|found| found.job.id).filter(|id| !is_listed(id) && !ids.contains(id)).collect::<Vec<_>>(),
            );
        }
        self.run.terminate(ids, super::jobs::SUPERSEDED).await?;
        self.sent = Sent::default();
        Ok(())
    }

    /// Replaces the list of the round's jobs. Descriptions of the jobs that stay are kept.
    fn adopt(&mut self, jobs: Vec<LeasedJob>) {
        let mut known: BTreeMap<String, SubmittedJob> =
            std::mem::take(&mut self.jobs).into_iter().map(|job| (job.id.clone(), job)).collect();
        let adopted = jobs
            .into_iter()
            .map(|LeasedJob { id, children }| known.remove(&id).unwrap_or_else(|| SubmittedJob::new(id, children)));
        self.jobs = adopted.collect();
    }

    /// Removes unfinished jobs that AWS Batch neither describes nor lists any more: it keeps jobs for some days.
    async fn forget_unlisted(&mut self, last: &LastLease) -> Flow<()> {
        let round = self.run.ledger.record.round;
        self.poll_jobs().await?;
        let is_absent = |job: &SubmittedJob| !job.is_over() && job.absent_since.is_some();
        if !self.jobs.iter().any(is_absent) {
            return Ok(());
        }
        // New jobs are not described yet.
        if self.run.patience.wait_for(|| self.run.leases.age(round, last.epoch)).await? < LISTING_DELAY {
            return Ok(());
        }
        let listed: HashSet<String> = self.run.listed(round).await?.into_iter().map(|found| found.job.id).collect();
        self.jobs.retain(|job| !is_absent(job) || listed.contains(&job.id));
        Ok(())
    }

    /// Returns the error of a round that is closed and not cancelled.
    fn later_round_error(&self) -> Error {
        let run = &self.run.ledger.record.manifest.run;
        let message = format!("cannot continue this round of run {run}: another program has begun a later one");
        Error::new(ErrorKind::Config, message).with_hint("attach to the run to follow it")
    }

    pub(super) async fn is_complete(&self) -> Flow<bool> {
        let ledger = &self.run.ledger;
        self.run.patience.wait_for(|| ledger.refresh()).await?;
        Ok(ledger.missing().is_empty())
    }

    fn announce(&self, jobs: u64) {
        let KnotNote { knot, region, .. } = &self.note;
        let jobs = if jobs == 1 { "one job".to_owned() } else { format!("{jobs} jobs") };
        let ledger = &self.run.ledger;
        let described = format!("on AWS Batch, {jobs} of the Knot `{knot}` in {region}");
        ledger.started(&described, ledger.record.manifest.parallel);
    }

    fn report_other_owner(&self) {
        let run = &self.run.ledger.record.manifest.run;
        event::step(&format!(
            "waiting for the program that submits the jobs of run {run}; if it was ended, this program continues within two minutes"
        ));
    }

    /// Adds the hint how the run can be continued or cancelled, unless nothing was submitted and its Knot no longer exists.
    pub(super) fn with_resume_hint(&self, error: Error) -> Error {
        let record = &self.run.ledger.record;
        let hint = error.hint().map(|hint| format!("{hint}; ")).unwrap_or_default();
        let (function, run) = (record.function_name(), &record.manifest.run);
        let hint = match self.jobs.len() {
            0 if error.kind() == ErrorKind::NotFound => return error,
            0 => format!("{hint}the inputs are kept: `{function}.attach(\"{run}\")` submits them"),
            _ => format!(
                "{hint}{}: `{function}.attach(\"{run}\")` submits the rest, and `.cancel()` on that run ends them",
                self.submitted()
            ),
        };
        error.with_hint(hint)
    }

    /// Returns the number of items whose jobs were submitted, in words.
    pub(super) fn submitted(&self) -> String {
        let Record { manifest, scheduled, .. } = &self.run.ledger.record;
        let children: u64 = self.jobs.iter().map(|job| job.children.end - job.children.start).sum();
        let items = children.saturating_mul(manifest.chunk).min(scheduled.len());
        format!("jobs for {items} of {} items were submitted and run on", scheduled.len())
    }

    fn order(&self, epoch: u32, children: &Range<u64>) -> JobRequest {
        let record = &self.run.ledger.record;
        let Record { manifest, round, scheduled, .. } = record;
        let task = manifest.task(store_of(&self.note), *round, scheduled, children.start);
        let task = Task { has_no_outcomes: self.has_no_outcomes, ..task };
        JobRequest {
            name: self.run.name(JobName { round: *round, epoch, first: children.start }),
            queue: self.run.settings.queue.clone(),
            share_identifier: self.run.settings.share_identifier.clone(),
            definition: self.run.settings.job_definition.clone(),
            children: children.end - children.start,
            environment: environment(&task),
            resources: self.resources,
            timeout: timeout(record),
            knot: manifest.knot.clone(),
            run: manifest.run.clone(),
            tags: manifest.tags.clone().into_iter().collect(),
        }
    }

    /// Returns the children with unfinished items that have no job.
    fn children_without_job(&self) -> Vec<u64> {
        let mut children = self.unfinished_children();
        for job in &self.jobs {
            let rest = children.split_off(&job.children.end);
            children.split_off(&job.children.start);
            children.extend(rest);
        }
        children.into_keys().collect()
    }

    /// Returns the round's children that have items without an outcome, with those items.
    pub(super) fn unfinished_children(&self) -> BTreeMap<u64, Vec<u64>> {
        let Record { manifest, scheduled, .. } = &self.run.ledger.record;
        let missing = self.run.ledger.missing();
        let mut unfinished: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let mut preceding = 0;
        for range in &scheduled.items {
            let first = missing.partition_point(|missing| missing.end <= range.start);
            for missing in missing[first..].iter().take_while(|missing| missing.start < range.end) {
                for item in missing.start.max(range.start)..missing.end.min(range.end) {
                    unfinished.entry((preceding + item - range.start) / manifest.chunk).or_default().push(item);
                }
            }
            preceding += range.end - range.start;
        }
        unfinished
    }
}

fn timed_out(order: &JobRequest) -> SubmitError {
    let error = Error::new(ErrorKind::Aws, format!("cannot submit the job `{}`", order.name));
    let error = error.with_source("there was no response within 10 seconds").with_outage(Some(Outage::Service));
    SubmitError { error, may_be_accepted: true }
}

/// Returns the timeout of a job. The supervisor in the job enforces the timeouts of the items, so this one is for a worker
/// that hangs.
fn timeout(record: &Record) -> Option<Duration> {
    let Record { manifest, scheduled, .. } = record;
    let per_attempt = Duration::from_millis(record.timeout_ms()?).saturating_add(ATTEMPT_MARGIN);
    let per_item = per_attempt.saturating_mul(scheduled.retries.saturating_add(1));
    let batches = manifest.chunk.div_ceil(u64::from(manifest.parallel));
    Some(per_item.saturating_mul(u32::try_from(batches).unwrap_or(u32::MAX)).saturating_add(TIMEOUT_MARGIN))
}

/// Splits a range into pieces of at most this size, as even as possible: an array cannot have only one child.
fn split(range: Range<u64>, max_len: u64) -> Vec<Range<u64>> {
    let length = range.end - range.start;
    let pieces = length.div_ceil(max_len);
    let bound = |piece: u64| range.start + piece * (length / pieces) + piece.min(length % pieces);
    (0..pieces).map(|piece| bound(piece)..bound(piece + 1)).collect()
}

/// Converts sorted numbers to ranges.
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
    fn ranges_are_split_evenly() {
        assert_eq!(split(0..1, 10_000), [0..1]);
        assert_eq!(split(0..20, 10_000), [0..20]);
        assert_eq!(split(0..10_001, 10_000), [0..5_001, 5_001..10_001]);
        assert_eq!(split(5..8, 1), [5..6, 6..7, 7..8]);
        assert!(split(0..0, 10_000).is_empty());
    }

    #[test]
    fn consecutive_numbers_form_one_range() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), [0..3, 5..6, 7..9]);
        assert!(ranges(&[]).is_empty());
    }
}
