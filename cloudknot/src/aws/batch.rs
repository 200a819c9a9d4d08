//! AWS Batch, and no other AWS service: jobs, from their submission to their end. Independent of runs.

use std::collections::HashMap;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_sdk_batch as batch;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use batch::operation::submit_job::SubmitJobError;
use batch::types::{
    ArrayProperties, ContainerOverrides, JobDetail, JobStatus, JobTimeout, KeyValuePair, KeyValuesPair,
    ResourceRequirement, ResourceType,
};
use cloudknot_runtime::contract::Resources;

use crate::aws::{self, Aws, client};
use crate::error::{Error, ErrorKind, Result};

mod account;
pub(crate) use account::{Definition, Queue};

/// Tag of everything that belongs to a Knot, with the name of the Knot.
pub(crate) const KNOT_TAG: &str = "cloudknot:knot";
/// Tag of a job, with the run that the job belongs to.
const RUN_TAG: &str = "cloudknot:run";
/// Maximum number of jobs in one request.
const MAX_PER_REQUEST: usize = 100;
/// Maximum number of children of an array job. A single child is not an array, but a plain job.
pub(crate) const MAX_ARRAY_SIZE: u64 = 10_000;
/// Maximum number of characters of the container overrides, as JSON. A job with more is accepted, and then fails.
pub(crate) const MAX_OVERRIDES_LEN: usize = 8_192;
/// Maximum number of attempts of a request by the SDK, where the caller repeats requests by itself.
const MAX_QUIET_ATTEMPTS: u32 = 3;

#[derive(Debug, Clone)]
pub(crate) struct Batch {
    aws: Aws,
    client: batch::Client,
}

/// A job to be submitted.
#[derive(Debug, Clone)]
pub(crate) struct JobRequest {
    /// Unique name of the job.
    pub(crate) name: String,
    pub(crate) queue: String,
    /// Share of a queue with a fair-share policy.
    pub(crate) share_identifier: Option<String>,
    pub(crate) definition: String,
    /// Number of children. One child is a plain job, more are an array job.
    pub(crate) children: u64,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) resources: Resources,
    /// Timeout of one attempt of a child.
    pub(crate) timeout: Option<Duration>,
    pub(crate) knot: String,
    pub(crate) run: String,
    pub(crate) tags: Vec<(String, String)>,
}

/// A job as AWS Batch describes it.
#[derive(Debug, Clone, Default)]
pub(crate) struct JobDescription {
    pub(crate) id: String,
    pub(crate) name: String,
    /// State of the job, as AWS Batch spells it.
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
    /// Time of the submission, in milliseconds since 1970.
    pub(crate) created_ms: i64,
    /// Number of children of an array job, by state.
    pub(crate) children: HashMap<String, u64>,
    /// Number of children of an array job; `None` for a plain job.
    pub(crate) size: Option<u64>,
    /// `true` if the job was terminated or cancelled.
    pub(crate) is_terminated: bool,
    /// Attempts that have ended, in order.
    pub(crate) attempts: Vec<Attempt>,
    /// Log stream of the attempt that is running or ran last.
    pub(crate) log: Option<String>,
    /// Log group of the job, if the job names one.
    pub(crate) log_group: Option<String>,
}

/// An attempt of a job that has ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attempt {
    pub(crate) exit_code: Option<i32>,
    /// Reason that Docker gave for the end of the container.
    pub(crate) container_reason: Option<String>,
    /// Reason that AWS Batch gave for the end of the attempt.
    pub(crate) reason: Option<String>,
    pub(crate) log: Option<String>,
}

