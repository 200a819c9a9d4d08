//! Follows the jobs of a round until they are over or all outcomes are stored, and ends them if that is requested.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{Follower, MAX_CONCURRENT, SubmittedJob, explain};
use crate::aws::batch::{self, JobDescription};
use crate::backend::folder_lock;
use crate::error::Result;
use crate::event::{self, Event};
use crate::record::Record;
use crate::record::ledger::End;

/// Minimum interval between two polls of Batch; [`MAX_POLL_INTERVAL`] is the maximum. Between these, the interval is a
/// fiftieth of the time that the run has taken so far.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(500);
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(15);
/// Bounds of the minimum interval between two listings of results while jobs run. Between these, the interval is a tenth of
/// the time that the run has taken so far. Each listing is a request.
const LISTING_INTERVAL_BOUNDS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(1));
/// Time without a running job after which the reason is reported.
const IDLE_REPORT_INTERVAL: Duration = Duration::from_mins(1);
/// Maximum time to wait for terminated jobs: a container has 30 seconds to stop, and Batch responds with a delay.
const TERMINATION_TIMEOUT: Duration = Duration::from_mins(3);

impl Follower {
    /// Polls until all jobs are over, or all missing outcomes are stored.
    pub(super) async fn follow(&mut self) -> Result<End> {
        let began = Instant::now();
        let (mut last_listing, mut ended, mut polls) = (began, 0, 0_u32);
        let mut waiting_report = WaitingReport::new();
        loop {
            self.pause((began.elapsed() / 50).clamp(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL)).await;
            if self.is_stopped() {
                return self.stop().await;
            }
            self.poll_jobs().await?;
            polls += 1;
            let over = self.jobs.iter().all(SubmittedJob::is_over);
            let now_ended: u64 = self.jobs.iter().map(SubmittedJob::ended).sum();
            let changed = now_ended != ended || polls.is_multiple_of(10);
            if over
                || (changed
                    && last_listing.elapsed()
                        >= (began.elapsed() / 10).clamp(LISTING_INTERVAL_BOUNDS.0, LISTING_INTERVAL_BOUNDS.1))
            {
                self.refresh(over).await?;
                if self.ledger.missing().is_empty() {
                    return Ok(End::Complete);
                }
                self.ledger.enforce_max_failures();
                (last_listing, ended) = (Instant::now(), now_ended);
            }
            if over {
                return folder_lock::round_end(&self.ledger).await;
            }
            waiting_report.update(self).await?;
        }
    }

