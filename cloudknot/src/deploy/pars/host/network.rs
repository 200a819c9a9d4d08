//! The network of a Pars: the zones of a new VPC, and the subnets of an existing one that jobs run in.

use std::collections::BTreeSet;

use crate::aws::Aws;
use crate::aws::ec2::{Ec2, Route, Routes, Subnet, Zone};
use crate::deploy::pars::ParsBuilder;
use crate::deploy::template::{Resource, resources};
use crate::error::{Error, ErrorKind, Result};
use crate::settings::network::{MAX_ZONES, endpoint_service, endpoint_services, services_of_jobs};
use crate::settings::pars::{Internet, MAX_SUBNETS, Network};

/// Zone that has no NAT gateways, by its ID: EC2 responds with `NotAvailableInZone`.
const WITHOUT_NAT: &str = "use1-az3";

/// Regions of which Fargate has only some zones, by the IDs of these zones ("Supported Regions for Amazon ECS on AWS Fargate" in the
/// Amazon ECS developer guide).
const FARGATE_ZONES: [(&str, &[&str]); 4] = [
    ("us-west-1", &["usw1-az1", "usw1-az3"]),
    ("ap-northeast-1", &["apne1-az1", "apne1-az2", "apne1-az4"]),
    ("ca-central-1", &["cac1-az1", "cac1-az2", "cac1-az4"]),
    ("cn-north-1", &["cnn1-az1", "cnn1-az2"]),
];

/// Instance types that AWS Batch chooses first by default: those of a zone that has none of them are older or rarer.
const USUAL_TYPES: [&str; 3] = ["m6i.large", "c6i.large", "m6g.large"];

/// Network of a Pars, as far as it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NetworkState {
    /// A new VPC in these zones.
    New { zones: Vec<String> },
    /// An existing VPC.
    Existing(Existing),
    /// The default VPC, which this region lacks.
    NoDefault,
}

/// An existing VPC, and the subnets that jobs run in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Existing {
    pub(super) vpc: String,
    pub(super) subnets: Vec<String>,
    /// `true` if jobs need public addresses.
    pub(super) assign_public_ip: bool,
    /// `true` if each of the subnets assigns public addresses to instances.
    pub(super) subnets_assign_ip: bool,
    /// Notes for the user, before anything is created.
    pub(super) notes: Vec<String>,
}

impl NetworkState {
    /// Looks up the network of this Pars. `before` is the template of its stack, if it has one.
    pub(super) async fn of(builder: &ParsBuilder, aws: &Aws, before: Option<&str>) -> Result<Self> {
        let ec2 = Ec2::new(aws);
        let (network, given) = (builder.settings.network(), &builder.settings.subnets);
        let vpc = match &network {
            Network::New { internet, endpoints, .. } => {
                // Subnets cannot be moved to other zones.
                let zones = match before.map(zones_in).filter(|zones| !zones.is_empty()) {
                    Some(zones) => zones,
                    None => new_zones(&ec2, &aws.region, *internet, *endpoints).await?,
                };
                return Ok(Self::New { zones });
            }
            Network::Vpc(id) => ec2.vpc(id).await?.ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("cannot find the VPC `{id}` in {}", aws.region))
                    .with_hint("set a VPC of this region, or remove the setting for the default VPC")
            })?,
            Network::Default => match (ec2.default_vpc().await?, given.first()) {
                (Some(vpc), _) => vpc,
                (None, Some(subnet)) => {
                    let message =
                        format!("cannot use the subnet `{subnet}`: there is no default VPC in {}", aws.region);
                    return Err(Error::new(ErrorKind::NotFound, message).with_hint("set the VPC of the subnet: --vpc"));
                }
                (None, None) => return Ok(Self::NoDefault),
            },
        };
        let in_default_vpc = network == Network::Default;
        Ok(Self::Existing(existing_network(aws, &vpc.id, in_default_vpc, given).await?))
    }

    /// Returns what is worth knowing about the network before anything is created.
    pub(super) fn notes(&self) -> Vec<String> {
        match self {
            Self::Existing(network) => network.notes.clone(),
            Self::New { .. } => Vec::new(),
            Self::NoDefault => {
                vec![
                    "this region has no default VPC: it is created first, and remains when the Pars is deleted"
                        .to_owned(),
                ]
            }
        }
    }
}

