//! Deploying, finding and deleting a Knot: `resolve` queries AWS, the pipeline builds, `plan` is pure data, and
//! `apply`, in this module, writes.
//!
//! The repository is created first, then the image is pushed, then the rest of the stack is created. After any
//! interruption, the same deploy continues from what exists.

use std::path::Path;

use cloudknot_quantity::memory_mib;
use cloudknot_runtime::contract::Types;
use cloudknot_runtime::fingerprint::Fingerprint;
use cloudknot_runtime::store::{S3Store, Store};

use super::{Knot, KnotBuilder};
use crate::aws::batch::Batch;
use crate::aws::cloudformation::{self, Body, MAX_TEMPLATE_BODY_LEN, Stack};
use crate::aws::ec2::{self, InstanceType};
use crate::aws::ecr::Ecr;
use crate::backend::Backend;
use crate::build::pipeline::{BuildArtifacts, Pipeline};
use crate::deploy::costs;
use crate::deploy::pars::Pars;
use crate::deploy::pars::host::{self as pars, ParsPlan};
use crate::deploy::plan::{Action, Intent, Plan};
use crate::deploy::stack_note::digest;
use crate::deploy::template::{self, Resource, resources};
use crate::error::{Error, ErrorKind, Result};
use crate::event::step;
use crate::home;
use crate::home::knot_note::KnotNote;
use crate::settings::account::Account;
use crate::settings::partition::Partition;
use crate::settings::sizes::JobSizes;

mod clobber;
mod plan;
mod preflight;
mod resolve;
mod stack;
pub(crate) mod values;

pub(super) use clobber::clobber;
use plan::{KnotPlan, desired, is_unchanged, pushed_to};
use resolve::{ParsLookup, ResolvedKnot};
pub(crate) use stack::{all_definitions, read};
use stack::{definitions, read_note};
pub(super) use stack::{get, list};

pub(super) async fn deploy(builder: KnotBuilder) -> Result<Knot> {
    let (resolved, pipeline) = Box::pin(ResolvedKnot::of(&builder, Intent::Apply)).await?;
    let artifacts = build(&resolved, pipeline).await?;
    apply(resolved, &artifacts, &builder.account).await
}

pub(super) async fn plan(builder: KnotBuilder) -> Result<Plan> {
    let (mut resolved, pipeline) = Box::pin(ResolvedKnot::of(&builder, Intent::Plan)).await?;
    let artifacts = build(&resolved, pipeline).await?;
    resolved.refresh_stack().await?;
    let mut steps = Plan::default();
    if let Some(stack) = unchanged(&resolved, &artifacts) {
        if read_note(stack)?.from_template {
            steps.notes.push(format!("the image {} is pushed unless the repository has it", artifacts.image.digest()));
        }
        return Ok(steps);
    }
    resolved.refresh_for_a_change(&builder.account, Intent::Plan).await?;
    if let ParsLookup::Missing(state) = &resolved.state.pars {
        steps = ParsPlan::new(state)?.steps;
    }
    check_machines(&mut resolved, &artifacts, Intent::Plan).await?;
    let (knot, state) = (&resolved.knot, &resolved.state);
    let before = match state.before() {
        Some(stack) => Some(state.stacks.template(stack).await?),
        None => None,
    };
    let plan = KnotPlan::new(&resolved, &artifacts, &state.pars.planned(), false)?;
    steps.stack(&plan.stack, before.as_deref(), &plan.template);
    let deployed_digest = state.before().and_then(|stack| stack.outputs.get("ImageDigest"));
    if deployed_digest.is_none_or(|digest| digest != artifacts.image.digest()) {
        let (image, bytes) = (format!("image {}", artifacts.image.digest()), artifacts.image.compressed_bytes());
        steps.step(None, Action::Make, &image, &format!("at most {bytes} bytes are pushed"));
    }
    steps.notes.extend(resolved.denied.clone());
    steps.notes.extend(state.stack.as_ref().and_then(Stack::deletion_note));
    steps.notes.extend(costs::idle(None, knot.settings.min_vcpus.unwrap_or(0)));
    Ok(steps)
}

