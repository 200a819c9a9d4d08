//! The requests to AWS Batch that a run needs. In the tests of random schedules, a simulation answers them.

use cloudknot_runtime::store::BoxFuture;

use crate::aws::Aws;
use crate::aws::batch::{Batch, JobDescription, JobRequest, SubmitError};
use crate::aws::logs;
use crate::backend::{LogEvent, LogPage, LogPageRequest};
use crate::error::Result;

pub(super) trait Scheduler: Send + Sync {
    /// Submits a job, and returns its ID. Sends one request.
    fn submit<'a>(&'a self, job: &'a JobRequest) -> BoxFuture<'a, std::result::Result<String, SubmitError>>;

    /// Returns the jobs of a queue whose names start with `prefix`. A job may be listed only some time after it was submitted.
    fn named<'a>(&'a self, queue: &'a str, prefix: &'a str) -> BoxFuture<'a, Result<Vec<JobDescription>>>;

    /// Returns the descriptions of these jobs. Jobs that are very new or old are omitted.
    fn describe<'a>(&'a self, ids: &'a [String]) -> BoxFuture<'a, Result<Vec<JobDescription>>>;

    /// Terminates a job. A job that has ended does not change.
    fn terminate<'a>(&'a self, id: &'a str, reason: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Returns the end of a log.
    fn end_of_log<'a>(&'a self, group: &'a str, stream: &'a str) -> BoxFuture<'a, Result<String>>;

    /// Reads a page of log streams.
    ///
    /// # Errors
    /// `NotFound` if the group or one of the streams does not exist.
    fn filter_log<'a>(&'a self, request: &'a LogPageRequest) -> BoxFuture<'a, Result<LogPage>>;

    /// Returns the address of a log in the AWS console.
    fn log_page(&self, group: &str, stream: &str) -> String;
}

/// AWS Batch and the logs of its jobs.
pub(super) struct AwsScheduler {
    aws: Aws,
    batch: Batch,
}

impl AwsScheduler {
    pub(super) fn new(aws: &Aws) -> Self {
        Self { aws: aws.clone(), batch: Batch::quiet(aws) }
    }
}

impl Scheduler for AwsScheduler {
    fn submit<'a>(&'a self, job: &'a JobRequest) -> BoxFuture<'a, std::result::Result<String, SubmitError>> {
        Box::pin(self.batch.submit(job))
    }

    fn named<'a>(&'a self, queue: &'a str, prefix: &'a str) -> BoxFuture<'a, Result<Vec<JobDescription>>> {
        Box::pin(self.batch.named(queue, prefix))
    }

    fn describe<'a>(&'a self, ids: &'a [String]) -> BoxFuture<'a, Result<Vec<JobDescription>>> {
        Box::pin(self.batch.describe(ids))
    }

    fn terminate<'a>(&'a self, id: &'a str, reason: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.batch.terminate(id, reason))
    }

    fn end_of_log<'a>(&'a self, group: &'a str, stream: &'a str) -> BoxFuture<'a, Result<String>> {
        Box::pin(logs::end_of(&self.aws, group, stream))
    }

    fn filter_log<'a>(&'a self, request: &'a LogPageRequest) -> BoxFuture<'a, Result<LogPage>> {
        Box::pin(async move {
            let filter = logs::Filter {
                group: &request.group,
                streams: &request.streams,
                pattern: request.pattern.as_deref(),
                from_ms: request.from_ms,
                token: request.token.as_deref(),
            };
            let page = logs::filter(&self.aws, &filter).await?;
            let event = |event: logs::FilteredEvent| LogEvent {
                id: event.id,
                stream: event.stream,
                time_ms: event.time_ms,
                text: event.message,
            };
            Ok(LogPage { events: page.events.into_iter().map(event).collect(), next: page.next })
        })
    }

    fn log_page(&self, group: &str, stream: &str) -> String {
        logs::page(&self.aws.region, group, stream)
    }
}
