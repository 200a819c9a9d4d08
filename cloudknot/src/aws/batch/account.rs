//! The AWS Batch resources of an account, for deploy and clobber: queues and the kind of their compute environments, job
//! definitions, and the jobs that use them.

use aws_sdk_batch as batch;
use batch::types::{
    ComputeEnvironmentDetail, ComputeResource, ContainerProperties, CrType, EcsProperties, JobDefinition, JobDetail,
    JobQueueDetail, JobQueueType, JobStatus, KeyValuesPair,
};

use super::Batch;
use crate::aws::message;
use crate::error::{Error, ErrorKind, Result};
use crate::settings::knot::Compute;

/// Reason for the end of the jobs that a clobber terminates. Users see it in the console.
const TERMINATION_REASON: &str = "its Knot was clobbered";

/// A queue that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) arn: String,
    /// Kind of compute that its jobs run on.
    pub(crate) compute: Compute,
    /// Types and families of its instances, as its compute environments name them.
    pub(crate) instance_types: Vec<String>,
    /// `true` if jobs belong to shares, among which a policy divides the compute.
    pub(crate) has_shares: bool,
}

/// A revision of a job definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) arn: String,
    /// Knot named by the tag of the definition.
    pub(crate) knot: Option<String>,
    /// Images that its jobs start.
    pub(crate) images: Vec<String>,
}

impl Definition {
    fn of(definition: JobDefinition) -> Option<Self> {
        let arn = definition.job_definition_arn?;
        let knot = definition.tags.and_then(|mut tags| tags.remove(super::KNOT_TAG));
        // cloudknot's definitions have one container. Other definitions may use the same images, and may have several.
        let mut images = images_of(definition.container_properties, definition.ecs_properties);
        let nodes = definition.node_properties.and_then(|nodes| nodes.node_range_properties).unwrap_or_default();
        images.extend(nodes.into_iter().flat_map(|node| images_of(node.container, node.ecs_properties)));
        Some(Self { arn, knot, images })
    }
}

fn images_of(container: Option<ContainerProperties>, tasks: Option<EcsProperties>) -> Vec<String> {
    let tasks = tasks.and_then(|tasks| tasks.task_properties).unwrap_or_default().into_iter();
    let task_images =
        tasks.flat_map(|task| task.containers.unwrap_or_default()).filter_map(|container| container.image);
    container.and_then(|container| container.image).into_iter().chain(task_images).collect()
}

/// Returns whether the jobs of cloudknot run on a queue of this kind: containers of ECS on instances or Fargate.
fn is_supported(kind: &JobQueueType) -> bool {
    matches!(kind, JobQueueType::Ecs | JobQueueType::EcsFargate)
}

fn other_kind(queue: &str, kind: &str) -> Error {
    let message = format!("cannot use the queue `{queue}`: its jobs run on {kind}");
    Error::new(ErrorKind::Config, message)
        .with_hint("choose a queue whose jobs run on EC2 or Fargate; without one, the Knot creates its own")
}

impl Batch {
    /// Returns the queue with this ARN or name, which must be enabled.
    pub(crate) async fn queue(&self, name: &str) -> Result<Queue> {
        let response = self.client.describe_job_queues().job_queues(name).send().await;
        let response = response.map_err(|error| self.aws.failed(&format!("find the queue `{name}`"), error))?;
        let Some(queue) = response.job_queues.unwrap_or_default().into_iter().next() else {
            let message = format!("cannot find the queue `{name}` in {}", self.aws.region);
            return Err(Error::new(ErrorKind::NotFound, message)
                .with_hint("set the ARN of a queue in this region; without one, the Knot creates its own"));
        };
        if queue.state != Some(batch::types::JqState::Enabled) {
            let message = format!("cannot use the queue `{name}`: it is disabled");
            return Err(Error::new(ErrorKind::Config, message).with_hint("enable it, or choose another"));
        }
        if let Some(kind) = queue.job_queue_type.as_ref().filter(|kind| !is_supported(kind)) {
            return Err(other_kind(name, kind.as_str()));
        }
        let resources = self.resources_of(&queue).await?;
        // AWS Batch does not allow a mixture of Fargate and EC2.
        let compute = match resources.first().and_then(|first| first.r#type()) {
            Some(CrType::Fargate) => Compute::Fargate,
            Some(CrType::FargateSpot) => Compute::FargateSpot,
            Some(CrType::Spot) => Compute::Spot,
            Some(kind @ CrType::EcsManagedInstances) => return Err(other_kind(name, kind.as_str())),
            // An unmanaged environment has no compute resources, and consists of instances.
            _ => Compute::Ec2,
        };
        Ok(Queue {
            arn: queue.job_queue_arn.unwrap_or_else(|| name.to_owned()),
            compute,
            instance_types: resources.into_iter().flat_map(|one| one.instance_types.unwrap_or_default()).collect(),
            has_shares: queue.scheduling_policy_arn.is_some_and(|arn| !arn.is_empty()),
        })
    }

