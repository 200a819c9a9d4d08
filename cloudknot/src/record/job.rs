//! The jobs of a run, as the scheduler describes them.

use std::ops::Range;

/// A job of a run on AWS Batch: a plain job, or a child of an array job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Job {
    /// ID of the job.
    pub id: String,
    /// State, as Batch names it: `SUBMITTED`, `PENDING`, `RUNNABLE`, `STARTING`, `RUNNING`, `SUCCEEDED`, `FAILED`. A
    /// job succeeds once the outcomes of all its items are stored, even if they are failures.
    pub status: String,
    /// Reason that Batch gives for the state.
    pub reason: Option<String>,
    /// Items of the job, as ranges that include their start and exclude their end.
    pub items: Vec<Range<u64>>,
    /// Attempts that have ended, in order.
    pub attempts: Vec<JobAttempt>,
    /// Console URL of the log of the last attempt, once there is one.
    pub log_url: Option<String>,
}

/// An ended attempt of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobAttempt {
    /// Exit code of the container, if the container ended by itself.
    pub exit_code: Option<i32>,
    /// Reason for the end, as Batch reports it.
    pub reason: Option<String>,
    /// Console URL of the log.
    pub log_url: Option<String>,
}
