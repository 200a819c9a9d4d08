//! Division of a VPC into subnets, and the networks that EC2 rejects. Makes no requests.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::names::refused;
use super::partition::Partition;
use crate::error::Result;

/// Prefix lengths of a VPC and its subnets: from /16 to /28.
const PREFIXES: std::ops::RangeInclusive<u8> = 16..=28;

/// Maximum number of zones of a new VPC.
pub(crate) const MAX_ZONES: usize = 3;

/// Services that every job uses: its image is in ECR, and its log in CloudWatch Logs.
const OFTEN: [&str; 3] = ["ecr.api", "ecr.dkr", "logs"];

/// Services that jobs reach over the internet, if there is a route to it. The template of a Pars lists the same ones.
const SELDOM: [&str; 5] = ["secretsmanager", "ssm", "ecs", "ecs-agent", "ecs-telemetry"];

/// Addresses that no machine can have: "this network", loopback, link-local and multicast (RFC 6890).
const RESERVED_RANGES: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
];

/// Range that Docker uses for the containers of a machine.
const DOCKER_RANGE: (Ipv4Addr, u8) = (Ipv4Addr::new(172, 17, 0, 0), 16);

/// Subnets of a new VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VpcSubnets {
    /// Subnets for jobs, one per zone.
    pub(crate) subnets: Vec<String>,
    /// Subnet for a NAT gateway.
    pub(crate) public: String,
}

/// Returns the services that need an interface endpoint: all that jobs use, or only those that every job uses.
pub(crate) fn services_of_jobs(all: bool) -> Vec<&'static str> {
    let seldom: &[&str] = if all { &SELDOM } else { &[] };
    [&OFTEN, seldom].concat()
}

/// Returns the names of the endpoint services of these services.
pub(crate) fn endpoint_services(region: &str, services: &[&str]) -> Vec<String> {
    services.iter().map(|service| endpoint_service(region, service)).collect()
}

/// Returns the name of the endpoint service of a service.
pub(crate) fn endpoint_service(region: &str, service: &str) -> String {
    let prefix = if Partition::of(region).is_china() && service.starts_with("ecr.") { "cn." } else { "" };
    format!("{prefix}com.amazonaws.{region}.{service}")
}

/// Divides a VPC into one subnet per zone, as large as possible, and a small one.
///
/// # Errors
/// Returns an error if EC2 does not allow such a VPC, or it is too small.
pub(crate) fn subnets_of(cidr: &str, zones: usize) -> Result<VpcSubnets> {
    const FORM: &str = "use CIDR notation with a prefix length of 16 to 28, such as 10.0.0.0/16";
    let failed = |problem: &str| refused(cidr, "VPC network", problem, FORM);
    let net: Ipv4Net = cidr.parse().map_err(|_| failed("must be an IPv4 network"))?;
    if !PREFIXES.contains(&net.prefix_len()) {
        return Err(failed("must be from /16 to /28"));
    }
    if net.addr() != net.network() {
        return Err(failed(&format!("must be written with its first address, {}", net.network())));
    }
    let is_in =
        |(address, prefix): &(Ipv4Addr, u8)| Ipv4Net::new(*address, *prefix).is_ok_and(|range| range.contains(&net));
    if RESERVED_RANGES.iter().any(is_in) {
        return Err(failed("must not be a reserved range"));
    }
    // AWS advises against it ("VPC CIDR blocks" of its user guide): a container would take addresses of the network
    // for those of other containers on its machine.
    if is_in(&DOCKER_RANGE) {
        return Err(failed("must not be the range that Docker uses on the instances"));
    }
    // The number of blocks is a power of two; the last block holds the small subnet.
    let blocks = (zones + 1).next_power_of_two();
    let bits = u8::try_from(blocks.ilog2()).unwrap_or(u8::MAX);
    let length = net.prefix_len().saturating_add(bits);
    if !PREFIXES.contains(&length) {
        let large_enough = PREFIXES.end() - bits.min(12);
        return Err(failed(&format!("must be a /{large_enough} or larger for {zones} zones and one more subnet")));
    }
    let all: Vec<Ipv4Net> = net.subnets(length).expect("the subnet prefix is longer than the VPC's").collect();
    let last = all.last().expect("a split gives at least two subnets").network();
    let public = Ipv4Net::new(last, *PREFIXES.end()).expect("/28 is a valid prefix length");
    Ok(VpcSubnets { subnets: all[..zones].iter().map(ToString::to_string).collect(), public: public.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_is_divided_among_zones() {
        let check = |cidr: &str, zones, subnets: &[&str], public: &str| {
            let parts = subnets_of(cidr, zones).unwrap();
            assert_eq!(
                (&parts.subnets[..], &*parts.public),
                (&subnets.iter().map(ToString::to_string).collect::<Vec<_>>()[..], public)
            );
        };
        check("10.0.0.0/16", 1, &["10.0.0.0/17"], "10.0.128.0/28");
        check("10.0.0.0/16", 3, &["10.0.0.0/18", "10.0.64.0/18", "10.0.128.0/18"], "10.0.192.0/28");
        let four_zones = ["10.0.0.0/19", "10.0.32.0/19", "10.0.64.0/19", "10.0.96.0/19"];
        check("10.0.0.0/16", 4, &four_zones, "10.0.224.0/28");
        check("192.168.1.0/26", 3, &["192.168.1.0/28", "192.168.1.16/28", "192.168.1.32/28"], "192.168.1.48/28");
        // A network that is not private is allowed.
        check("8.8.0.0/24", 1, &["8.8.0.0/25"], "8.8.0.128/28");
    }

    #[test]
    fn services_match_the_template() {
        let template = include_str!("../deploy/templates/pars.yaml.j2");
        for (name, services) in [("often", &OFTEN[..]), ("seldom", &SELDOM)] {
            let list = template.lines().find(|line| line.contains(&format!("set {name} ="))).unwrap();
            let named = list.split('"').skip(3).step_by(4);
            assert_eq!(named.collect::<Vec<_>>(), services, "{name}");
        }
    }

    #[test]
    fn network_that_ec2_rejects_is_an_error() {
        let check = |cidr: &str, zones, why: &str| {
            let error = subnets_of(cidr, zones).unwrap_err().to_string();
            let expected = format!("invalid VPC network `{cidr}`: {why}");
            assert_eq!(error, expected);
        };
        check("10.0.0.0", 3, "must be an IPv4 network");
        check("fd00::/56", 3, "must be an IPv4 network");
        check("10.0.0.0/15", 3, "must be from /16 to /28");
        check("10.0.0.0/29", 3, "must be from /16 to /28");
        check("10.0.0.1/16", 3, "must be written with its first address, 10.0.0.0");
        check("127.0.0.0/16", 3, "must not be a reserved range");
        check("239.1.0.0/16", 3, "must not be a reserved range");
        check("172.17.128.0/20", 3, "must not be the range that Docker uses on the instances");
        check("10.0.0.0/27", 3, "must be a /26 or larger for 3 zones and one more subnet");
        check("10.0.0.0/28", 2, "must be a /26 or larger for 2 zones and one more subnet");
    }
}
