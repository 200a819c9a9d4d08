//! Follows the jobs of a round until they are over or all outcomes are stored, and ends them if that is requested.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::jobs::{SUPERSEDED, next};
use super::patience::{Flow, Interrupt};
use super::{Follower, SubmittedJob, explain};
use crate::aws::batch;
use crate::backend::folder_lock;
use crate::error::Result;
use crate::event::{self, Event};
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
/// Maximum time in which a stopped program asks the store whether the round was cancelled.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

impl Follower {
    /// Follows the round to its end. Submits jobs first if children have none.
    pub(super) async fn follow(&mut self) -> End {
        let error = match self.follow_until_stopped().await {
            Ok(end) => return end,
            Err(Interrupt::Stop) => match self.stop().await {
                Ok(end) => return end,
                Err(error) => error,
            },
            Err(interrupt) => interrupt.into_error(),
        };
        let is_over = self.is_submitted && self.open_jobs().is_empty();
        let rest = if is_over { String::new() } else { format!("; {}", self.detached()) };
        End::Failed(error.in_one_line() + &rest)
    }

    /// Polls until all jobs are over, or all missing outcomes are stored.
    async fn follow_until_stopped(&mut self) -> Flow<End> {
        let (began, mut last_listing, mut ended, mut polls) = (Instant::now(), Instant::now(), 0, 0_u32);
        let mut waiting_report = WaitingReport::new();
        // The program that cancelled the round, or recorded too many failed items, may have been killed before it ended the jobs.
        self.run.ledger.enforce_max_failures();
        // A program that has just submitted the jobs has checked this.
        if !self.is_submitted {
            self.check_cancelled().await?;
        }
        loop {
            if !self.is_submitted
                && let Some(end) = self.ensure_submitted().await?
            {
                self.end_superfluous().await?;
                return Ok(end);
            }
            self.run.patience.sleep((began.elapsed() / 50).clamp(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL)).await?;
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
                if self.run.ledger.missing().is_empty() {
                    self.end_superfluous().await?;
                    return Ok(End::Complete);
                }
                self.run.ledger.enforce_max_failures();
                (last_listing, ended) = (Instant::now(), now_ended);
            }
            if over && self.is_submitted {
                self.run.patience.check()?;
                self.end_superfluous().await?;
                return Ok(folder_lock::round_end(&self.run.ledger).await?);
            }
            self.is_submitted &= !self.jobs.iter().any(SubmittedJob::is_lost);
            waiting_report.update(self).await?;
        }
    }

    /// Returns `Err` if this program or another has cancelled the round.
    pub(super) async fn check_cancelled(&self) -> Flow<()> {
        let ledger = &self.run.ledger;
        if self.run.patience.wait_for(|| ledger.is_cancelled()).await? {
            ledger.control.stop.store(true, Ordering::Relaxed);
        }
        self.run.patience.check()
    }

    fn open_jobs(&self) -> Vec<String> {
        self.jobs.iter().filter(|job| !job.is_over()).map(|job| job.id.clone()).collect()
    }

    pub(super) async fn poll_jobs(&mut self) -> Flow<()> {
        let open = self.open_jobs();
        let mut found = self.run.describe(&open).await?;
        let is_any_absent = found.len() < open.len();
        let unfinished = if is_any_absent { self.unfinished_children() } else { BTreeMap::new() };
        for job in self.jobs.iter_mut().filter(|job| !job.is_over()) {
            if let Some(description) = found.remove(&job.id) {
                (job.description, job.absent_since) = (description, None);
            } else {
                // Batch does not describe the job yet, or no longer does.
                job.absent_since.get_or_insert_with(Instant::now);
                job.is_forgotten = unfinished.range(job.children.clone()).next().is_none();
            }
        }
        let ledger = &self.run.ledger;
        let running: u64 = self.jobs.iter().map(|job| job.description.count(&["STARTING", "RUNNING"])).sum();
        let parallel = u64::from(ledger.record.manifest.parallel).min(ledger.record.manifest.chunk);
        ledger.control.running.store(running * parallel, Ordering::Relaxed);
        Ok(())
    }

    /// Records what is stored, and explains the jobs that ended without outcomes.
    async fn refresh(&mut self, over: bool) -> Flow<()> {
        let is_complete = self.is_complete().await?;
        let failed: u64 = self.jobs.iter().map(|job| job.description.count(&["FAILED"])).sum();
        if is_complete || (!over && failed == self.explained) {
            return Ok(());
        }
        self.is_submitted = explain::explain_ended_jobs(self, over).await?;
        if self.is_submitted {
            self.explained = failed;
        }
        Ok(())
    }

    /// Returns whether items of ended jobs may be reported failed: no other program has cancelled the round, or submitted their items
    /// again because AWS Batch has forgotten the jobs.
    pub(super) async fn may_report_failures(&self) -> Flow<bool> {
        self.check_cancelled().await?;
        let (round, next) = (self.run.ledger.record.round, next(self.epoch)?);
        Ok(!self.run.patience.wait_for(|| self.run.leases.exists(round, next)).await?)
    }

    /// Ends jobs whose items have an outcome, because other jobs ran the same items. There are none unless another program has taken
    /// over the submission.
    async fn end_superfluous(&mut self) -> Flow<()> {
        if self.epoch <= 1 {
            return Ok(());
        }
        self.run.end_strays().await?;
        self.poll_jobs().await?;
        let open = self.open_jobs();
        self.run.terminate(open, SUPERSEDED).await
    }

    /// Stops following the run. Ends its jobs if the run was cancelled or too many items have failed, but not if only this
    /// program is about to end.
    pub(super) async fn stop(&mut self) -> Result<End> {
        let ledger = Arc::clone(&self.run.ledger);
        if ledger.too_many_failures().is_none() && !self.is_cancelled_in_time().await? {
            return Ok(End::Failed(self.detached()));
        }
        self.run.patience.ignores_stop = true;
        let ended = async {
            // Recorded before the rounds are closed, so that other programs know why.
            self.run.patience.wait_for(|| ledger.record_cancellation()).await?;
            // Jobs that this program has submitted after it had lost its lease are in no lease.
            let own = self.jobs.iter().map(SubmittedJob::leased).collect();
            self.run.end_all(own, self.sent.known_from()).await?;
            // The outcomes of items that finished before the end of their jobs are stored.
            self.run.patience.wait_for(|| ledger.refresh()).await
        };
        ended.await.map_err(Interrupt::into_error)?;
        folder_lock::round_end(&ledger).await
    }

    /// Returns whether the round was cancelled. An interrupted program does not wait for a store that does not respond.
    async fn is_cancelled_in_time(&self) -> Result<bool> {
        match tokio::time::timeout(STOP_TIMEOUT, self.run.ledger.is_cancelled()).await {
            Ok(Err(error)) if error.outage().is_none() => Err(error),
            is_cancelled => Ok(is_cancelled.is_ok_and(|is_cancelled| is_cancelled.unwrap_or(false))),
        }
    }

    /// Returns what goes on without this program, and how to continue or cancel it.
    pub(super) fn detached(&self) -> String {
        let record = &self.run.ledger.record;
        let (function, run) = (record.function_name(), &record.manifest.run);
        let (attach, cancel) = (format!("`{function}.attach(\"{run}\")`"), "`.cancel()` on that run cancels it");
        if self.is_submitted {
            return format!("the run continues on AWS Batch without this program; {attach} follows it, and {cancel}");
        }
        if self.jobs.is_empty() {
            return format!("{attach} continues the run, and {cancel}");
        }
        format!(
            "{} without this program; {attach} submits the rest and follows the run, and {cancel}",
            self.submitted()
        )
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

    async fn update(&mut self, follower: &Follower) -> Flow<()> {
        let waiting = follower.jobs.iter().find(|job| !job.is_over());
        if follower.run.ledger.control.running.load(Ordering::Relaxed) > 0 {
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
            .run
            .describe(&[job.child_id(child)])
            .await?
            .into_values()
            .find_map(|child| child.reason.filter(|_| batch::is_waiting(&child.status)));
        let reason = reason
            .or_else(|| job.description.reason.clone())
            .unwrap_or_else(|| "AWS Batch reports no reason; machines take a few minutes to start".to_owned());
        if self.last_reported.as_ref() != Some(&reason) {
            event::report(&Event::Waiting {
                run: &follower.run.ledger.record.manifest.run,
                since: self.since.elapsed(),
                reason: &reason,
            });
            self.last_reported = Some(reason);
        }
        Ok(())
    }
}
