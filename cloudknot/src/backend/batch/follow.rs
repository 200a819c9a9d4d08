//! Follows the jobs of a round until they are over or all outcomes are stored, and ends them if that is requested.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{AT_ONCE, Follower, Sent, explain};
use crate::aws::batch::{self, Described};
use crate::backend::folder_lock;
use crate::error::Result;
use crate::event::{self, Event};
use crate::record::Record;
use crate::record::ledger::End;

/// Minimum interval between two polls of Batch; [`LATEST`] is the maximum. Between these, the interval is a fiftieth of the
/// time that the run has taken so far.
const SOONEST: Duration = Duration::from_millis(500);
const LATEST: Duration = Duration::from_secs(15);
/// Bounds of the minimum interval between two listings of results while jobs run. Between these, the interval is a tenth of
/// the time that the run has taken so far. Each listing is a request.
const LISTING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(1));
/// Time without a running job after which the reason is reported.
const STUCK: Duration = Duration::from_mins(1);
/// Maximum time to wait for terminated jobs: a container has 30 seconds to stop, and Batch takes its time.
const ENDING: Duration = Duration::from_mins(3);

impl Follower {
    /// Polls until all jobs are over, or all missing outcomes are stored.
    pub(super) async fn follow(&mut self) -> Result<End> {
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
                self.refresh(over).await?;
                if self.ledger.missing().is_empty() {
                    return Ok(End::Complete);
                }
                self.ledger.enforce_max_failures();
                (looked, ended) = (Instant::now(), now);
            }
            if over {
                return folder_lock::round_end(&self.ledger).await;
            }
            stuck.look(self).await?;
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

    async fn look_at_jobs(&mut self) -> Result<()> {
        let open: Vec<String> = self.sent.iter().filter(|sent| !sent.is_over()).map(|sent| sent.id.clone()).collect();
        let mut found: BTreeMap<String, Described> =
            self.batch.describe(&open).await?.into_iter().map(|job| (job.id.clone(), job)).collect();
        for sent in self.sent.iter_mut().filter(|sent| !sent.is_over()) {
            match found.remove(&sent.id) {
                Some(job) => (sent.seen, sent.absent_since) = (job, None),
                // Batch does not know the job yet, or no longer does.
                None => _ = sent.absent_since.get_or_insert_with(Instant::now),
            }
        }
        let running: u64 = self.sent.iter().map(|sent| sent.seen.count(&["STARTING", "RUNNING"])).sum();
        let at_once = u64::from(self.ledger.record.manifest.parallel).min(self.ledger.record.manifest.chunk);
        self.ledger.control.running.store(running * at_once, Ordering::Relaxed);
        Ok(())
    }

    /// Records what is stored, and explains the jobs that ended without outcomes.
    async fn refresh(&mut self, over: bool) -> Result<()> {
        self.ledger.refresh().await?;
        let failed: u64 = self.sent.iter().map(|sent| sent.seen.count(&["FAILED"])).sum();
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
        let too_many = manifest.max_failures.is_some_and(|most| self.ledger.counts().1 >= most);
        if !too_many && !self.ledger.is_cancelled().await? {
            return Ok(End::Failed(format!(
                "the run continues on AWS Batch without this program; `{}.attach(\"{}\")` follows it, and `.cancel()` on that \
                 run cancels it",
                self.ledger.record.function_name(),
                manifest.run
            )));
        }
        self.end_jobs().await?;
        // Items that were finished by then are stored.
        self.ledger.refresh().await?;
        folder_lock::round_end(&self.ledger).await
    }

    /// Ends the remaining jobs of the round, and waits until they are over.
    async fn end_jobs(&mut self) -> Result<()> {
        let began = Instant::now();
        let mut told = HashSet::new();
        loop {
            // A job whose submission was never answered may be found only some time after it was submitted.
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
}

/// Reports why nothing runs, as far as Batch says it, and ends nothing for that reason.
struct Stuck {
    since: Instant,
    last_check: Option<Instant>,
    told: Option<String>,
}

impl Stuck {
    fn new() -> Self {
        Self { since: Instant::now(), last_check: None, told: None }
    }

    async fn look(&mut self, of: &Follower) -> Result<()> {
        let waiting = of.sent.iter().find(|sent| !sent.is_over());
        if of.ledger.control.running.load(Ordering::Relaxed) > 0 {
            self.since = Instant::now();
        }
        let due = self.since.elapsed() > STUCK && self.last_check.is_none_or(|last_check| last_check.elapsed() > STUCK);
        let Some(sent) = waiting.filter(|_| due) else { return Ok(()) };
        self.last_check = Some(Instant::now());
        // An array gives no reason itself; its first waiting child does.
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
            event::report(&Event::Waiting {
                run: &of.ledger.record.manifest.run,
                since: self.since.elapsed(),
                reason: &reason,
            });
            self.told = Some(reason);
        }
        Ok(())
    }
}
