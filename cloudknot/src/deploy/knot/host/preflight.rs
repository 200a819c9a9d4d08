//! Checks of a Knot before anything is created: some machine can hold what the functions request, and the account's
//! quotas allow one more Knot. Anything that cannot be known here is reported by AWS later, and no existing resource is
//! lost.

use std::collections::{BTreeMap, BTreeSet};

use super::values::{DesiredKnot, Responses};
use crate::aws::ec2::{Ec2, InstanceType};
use crate::aws::quotas::{self, GpuQuota};
use crate::aws::{Aws, machines, permissions};
use crate::deploy::pars::Pars;
use crate::deploy::policy::{Allowed, Scope};
use crate::error::{Error, ErrorKind, Result};
use crate::event::step;
use crate::settings::knot::{Compute, KnotSettings};
use crate::settings::sizes::Machine;

/// Returns an error if the caller is not allowed to create the new Knot.
pub(super) async fn check_permissions(
    aws: &Aws,
    desired: &DesiredKnot<'_>,
    responses: &Responses,
    pars: &Pars,
) -> Result<()> {
    let settings = desired.settings;
    let mut required = vec!["cloudformation:CreateStack", "batch:RegisterJobDefinition"];
    required.extend(settings.job_role.is_none().then_some("iam:CreateRole"));
    required.extend(settings.repository.is_none().then_some("ecr:CreateRepository"));
    required.extend(settings.queue.is_none().then_some("batch:CreateJobQueue"));
    let policy = |account: &str| Allowed::Deploy.policy(&scope(account, aws, desired, responses, pars));
    permissions::check(aws, Allowed::Deploy.name(), &required, policy).await
}

/// Returns an error if a new Knot exceeds the account's quotas, or the key pair does not exist.
pub(super) async fn check_account(aws: &Aws, desired: &DesiredKnot<'_>, is_new: bool) -> Result<()> {
    let settings = desired.settings;
    if is_new && settings.queue.is_none() {
        quotas::check_knot(aws).await?;
    }
    if desired.gpus() && !desired.compute().is_fargate() && settings.queue.is_none() {
        let quotas = desired.instance_types().iter().filter_map(|name| Some((GpuQuota::of(name)?, 1))).collect();
        quotas::check_gpus(aws, desired.compute() == Compute::Spot, &quotas).await?;
    }
    if let Some(key_pair) = &settings.key_pair
        && !Ec2::new(aws).key_pair_exists(key_pair).await?
    {
        let message = format!("cannot find the key pair `{key_pair}` in {}", aws.region);
        return Err(Error::new(ErrorKind::NotFound, message).with_hint("create it in EC2, or remove `key-pair`"));
    }
    Ok(())
}

/// Returns an error if the new queue could not have its name: EC2 and Fargate have a queue each, and the one that is deployed
/// still has that name while the other one is created.
pub(super) fn check_queue_name(deployed: &KnotSettings, settings: &KnotSettings) -> Result<()> {
    let (Some(before), Some(name)) = (&deployed.queue_name, &settings.queue_name) else { return Ok(()) };
    let is_fargate = |settings: &KnotSettings| settings.compute.unwrap_or_default().is_fargate();
    if before != name || is_fargate(deployed) == is_fargate(settings) {
        return Ok(());
    }
    let message =
        format!("cannot name the queue `{name}`: the deployed queue, of another kind of compute, has that name");
    Err(Error::new(ErrorKind::Exists, message)
        .with_hint("change `queue-name`, remove it, or clobber the Knot first: `cargo knot clobber`"))
}

/// Returns an error if jobs of the Knot could never start because no machine in the subnets of the Pars can hold them, or the
/// account may not start one.
///
/// Otherwise returns the names of the chosen types and families, and the instance types; `None` if the Knot does not choose them.
pub(super) async fn check_machines(
    aws: &Aws,
    desired: &DesiredKnot<'_>,
    responses: &Responses,
    pars: &Pars,
) -> Result<Option<(Vec<String>, Vec<InstanceType>)>> {
    // Errors in the template's values are found here, and not only after an image is pushed.
    desired.values(pars, responses, "", false)?;
    if responses.compute.unwrap_or_else(|| desired.compute()).is_fargate() {
        // The sizes that Fargate offers were checked with the template's values.
        return Ok(None);
    }
    if desired.settings.queue.is_some() {
        // The compute of an existing queue is its owner's choice, and may change.
        return Ok(None);
    }
    let (names, mut types) = instance_types(aws, desired).await?;
    // A Pars that is yet to be created has no subnets.
    if pars.subnets().next().is_some() {
        types = offered(aws, types, pars).await?;
    }
    let requests = desired.requests()?;
    for request in &requests {
        if let Some(warning) = machines::fits(request, &types)? {
            step(&format!("warning: {warning}"));
        }
    }
    let all = machines::of_types(&types);
    for request in requests.iter().filter(|request| request.gpus > 0) {
        let smallest = smallest_by_quota(
            all.iter().filter(|machine| machine.holds(request.vcpus, request.memory_mib, request.gpus)),
        );
        quotas::check_gpus(aws, desired.compute() == Compute::Spot, &smallest).await?;
    }
    Ok(Some((names, types)))
}