impl JobDescription {
    /// Returns whether the job has ended, and its state is final.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.status.as_str(), "SUCCEEDED" | "FAILED")
    }

    /// Returns the number of children in one of these states. A plain job counts as its own only child.
    pub(crate) fn count(&self, states: &[&str]) -> u64 {
        if self.size.is_none() {
            return u64::from(states.contains(&self.status.as_str()));
        }
        states.iter().filter_map(|state| self.children.get(*state)).sum()
    }

    fn of(job: JobDetail) -> Self {
        let array = job.array_properties;
        let summary = array.as_ref().and_then(|array| array.status_summary.clone()).unwrap_or_default();
        let attempts = job.attempts.unwrap_or_default().into_iter().map(|attempt| {
            let container = attempt.container;
            let container_field =
                |field: fn(&batch::types::AttemptContainerDetail) -> Option<String>| container.as_ref().and_then(field);
            Attempt {
                exit_code: container.as_ref().and_then(|container| container.exit_code),
                container_reason: container_field(|container| container.reason.clone()),
                log: container_field(|container| container.log_stream_name.clone()),
                reason: attempt.status_reason,
            }
        });
        let container = job.container.as_ref();
        let options = container.and_then(|container| container.log_configuration()?.options());
        Self {
            id: job.job_id.unwrap_or_default(),
            name: job.job_name.unwrap_or_default(),
            status: job.status.map(|status| status.as_str().to_owned()).unwrap_or_default(),
            reason: job.status_reason,
            created_ms: job.created_at.unwrap_or_default(),
            children: summary.into_iter().map(|(state, count)| (state, u64::try_from(count).unwrap_or(0))).collect(),
            size: array.and_then(|array| array.size).and_then(|size| u64::try_from(size).ok()),
            is_terminated: job.is_terminated.unwrap_or(false) || job.is_cancelled.unwrap_or(false),
            attempts: attempts.collect(),
            log: container.and_then(|container| container.log_stream_name.clone()),
            log_group: options.and_then(|options| options.get("awslogs-group").cloned()),
        }
    }
}

/// A submission without a job ID.
#[derive(Debug)]
pub(crate) struct SubmitError {
    pub(crate) error: Error,
    /// `true` if AWS Batch may have accepted the job, because there was no usable response.
    pub(crate) may_be_accepted: bool,
}

impl Batch {
    pub(crate) fn new(aws: &Aws) -> Self {
        Self { client: client!(aws, batch), aws: aws.clone() }
    }

    /// Creates a client that gives up soon and reports no retries, for a caller that repeats requests by itself.
    pub(crate) fn quiet(aws: &Aws) -> Self {
        let retries = RetryConfig::standard().with_max_attempts(MAX_QUIET_ATTEMPTS);
        let config = batch::config::Builder::from(&aws.config).retry_config(retries).build();
        Self { client: batch::Client::from_conf(config), aws: aws.clone() }
    }

    /// Submits a job and returns its ID.
    ///
    /// AWS Batch accepts the same job twice, so the SDK does not retry the request. Before the caller sends it again, it has to
    /// look for a job that may have been accepted.
    pub(crate) async fn submit(&self, job: &JobRequest) -> std::result::Result<String, SubmitError> {
        self.send(job).await.map_err(|error| {
            let may_be_accepted = may_be_accepted(&error);
            SubmitError { error: self.refused(job, error), may_be_accepted }
        })
    }

    async fn send(&self, job: &JobRequest) -> std::result::Result<String, SdkError<SubmitJobError, HttpResponse>> {
        let pair = |(name, value): &(String, String)| KeyValuePair::builder().name(name).value(value).build();
        let overrides = ContainerOverrides::builder()
            .set_environment(Some(job.environment.iter().map(pair).collect()))
            .set_resource_requirements(requirements(&job.resources));
        let array = i32::try_from(job.children).ok().filter(|size| *size > 1);
        let timeout = job.timeout.map(|timeout| {
            let seconds = timeout.as_secs().saturating_add(u64::from(timeout.subsec_nanos() > 0));
            JobTimeout::builder().attempt_duration_seconds(i32::try_from(seconds).unwrap_or(i32::MAX)).build()
        });
        let mut request = self
            .client
            .submit_job()
            .job_name(&job.name)
            .job_queue(&job.queue)
            .set_share_identifier(job.share_identifier.clone())
            .job_definition(&job.definition)
            .container_overrides(overrides.build())
            .set_array_properties(array.map(|size| ArrayProperties::builder().size(size).build()))
            .set_timeout(timeout)
            .propagate_tags(true);
        for (name, value) in &job.tags {
            request = request.tags(name, value);
        }
        request = request.tags(KNOT_TAG, &job.knot).tags(RUN_TAG, &job.run);
        let once = batch::config::Builder::new().retry_config(RetryConfig::disabled());
        let response = request.customize().config_override(once).send().await?;
        Ok(response.job_id.unwrap_or_default())
    }

    fn refused(&self, job: &JobRequest, error: SdkError<SubmitJobError, HttpResponse>) -> Error {
        let failed = self.failed(&format!("submit the job `{}`", job.name), error);
        if failed.kind() != ErrorKind::NotFound {
            return failed;
        }
        failed.with_hint(format!(
            "the Knot `{}`, which is recorded in `.cloudknot/`, no longer exists or has changed: run `cargo knot \
             deploy`, then the program again; or set {}=local",
            job.knot,
            cloudknot_runtime::contract::ENV_BACKEND
        ))
    }

