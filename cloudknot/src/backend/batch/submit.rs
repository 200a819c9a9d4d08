//! Submits the children of a round: one job each, and none for a child that another program has submitted.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use cloudknot_runtime::contract::{BatchResources, Manifest, Resources, Task};

use super::{Follower, MAX_CONCURRENT, SubmittedJob, environment, store_of};
use crate::aws::batch::{self, Batch, JobRequest};
use crate::error::{Error, ErrorKind, Result};
use crate::home::knot_note::KnotNote;
use crate::record::Record;
use crate::record::ledger::End;

/// Maximum time after which a submitted job can be found by its name.
const JOB_VISIBILITY_DELAY: Duration = Duration::from_secs(30);
/// Time added to the timeouts of a job's items, for the start and the end of the worker; also the minimum timeout that Batch
/// accepts.
const TIMEOUT_MARGIN: Duration = Duration::from_mins(1);
/// Time added to the timeout of each attempt, for the start of a process, the transfer of a value, and its storage.
const ATTEMPT_MARGIN: Duration = Duration::from_secs(10);

impl Follower {
    /// Ensures that every child of the round with missing items has a job. Returns the end of the round if it has ended.
    pub(super) async fn begin(&mut self) -> Result<Option<End>> {
        let all = 0..children(&self.ledger.record);
        if self.is_new {
            let jobs = all.end;
            self.submit(vec![all]).await?;
            self.announce(jobs);
            return Ok(None);
        }
        self.ledger.refresh().await?;
        if self.ledger.missing().is_empty() {
            return Ok(Some(End::Complete));
        }
        // The program that cancelled the round, or recorded too many failed items, may have been killed before it ended
        // the jobs.
        self.ledger.enforce_max_failures();
        if self.ledger.is_cancelled().await? {
            self.ledger.control.stop.store(true, Ordering::Relaxed);
        }
        if self.is_stopped() {
            return Ok(None);
        }
        // Stored outcomes can be read even if this fails, so the error ends the round and is not returned.
        Ok(self.resume().await.err().map(|error| {
            let hint = "the queue or the job definition that the run was submitted with no longer exists: stored results \
                        stay readable; map the remaining inputs again";
            let error = if error.kind() == ErrorKind::NotFound { error.with_hint(hint) } else { error };
            End::Failed(error.in_one_line())
        }))
    }

    /// Submits the children that have no job, for a run that was submitted before.
    async fn resume(&mut self) -> Result<()> {
        self.find_jobs().await?;
        let unfinished = self.unfinished_children();
        let Record { manifest, scheduled, .. } = &self.ledger.record;
        let has_job = |child: &u64| self.jobs.iter().any(|job| job.children.contains(child));
        let without_job: Vec<u64> = unfinished.keys().copied().filter(|child| !has_job(child)).collect();
        // A worker needs to search the store for outcomes only if its child has some: the store was just listed.
        let items = |child: u64| scheduled.slice(child * manifest.chunk, manifest.chunk).into_iter().flatten().count();
        self.is_new = without_job.iter().all(|child| unfinished[child].len() == items(*child));
        self.submit(ranges(&without_job)).await?;
        self.announce(unfinished.len() as u64);
        Ok(())
    }