/// Returns the network in this VPC. `given` are the subnets that the user chose; if there are none, they are chosen here.
pub(super) async fn existing_network(aws: &Aws, vpc: &str, in_default_vpc: bool, given: &[String]) -> Result<Existing> {
    let ec2 = Ec2::new(aws);
    let all = ec2.subnets(vpc).await?;
    if all.is_empty() {
        let message = format!("cannot use the VPC `{vpc}`: it has no subnets");
        return Err(Error::new(ErrorKind::Config, message).with_hint("add a subnet to it, or create a VPC: --cidr"));
    }
    let (routes, zones) = (ec2.routes(vpc).await?, ec2.zones().await?);
    let zones: BTreeSet<String> = zones.into_iter().map(|zone| zone.name).collect();
    let mut notes = Vec::new();
    let chosen = if given.is_empty() {
        choose(&all, &routes, &zones, in_default_vpc, &mut notes)
    } else {
        let named = named(&all, given, vpc)?;
        let warning = |subnet: &&Subnet| {
            Some(format!("warning: jobs may not start in {}: {}", subnet.id, unfit(subnet, &zones)?))
        };
        notes.extend(named.iter().filter_map(warning));
        named
    };
    if chosen.is_empty() {
        let message = format!("cannot use the VPC `{vpc}`: none of its subnets is in a zone that AWS Batch can use");
        return Err(Error::new(ErrorKind::Config, message)
            .with_source(notes.join("\n"))
            .with_hint("add a subnet to it, choose subnets by --subnet, or create a VPC: --cidr"));
    }
    notes.extend(isolation(&chosen, &routes, &aws.region));
    Ok(Existing {
        vpc: vpc.to_owned(),
        assign_public_ip: chosen.iter().any(|subnet| routes.of(&subnet.id) == Route::Public),
        subnets_assign_ip: chosen.iter().all(|subnet| subnet.public_ip || routes.of(&subnet.id) != Route::Public),
        subnets: chosen.into_iter().map(|subnet| subnet.id.clone()).collect(),
        notes,
    })
}

/// Returns the subnets that the user chose.
fn named<'a>(all: &'a [Subnet], given: &[String], vpc: &str) -> Result<Vec<&'a Subnet>> {
    let find = |id: &String| {
        all.iter().find(|subnet| subnet.id == *id).ok_or_else(|| {
            let subnets: Vec<&str> = all.iter().map(|subnet| &*subnet.id).collect();
            Error::new(ErrorKind::NotFound, format!("cannot find the subnet `{id}` in the VPC `{vpc}`"))
                .with_hint(format!("set subnets of one VPC, and this VPC (--vpc); it has {}", subnets.join(", ")))
        })
    };
    given.iter().map(find).collect()
}

/// Returns the subnets that jobs run in, and adds to `notes` which ones are left out for reasons that a user may not expect.
///
/// The routes of a subnet decide, and not whether it assigns public addresses, which AWS turns off for each new subnet. Jobs
/// run in private subnets that have a way out; if there are none, in public ones; and if there are none of these either, in
/// isolated ones, where they depend on endpoints. Of public subnets, those are preferred that assign addresses. Of the
/// default VPC, which is not a choice of the user, those are preferred that AWS created with it.
fn choose<'a>(
    all: &'a [Subnet],
    routes: &Routes,
    zones: &BTreeSet<String>,
    in_default_vpc: bool,
    notes: &mut Vec<String>,
) -> Vec<&'a Subnet> {
    let mut usable = Vec::new();
    for subnet in all {
        match unfit(subnet, zones) {
            None => usable.push(subnet),
            Some(why) => notes.push(format!("jobs do not run in the subnet {}: {why}", subnet.id)),
        }
    }
    let rank = |subnet: &Subnet| {
        let route = routes.of(&subnet.id);
        let is_added = in_default_vpc && !subnet.default_for_zone;
        (route == Route::Isolated, is_added, route, route == Route::Public && !subnet.public_ip)
    };
    let Some(best) = usable.iter().map(|subnet| rank(subnet)).min() else { return Vec::new() };
    let chosen: Vec<&Subnet> = usable.iter().filter(|subnet| rank(subnet) == best).copied().collect();
    if chosen.len() > MAX_SUBNETS {
        let count = chosen.len();
        notes.push(format!(
            "jobs run in {MAX_SUBNETS} of {count} subnets, the most that AWS Batch accepts; --subnet chooses others"
        ));
    }
    spread(chosen)
}