    async fn pause(&self, time: Duration) {
        const CHECK_INTERVAL: Duration = Duration::from_millis(100);
        let began = Instant::now();
        while began.elapsed() < time && !self.is_stopped() {
            tokio::time::sleep(CHECK_INTERVAL.min(time.saturating_sub(began.elapsed()))).await;
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.ledger.control.stop.load(Ordering::Relaxed)
    }

    async fn poll_jobs(&mut self) -> Result<()> {
        let open: Vec<String> = self.jobs.iter().filter(|job| !job.is_over()).map(|job| job.id.clone()).collect();
        let mut found: BTreeMap<String, JobDescription> =
            self.batch.describe(&open).await?.into_iter().map(|job| (job.id.clone(), job)).collect();
        for job in self.jobs.iter_mut().filter(|job| !job.is_over()) {
            match found.remove(&job.id) {
                Some(description) => (job.description, job.absent_since) = (description, None),
                // Batch does not list the job yet, or no longer does.
                None => _ = job.absent_since.get_or_insert_with(Instant::now),
            }
        }
        let running: u64 = self.jobs.iter().map(|job| job.description.count(&["STARTING", "RUNNING"])).sum();
        let parallel = u64::from(self.ledger.record.manifest.parallel).min(self.ledger.record.manifest.chunk);
        self.ledger.control.running.store(running * parallel, Ordering::Relaxed);
        Ok(())
    }

    /// Records what is stored, and explains the jobs that ended without outcomes.
    async fn refresh(&mut self, over: bool) -> Result<()> {
        self.ledger.refresh().await?;
        let failed: u64 = self.jobs.iter().map(|job| job.description.count(&["FAILED"])).sum();
        if self.ledger.missing().is_empty() || (!over && failed == self.explained) {
            return Ok(());
        }
        // Jobs that another program has cancelled have not failed.
        if self.ledger.is_cancelled().await? {
            self.ledger.control.stop.store(true, Ordering::Relaxed);
            return Ok(());
        }
        self.explained = failed;
        explain::explain_ended_jobs(self, over).await
    }

    /// Stops following the run. Ends its jobs if the run was cancelled or too many items have failed, but not if only this
    /// program is about to end.
    async fn stop(&mut self) -> Result<End> {
        let Record { manifest, .. } = &self.ledger.record;
        let too_many = manifest.max_failures.is_some_and(|limit| self.ledger.counts().1 >= limit);
        if !too_many && !self.ledger.is_cancelled().await? {
            return Ok(End::Failed(format!(
                "the run continues on AWS Batch without this program; `{}.attach(\"{}\")` follows it, and `.cancel()` on that \
                 run cancels it",
                self.ledger.record.function_name(),
                manifest.run
            )));
        }
        self.end_jobs().await?;
        // The outcomes of items that finished before the end of their jobs are stored.
        self.ledger.refresh().await?;
        folder_lock::round_end(&self.ledger).await
    }

    /// Ends the remaining jobs of the round, and waits until they are over.
    async fn end_jobs(&mut self) -> Result<()> {
        let began = Instant::now();
        let mut terminated = HashSet::new();
        loop {
            // A job whose submission got no response may be found only some time after it was submitted.
            self.find_jobs().await?;
            self.poll_jobs().await?;
            let open = self.jobs.iter().filter(|job| !job.is_over()).map(|job| job.id.clone());
            let open: Vec<String> = open.filter(|id| terminated.insert(id.clone())).collect();
            let ending = open.into_iter().map(|id| {
                let batch = self.batch.clone();
                async move { batch.terminate(&id, "the run was cancelled").await }
            });
            stream::iter(ending).buffer_unordered(MAX_CONCURRENT).try_collect::<()>().await?;
            if self.jobs.iter().all(SubmittedJob::is_over) || began.elapsed() > TERMINATION_TIMEOUT {
                return Ok(());
            }
            tokio::time::sleep((began.elapsed() / 10).clamp(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL)).await;
        }
    }
}

/// Reports why no job is running, as far as Batch reports a reason. Does not end any job.
struct WaitingReport {
    since: Instant,
    last_check: Option<Instant>,
    last_reported: Option<String>,
}

impl WaitingReport {
    fn new() -> Self {
        Self { since: Instant::now(), last_check: None, last_reported: None }
    }

    async fn update(&mut self, follower: &Follower) -> Result<()> {
        let waiting = follower.jobs.iter().find(|job| !job.is_over());
        if follower.ledger.control.running.load(Ordering::Relaxed) > 0 {
            self.since = Instant::now();
        }
        let due = self.since.elapsed() > IDLE_REPORT_INTERVAL
            && self.last_check.is_none_or(|last_check| last_check.elapsed() > IDLE_REPORT_INTERVAL);
        let Some(job) = waiting.filter(|_| due) else { return Ok(()) };
        self.last_check = Some(Instant::now());
        // Batch reports no reason for an array job, but one for its first waiting child.
        let child = job.children.start
            + job.description.count(&["SUCCEEDED", "FAILED"]).min(job.children.end - job.children.start - 1);
        let reason = follower
            .batch
            .describe(&[job.child_id(child)])
            .await?
            .into_iter()
            .find_map(|child| child.reason.filter(|_| batch::is_waiting(&child.status)));
        let reason = reason
            .or_else(|| job.description.reason.clone())
            .unwrap_or_else(|| "AWS Batch reports no reason; machines take a few minutes to start".to_owned());
        if self.last_reported.as_ref() != Some(&reason) {
            event::report(&Event::Waiting {
                run: &follower.ledger.record.manifest.run,
                since: self.since.elapsed(),
                reason: &reason,
            });
            self.last_reported = Some(reason);
        }
        Ok(())
    }
}