pub(super) async fn template(builder: KnotBuilder) -> Result<String> {
    let (mut resolved, pipeline) = Box::pin(ResolvedKnot::of(&builder, Intent::Template)).await?;
    let artifacts = build(&resolved, pipeline).await?;
    check_machines(&mut resolved, &artifacts, Intent::Template).await?;
    let plan = KnotPlan::new(&resolved, &artifacts, &resolved.state.pars.planned(), true)?;
    let (name, digest) = (&resolved.knot.name, artifacts.image.digest());
    let next_steps = [
        format!("Its jobs start the image {digest}. Then run `cargo knot deploy` with the same options: it finds the"),
        "stack up to date, pushes that image if the repository lacks it, and records the Knot in `.cloudknot/`.".into(),
    ];
    Ok(template::heading(&format!("knot --knot {name}"), &plan.stack, &next_steps) + &plan.template)
}

/// Compiles the program and assembles its image, and checks the Knot with the functions of the program.
async fn build(resolved: &ResolvedKnot, pipeline: Pipeline) -> Result<BuildArtifacts> {
    let knot = &resolved.knot;
    let artifacts = pipeline.run(|digest| tag_of(&knot.name, digest)).await?;
    desired(knot, &artifacts).check()?;
    Ok(artifacts)
}

/// Returns the stack of the Knot if this deploy would not change it.
fn unchanged<'r>(resolved: &'r ResolvedKnot, artifacts: &BuildArtifacts) -> Option<&'r Stack> {
    let ResolvedKnot { knot, state, .. } = resolved;
    state.stack.as_ref().filter(|stack| is_unchanged(knot, artifacts, &state.pars.planned(), stack))
}

/// Returns an error if the Knot could not be created, or its jobs could never start. Otherwise, the machines are recorded in
/// `resolved`.
async fn check_machines(
    resolved: &mut ResolvedKnot,
    artifacts: &BuildArtifacts,
    intent: Intent,
) -> Result<Option<Vec<InstanceType>>> {
    let (desired, pars) = (desired(&resolved.knot, artifacts), resolved.state.pars.planned());
    let chosen = preflight::check_machines(&resolved.state.aws, &desired, resolved.responses(), &pars).await?;
    // Whoever only prints a template may have another account.
    if let (Some((_, types)), true) = (&chosen, intent != Intent::Template) {
        preflight::check_gpu_quotas(&resolved.state.aws, &desired, types).await?;
    }
    Ok(chosen.map(|(names, types)| {
        resolved.set_machines(&names, &types);
        types
    }))
}

/// Creates or updates the Knot, and records it in `.cloudknot/`.
async fn apply(mut resolved: ResolvedKnot, artifacts: &BuildArtifacts, account: &Account) -> Result<Knot> {
    artifacts.keep()?;
    resolved.refresh_stack().await?;
    let (pars, knot) = if let Some(stack) = unchanged(&resolved, artifacts) {
        if read_note(stack)?.from_template {
            push(&resolved, artifacts, stack.output("RepositoryUri")?).await?;
        }
        step(&format!("the Knot `{}` exists, and nothing has changed", resolved.knot.name));
        (resolved.state.pars.planned(), read(stack, account)?)
    } else {
        resolved.refresh_for_a_change(account, Intent::Apply).await?;
        let types = check_machines(&mut resolved, artifacts, Intent::Apply).await?;
        let pars = match &resolved.state.pars {
            ParsLookup::Existing(pars) => (**pars).clone(),
            ParsLookup::Missing(missing) => {
                step(&format!("there is no Pars yet: creating `{}`", missing.planned().name));
                let pars = pars::apply(missing).await?;
                // The zones of the subnets are known only now.
                if let Some(types) = types {
                    preflight::offered(&resolved.state.aws, types, &pars).await?;
                }
                pars
            }
        };
        let stack = apply_stack(&resolved, artifacts, &pars).await?;
        (pars, read(&stack, account)?)
    };
    let note = note_of(&knot, &pars, artifacts.built.types.clone());
    note.write(&home::of_package(&artifacts.worker.package_folder))?;
    Ok(knot)
}

