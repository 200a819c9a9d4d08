//! Explains why an item has no outcome although its job is over, from what Batch reports about the job's attempts and
//! from the end of its log.

use std::collections::BTreeMap;
use std::sync::Arc;

use cloudknot_runtime::contract::{self, exit};
use cloudknot_runtime::failure::{Failure, ItemError, ItemErrorKind};
use cloudknot_runtime::measurements::Machine;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::jobs::RunJobs;
use super::patience::{Flow, Interrupt};
use super::{Follower, SubmittedJob};
use crate::aws::batch::JobDescription;
use crate::error::{Error, ErrorKind};

/// Maximum number of children whose logs are read; usually, the logs are alike.
const MAX_LOGS: usize = 32;
/// Maximum number of concurrent requests.
const MAX_CONCURRENT: usize = 16;

/// Stores a failure with the reason for each item whose job ended without an outcome for it; once all jobs are over, for
/// each unfinished item.
///
/// Returns `false` without storing anything if another program may run these items.
pub(super) async fn explain_ended_jobs(follower: &Follower, over: bool) -> Flow<bool> {
    let (run, ledger) = (&follower.run, &follower.run.ledger);
    let jobs: BTreeMap<u64, &SubmittedJob> = follower.jobs.iter().map(|job| (job.children.start, job)).collect();
    let job_of = |child: u64| Some(jobs.range(..=child).next_back()?.1).filter(|job| job.children.contains(&child));
    let id_of = |child: u64| job_of(child).map(|job| job.child_id(child));
    let ids: Vec<String> = follower.unfinished_children().into_keys().filter_map(id_of).collect();
    let descriptions = run.describe(&ids).await?;
    // Checked after the states of the jobs were read: a job that another program has ended has not failed.
    if !follower.may_report_failures().await? {
        return Ok(false);
    }
    if !over {
        // By now, the store contains everything that the ended jobs have stored.
        run.patience.wait_for(|| ledger.refresh()).await?;
    }
    let mut explained = Vec::new();
    for (child, items) in follower.unfinished_children() {
        let id = id_of(child);
        let job = id.as_deref().and_then(|id| descriptions.get(id));
        if !over && !job.is_some_and(JobDescription::is_over) {
            continue;
        }
        let mut failure =
            job.map_or_else(|| Failure::new(ItemErrorKind::Infrastructure, "AWS Batch no longer lists its job"), why);
        let log = match job {
            Some(job) if explained.len() < MAX_LOGS => log_of(run, job).await,
            _ => String::new(),
        };
        if failure.exit_code == Some(exit::WRONG_WORKER) {
            let message = format!("the Knot `{}` does not fit this program: {}", follower.note.knot, log.trim());
            let error = Error::new(ErrorKind::Types, message);
            return Err(error.with_hint("run `cargo knot deploy`, then the program again").into());
        }
        if let Some(id) = id {
            failure.message = format!("{} (job {id})", failure.message);
        }
        let last = contract::last_attempt(ledger.record.scheduled.retries);
        let mut error = ItemError::new(failure, last).with_log(log);
        if let Some(job) = job {
            error = error.with_machine(machine_of(run, job));
        }
        explained.push((items, Arc::new(error)));
    }
    let failures =
        explained.into_iter().flat_map(|(items, error)| items.into_iter().map(move |item| (item, error.clone())));
    let mut stored = stream::iter(failures.map(|(item, error)| async move {
        run.patience.wait_for(|| ledger.record.store_failure(item, &error)).await?;
        Ok::<_, Interrupt>((item, error))
    }))
    .buffer_unordered(MAX_CONCURRENT);
    while let Some((item, error)) = stored.try_next().await? {
        ledger.failed(item, &error, true);
    }
    Ok(true)
}

/// Returns the group and the stream of the log of a job's last attempt.
fn stream_of<'a>(run: &'a RunJobs, job: &'a JobDescription) -> Option<(&'a str, &'a str)> {
    let stream = job.attempts.iter().rev().find_map(|attempt| attempt.log.as_deref()).or(job.log.as_deref());
    Some((job.log_group.as_deref().unwrap_or(&run.settings.log_group), stream?))
}

/// Returns what AWS Batch tells of the machine of a job, so that its log is found once AWS Batch has forgotten the job.
fn machine_of(run: &RunJobs, job: &JobDescription) -> Machine {
    let mut machine = Machine::default();
    machine.job = Some(job.id.clone());
    machine.job_attempt = u32::try_from(job.attempts.len()).ok().filter(|attempts| *attempts > 0);
    if let Some((group, stream)) = stream_of(run, job) {
        (machine.log_group, machine.log_stream) = (Some(group.to_owned()), Some(stream.to_owned()));
    }
    machine
}

/// Returns the end of a job's log, or the reason if the log cannot be read.
async fn log_of(run: &RunJobs, job: &JobDescription) -> String {
    let Some((group, stream)) = stream_of(run, job) else { return String::new() };
    match run.scheduler.end_of_log(group, stream).await {
        Ok(log) => log,
        Err(error) => format!("({error}; the log is at {})", run.scheduler.log_page(group, stream)),
    }
}

