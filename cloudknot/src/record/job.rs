//! The jobs of a run, as a scheduler describes them.

use std::ops::Range;

/// A job of a run on AWS Batch: one of its own, or a child of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Job {
    /// Its id.
    pub id: String,
    /// Batch's word for its state: `SUBMITTED`, `PENDING`, `RUNNABLE`, `STARTING`, `RUNNING`, `SUCCEEDED`, `FAILED`. A job
    /// succeeds once the outcomes of all its items are stored, be they failures.
    pub status: String,
    /// What Batch says to that.
    pub reason: Option<String>,
    /// Its items: ranges, first included, last excluded.
    pub items: Vec<Range<u64>>,
    /// Those that have ended, in their order.
    pub attempts: Vec<JobAttempt>,
    /// Where the console shows the log of its last attempt, once there is one.
    pub log_url: Option<String>,
}

/// One attempt of a job that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobAttempt {
    /// The exit code of its container, if that ended by itself.
    pub exit_code: Option<i32>,
    /// Why it ended, in Batch's words.
    pub reason: Option<String>,
    /// Where the console shows its log.
    pub log_url: Option<String>,
}
