//! What can be known before anything is made: whether some machine can hold what the functions ask for, and whether AWS has
//! room for one Knot more, or one network. What cannot be known here AWS says later, and nothing that exists is lost.

use std::collections::BTreeSet;

use aws_sdk_servicequotas as servicequotas;

use crate::aws::{self, Aws, client};
use crate::batch::Batch;
use crate::doctor::permissions;
use crate::ec2::{Ec2, InstanceType};
use crate::error::{Error, ErrorKind, Result};
use crate::knot::values::{Answers, Wanted};
use crate::machines;
use crate::pars::Pars;
use crate::policy::{Allowed, Scope};
use crate::stack::step;

/// So many environments, and so many queues, has an account that asked for no more.
const EACH: usize = 50;

/// So many VPCs has an account in a region that asked for no more, so many addresses, and NAT gateways in a zone.
const EACH_OF_NETWORKS: usize = 5;

/// How often Service Quotas is asked: a deploy and a doctor can do without its answer.
const ATTEMPTS: u32 = 2;

/// Refuses a Knot that could not be made, or whose jobs could never start.
pub(crate) async fn check(aws: &Aws, wanted: &Wanted<'_>, answers: &Answers, pars: &Pars, new: bool) -> Result<()> {
    // What the template's values refuse is known here, and not only once an image is pushed.
    wanted.values(pars, answers, "", false)?;
    if new {
        let said = wanted.settings;
        let mut takes = vec!["cloudformation:CreateStack", "batch:RegisterJobDefinition"];
        takes.extend(said.job_role.is_none().then_some("iam:CreateRole"));
        takes.extend(said.repository.is_none().then_some("ecr:CreateRepository"));
        takes.extend(said.queue.is_none().then_some("batch:CreateJobQueue"));
        let scope = |account: &str| scope(account, aws, wanted, answers, pars);
        permissions::check(aws, Allowed::Deploy, &takes, scope).await?;
        if said.queue.is_none() {
            room(aws).await?;
        }
    }
    if answers.compute.unwrap_or_else(|| wanted.compute()).is_fargate() {
        // What Fargate has is a part of the template's values.
        return Ok(());
    }
    if wanted.settings.queue.is_some() {
        // What a queue of somebody else's runs on is theirs to choose, and may change.
        return Ok(());
    }
    let ec2 = Ec2::new(aws);
    let types = offered(&ec2, ec2.instance_types(&wanted.instance_types()).await?, pars).await?;
    for request in wanted.requests()? {
        if let Some(doubt) = machines::fits(&request, &types)? {
            step(&format!("warning: {doubt}"));
        }
    }
    if let Some(key_pair) = &wanted.settings.key_pair
        && !ec2.key_pair_exists(key_pair).await?
    {
        let message = format!("failed to find the key pair `{key_pair}` in {}", aws.region);
        return Err(Error::new(ErrorKind::NotFound, message).with_hint("make it in EC2, or leave `key-pair` out"));
    }
    Ok(())
}

/// Of what the policy of a deploy speaks.
fn scope(account: &str, aws: &Aws, wanted: &Wanted<'_>, answers: &Answers, pars: &Pars) -> Scope {
    let mut scope = Scope::new(account, aws.region.as_str(), pars.name(), wanted.name);
    scope.bucket = Some(pars.bucket().to_owned());
    pars.prefix().clone_into(&mut scope.prefix);
    scope.kms_key.clone_from(&pars.settings.kms_key);
    scope.role_path.clone_from(&pars.settings.role_path);
    scope.permissions_boundary.clone_from(&pars.settings.permissions_boundary);
    scope.repository.clone_from(&wanted.settings.repository);
    scope.queue.clone_from(&wanted.settings.queue);
    scope.policies.clone_from(&answers.policies);
    scope
}

/// Those of these types that there are in a zone where the Pars has a subnet.
async fn offered(ec2: &Ec2, types: Vec<InstanceType>, pars: &Pars) -> Result<Vec<InstanceType>> {
    let ours: Vec<&str> = pars.subnets().collect();
    let subnets = ec2.subnets(pars.vpc()).await?;
    let zones: BTreeSet<String> =
        subnets.into_iter().filter(|subnet| ours.contains(&subnet.id.as_str())).map(|subnet| subnet.zone).collect();
    let names: Vec<String> = types.iter().map(|kind| kind.name.clone()).collect();
    let offered = ec2.offered_in(&names).await?;
    let is_there = |kind: &InstanceType| offered.get(&kind.name).is_some_and(|there| !there.is_disjoint(&zones));
    let (there, absent): (Vec<_>, Vec<_>) = types.into_iter().partition(is_there);
    match absent.first() {
        Some(absent) if there.is_empty() => {
            let zones: Vec<_> = zones.into_iter().collect();
            let message = format!("failed to place jobs: there is no {} in {}", absent.name, zones.join(", "));
            Err(Error::new(ErrorKind::Config, message)
                .with_hint("choose other `instance-types`, or a Pars with subnets in other zones"))
        }
        _ => Ok(there),
    }
}