/// Returns why jobs cannot run in a subnet; `None` if they can.
fn unfit(subnet: &Subnet, zones: &BTreeSet<String>) -> Option<String> {
    if subnet.on_outpost {
        return Some("it is on an Outpost".to_owned());
    }
    if subnet.cidr.is_empty() {
        return Some("it has no IPv4 addresses".to_owned());
    }
    let is_full_zone = zones.contains(&subnet.zone);
    (!is_full_zone).then(|| format!("{} is a Local Zone, a Wavelength Zone, or not available", subnet.zone))
}

/// Returns as many of the subnets as a compute environment can have, with as many of their zones as possible.
fn spread(subnets: Vec<&Subnet>) -> Vec<&Subnet> {
    let index_in_zone = |subnet: &Subnet| {
        subnets.iter().take_while(|other| other.id != subnet.id).filter(|other| other.zone == subnet.zone).count()
    };
    let mut ranked: Vec<(usize, &Subnet)> = subnets.iter().map(|subnet| (index_in_zone(subnet), *subnet)).collect();
    ranked.sort_by_key(|(index, _)| *index);
    ranked.truncate(MAX_SUBNETS);
    let kept: BTreeSet<&str> = ranked.into_iter().map(|(_, subnet)| &*subnet.id).collect();
    subnets.into_iter().filter(|subnet| kept.contains(&*subnet.id)).collect()
}

/// Returns a warning about subnets without a way to the internet, with the endpoints that their jobs need.
fn isolation(chosen: &[&Subnet], routes: &Routes, region: &str) -> Option<String> {
    let isolated: Vec<&str> =
        chosen.iter().filter(|subnet| routes.of(&subnet.id) == Route::Isolated).map(|subnet| &*subnet.id).collect();
    if isolated.is_empty() {
        return None;
    }
    let mut services = services_of_jobs(true);
    services.retain(|service| !["ssm", "secretsmanager"].contains(service));
    let services = endpoint_services(region, &services);
    let of = |service: &str| endpoint_service(region, service);
    Some(format!(
        "warning: no route to the internet in {}: jobs there start only if the VPC has interface endpoints of {}, and a gateway \
         endpoint of {}; for secrets, also of {} or {}",
        isolated.join(", "),
        services.join(", "),
        of("s3"),
        of("secretsmanager"),
        of("ssm"),
    ))
}

/// Returns the zones of a new VPC.
///
/// They are named explicitly: CloudFormation itself would count only zones that have a default subnet, and some zones lack
/// services.
async fn new_zones(ec2: &Ec2, region: &str, internet: Internet, endpoints: bool) -> Result<Vec<String>> {
    let mut zones = ec2.zones().await?;
    let services = match internet {
        Internet::None => endpoint_services(region, &services_of_jobs(true)),
        _ if endpoints => endpoint_services(region, &services_of_jobs(false)),
        _ => Vec::new(),
    };
    if !services.is_empty() {
        let having = ec2.endpoint_zones(&services).await?;
        for service in &services {
            let Some(in_zones) = having.get(service) else {
                let message = format!("cannot create an endpoint of `{service}`: {region} has no such service");
                return Err(Error::new(ErrorKind::Config, message)
                    .with_hint("reach AWS over the internet: --internet nat or public-ip, without --endpoints"));
            };
            zones.retain(|zone| in_zones.contains(&zone.name));
        }
    }
    if internet == Internet::Nat {
        zones.retain(|zone| zone.id != WITHOUT_NAT);
    }
    if zones.is_empty() {
        let message = format!("cannot create a VPC in {region}: no zone has all services that it needs");
        return Err(
            Error::new(ErrorKind::Config, message).with_hint("choose another --internet, or leave out --endpoints")
        );
    }
    let offering = ec2.offered_in(&USUAL_TYPES.map(str::to_owned)).await?;
    let has_usual_types = |zone: &Zone| offering.values().any(|zones| zones.contains(&zone.name));
    // Stable: zones that have everything stay sorted by name.
    zones.sort_by_key(|zone| (!has_fargate(region, zone), !has_usual_types(zone)));
    Ok(zones.into_iter().take(MAX_ZONES).map(|zone| zone.name).collect())
}

