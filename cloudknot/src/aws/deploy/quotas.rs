//! The quotas of an account, and checks that they allow one more resource.

use std::collections::BTreeMap;

use aws_sdk_servicequotas as servicequotas;

use super::ec2::Ec2;
use crate::aws::batch::Batch;
use crate::aws::{Aws, client};
use crate::error::{Error, ErrorKind, Result};

/// Default quota of compute environments, and of job queues, of an account.
const DEFAULT_QUOTA: usize = 50;

/// Default quota of VPCs and of elastic addresses in a region, and of NAT gateways in a zone.
const DEFAULT_NETWORK_QUOTA: usize = 5;

/// Maximum number of attempts of a request to Service Quotas. A deploy and a doctor can continue without its response.
const MAX_ATTEMPTS: u32 = 2;

/// Returns an error if the quotas do not allow one more job queue or compute environment for a Knot.
pub(crate) async fn check_knot(aws: &Aws) -> Result<()> {
    let (environments, queues) = Batch::new(aws).counts().await?;
    for (resource, in_use) in [("compute environment", environments), ("job queue", queues)] {
        if in_use < DEFAULT_QUOTA {
            continue;
        }
        // A quota can only have been raised. If the caller may not read it, the default applies.
        let limit = quota(aws, "batch", resource).await.ok().flatten().unwrap_or(DEFAULT_QUOTA);
        if in_use < limit {
            continue;
        }
        let message = format!("{resource} quota exceeded: {in_use} of {limit} in use");
        return Err(Error::new(ErrorKind::Aws, message).with_hint(
            "clobber unused Knots (`cargo knot list`), request an increase in Service Quotas, or use an existing queue: \
             --queue",
        ));
    }
    Ok(())
}

/// Quotas of the virtual CPUs of instances with GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GpuQuota {
    GAndVt,
    P,
}

impl GpuQuota {
    /// Returns the quota that machines of this instance type or family count against, if it is one of these.
    pub(crate) fn of(instance_type: &str) -> Option<Self> {
        match instance_type.split(|c: char| !c.is_ascii_lowercase()).next() {
            Some("g" | "gr" | "vt") => Some(Self::GAndVt),
            Some("p") => Some(Self::P),
            _ => None,
        }
    }

    /// Returns the instances in words, and the code of the quota in Service Quotas.
    pub(crate) fn of_purchase(self, spot: bool) -> (&'static str, &'static str) {
        match (self, spot) {
            (Self::GAndVt, false) => ("On-Demand G and VT instances", "L-DB2E81BA"),
            (Self::GAndVt, true) => ("Spot G and VT instances", "L-3819A6DF"),
            (Self::P, false) => ("On-Demand P instances", "L-417A185B"),
            (Self::P, true) => ("Spot P instances", "L-7212CCBC"),
        }
    }
}

/// Returns an error if none of these quotas allows the smallest machine for a job, whose virtual CPUs are given. AWS Batch does not
/// report it, and new accounts have quotas of 0. Returns a warning if a quota cannot be read.
pub(crate) async fn check_gpus(aws: &Aws, spot: bool, smallest: &BTreeMap<GpuQuota, u32>) -> Result<Option<String>> {
    let mut exceeded = None;
    for (quota, vcpus) in smallest {
        let (instances, code) = quota.of_purchase(spot);
        match quota_of(aws, "ec2", code).await {
            Ok(Some(limit)) if limit < *vcpus as usize => _ = exceeded.get_or_insert((instances, code, limit, *vcpus)),
            Ok(_) => return Ok(None),
            Err(error) => return Ok(Some(format!("{error}; if it is too low, jobs with GPUs stay RUNNABLE"))),
        }
    }
    let Some((instances, code, limit, vcpus)) = exceeded else { return Ok(None) };
    let message = format!(
        "cannot place jobs with GPUs: the vCPU quota for {instances} is {limit} in {}, and the smallest machine needs {vcpus}",
        aws.region
    );
    Err(Error::new(ErrorKind::Aws, message)
        .with_hint(format!("request an increase in Service Quotas (ec2, {code}); nothing was created")))
}