    /// Returns the compute resources of the queue's environments, the first ones first.
    async fn resources_of(&self, queue: &JobQueueDetail) -> Result<Vec<ComputeResource>> {
        let order = queue.compute_environment_order.iter().flatten();
        let names: Vec<String> = order.filter_map(|one| one.compute_environment.clone()).collect();
        // A request without names describes all environments of the account.
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let request = self.client.describe_compute_environments().set_compute_environments(Some(names.clone()));
        let action = format!("describe the compute environments `{}`", names.join("`, `"));
        let response = request.send().await.map_err(|error| self.aws.failed(&action, error))?;
        let mut found = response.compute_environments.unwrap_or_default();
        let is_named = |one: &ComputeEnvironmentDetail, name: &str| {
            [one.compute_environment_arn(), one.compute_environment_name()].contains(&Some(name))
        };
        found.sort_by_key(|one| names.iter().position(|name| is_named(one, name)));
        Ok(found.into_iter().filter_map(|one| one.compute_resources).collect())
    }

    /// Returns the number of compute environments and the number of queues in the account and region.
    pub(crate) async fn counts(&self) -> Result<(usize, usize)> {
        let (mut environments, mut queues) = (0, 0);
        let mut pages = self.client.describe_compute_environments().into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.aws.failed("count the compute environments", error))?;
            environments += page.compute_environments().len();
        }
        let mut pages = self.client.describe_job_queues().into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.aws.failed("count the job queues", error))?;
            queues += page.job_queues().len();
        }
        Ok((environments, queues))
    }

    /// Terminates all jobs in a queue that were submitted to these job definitions, and returns their number. A queue that
    /// does not exist has none.
    pub(crate) async fn end_all(&self, queue: &str, definitions: &[String]) -> Result<usize> {
        let found = self.unfinished(queue, definitions).await?;
        for id in &found {
            // This also cancels jobs that have not started.
            let response = self.client.terminate_job().job_id(id).reason(TERMINATION_REASON).send().await;
            response.map_err(|error| self.aws.failed(&format!("terminate the job `{id}`"), error))?;
        }
        Ok(found.len())
    }

    /// Returns the IDs of the jobs in a queue that were submitted to any revision of these job definitions and have not
    /// ended. A queue that does not exist has none.
    pub(crate) async fn unfinished(&self, queue: &str, definitions: &[String]) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for definition in definitions {
            let by_definition = KeyValuesPair::builder().name("JOB_DEFINITION").values(definition).build();
            let mut pages = self.client.list_jobs().job_queue(queue).filters(by_definition).into_paginator().send();
            while let Some(page) = pages.next().await {
                let page = match page {
                    Ok(page) => page,
                    Err(error) if message(&error).contains("does not exist") => return Ok(Vec::new()),
                    Err(error) => return Err(self.aws.failed(&format!("list the jobs in `{queue}`"), error)),
                };
                found.extend(page.job_summary_list.unwrap_or_default());
            }
        }
        found.retain(|job| !matches!(job.status(), Some(JobStatus::Succeeded | JobStatus::Failed)));
        // Some servers ignore the filter: skip jobs of other job definitions.
        let matches = |arn: &str| definitions.iter().any(|name| arn.contains(&format!("job-definition/{name}:")));
        found.retain(|job| job.job_definition().is_none_or(matches));
        let mut ids: Vec<String> = found.into_iter().filter_map(|job| job.job_id).collect();
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// Returns the images of the jobs that [`end_all`](Self::end_all) would terminate; `None` if the image of one of them
    /// is unknown.
    pub(crate) async fn images_of_jobs(&self, queue: &str, definitions: &[String]) -> Result<Option<Vec<String>>> {
        let ids = self.unfinished(queue, definitions).await?;
        let mut images = Vec::new();
        for ids in ids.chunks(super::MAX_PER_REQUEST) {
            let response = self.client.describe_jobs().set_jobs(Some(ids.to_vec())).send().await;
            let response =
                response.map_err(|error| self.aws.failed(&format!("describe the jobs in `{queue}`"), error))?;
            let image = |job: JobDetail| job.container.and_then(|container| container.image);
            images.extend(response.jobs.unwrap_or_default().into_iter().map(image));
        }
        // AWS Batch may not describe a job yet that has just been submitted.
        let all = images.len() == ids.len();
        Ok(images.into_iter().collect::<Option<Vec<_>>>().filter(|_| all))
    }

    /// Returns all job definitions that jobs can be submitted to.
    pub(crate) async fn definitions(&self) -> Result<Vec<Definition>> {
        let mut pages = self.client.describe_job_definitions().status("ACTIVE").into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.aws.failed("list the job definitions", error))?;
            found.extend(page.job_definitions.unwrap_or_default().into_iter().filter_map(Definition::of));
        }
        Ok(found)
    }

    /// Deregisters one revision of a job definition. Jobs that use it continue.
    pub(crate) async fn deregister(&self, arn: &str) -> Result<()> {
        let response = self.client.deregister_job_definition().job_definition(arn).send().await;
        response.map_err(|error| self.aws.failed(&format!("deregister the job definition `{arn}`"), error))?;
        Ok(())
    }

    /// Deregisters all active revisions of the job definitions with these names. CloudFormation deregisters only the
    /// newest one.
    pub(crate) async fn deregister_all(&self, names: &[String]) -> Result<()> {
        for name in names {
            let request =
                self.client.describe_job_definitions().job_definition_name(name).status("ACTIVE").into_paginator();
            let mut pages = request.send();
            while let Some(page) = pages.next().await {
                let page = page.map_err(|error| self.aws.failed(&format!("list the revisions of `{name}`"), error))?;
                for arn in page.job_definitions().iter().filter_map(|one| one.job_definition_arn()) {
                    self.deregister(arn).await?;
                }
            }
        }
        Ok(())
    }
}