fn has_fargate(region: &str, zone: &Zone) -> bool {
    FARGATE_ZONES.iter().find(|(name, _)| *name == region).is_none_or(|(_, zones)| zones.contains(&&*zone.id))
}

/// Returns the zones of the subnets for jobs in the template of a stack.
fn zones_in(template: &str) -> Vec<String> {
    let resources = resources(template);
    let zone = |subnet: &Resource| {
        serde_json::from_str(subnet.line("AvailabilityZone: ")?.trim_start_matches("AvailabilityZone: ")).ok()
    };
    (1..=MAX_ZONES).map_while(|number| zone(resources.get(&format!("Subnet{number}"))?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(id: &str, zone: &str, public_ip: bool, default_for_zone: bool) -> Subnet {
        Subnet {
            id: id.into(),
            zone: zone.into(),
            cidr: "172.31.0.0/20".into(),
            public_ip,
            default_for_zone,
            on_outpost: false,
        }
    }

    fn routes(main: Route, own: &[(&str, Route)]) -> Routes {
        Routes { main, own: own.iter().map(|(subnet, route)| ((*subnet).to_owned(), *route)).collect() }
    }

    #[test]
    fn some_zones_have_no_fargate() {
        let zone = |id: &str| Zone { id: id.into(), name: "z".into() };
        assert!(!has_fargate("ap-northeast-1", &zone("apne1-az3")));
        assert!(has_fargate("ap-northeast-1", &zone("apne1-az1")));
        assert!(has_fargate("eu-west-1", &zone("euw1-az3")), "a region whose zones all have Fargate");
    }

    fn chosen(all: &[Subnet], routes: &Routes, in_default_vpc: bool) -> (Vec<String>, Vec<String>) {
        let (zones, mut notes) = (["z-a", "z-b", "z-c"].map(str::to_owned).into(), Vec::new());
        let chosen = choose(all, routes, &zones, in_default_vpc, &mut notes);
        (chosen.into_iter().map(|subnet| subnet.id.clone()).collect(), notes)
    }

    #[test]
    fn routes_decide_where_jobs_run() {
        let all = [subnet("a", "z-a", false, false), subnet("b", "z-b", false, false), subnet("c", "z-c", true, false)];
        let check = |main, own: &[(&str, Route)], expected: &[&str]| {
            let (found, notes) = chosen(&all, &routes(main, own), false);
            assert_eq!(found, expected, "{main:?} {own:?}");
            assert_eq!(notes, [""; 0]);
        };
        check(Route::Public, &[("b", Route::Private)], &["b"]);
        check(Route::Private, &[("c", Route::Public)], &["a", "b"]);
        check(Route::Isolated, &[("a", Route::Public)], &["a"]);
        // Those that assign addresses need no launch template that does.
        check(Route::Public, &[], &["c"]);
        check(Route::Public, &[("c", Route::Isolated)], &["a", "b"]);
        check(Route::Isolated, &[], &["a", "b", "c"]);
    }

    #[test]
    fn default_vpc_jobs_run_in_default_subnets_that_reach_the_internet() {
        let (one, other) = (subnet("default-a", "z-a", true, true), subnet("default-b", "z-b", true, true));
        let (turned_off, added) = (subnet("default-c", "z-c", false, true), subnet("added", "z-a", false, false));
        let check = |all: &[Subnet], own: &[(&str, Route)], expected: &[&str]| {
            assert_eq!(chosen(all, &routes(Route::Public, own), true).0, expected);
        };
        let all = [one.clone(), other.clone(), turned_off.clone(), added.clone()];
        check(&all, &[("added", Route::Private)], &["default-a", "default-b"]);
        check(&all, &[("default-a", Route::Private)], &["default-a"]);
        check(&[turned_off.clone(), added.clone()], &[], &["default-c"]);
        check(&[turned_off, added.clone()], &[("default-c", Route::Isolated)], &["added"]);
        // The subnets that AWS created were deleted.
        check(&[added], &[], &["added"]);
    }

    #[test]
    fn subnets_without_batch_are_left_out_and_named() {
        let outpost = Subnet { on_outpost: true, ..subnet("outpost", "z-a", false, false) };
        let ipv6 = Subnet { cidr: String::new(), ..subnet("ipv6", "z-a", false, false) };
        let all = [subnet("a", "z-a", false, false), subnet("local", "z-muc-1a", false, false), outpost, ipv6];
        let (found, notes) = chosen(&all, &routes(Route::Private, &[]), false);
        assert_eq!(found, ["a"]);
        let expected = [
            "jobs do not run in the subnet local: z-muc-1a is a Local Zone, a Wavelength Zone, or not available",
            "jobs do not run in the subnet outpost: it is on an Outpost",
            "jobs do not run in the subnet ipv6: it has no IPv4 addresses",
        ];
        assert_eq!(notes, expected);
    }

    #[test]
    fn at_most_16_subnets_are_used_over_all_zones() {
        let of_zone = |zone: &'static str, count: usize| {
            (0..count).map(move |number| subnet(&format!("{zone}-{number}"), zone, false, false))
        };
        let all: Vec<Subnet> = of_zone("z-a", 18).chain(of_zone("z-b", 2)).collect();
        let (found, notes) = chosen(&all, &routes(Route::Private, &[]), false);
        let in_zone = |zone: &str| found.iter().filter(|id| id.starts_with(zone)).count();
        assert_eq!((in_zone("z-a"), in_zone("z-b")), (14, 2));
        let note = "jobs run in 16 of 20 subnets, the most that AWS Batch accepts; --subnet chooses others";
        assert_eq!(notes, [note]);
    }

    #[test]
    fn isolated_subnets_cause_a_warning_with_the_endpoints() {
        let all = [subnet("a", "z-a", false, false), subnet("b", "z-b", false, false)];
        let all: Vec<&Subnet> = all.iter().collect();
        assert_eq!(isolation(&all, &routes(Route::Private, &[]), "eu-central-1"), None);
        let warning = isolation(&all, &routes(Route::Private, &[("b", Route::Isolated)]), "cn-north-1").unwrap();
        let start = "warning: no route to the internet in b: jobs there start only if the VPC has interface endpoints of \
                     cn.com.amazonaws.cn-north-1.ecr.api, cn.com.amazonaws.cn-north-1.ecr.dkr, ";
        assert!(warning.starts_with(start), "{warning}");
        let end = "and a gateway endpoint of com.amazonaws.cn-north-1.s3; for secrets, also of \
                   com.amazonaws.cn-north-1.secretsmanager or com.amazonaws.cn-north-1.ssm";
        assert!(warning.ends_with(end), "{warning}");
        for service in ["ecs", "ecs-agent", "ecs-telemetry", "logs"] {
            assert!(warning.contains(&format!("com.amazonaws.cn-north-1.{service},")), "{service}: {warning}");
        }
    }

    #[test]
    fn zones_of_an_existing_stack_are_kept() {
        let subnet =
            |number: u32, zone: &str| format!("  Subnet{number}:\n    Type: T\n    AvailabilityZone: \"{zone}\"\n");
        let template = format!("Resources:\n{}{}Outputs:\n", subnet(1, "z-b"), subnet(2, "z-a"));
        assert_eq!(zones_in(&template), ["z-b", "z-a"]);
        assert_eq!(zones_in("Resources:\n  Bucket:\n    Type: T\n"), [""; 0]);
    }
}
