//! Checks of a Knot before anything is created: some machine can hold what the functions request, and the account's
//! quotas allow one more Knot. Anything that cannot be known here is reported by AWS later, and no existing resource is
//! lost.

use std::collections::{BTreeMap, BTreeSet};

use super::values::{DesiredKnot, Responses};
use crate::aws::ec2::{self, Ec2, InstanceType, Subnet};
use crate::aws::efs::{self, MountTarget};
use crate::aws::machines::{self, Request};
use crate::aws::quotas::{self, GpuQuota};
use crate::aws::{Aws, permissions};
use crate::deploy::pars::Pars;
use crate::deploy::policy::{Allowed, Scope};
use crate::error::{Error, ErrorKind, Result};
use crate::event::step;
use crate::settings::knot::{Compute, KnotSettings};
use crate::settings::sizes::Machine;

/// Port of NFS, the protocol of EFS.
const NFS: u16 = 2049;
/// User of jobs, in the image that cloudknot assembles.
const UID: u32 = 65532;

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
        // A quota that cannot be read is reported once the functions are known.
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

/// Returns an error if jobs could not mount the file systems of the settings, as far as that is known; warns of what else they need.
pub(super) async fn check_mounts(aws: &Aws, settings: &KnotSettings, pars: &Pars) -> Result<()> {
    let mut file_systems = BTreeSet::new();
    for (path, mount) in &settings.mounts {
        let (file_system, _, access_point, read_only) = mount.parts();
        file_systems.insert(file_system);
        if access_point.is_none() && !read_only {
            step(&format!(
                "warning: jobs run as the user {UID}, who can write to `{path}` only if the file system `{file_system}` allows it; an \
                 access point (`access-point`) can set a user"
            ));
        }
    }
    for file_system in file_systems {
        match check_file_system(aws, file_system, settings, pars).await {
            Err(error) if error.kind() == ErrorKind::Denied => {
                step(&format!("the file system `{file_system}` was not checked: {}", error.in_one_line()));
            }
            checked => checked?,
        }
    }
    Ok(())
}

/// Returns an error if jobs could not mount a file system in each zone of the Pars.
async fn check_file_system(aws: &Aws, file_system: &str, settings: &KnotSettings, pars: &Pars) -> Result<()> {
    let targets = efs::mount_targets(aws, file_system).await?;
    if targets.is_empty() {
        let message = format!("cannot mount the file system `{file_system}`: it has no mount target");
        return Err(Error::new(ErrorKind::Config, message)
            .with_hint("create a mount target in each zone that jobs run in (`aws efs create-mount-target`)"));
    }
    if settings.queue.is_some() {
        // The network of an existing queue is its owner's choice.
        return Ok(());
    }
    if pars.vpc().is_empty() {
        step(&format!(
            "warning: the mount targets of `{file_system}` must let in TCP {NFS} from the security group of the Pars, which does not \
             exist yet: create the Pars first (`cargo knot pars create {}`)",
            pars.name()
        ));
        return Ok(());
    }
    let (reachable, elsewhere): (Vec<_>, Vec<_>) = targets.into_iter().partition(|target| target.vpc == pars.vpc());
    if let (true, Some(other)) = (reachable.is_empty(), elsewhere.first()) {
        step(&format!(
            "warning: the mount targets of `{file_system}` are in {}, and not in the VPC of the Pars, {}",
            other.vpc,
            pars.vpc()
        ));
        return Ok(());
    }
    let ec2 = Ec2::new(aws);
    let subnets = job_subnets(&ec2, pars).await?;
    for zone in zones(&subnets) {
        let Some(target) = reachable.iter().find(|target| target.zone == zone) else {
            let message =
                format!("cannot mount the file system `{file_system}` in {zone}: it has no mount target there");
            return Err(Error::new(ErrorKind::Config, message).with_hint(format!(
                "create one (`aws efs create-mount-target`), or use a Pars without subnets in {zone} (--subnet)"
            )));
        };
        check_port(aws, file_system, target, &subnets, pars.security_group()).await?;
    }
    Ok(())
}