/// Creates the repository, pushes the image, and creates or updates the rest of the stack.
async fn apply_stack(resolved: &ResolvedKnot, artifacts: &BuildArtifacts, pars: &Pars) -> Result<Stack> {
    let ResolvedKnot { knot, state, .. } = resolved;
    let plan = KnotPlan::new(resolved, artifacts, pars, false)?;
    let replaced = with_replaced_queue(resolved, &plan.template).await?;
    check_no_jobs_are_lost(resolved, replaced.as_ref()).await?;
    let apply_template = async |template: &str, only_new: bool| {
        let body = body(resolved, pars, template.to_owned()).await?;
        let desired = cloudformation::DesiredStack { name: &plan.stack, template: &body, tags: &plan.tags, only_new };
        state.stacks.apply(&desired, &|stack| knot.check_owner(stack, &pars.name)).await.map(|(stack, _)| stack)
    };
    let uri = match (&resolved.responses().repository, &state.stack) {
        (Some(shared), _) => shared.uri.clone(),
        (None, Some(stack)) if stack.can_be_changed() => stack.output("RepositoryUri")?.to_owned(),
        (None, _) => apply_template(&plan.repository, true).await?.output("RepositoryUri")?.to_owned(),
    };
    push(resolved, artifacts, &uri).await?;
    // Others may have submitted jobs during the push.
    check_no_jobs_are_lost(resolved, replaced.as_ref()).await?;
    apply_template(&plan.template, false).await
}

/// Pushes the image to this repository.
async fn push(resolved: &ResolvedKnot, artifacts: &BuildArtifacts, uri: &str) -> Result<()> {
    let login = Ecr::new(&resolved.state.aws).login().await?;
    artifacts.image.push_to(&pushed_to(uri), &login).await.map(drop)
}

/// Returns a template as the body of a request. A template that is too large for a request is stored in the bucket,
/// where CloudFormation fetches it.
async fn body(resolved: &ResolvedKnot, pars: &Pars, template: String) -> Result<Body> {
    if template.len() <= MAX_TEMPLATE_BODY_LEN {
        return Ok(Body::Text(template));
    }
    let (aws, bucket, prefix) = (&resolved.state.aws, pars.bucket(), pars.prefix());
    let key = format!("stacks/{}/{}.yaml", resolved.knot.name, digest(&template));
    S3Store::new(&aws.config, bucket, prefix).put(&key, template.into()).await?;
    let region = &aws.region;
    // The name of a bucket in the host does not match the certificate of S3 if it contains dots.
    Ok(Body::Url(format!("https://s3.{region}.{}/{bucket}/{prefix}{key}", Partition::of(region).domain)))
}

/// Returns the deployed Knot, if the template would replace its queue or its compute environment.
async fn with_replaced_queue(resolved: &ResolvedKnot, template: &str) -> Result<Option<Knot>> {
    let state = &resolved.state;
    let complete = state.before().filter(|stack| stack.outputs.contains_key("JobQueue"));
    let Some(stack) = complete else { return Ok(None) };
    let (before, after) = (resources(&state.stacks.template(stack).await?), resources(template));
    // AWS changes all other properties in place. With a service role it replaces the environment, as the setting says.
    let is_kept = |(id, resource): (&String, &Resource)| {
        let fixed = match resource.kind.as_str() {
            "AWS::Batch::JobQueue" => "JobQueueName:",
            "AWS::Batch::ComputeEnvironment" => "Tags:",
            _ => return true,
        };
        after.get(id).is_some_and(|after| after.line(fixed) == resource.line(fixed))
    };
    if before.iter().all(is_kept) { Ok(None) } else { read(stack, &Account::default()).map(Some) }
}