/// Whether the account may have one queue and one environment more.
async fn room(aws: &Aws) -> Result<()> {
    let (environments, queues) = Batch::new(aws).counts().await?;
    for (what, there) in [("compute environment", environments), ("job queue", queues)] {
        if there < EACH {
            continue;
        }
        // A quota can only have been raised. Whoever may not ask for it has what everybody has at first.
        let most = quota(aws, "batch", what).await.ok().flatten().unwrap_or(EACH);
        if there < most {
            continue;
        }
        let message = format!("failed to make room for one Knot more: {there} of {most} {what}s are there");
        return Err(Error::new(ErrorKind::Aws, message).with_hint(
            "clobber what is not needed (`cargo knot list`), ask for more in Service Quotas, or use a queue that exists: \
             --queue",
        ));
    }
    Ok(())
}

/// Whether the account may have one VPC more, and with a NAT gateway in this zone that, too, and an address for it.
pub(crate) async fn room_for_network(aws: &Aws, nat_in: Option<&str>) -> Result<()> {
    let ec2 = Ec2::new(aws);
    let region = &aws.region;
    let or_vpc = "have the Pars in a VPC that exists: --vpc";
    one_more(aws, &format!("VPCs in {region}"), ec2.count_vpcs().await, ("vpc", "L-F678F1CE"), or_vpc).await?;
    let Some(zone) = nat_in else { return Ok(()) };
    let or_public = "do without a NAT gateway: --internet public-ip";
    let (what, there) = (format!("elastic addresses in {region}"), ec2.count_addresses().await);
    one_more(aws, &what, there, ("ec2", "L-0263D0A3"), or_public).await?;
    let (what, there) = (format!("NAT gateways in {zone}"), ec2.count_nat_gateways(zone).await);
    one_more(aws, &what, there, ("vpc", "L-FE5A380F"), or_public).await
}

/// Refuses what would be one more than the quota with this code allows.
async fn one_more(
    aws: &Aws,
    what: &str,
    there: Result<usize>,
    (service, code): (&str, &str),
    otherwise: &str,
) -> Result<()> {
    let there = match there {
        // Whoever may not look is told by AWS itself, later.
        Err(error) if error.kind() == ErrorKind::Denied => return Ok(()),
        there => there?,
    };
    if there < EACH_OF_NETWORKS {
        return Ok(());
    }
    // A quota can only have been raised. Whoever may not ask for it has what everybody has at first.
    let most = quota_of(aws, service, code).await.ok().flatten().unwrap_or(EACH_OF_NETWORKS);
    if there < most {
        return Ok(());
    }
    let message = format!("failed to make room for one Pars more: {there} of {most} {what} are there");
    let hint = format!(
        "delete what is not needed, ask for more in Service Quotas ({service}, {code}), or {otherwise}; nothing was made"
    );
    Err(Error::new(ErrorKind::Aws, message).with_hint(hint))
}

/// The quota that is named after this, as it stands for the account; `None` where there is none.
pub(crate) async fn quota(aws: &Aws, service: &str, what: &str) -> Result<Option<usize>> {
    let is_meant = |name: &str| {
        let name = name.to_lowercase();
        name.contains(what) && !name.contains(" per ")
    };
    let mut pages =
        client!(aws, servicequotas, ATTEMPTS).list_service_quotas().service_code(service).into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| aws.failed(&format!("read the quotas of {service}"), error))?;
        let quotas = page.quotas.unwrap_or_default();
        if let Some(value) =
            quotas.iter().find(|quota| quota.quota_name().is_some_and(is_meant)).and_then(|quota| quota.value)
        {
            return Ok(Some(whole(value)));
        }
    }
    Ok(None)
}

/// The quota with this code, as it stands for the account; `None` where there is none.
pub(crate) async fn quota_of(aws: &Aws, service: &str, code: &str) -> Result<Option<usize>> {
    let client = client!(aws, servicequotas, ATTEMPTS);
    let asked = client.get_service_quota().service_code(service).quota_code(code).send().await;
    match asked {
        Ok(answer) => Ok(answer.quota.and_then(|quota| quota.value).map(whole)),
        Err(error) if aws::code(&error) == Some("NoSuchResourceException") => Ok(None),
        Err(error) => Err(aws.failed(&format!("read the quota {code} of {service}"), error)),
    }
}

/// A quota is a whole number, and not a large one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it counts")]
fn whole(value: f64) -> usize {
    value as usize
}