/// Returns an error if the quotas do not allow one more VPC, or one more NAT gateway in this zone with its elastic
/// address.
pub(crate) async fn check_network(aws: &Aws, nat_in: Option<&str>) -> Result<()> {
    let ec2 = Ec2::new(aws);
    let region = &aws.region;
    let alternative = "use an existing VPC: --vpc";
    check_quota(aws, ("VPC", region), ec2.count_vpcs().await, ("vpc", "L-F678F1CE"), alternative).await?;
    let Some(zone) = nat_in else { return Ok(()) };
    let alternative = "avoid the NAT gateway: --internet public-ip";
    check_quota(aws, ("elastic address", region), ec2.count_addresses().await, ("ec2", "L-0263D0A3"), alternative)
        .await?;
    check_quota(aws, ("NAT gateway", zone), ec2.count_nat_gateways(zone).await, ("vpc", "L-FE5A380F"), alternative)
        .await
}

/// Returns an error if the quota with this code does not allow one more.
async fn check_quota(
    aws: &Aws,
    (resource, place): (&str, &str),
    in_use: Result<usize>,
    (service, code): (&str, &str),
    alternative: &str,
) -> Result<()> {
    let in_use = match in_use {
        // If the caller may not list the resources, AWS itself reports an exceeded quota later.
        Err(error) if error.kind() == ErrorKind::Denied => return Ok(()),
        in_use => in_use?,
    };
    if in_use < DEFAULT_NETWORK_QUOTA {
        return Ok(());
    }
    // A quota can only have been raised. If the caller may not read it, the default applies.
    let limit = quota_of(aws, service, code).await.ok().flatten().unwrap_or(DEFAULT_NETWORK_QUOTA);
    if in_use < limit {
        return Ok(());
    }
    let message = format!("{resource} quota exceeded: {in_use} of {limit} in use in {place}");
    let hint = format!(
        "delete unused ones, request an increase in Service Quotas ({service}, {code}), or {alternative}; \
         nothing was created"
    );
    Err(Error::new(ErrorKind::Aws, message).with_hint(hint))
}

/// Returns the account's quota whose name contains `what`; `None` if there is none.
pub(crate) async fn quota(aws: &Aws, service: &str, what: &str) -> Result<Option<usize>> {
    let matches = |name: &str| {
        let name = name.to_lowercase();
        name.contains(what) && !name.contains(" per ")
    };
    let mut pages = client!(aws.with_attempts(MAX_ATTEMPTS), servicequotas)
        .list_service_quotas()
        .service_code(service)
        .into_paginator()
        .send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| aws.failed(&format!("read the quotas of {service}"), error))?;
        let quotas = page.quotas.unwrap_or_default();
        if let Some(value) =
            quotas.iter().find(|quota| quota.quota_name().is_some_and(matches)).and_then(|quota| quota.value)
        {
            return Ok(Some(whole(value)));
        }
    }
    Ok(None)
}

/// Returns the account's quota with this code; `None` if there is none.
pub(crate) async fn quota_of(aws: &Aws, service: &str, code: &str) -> Result<Option<usize>> {
    let client = client!(aws.with_attempts(MAX_ATTEMPTS), servicequotas);
    let response = client.get_service_quota().service_code(service).quota_code(code).send().await;
    match response {
        Ok(response) => Ok(response.quota.and_then(|quota| quota.value).map(whole)),
        Err(error) if crate::aws::code(&error) == Some("NoSuchResourceException") => Ok(None),
        Err(error) => Err(aws.failed(&format!("read the quota {code} of {service}"), error)),
    }
}

/// Converts a quota to an integer.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a quota is a small whole number")]
fn whole(value: f64) -> usize {
    value as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_types_with_gpus_have_their_quota() {
        for (name, quota) in [
            ("g4dn.xlarge", Some(GpuQuota::GAndVt)),
            ("g6", Some(GpuQuota::GAndVt)),
            ("gr6.4xlarge", Some(GpuQuota::GAndVt)),
            ("vt1.3xlarge", Some(GpuQuota::GAndVt)),
            ("p4d.24xlarge", Some(GpuQuota::P)),
            ("p5", Some(GpuQuota::P)),
            ("c7g.large", None),
            ("default_x86_64", None),
            ("optimal", None),
        ] {
            assert_eq!(GpuQuota::of(name), quota, "{name}");
        }
    }
}
