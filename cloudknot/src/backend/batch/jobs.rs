//! Lists the jobs of a run, and ends one.

use std::ops::Range;

use super::{SubmittedJob, submit};
use crate::aws::Aws;
use crate::aws::batch::{Batch, JobDescription};
use crate::aws::logs;
use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;
use crate::record::job::{Job, JobAttempt};
use crate::record::ledger::Ledger;

/// Returns all jobs of the run's last round that Batch still lists: plain jobs, and the children of arrays.
pub(super) async fn of(aws: &Aws, ledger: &Ledger) -> Result<Vec<Job>> {
    let batch = Batch::new(aws);
    let record = &ledger.record;
    let Some(settings) = &record.manifest.batch else { return Ok(Vec::new()) };
    let submitted = submit::submitted_jobs(&batch, record, settings).await?;
    let children = submitted.iter().flat_map(|job| job.children.clone().map(|child| (job.child_id(child), child)));
    let children: Vec<(String, u64)> = children.collect();
    let ids: Vec<String> = children.iter().map(|(id, _)| id.clone()).collect();
    let mut descriptions: std::collections::HashMap<String, JobDescription> =
        batch.describe(&ids).await?.into_iter().map(|job| (job.id.clone(), job)).collect();
    let job = |(id, child): (String, u64)| {
        let job = descriptions.remove(&id)?;
        Some(to_public(aws, job, items_of(record, child), &settings.log_group))
    };
    Ok(children.into_iter().filter_map(job).collect())
}

/// Ends the job of an item.
pub(super) async fn cancel_item(aws: &Aws, ledger: &Ledger, item: u64) -> Result<()> {
    let batch = Batch::new(aws);
    let record = &ledger.record;
    let run = &record.manifest.run;
    let refused = |why: &str| Error::new(ErrorKind::Config, format!("cannot cancel item {item} of run {run}: {why}"));
    let Some(settings) = &record.manifest.batch else { return Err(refused("it does not run on AWS Batch")) };
    let submitted = submit::submitted_jobs(&batch, record, settings).await?;
    let child_with_item = |job: &SubmittedJob| {
        let child =
            job.children.clone().find(|child| items_of(record, *child).iter().any(|range| range.contains(&item)))?;
        Some((job.child_id(child), items_of(record, child)))
    };
    let Some((id, items)) = submitted.iter().rev().find_map(child_with_item) else {
        return Err(refused("it has no job"));
    };
    if items.iter().map(|range| range.end - range.start).sum::<u64>() > 1 {
        return Err(refused("its job has other items as well")
            .with_hint("submit with `.chunk(1)` to cancel items one by one, or cancel the run"));
    }
    batch.terminate(&id, "its item was cancelled").await
}

fn items_of(record: &Record, child: u64) -> Vec<Range<u64>> {
    record.scheduled.slice(child * record.manifest.chunk, record.manifest.chunk)
}

fn to_public(aws: &Aws, job: JobDescription, items: Vec<Range<u64>>, group: &str) -> Job {
    let group = job.log_group.clone().unwrap_or_else(|| group.to_owned());
    let page = |stream: &Option<String>| Some(logs::page(&aws.region, &group, stream.as_deref()?));
    let attempts = job.attempts.iter().map(|attempt| JobAttempt {
        exit_code: attempt.exit_code,
        reason: attempt.container_reason.clone().or_else(|| attempt.reason.clone()),
        log_url: page(&attempt.log),
    });
    let attempts = attempts.collect();
    Job { log_url: page(&job.log), id: job.id, status: job.status, reason: job.reason, items, attempts }
}