/// Returns an error if the queue or the compute environment of this Knot would be replaced while the queue has unfinished
/// jobs, which would be lost.
async fn check_no_jobs_are_lost(resolved: &ResolvedKnot, replaced: Option<&Knot>) -> Result<()> {
    let Some(knot) = replaced else { return Ok(()) };
    let jobs = Batch::new(&resolved.state.aws).unfinished(knot.queue(), &definitions(knot)).await?;
    if jobs.is_empty() {
        return Ok(());
    }
    let message = format!(
        "cannot change the Knot `{}`: its queue or compute environment would be replaced, and has {} jobs",
        knot.name,
        jobs.len()
    );
    Err(Error::new(ErrorKind::Exists, message).with_hint(
        "wait for its runs or cancel them; AWS replaces them if the queue's name, the kind of compute, the tags, the network of \
         the Pars, or whether there is a service role changes, and if an earlier version deployed the Knot on Fargate Spot",
    ))
}

/// Returns the note of a Knot for a program whose maps run on it.
fn note_of(knot: &Knot, pars: &Pars, types: Option<Vec<Types>>) -> KnotNote {
    let definitions = knot.job_definitions().into_iter();
    let deployed = &knot.deployed;
    let deployed_type = |(function, fingerprint): (&String, &u64)| Types {
        function: function.clone(),
        fingerprint: Fingerprint(*fingerprint),
        schema: String::new(),
    };
    let types =
        types.or_else(|| (!deployed.types.is_empty()).then(|| deployed.types.iter().map(deployed_type).collect()));
    // Job sizes on an existing queue are unknown, because the compute of the queue is not recorded.
    let machines = deployed.machines.clone().unwrap_or_default();
    let jobs = deployed.settings.queue.is_none().then(|| JobSizes {
        fargate: deployed.settings.compute.unwrap_or_default().is_fargate(),
        vcpus: deployed.settings.vcpus,
        memory_mib: deployed.settings.memory.as_deref().and_then(|memory| memory_mib(memory).ok()),
        gpus: deployed.settings.gpus,
        max_vcpus: Some(deployed.settings.max_vcpus.unwrap_or(values::MAX_VCPUS)),
        may_have_larger: ec2::may_have_more(&machines.names),
        machines: machines.largest,
    });
    KnotNote {
        knot: knot.name.clone(),
        profile: knot.account.profile.clone(),
        region: knot.region.clone(),
        bucket: pars.bucket().to_owned(),
        prefix: pars.prefix().to_owned(),
        log_group: pars.log_group().to_owned(),
        queue: knot.queue().to_owned(),
        job_definitions: definitions.map(|(function, arn)| (function.to_owned(), arn.to_owned())).collect(),
        image: knot.image(),
        types,
        jobs,
        gpu_image: deployed.gpu_image,
        tags: deployed.settings.tags.len(),
        share_identifier: deployed.settings.share_identifier.clone(),
        features: deployed.features.clone(),
    }
}

pub(super) async fn backend(knot: &Knot) -> Result<Backend> {
    Backend::knot(note_of(knot, &knot.pars().await?, None))
}

pub(super) async fn use_beside(knot: &Knot, folder: &Path) -> Result<()> {
    note_of(knot, &knot.pars().await?, None).write(&home::of_package(folder))
}

/// Returns the tag of an image. It contains the digest, so that it never has to move, and the Knot's name, which
/// identifies the Knot's images in a shared repository.
fn tag_of(knot: &str, digest: &str) -> String {
    let digest = digest.trim_start_matches("sha256:");
    format!("{knot}-{}", &digest[..digest.len().min(12)])
}