    /// Adds the jobs of this round that are not in the list yet, whichever program submitted them.
    pub(super) async fn find_jobs(&mut self) -> Result<()> {
        for found in submitted_jobs(&self.batch, &self.ledger.record, &self.settings).await? {
            if self.jobs.iter().all(|job| job.id != found.id) {
                self.jobs.push(found);
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
        let max_children = if self.settings.independent { 1 } else { batch::MAX_ARRAY_SIZE };
        let pieces: Vec<_> = children.into_iter().flat_map(|range| split(range, max_children)).collect();
        for pieces in pieces.chunks(MAX_CONCURRENT) {
            let orders: Vec<JobRequest> = pieces.iter().map(|piece| self.order(piece)).collect();
            let submitted = futures_util::future::join_all(orders.iter().map(|order| self.batch.submit(order))).await;
            for (id, piece) in submitted.into_iter().zip(pieces) {
                let id = id.map_err(|error| self.with_resume_hint(error))?;
                self.jobs.push(SubmittedJob::new(id, piece.clone()));
            }
        }
        Ok(())
    }

    /// Adds the hint that the run is recorded and can be resumed, unless its Knot no longer exists.
    fn with_resume_hint(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::NotFound {
            return error;
        }
        let Record { manifest, .. } = &self.ledger.record;
        let hint = error.hint().map(|hint| format!("{hint}; ")).unwrap_or_default();
        let function = self.ledger.record.function_name();
        error.with_hint(format!("{hint}the inputs are kept: `{function}.attach(\"{}\")` submits them", manifest.run))
    }

    fn order(&self, children: &Range<u64>) -> JobRequest {
        let Record { manifest, round, scheduled, .. } = &self.ledger.record;
        let task = manifest.task(store_of(&self.note), *round, scheduled.retries, children.start);
        let task = Task { has_no_outcomes: self.is_new, ..task };
        JobRequest {
            name: format!("{}{}", name_of_round(&self.ledger.record), children.start),
            queue: self.settings.queue.clone(),
            definition: self.settings.job_definition.clone(),
            children: children.end - children.start,
            environment: environment(&task),
            resources: self.resources(*round),
            timeout: timeout(manifest, scheduled.retries),
            knot: manifest.knot.clone(),
            run: manifest.run.clone(),
            tags: manifest.tags.clone().into_iter().collect(),
        }
    }

    /// Returns the resources of the run's jobs in this round. Their validity was checked before the run was recorded.
    fn resources(&self, round: u32) -> Resources {
        let requested = self.ledger.record.manifest.resources;
        let requested = Resources { memory_mib: requested.memory_in(round), ..requested };
        let deployed = self.note.jobs.as_ref().map(|jobs| jobs.job_resources(&self.function.resources, requested));
        deployed.and_then(Result::ok).unwrap_or(requested)
    }

    /// Returns the round's children that have items without an outcome, with those items.
    pub(super) fn unfinished_children(&self) -> BTreeMap<u64, Vec<u64>> {
        let Record { manifest, scheduled, .. } = &self.ledger.record;
        let missing = self.ledger.missing();
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

/// Returns the prefix of the names of all jobs of this round; it is followed by the first child of each job.
fn name_of_round(record: &Record) -> String {
    format!("{}-{}-r{}-c", record.manifest.knot, record.manifest.run, record.round)
}

/// Returns the number of children of the round.
fn children(record: &Record) -> u64 {
    record.scheduled.len().div_ceil(record.manifest.chunk)
}

/// Returns the jobs of this round, found in Batch by their names.
pub(super) async fn submitted_jobs(
    batch: &Batch,
    record: &Record,
    settings: &BatchResources,
) -> Result<Vec<SubmittedJob>> {
    let prefix = name_of_round(record);
    let mut found = batch.named(&settings.queue, &prefix).await?;
    if found.is_empty() && is_young(&record.manifest) {
        tokio::time::sleep(Duration::from_secs(2)).await;
        found = batch.named(&settings.queue, &prefix).await?;
    }
    let all = children(record);
    let jobs = found.into_iter().filter_map(|job| {
        let first: u64 = job.name.strip_prefix(&prefix)?.parse().ok()?;
        Some(SubmittedJob::new(job.id, first..first + job.size.unwrap_or(1)))
    });
    Ok(jobs.filter(|job| job.children.end <= all).collect())
}

/// Returns whether the run was created less than [`JOB_VISIBILITY_DELAY`] ago. Its program may have been killed just
/// after it submitted a job that cannot be found yet.
fn is_young(manifest: &Manifest) -> bool {
    let created = humantime::parse_rfc3339(&manifest.created).ok();
    created
        .and_then(|created| SystemTime::now().duration_since(created).ok())
        .is_some_and(|age| age < JOB_VISIBILITY_DELAY)
}

/// Returns the timeout of a job. The supervisor in the job enforces the timeouts of the items, so this one is for a worker
/// that hangs.
fn timeout(manifest: &Manifest, retries: u32) -> Option<Duration> {
    let per_attempt = Duration::from_millis(manifest.timeout_ms?).saturating_add(ATTEMPT_MARGIN);
    let per_item = per_attempt.saturating_mul(retries.saturating_add(1));
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