/// Returns the failure that the last attempt of a job indicates.
fn why(job: &JobDescription) -> Failure {
    let last = job.attempts.last();
    let exit_code = last.and_then(|attempt| attempt.exit_code);
    let container_reason = last.and_then(|attempt| attempt.container_reason.as_deref()).unwrap_or_default();
    let attempt_reason = last.and_then(|attempt| attempt.reason.as_deref()).unwrap_or_default();
    let job_reason = job.reason.as_deref().unwrap_or_default();
    let reasons = [container_reason, attempt_reason, job_reason];
    let any_reason_contains = |part: &str| reasons.iter().any(|reason| reason.contains(part));
    let first_reason = reasons.into_iter().find(|reason| !reason.is_empty()).unwrap_or("no reason is given");
    let (kind, message) = match exit_code {
        // Many kinds of ends have the exit code of SIGKILL on Batch: the reason takes precedence over the code.
        _ if any_reason_contains("OutOfMemory") => {
            (ItemErrorKind::OutOfMemory, "its container reached the memory limit".to_owned())
        }
        _ if any_reason_contains("CannotPull")
            || any_reason_contains("CannotCreateContainer")
            || any_reason_contains("CannotStartContainer") =>
        {
            (ItemErrorKind::Image, first_reason.to_owned())
        }
        _ if any_reason_contains("exceeded timeout") => {
            (ItemErrorKind::TimedOut, "its job took longer than its timeout".to_owned())
        }
        _ if any_reason_contains("Dependent Job failed") => {
            (ItemErrorKind::Upstream, "a job that its job depends on failed".to_owned())
        }
        _ if any_reason_contains("Host EC2") || any_reason_contains("Spot Task was interrupted") => {
            (ItemErrorKind::Infrastructure, format!("its machine was reclaimed: {first_reason}"))
        }
        // The queue's actions on jobs that wait for too long; see `stuck-after`.
        _ if job_reason.contains("MISCONFIGURATION:") => {
            let message = format!(
                "AWS Batch cancelled its job, which fits on no machine of the queue (see `max-vcpus` and `instance-types`): {job_reason}"
            );
            (ItemErrorKind::Infrastructure, message)
        }
        _ if job.is_terminated => (ItemErrorKind::Cancelled, format!("its job was ended: {job_reason}")),
        Some(exit::INTERRUPTED) => (ItemErrorKind::Interrupted, "its worker was stopped".to_owned()),
        Some(exit::INFRASTRUCTURE) => (ItemErrorKind::Infrastructure, "its worker could not continue".to_owned()),
        Some(exit::DONE) => (ItemErrorKind::Infrastructure, "its job succeeded, but stored no outcome".to_owned()),
        Some(137) => (ItemErrorKind::Infrastructure, "its container was killed from outside by SIGKILL".to_owned()),
        Some(code) if code > 128 => (ItemErrorKind::Crashed, format!("its worker was killed by signal {}", code - 128)),
        Some(code) => (ItemErrorKind::Infrastructure, format!("its container exited with code {code}")),
        None => (ItemErrorKind::Infrastructure, format!("its job ended before it ran: {first_reason}")),
    };
    let attempts =
        if job.attempts.len() > 1 { format!(", the last of {} times", job.attempts.len()) } else { String::new() };
    let mut failure = Failure::new(kind, message + &attempts);
    failure.exit_code = exit_code;
    failure.signal = exit_code.filter(|code| *code > 128).map(|code| code - 128);
    failure
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::batch::Attempt;

    fn check(exit_code: Option<i32>, container: &str, attempt: &str, kind: ItemErrorKind, message: &str) {
        let non_empty = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let last = Attempt { exit_code, container_reason: non_empty(container), reason: non_empty(attempt), log: None };
        let failure =
            why(&JobDescription { attempts: vec![last], reason: non_empty(attempt), ..JobDescription::default() });
        assert_eq!((failure.kind, failure.message.as_str()), (kind, message));
        assert_eq!(failure.exit_code, exit_code);
    }

    #[test]
    fn reason_takes_precedence_over_exit_code() {
        let ended = "Essential container in task exited";
        let memory = "OutOfMemoryError: Container killed due to memory usage";
        check(Some(137), memory, ended, ItemErrorKind::OutOfMemory, "its container reached the memory limit");
        let killed = "its container was killed from outside by SIGKILL";
        check(Some(137), "", ended, ItemErrorKind::Infrastructure, killed);
        let timeout = "Job attempt duration exceeded timeout";
        check(Some(137), "", timeout, ItemErrorKind::TimedOut, "its job took longer than its timeout");
        check(Some(139), "", ended, ItemErrorKind::Crashed, "its worker was killed by signal 11");
        let lost = "Host EC2 (instance i-1) terminated.";
        check(None, "", lost, ItemErrorKind::Infrastructure, &format!("its machine was reclaimed: {lost}"));
        let spot = "Your Spot Task was interrupted.";
        check(None, "", spot, ItemErrorKind::Infrastructure, &format!("its machine was reclaimed: {spot}"));
        let pull = "CannotPullContainerError: no such image";
        check(None, pull, "Task failed to start", ItemErrorKind::Image, pull);
        let docker = "DockerTimeoutError: Could not transition to created";
        check(
            None,
            docker,
            "Task failed to start",
            ItemErrorKind::Infrastructure,
            &format!("its job ended before it ran: {docker}"),
        );
        let stuck = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job requires more than any instance has.";
        let cancelled = JobDescription { is_terminated: true, reason: Some(stuck.into()), ..JobDescription::default() };
        let message = format!(
            "AWS Batch cancelled its job, which fits on no machine of the queue (see `max-vcpus` and `instance-types`): {stuck}"
        );
        assert_eq!((why(&cancelled).kind, why(&cancelled).message), (ItemErrorKind::Infrastructure, message));
        check(Some(75), "", ended, ItemErrorKind::Interrupted, "its worker was stopped");
        check(Some(3), "", ended, ItemErrorKind::Infrastructure, "its container exited with code 3");
    }
}