/// Returns an error if jobs of a zone could not connect to the mount target in it.
async fn check_port(aws: &Aws, file_system: &str, target: &MountTarget, subnets: &[Subnet], group: &str) -> Result<()> {
    let groups = efs::security_groups(aws, target).await?;
    let networks: Vec<String> =
        subnets.iter().filter(|subnet| subnet.zone == target.zone).map(|subnet| subnet.cidr.clone()).collect();
    let rules = Ec2::new(aws).inbound_rules(&groups).await?;
    if rules.iter().any(|rule| rule.admits(NFS, group, &networks)) {
        return Ok(());
    }
    let zone = &target.zone;
    let message =
        format!("cannot mount the file system `{file_system}` in {zone}: its mount target does not let jobs in");
    Err(Error::new(ErrorKind::Config, message).with_hint(format!(
        "let in TCP {NFS} from {group}, the security group of the Pars: `aws ec2 authorize-security-group-ingress --group-id {} \
         --protocol tcp --port {NFS} --source-group {group}`",
        groups.first().map_or("", String::as_str)
    )))
}

/// Returns the subnets that jobs of this Pars run in.
async fn job_subnets(ec2: &Ec2, pars: &Pars) -> Result<Vec<Subnet>> {
    let chosen: Vec<&str> = pars.subnets().collect();
    let all = ec2.subnets(pars.vpc()).await?;
    Ok(all.into_iter().filter(|subnet| chosen.contains(&subnet.id.as_str())).collect())
}

fn zones(subnets: &[Subnet]) -> BTreeSet<String> {
    subnets.iter().map(|subnet| subnet.zone.clone()).collect()
}

/// Returns an error if jobs of the Knot could never start because no machine in the subnets of the Pars can hold them.
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
    if let Some(warning) = desired.gpu_warning() {
        step(&format!("warning: {warning}"));
    }
    if desired.settings.queue.is_some() {
        if let Some(warning) = desired.log_warning() {
            step(&format!("warning: {warning}"));
        }
        // The compute of an existing queue is its owner's choice, and may change.
        return Ok(None);
    }
    let (names, mut types) = instance_types(aws, desired).await?;
    // A Pars that is yet to be created has no subnets.
    if pars.subnets().next().is_some() {
        types = offered(aws, types, pars).await?;
    }
    for request in &desired.requests()? {
        if let Some(warning) = machines::fits(request, &types, ec2::may_have_more(&names))? {
            step(&format!("warning: {warning}"));
        }
    }
    Ok(Some((names, types)))
}

/// Returns an error if the account may not start a machine of these types for each function with GPUs. Warns of quotas that cannot
/// be read, once of each.
pub(super) async fn check_gpu_quotas(aws: &Aws, desired: &DesiredKnot<'_>, types: &[InstanceType]) -> Result<()> {
    let mut warnings = BTreeSet::new();
    for smallest in &smallest_machines(&desired.requests()?, types) {
        warnings.extend(quotas::check_gpus(aws, desired.compute() == Compute::Spot, smallest).await?);
    }
    for warning in warnings {
        step(&format!("warning: {warning}"));
    }
    Ok(())
}

/// Returns the smallest machines for the functions with GPUs, by quota. Functions that need the same machines are counted once.
fn smallest_machines(requests: &[Request<'_>], types: &[InstanceType]) -> BTreeSet<BTreeMap<GpuQuota, u32>> {
    let all = machines::of_types(types);
    let smallest = |request: &Request<'_>| {
        let holds = |machine: &&Machine| machine.holds(request.vcpus, request.memory_mib, request.gpus);
        smallest_by_quota(all.iter().filter(holds))
    };
    requests.iter().filter(|request| request.gpus > 0).map(smallest).collect()
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
    let zones = zones(&job_subnets(&ec2, pars).await?);
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
    fn functions_that_need_the_same_machines_are_counted_once() {
        let kind = |name: &str, vcpus, gpus| InstanceType {
            name: name.into(),
            vcpus,
            memory_mib: 16_384,
            gpus,
            arch: vec!["x86_64".into()],
            bare_metal: false,
        };
        let types = [kind("g4dn.xlarge", 4, 1), kind("g5.2xlarge", 8, 1), kind("g4dn.12xlarge", 48, 4)];
        let request = |gpus| Request { function: "f", vcpus: 1.0, memory_mib: 1024, gpus, arm64: false };
        let smallest = smallest_machines(&[request(1), request(0), request(1), request(2)], &types);
        assert_eq!(smallest, [4, 48].map(|vcpus| [(GpuQuota::GAndVt, vcpus)].into()).into());
    }

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