    /// Returns the error of a failed request. Its kind is `NotFound` if the queue or the job definition does not exist.
    fn failed<E>(&self, action: &str, error: SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let message = aws::message(&error).to_owned();
        let failed = self.aws.failed(action, error);
        let patterns = ["does not exist", "not found", "is not active", "DISABLED", "DELETED", "INVALID"];
        if failed.kind() == ErrorKind::Aws && patterns.iter().any(|pattern| message.contains(pattern)) {
            return failed.of_kind(ErrorKind::NotFound);
        }
        failed
    }

    /// Returns the jobs of a queue whose names start with `prefix`: only IDs, names, states, reasons, times
    /// and sizes.
    pub(crate) async fn named(&self, queue: &str, prefix: &str) -> Result<Vec<JobDescription>> {
        let filter = KeyValuesPair::builder().name("JOB_NAME").values(format!("{prefix}*")).build();
        let mut pages = self.client.list_jobs().job_queue(queue).filters(filter).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.failed(&format!("find jobs in `{queue}`"), error))?;
            found.extend(page.job_summary_list.unwrap_or_default());
        }
        let summary = |job: batch::types::JobSummary| JobDescription {
            id: job.job_id.unwrap_or_default(),
            name: job.job_name.unwrap_or_default(),
            status: job.status.map(|status| status.as_str().to_owned()).unwrap_or_default(),
            reason: job.status_reason,
            created_ms: job.created_at.unwrap_or_default(),
            size: job.array_properties.and_then(|array| array.size).and_then(|size| u64::try_from(size).ok()),
            ..JobDescription::default()
        };
        // Some servers ignore the filter. Children of an array are represented by their parent.
        let matches = |job: &JobDescription| job.name.starts_with(prefix) && !job.id.contains(':');
        Ok(found.into_iter().map(summary).filter(matches).collect())
    }

    /// Returns the descriptions of these jobs. Jobs that AWS Batch does not return, which are new or old, are omitted.
    pub(crate) async fn describe(&self, ids: &[String]) -> Result<Vec<JobDescription>> {
        let mut found = Vec::new();
        for ids in ids.chunks(MAX_PER_REQUEST) {
            let response = self.client.describe_jobs().set_jobs(Some(ids.to_vec())).send().await;
            let response = response.map_err(|error| self.aws.failed("describe the jobs of the run", error))?;
            found.extend(response.jobs.unwrap_or_default().into_iter().map(JobDescription::of));
        }
        Ok(found)
    }

    /// Terminates a job, or cancels it if it has not started. An array job is terminated with all of its children. A job
    /// that has ended does not change.
    pub(crate) async fn terminate(&self, id: &str, reason: &str) -> Result<()> {
        let response = self.client.terminate_job().job_id(id).reason(reason).send().await;
        response.map_err(|error| self.aws.failed(&format!("terminate the job `{id}`"), error))?;
        Ok(())
    }
}

fn requirements(resources: &Resources) -> Option<Vec<ResourceRequirement>> {
    let all = [
        (ResourceType::Vcpu, resources.vcpus.map(|vcpus| vcpus.to_string())),
        (ResourceType::Memory, resources.memory_mib.map(|mib| mib.to_string())),
        (ResourceType::Gpu, resources.gpus.map(|gpus| gpus.to_string())),
    ];
    let requirements = all
        .into_iter()
        .filter_map(|(kind, value)| Some(ResourceRequirement::builder().r#type(kind).value(value?).build()));
    let requirements: Vec<_> = requirements.collect();
    (!requirements.is_empty()).then_some(requirements)
}

/// Returns whether AWS Batch may have accepted the job of this request: it was sent, and not refused.
fn may_be_accepted(error: &SdkError<SubmitJobError, HttpResponse>) -> bool {
    match error {
        SdkError::ConstructionFailure(_) => false,
        SdkError::DispatchFailure(failure) => !failure.is_user() && !aws::is_credentials_error(error),
        SdkError::ServiceError(response) => response.raw().status().is_server_error() && !aws::is_throttled(error),
        _ => true,
    }
}

/// Returns the ID of a child of an array job: `<ID of the array job>:<index>`.
pub(crate) fn child_id(array: &str, index: u64) -> String {
    format!("{array}:{index}")
}

/// Returns whether this AWS Batch state means that the job has not started yet.
pub(crate) fn is_waiting(status: &str) -> bool {
    matches!(JobStatus::from(status), JobStatus::Submitted | JobStatus::Pending | JobStatus::Runnable)
}
