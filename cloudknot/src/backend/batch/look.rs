//! Looks at the jobs of a round without changing anything: the last lease names them, and AWS Batch describes them.

use std::time::{Duration, SystemTime};

use cloudknot_runtime::contract::{self, Lease, LeaseState};
use cloudknot_runtime::store::Object;

use super::jobs::{RunJobs, child_id};
use super::lease::TAKEOVER_AGE;
use super::patience::Interrupt;
use crate::aws::batch::{self, JobDescription};
use crate::backend::Activity;
use crate::error::Result;

/// Last lease of a round, as a listing shows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListedLease {
    epoch: u32,
    stored: SystemTime,
}

impl ListedLease {
    /// Returns whether the owner of the lease may be submitting jobs, or AWS Batch may not describe all of them yet.
    fn is_new(self) -> bool {
        self.stored.elapsed().unwrap_or(Duration::ZERO) < TAKEOVER_AGE
    }
}

/// Returns the last lease of a round among the objects of a run.
pub(super) fn last_lease(objects: &[Object], round: u32) -> Option<ListedLease> {
    let leases = objects.iter().filter_map(|object| Some((contract::lease_of(&object.key)?, object.stored)));
    let of_round = leases.filter(|((of_round, _), _)| *of_round == round);
    of_round.map(|((_, epoch), stored)| ListedLease { epoch, stored }).max_by_key(|lease| lease.epoch)
}

/// Returns what the jobs of the round show.
pub(super) async fn activity(run: &RunJobs, listed: Option<ListedLease>) -> Result<Activity> {
    let record = &run.ledger.record;
    let (function, id) = (record.function_name(), &record.manifest.run);
    let abandoned =
        || Activity::Abandoned(format!("no program submits its jobs: `{function}.attach(\"{id}\")` submits them"));
    let Some(listed) = listed else { return Ok(abandoned()) };
    let Some(lease) = run.leases.read(record.round, listed.epoch).await? else { return Ok(abandoned()) };
    let ids: Vec<String> = lease.jobs.iter().map(|job| job.id.clone()).collect();
    let mut described = run.describe(&ids).await.map_err(Interrupt::into_error)?;
    let found: Vec<Option<JobDescription>> = ids.iter().map(|id| described.remove(id)).collect();
    // A job that AWS Batch does not describe is new, or has been forgotten.
    let is_open = |job: &Option<JobDescription>| job.as_ref().map_or(listed.is_new(), |job| !job.is_over());
    if !found.iter().any(is_open) {
        return Ok(match lease.state {
            LeaseState::Submitting if listed.is_new() => {
                Activity::Computed { running: 0, waiting_because: Some("its jobs are being submitted".into()) }
            }
            LeaseState::Submitting => abandoned(),
            LeaseState::Released | LeaseState::Closed { .. } => Activity::Over,
        });
    }
    let running: u64 = found.iter().flatten().map(|job| job.count(&["STARTING", "RUNNING"])).sum();
    let parallel = u64::from(record.manifest.parallel).min(record.manifest.chunk);
    let waiting_because = if running == 0 { reason(run, &lease, &found).await? } else { None };
    Ok(Activity::Computed { running: running.saturating_mul(parallel), waiting_because })
}

/// Returns the reason that AWS Batch gives for a job that waits.
async fn reason(run: &RunJobs, lease: &Lease, found: &[Option<JobDescription>]) -> Result<Option<String>> {
    let mut jobs = lease.jobs.iter().zip(found).filter_map(|(leased, job)| Some((leased, job.as_ref()?)));
    let Some((leased, job)) = jobs.find(|(_, job)| !job.is_over()) else { return Ok(None) };
    // There is no reason for an array job, but one for its first waiting child.
    let children = &leased.children;
    let ended = job.count(&["SUCCEEDED", "FAILED"]).min(children.end - children.start - 1);
    let id = child_id(&leased.id, children, children.start + ended);
    let described = run.describe(&[id]).await.map_err(Interrupt::into_error)?;
    let of_child = described.into_values().find_map(|child| child.reason.filter(|_| batch::is_waiting(&child.status)));
    Ok(of_child.or_else(|| job.reason.clone()))
}
