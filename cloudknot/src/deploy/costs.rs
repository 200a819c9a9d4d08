//! Costs while no job runs, and the maximum costs of a rehearsal.

use crate::settings::knot::Compute;
use crate::settings::pars::{Internet, Tenancy};
use crate::settings::sizes::counted;

/// Price of a NAT gateway per hour, in USD. This and the prices below are list prices of us-east-1 as reviews of 2026
/// quote them from aws.amazon.com/vpc/pricing and aws.amazon.com/privatelink/pricing (compiled in November 2026).
/// Other regions cost somewhat more. Storage and traffic are extra.
const NAT_GATEWAY: f64 = 0.045;
/// Price of the public address of a NAT gateway per hour, in USD.
const ADDRESS: f64 = 0.005;
/// Price of one interface endpoint in one zone per hour, in USD.
const ENDPOINT: f64 = 0.01;
/// Price per hour of a region in which dedicated instances run, in USD (aws.amazon.com/ec2/pricing/dedicated-instances).
const DEDICATED_REGION: f64 = 2.0;
/// Number of hours in a month, as AWS counts it.
const HOURS_PER_MONTH: f64 = 730.0;
/// Number of interface endpoints that `pars.yaml.j2` creates in a network with internet access, and in one without.
const ENDPOINTS: (u32, u32) = (3, 8);

/// Price of a vCPU of an instance per hour, in USD: that of an r7i.large for two of them, the most expensive one of the families
/// that AWS Batch chooses from by default, rounded up (list prices of us-east-1, aws.amazon.com/ec2/pricing/on-demand). Spot
/// costs at most as much.
const INSTANCE_VCPU: f64 = 0.07;
/// Prices of a vCPU and of a GB of memory on Fargate per hour, in USD (list prices of us-east-1, aws.amazon.com/fargate/pricing).
const FARGATE: (f64, f64) = (0.040_48, 0.004_445);

/// Returns the costs while nothing runs, one sentence each. `network` describes the network of a new Pars: its route
/// to the internet, whether it has additional endpoints, and its number of subnets. It is `None` if the network already
/// exists.
pub(crate) fn idle(network: Option<(Internet, bool, usize)>, min_vcpus: u32) -> Vec<String> {
    let mut costs: Vec<String> = network
        .map(resources)
        .unwrap_or_default()
        .into_iter()
        .map(|(resource, usd_per_hour)| {
            let cost = usd_per_hour * HOURS_PER_MONTH;
            format!("{resource} cost about {cost:.0} USD a month (list price in us-east-1), whether jobs run or not")
        })
        .collect();
    if min_vcpus > 0 {
        costs.push(format!("instances of {} run all the time (`min-vcpus`)", counted(min_vcpus, "vCPU")));
    }
    costs
}

/// Returns the costs of dedicated hardware besides those of the instances on it.
pub(crate) fn of_tenancy(tenancy: Tenancy) -> Option<String> {
    (tenancy == Tenancy::Dedicated).then(|| {
        format!(
            "while any dedicated instance runs, the region costs about {DEDICATED_REGION:.0} USD an hour (list price), besides \
             the instances (--tenancy)"
        )
    })
}

/// Returns the resources of a new network that cost while nothing runs, and their prices per hour in USD. The public address of a
/// job costs only while the job runs.
fn resources((internet, endpoints, subnets): (Internet, bool, usize)) -> Vec<(String, f64)> {
    let mut found = Vec::new();
    if internet == Internet::Nat {
        found.push(("the NAT gateway and its address".to_owned(), NAT_GATEWAY + ADDRESS));
    }
    let endpoints = match internet {
        Internet::None => ENDPOINTS.1,
        _ if endpoints => ENDPOINTS.0,
        _ => 0,
    };
    if endpoints > 0 {
        let subnets = u32::try_from(subnets).expect("a VPC has few subnets");
        let resource = format!("{endpoints} endpoints in {}", counted(subnets, "subnet"));
        found.push((resource, f64::from(endpoints * subnets) * ENDPOINT));
    }
    found
}

/// Returns the maximum costs of a rehearsal in USD, if the Pars exists for an hour, and each Knot has machines for half of it.
/// Storage, logs and requests cost less than a cent. `network` is as for [`idle`].
pub(crate) fn rehearsal(network: Option<(Internet, bool, usize)>, computes: &[Compute], max_vcpus: u32) -> f64 {
    let knot = |compute: &Compute| {
        if compute.is_fargate() {
            // A job has 0.25 vCPUs, 0.5 GB and an address.
            f64::from(max_vcpus) * (FARGATE.0 + 2.0 * FARGATE.1 + 4.0 * ADDRESS)
        } else {
            // AWS Batch may exceed the maximum by one instance, and the smallest one has two vCPUs.
            f64::from(2 * max_vcpus.max(2)) * (INSTANCE_VCPU + ADDRESS)
        }
    };
    let network: f64 = network.map(resources).unwrap_or_default().iter().map(|(_, usd_per_hour)| usd_per_hour).sum();
    // The sum of no numbers is -0.
    0.0 + network + computes.iter().map(knot).sum::<f64>() / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_costs_are_listed() {
        let nat = "the NAT gateway and its address cost about 36 USD a month (list price in us-east-1), whether jobs run or not";
        assert_eq!(idle(Some((Internet::Nat, false, 3)), 0), [nat]);
        let three =
            "3 endpoints in 3 subnets cost about 66 USD a month (list price in us-east-1), whether jobs run or not";
        assert_eq!(idle(Some((Internet::Nat, true, 3)), 0), [nat, three]);
        assert_eq!(idle(Some((Internet::PublicIp, true, 3)), 0), [three]);
        let closed =
            "8 endpoints in 2 subnets cost about 117 USD a month (list price in us-east-1), whether jobs run or not";
        let running = "instances of 4 vCPUs run all the time (`min-vcpus`)";
        for endpoints in [false, true] {
            assert_eq!(idle(Some((Internet::None, endpoints, 2)), 4), [closed, running]);
        }
        assert_eq!(idle(Some((Internet::PublicIp, false, 3)), 0), [""; 0]);
        assert_eq!(idle(None, 0), [""; 0]);
    }

    #[test]
    fn dedicated_hardware_costs_more_than_its_instances() {
        assert_eq!(of_tenancy(Tenancy::Default), None);
        let cost = "while any dedicated instance runs, the region costs about 2 USD an hour (list price), besides the \
                    instances (--tenancy)";
        assert_eq!(of_tenancy(Tenancy::Dedicated).unwrap(), cost);
    }

    #[test]
    fn rehearsal_costs_include_network_and_machines() {
        let check = |network, computes: &[Compute], expected: &str| {
            assert_eq!(format!("{:.2}", rehearsal(network, computes, 2)), expected);
        };
        check(None, &[], "0.00");
        check(None, &[Compute::Ec2], "0.15");
        check(None, &[Compute::Fargate], "0.07");
        check(None, &[Compute::Spot, Compute::FargateSpot], "0.22");
        check(Some((Internet::Nat, false, 3)), &[Compute::Ec2], "0.20");
        check(Some((Internet::None, false, 2)), &[Compute::Fargate], "0.23");
    }

    #[test]
    fn endpoint_counts_match_the_template() {
        let template = include_str!("templates/pars.yaml.j2");
        let count = |name: &str| {
            let list = template.lines().find(|line| line.contains(&format!("set {name} ="))).unwrap();
            u32::try_from(list.matches("[\"").count()).unwrap()
        };
        assert_eq!((count("often"), count("often") + count("seldom")), ENDPOINTS);
    }
}
