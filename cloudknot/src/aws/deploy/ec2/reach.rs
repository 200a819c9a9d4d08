//! Requests about what a network reaches and who may reach it: routes, endpoint services and security groups.

use std::collections::{BTreeMap, BTreeSet};

use roxmltree::Node;

use super::query::{QueryRequest, items, text_at};
use super::{Ec2, is_true};
use crate::error::Result;

/// All IPv4 addresses, as the destination of a route.
const ANYWHERE: &str = "0.0.0.0/0";

/// Way from a subnet to addresses outside of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Route {
    /// Through a gateway of another kind, such as a NAT gateway: machines need no public address.
    Private,
    /// Through an internet gateway: only a machine that has a public address is connected.
    Public,
    /// None.
    Isolated,
}

/// The routes of a VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Routes {
    /// Route of the main table, which applies to subnets that have none of their own.
    pub(crate) main: Route,
    /// Routes of the subnets that have a table of their own, by the ID of the subnet.
    pub(crate) own: BTreeMap<String, Route>,
}

impl Routes {
    /// Returns the route of a subnet of this VPC.
    pub(crate) fn of(&self, subnet: &str) -> Route {
        self.own.get(subnet).copied().unwrap_or(self.main)
    }
}

/// Rule of a security group that lets connections in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InboundRule {
    /// First and last port; `None` for all.
    ports: Option<(u16, u16)>,
    /// IDs of the groups whose members may connect.
    groups: Vec<String>,
    /// Networks that may connect.
    networks: Vec<String>,
    /// `true` if the networks of a prefix list may connect, which are not looked up.
    has_prefix_list: bool,
}

impl InboundRule {
    /// Returns whether the members of a group, whose addresses are in one of these networks, may or might connect to this port.
    pub(crate) fn admits(&self, port: u16, group: &str, from: &[String]) -> bool {
        let is_within = |from: &String, network: &String| match (from.parse(), network.parse::<ipnet::Ipv4Net>()) {
            (Ok(from), Ok(network)) => network.contains::<&ipnet::Ipv4Net>(&from),
            _ => false,
        };
        let is_from_network = || from.iter().all(|from| self.networks.iter().any(|network| is_within(from, network)));
        self.ports.is_none_or(|(first, last)| (first..=last).contains(&port))
            && (self.has_prefix_list || self.groups.iter().any(|one| one == group) || is_from_network())
    }
}

impl Ec2 {
    /// Returns the routes of a VPC.
    pub(crate) async fn routes(&self, vpc: &str) -> Result<Routes> {
        let request = QueryRequest::new("DescribeRouteTables").filter("vpc-id", [vpc]);
        let action = format!("list the route tables of the VPC `{vpc}`");
        let tables = self.list(&action, request, "routeTableSet", &[], |table| Some(route_table(table))).await?;
        let mut routes = Routes { main: Route::Isolated, own: BTreeMap::new() };
        for (route, is_main, subnets) in tables {
            if is_main {
                routes.main = route;
            }
            routes.own.extend(subnets.into_iter().map(|subnet| (subnet, route)));
        }
        Ok(routes)
    }

    /// Returns the zones in which an interface endpoint of each of these services can be created. A service that the region
    /// lacks is absent.
    pub(crate) async fn endpoint_zones(&self, services: &[String]) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let request = QueryRequest::new("DescribeVpcEndpointServices").filter("service-name", services);
        let service = |item: Node<'_, '_>| {
            let zones = items(item, "availabilityZoneSet").filter_map(|zone| Some(zone.text()?.trim().to_owned()));
            Some((text_at(item, "serviceName")?.to_owned(), zones.collect::<BTreeSet<_>>()))
        };
        let found = self.list("list the endpoint services", request, "serviceDetailSet", &[], service).await?;
        Ok(found.into_iter().collect())
    }

    /// Returns the inbound rules of these security groups.
    pub(crate) async fn inbound_rules(&self, groups: &[String]) -> Result<Vec<InboundRule>> {
        let request = QueryRequest::new("DescribeSecurityGroups").filter("group-id", groups);
        let rules =
            |item: Node<'_, '_>| Some(items(item, "ipPermissions").filter_map(inbound_rule).collect::<Vec<_>>());
        let action = format!("read the rules of {}", super::quoted(groups));
        Ok(self.list(&action, request, "securityGroupInfo", &[], rules).await?.into_iter().flatten().collect())
    }
}

/// Reads a route table: its route to anywhere, whether it is the main one, and the subnets that it is associated with.
fn route_table(table: Node<'_, '_>) -> (Route, bool, Vec<String>) {
    let to_anywhere = items(table, "routeSet").find(|route| text_at(*route, "destinationCidrBlock") == Some(ANYWHERE));
    // A blackhole is the route to something that was deleted.
    let active = to_anywhere.filter(|route| text_at(*route, "state") != Some("blackhole"));
    let route = active.map_or(Route::Isolated, |route| match text_at(route, "gatewayId") {
        Some(gateway) if gateway.starts_with("igw-") => Route::Public,
        _ => Route::Private,
    });
    let associations = || items(table, "associationSet");
    let subnets = associations().filter_map(|one| Some(text_at(one, "subnetId")?.to_owned())).collect();
    (route, associations().any(|one| is_true(one, "main")), subnets)
}

/// Reads a rule for TCP or all protocols; `None` for another one.
fn inbound_rule(rule: Node<'_, '_>) -> Option<InboundRule> {
    let port = |name: &str| text_at(rule, name).and_then(|port| port.parse().ok());
    let ports = match text_at(rule, "ipProtocol")? {
        "-1" => None,
        "tcp" | "6" => Some((port("fromPort").unwrap_or(0), port("toPort").unwrap_or(u16::MAX))),
        _ => return None,
    };
    let all = |list: &str, name: &str| -> Vec<String> {
        items(rule, list).filter_map(|item| Some(text_at(item, name)?.to_owned())).collect()
    };
    Some(InboundRule {
        ports,
        groups: all("groups", "groupId"),
        networks: all("ipRanges", "cidrIp"),
        has_prefix_list: items(rule, "prefixListIds").next().is_some(),
    })
}