/// Returns the chosen instance types with their names. Of the default families, those are left out that the region lacks.
async fn instance_types(aws: &Aws, desired: &DesiredKnot<'_>) -> Result<(Vec<String>, Vec<InstanceType>)> {
    let (ec2, names) = (Ec2::new(aws), desired.instance_types());
    if desired.settings.instance_types.is_empty() {
        return ec2.families(&names).await;
    }
    let types = ec2.instance_types(&names).await?;
    Ok((names, types))
}

/// Returns the fewest virtual CPUs of a machine, by the quota that the machine counts against.
fn smallest_by_quota<'m>(machines: impl Iterator<Item = &'m Machine>) -> BTreeMap<GpuQuota, u32> {
    let mut smallest = BTreeMap::new();
    for machine in machines {
        if let Some(quota) = GpuQuota::of(&machine.name) {
            let vcpus = smallest.entry(quota).or_insert(machine.vcpus);
            *vcpus = machine.vcpus.min(*vcpus);
        }
    }
    smallest
}

/// Returns the resources that the policy of a deploy names.
fn scope(account: &str, aws: &Aws, desired: &DesiredKnot<'_>, responses: &Responses, pars: &Pars) -> Scope {
    let mut scope = Scope::new(account, aws.region.as_str(), pars.name(), desired.name);
    // A Pars that is yet to be created has no outputs.
    let bucket = Some(pars.bucket().to_owned()).filter(|bucket| !bucket.is_empty());
    scope.bucket = bucket.or_else(|| pars.settings.bucket.clone());
    scope.prefix = pars.settings.prefix();
    scope.kms_key.clone_from(&pars.settings.kms_key);
    pars.settings.role_path().clone_into(&mut scope.role_path);
    scope.permissions_boundary.clone_from(&pars.settings.permissions_boundary);
    scope.repository.clone_from(&desired.settings.repository);
    scope.queue.clone_from(&desired.settings.queue);
    scope.policies.clone_from(&responses.policies);
    scope
}

/// Returns those of the instance types that are offered in a zone where the Pars has a subnet.
///
/// # Errors
/// Returns an error if none is.
pub(super) async fn offered(aws: &Aws, types: Vec<InstanceType>, pars: &Pars) -> Result<Vec<InstanceType>> {
    let ec2 = Ec2::new(aws);
    let pars_subnets: Vec<&str> = pars.subnets().collect();
    let subnets = ec2.subnets(pars.vpc()).await?;
    let zones: BTreeSet<String> = subnets
        .into_iter()
        .filter(|subnet| pars_subnets.contains(&subnet.id.as_str()))
        .map(|subnet| subnet.zone)
        .collect();
    let names: Vec<String> = types.iter().map(|kind| kind.name.clone()).collect();
    let zones_by_type = ec2.offered_in(&names).await?;
    let is_offered =
        |kind: &InstanceType| zones_by_type.get(&kind.name).is_some_and(|offering| !offering.is_disjoint(&zones));
    let (offered, missing): (Vec<_>, Vec<_>) = types.into_iter().partition(is_offered);
    match missing.first() {
        Some(first) if offered.is_empty() => {
            let zones: Vec<_> = zones.into_iter().collect();
            let message = format!("cannot place jobs: there is no {} in {}", first.name, zones.join(", "));
            Err(Error::new(ErrorKind::Config, message)
                .with_hint("choose other `instance-types`, or a Pars with subnets in other zones"))
        }
        _ => Ok(offered),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_the_deployed_queue_is_not_given_to_another_queue() {
        let settings = |name: &str, compute| KnotSettings {
            queue_name: Some(name.to_owned()),
            compute: Some(compute),
            ..KnotSettings::default()
        };
        let deployed = settings("lab", Compute::Spot);
        check_queue_name(&deployed, &settings("lab", Compute::Ec2)).unwrap();
        check_queue_name(&deployed, &settings("lab-2", Compute::Fargate)).unwrap();
        check_queue_name(&deployed, &KnotSettings::default()).unwrap();
        let error = check_queue_name(&deployed, &settings("lab", Compute::Fargate)).unwrap_err();
        let message = "cannot name the queue `lab`: the deployed queue, of another kind of compute, has that name";
        assert_eq!(error.to_string(), message);
    }
}
