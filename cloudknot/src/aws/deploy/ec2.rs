//! EC2, and no other AWS service: reads networks and machines, and creates the default VPC of a region.
//!
//! The EC2 SDK takes five minutes to compile, so the few requests are written here and sent by `query.rs`.

use std::collections::{BTreeMap, BTreeSet};

use roxmltree::Node;

use super::query::{self, Api, QueryRequest, items, text_at};
use crate::aws::{Aws, code};
use crate::error::{Error, ErrorKind, Result};

mod reach;

pub(crate) use reach::{Route, Routes};

/// The EC2 API. Its version has not changed since 2016-11-15.
const EC2: Api = Api::new("EC2", "ec2", false, "2016-11-15");

/// Maximum number of values in one filter, which is EC2's limit.
const MAX_FILTER_VALUES: usize = 200;
/// Maximum number of instance types on a page, which is EC2's limit.
const MAX_PAGE_SIZE: &str = "100";

/// Names that AWS Batch gives to several instance families, and these families.
///
/// `optimal` was C4, M4 and R4, or C5, M5 and R5 in regions without those; since November 2025 it is being moved to the
/// families of `default_x86_64`. An account may have either, so both are listed here. (`instanceTypes` in
/// `ComputeResource` and `ComputeResourceUpdate` in the AWS Batch API reference; AWS Batch user guide, "Optimal
/// instance type configuration to receive automatic instance family updates". AWS Batch may add families: each name has
/// at least the families that are listed here.)
const BUNDLES: [(&str, &[&str]); 3] = [
    ("optimal", &["c4", "m4", "r4", "c5", "m5", "r5", "m6i", "c6i", "r6i", "c7i"]),
    ("default_x86_64", &["m6i", "c6i", "r6i", "c7i"]),
    ("default_arm64", &["m6g", "c6g", "r6g", "c7g"]),
];

/// EC2 in one account and region.
#[derive(Debug, Clone)]
pub(crate) struct Ec2 {
    aws: Aws,
}

/// A virtual network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vpc {
    pub(crate) id: String,
    pub(crate) cidr: String,
    pub(crate) is_default: bool,
}

/// The part of a VPC that is in one zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subnet {
    pub(crate) id: String,
    pub(crate) zone: String,
    pub(crate) cidr: String,
    /// `true` if machines that start in the subnet get a public address.
    pub(crate) public_ip: bool,
    pub(crate) default_for_zone: bool,
    /// `true` if the subnet is on an Outpost, which is hardware in the user's own building.
    pub(crate) on_outpost: bool,
}

/// A zone of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Zone {
    /// Name in this account; the same name may be another zone in another account.
    pub(crate) name: String,
    /// ID, which is the same in all accounts.
    pub(crate) id: String,
}

/// An instance type, with the resources of a machine of this type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstanceType {
    pub(crate) name: String,
    pub(crate) vcpus: u32,
    /// Total memory, of which a job gets less.
    pub(crate) memory_mib: u64,
    /// Number of GPUs that a container can be given, which are those of NVIDIA.
    pub(crate) gpus: u32,
    /// Architectures, as EC2 spells them: `x86_64`, `arm64`, `i386`.
    pub(crate) arch: Vec<String>,
    pub(crate) bare_metal: bool,
}

/// An image that machines start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// Name of its disk, whose size can be chosen.
    pub(crate) root_device: String,
    pub(crate) arch: String,
}

impl Ec2 {
    pub(crate) fn new(aws: &Aws) -> Self {
        Self { aws: aws.clone() }
    }

    /// Returns the default VPC, which every account has in every region unless it was deleted.
    pub(crate) async fn default_vpc(&self) -> Result<Option<Vpc>> {
        let request = QueryRequest::new("DescribeVpcs").filter("is-default", ["true"]);
        let found = self.list("find the default VPC", request, "vpcSet", &[], Vpc::read).await?;
        Ok(found.into_iter().next())
    }

    /// Creates the default VPC, with a subnet in each zone. Returns the existing one if it was created in the meantime.
    pub(crate) async fn create_default_vpc(&self) -> Result<Vpc> {
        let action = "create the default VPC";
        let response = match EC2.send(&self.aws, &QueryRequest::new("CreateDefaultVpc")).await {
            Ok(response) => response,
            // Created by another user, or by an earlier request of this program whose response was lost.
            Err(error) if code(&error) == Some("DefaultVpcAlreadyExists") => {
                let missing = || EC2.unreadable(&self.aws, action, "the default VPC exists, but cannot be found");
                return self.default_vpc().await?.ok_or_else(missing);
            }
            Err(error) => return Err(self.aws.failed(action, error)),
        };
        let vpc = |root: Node<'_, '_>| query::descendant(root, "vpc").and_then(Vpc::read);
        EC2.parse(&self.aws, action, &response, vpc)?
            .ok_or_else(|| EC2.unreadable(&self.aws, action, "the response contains no VPC"))
    }

    /// Returns the VPC with this ID.
    pub(crate) async fn vpc(&self, id: &str) -> Result<Option<Vpc>> {
        let request = QueryRequest::new("DescribeVpcs").with("VpcId.1", id);
        let (action, absent) = (format!("find the VPC `{id}`"), ["InvalidVpcID.NotFound"]);
        Ok(self.list(&action, request, "vpcSet", &absent, Vpc::read).await?.into_iter().next())
    }

    /// Returns the subnets of a VPC, sorted by zone.
    pub(crate) async fn subnets(&self, vpc: &str) -> Result<Vec<Subnet>> {
        let request = QueryRequest::new("DescribeSubnets").filter("vpc-id", [vpc]);
        let action = format!("list the subnets of the VPC `{vpc}`");
        let mut found = self.list(&action, request, "subnetSet", &[], Subnet::read).await?;
        found.sort_by(|a, b| (&a.zone, &a.id).cmp(&(&b.zone, &b.id)));
        Ok(found)
    }

    /// Returns the number of VPCs in the region.
    pub(crate) async fn count_vpcs(&self) -> Result<usize> {
        let vpcs = self.list("count the VPCs", QueryRequest::new("DescribeVpcs"), "vpcSet", &[], Vpc::read).await?;
        Ok(vpcs.len())
    }

    /// Returns the number of elastic addresses from Amazon's pool that the account has in the region. Addresses that
    /// the account brought to AWS do not count against the quota.
    pub(crate) async fn count_addresses(&self) -> Result<usize> {
        let is_amazons = |item: Node<'_, '_>| Some(text_at(item, "publicIpv4Pool").is_none_or(|pool| pool == "amazon"));
        let request = QueryRequest::new("DescribeAddresses");
        let addresses = self.list("count the elastic addresses", request, "addressesSet", &[], is_amazons).await?;
        Ok(addresses.into_iter().filter(|is_amazons| *is_amazons).count())
    }

    /// Returns the number of NAT gateways in a zone, including those that are being created or deleted.
    pub(crate) async fn count_nat_gateways(&self, zone: &str) -> Result<usize> {
        let action = format!("count the NAT gateways in {zone}");
        let request = QueryRequest::new("DescribeNatGateways").filter("state", ["pending", "available", "deleting"]);
        let subnet = |item: Node<'_, '_>| text_at(item, "subnetId").map(str::to_owned);
        let gateway_subnets = self.list(&action, request, "natGatewaySet", &[], subnet).await?;
        if gateway_subnets.is_empty() {
            return Ok(0);
        }
        let request = QueryRequest::new("DescribeSubnets").filter("availability-zone", [zone]);
        let zone_subnets: BTreeSet<String> =
            self.list(&action, request, "subnetSet", &[], subnet).await?.into_iter().collect();
        Ok(gateway_subnets.into_iter().filter(|subnet| zone_subnets.contains(subnet)).count())
    }

    /// Returns the zones of the region that are available and that the account may use, sorted by name. Local Zones and
    /// Wavelength Zones are omitted, because they do not have Fargate.
    pub(crate) async fn zones(&self) -> Result<Vec<Zone>> {
        let action = format!("list the zones of `{}`", self.aws.region);
        let all = self
            .list(&action, QueryRequest::new("DescribeAvailabilityZones"), "availabilityZoneInfo", &[], zone)
            .await?;
        let mut zones: Vec<Zone> = all.into_iter().flatten().collect();
        zones.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(zones)
    }

    /// Returns the chosen instance types: types (`c7g.large`), families (`c7g`), and the other names that AWS Batch
    /// accepts (`optimal`, `default_x86_64`, `default_arm64`).
    ///
    /// # Errors
    /// Returns an error if the region has no instance type for one of them.
    pub(crate) async fn instance_types(&self, chosen: &[String]) -> Result<Vec<InstanceType>> {
        let found = self.existing_instance_types(chosen).await?;
        let unknown: Vec<String> = chosen.iter().filter(|chosen| !is_among(chosen, &found)).cloned().collect();
        if unknown.is_empty() { Ok(found) } else { Err(self.unknown_types(&unknown)) }
    }

    /// Returns those of the families that the region has, and their instance types.
    ///
    /// # Errors
    /// Returns an error if the region has none of them.
    pub(crate) async fn families(&self, all: &[String]) -> Result<(Vec<String>, Vec<InstanceType>)> {
        let found = self.existing_instance_types(all).await?;
        let families: Vec<String> = all.iter().filter(|family| is_among(family, &found)).cloned().collect();
        if families.is_empty() { Err(self.unknown_types(all)) } else { Ok((families, found)) }
    }

    fn unknown_types(&self, unknown: &[String]) -> Error {
        let message = format!("cannot find the instance types {} in {}", quoted(unknown), self.aws.region);
        Error::new(ErrorKind::Config, message).with_hint(
            "set `instance-types` to types (`c7g.large`) or families (`c7g`) of this region, or choose another region",
        )
    }

    /// Returns the instance types that the region has of the chosen ones; see [`instance_types`](Self::instance_types).
    pub(crate) async fn existing_instance_types(&self, chosen: &[String]) -> Result<Vec<InstanceType>> {
        let patterns: Vec<String> = chosen.iter().flat_map(|chosen| patterns(chosen)).collect();
        let mut found = Vec::new();
        for patterns in patterns.chunks(MAX_FILTER_VALUES) {
            let request = QueryRequest::new("DescribeInstanceTypes")
                .with("MaxResults", MAX_PAGE_SIZE)
                .filter("instance-type", patterns);
            let action = format!("look up the instance types {}", quoted(chosen));
            found.extend(self.list(&action, request, "instanceTypeSet", &[], InstanceType::read).await?);
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found.dedup_by(|a, b| a.name == b.name);
        Ok(found)
    }

    /// Returns the zones of the region that offer each of these types, by full name. A type that no zone offers is absent.
    pub(crate) async fn offered_in(&self, types: &[String]) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let mut zones: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for types in types.chunks(MAX_FILTER_VALUES) {
            let request = QueryRequest::new("DescribeInstanceTypeOfferings")
                .with("LocationType", "availability-zone")
                .filter("instance-type", types);
            let action = format!("look up the zones that have {}", quoted(types));
            for (name, zone) in self.list(&action, request, "instanceTypeOfferingSet", &[], offering).await? {
                zones.entry(name).or_default().insert(zone);
            }
        }
        Ok(zones)
    }

    /// Returns the disk and the architecture of a machine image, if the account may use it.
    pub(crate) async fn root_device(&self, ami: &str) -> Result<Option<Image>> {
        let request = QueryRequest::new("DescribeImages").with("ImageId.1", ami);
        let absent = ["InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"];
        let action = format!("find the machine image `{ami}`");
        Ok(self.list(&action, request, "imagesSet", &absent, Image::read).await?.into_iter().next())
    }

    pub(crate) async fn key_pair_exists(&self, name: &str) -> Result<bool> {
        let request = QueryRequest::new("DescribeKeyPairs").with("KeyName.1", name);
        let action = format!("find the key pair `{name}`");
        let key_name = |item: Node<'_, '_>| text_at(item, "keyName").map(str::to_owned);
        Ok(!self.list(&action, request, "keySet", &["InvalidKeyPair.NotFound"], key_name).await?.is_empty())
    }

    /// Returns all items of a set, over all pages. If EC2 responds with one of the codes in `absent`, there are none.
    async fn list<T>(
        &self,
        action: &str,
        request: QueryRequest,
        set: &str,
        absent: &[&str],
        read: impl Fn(Node<'_, '_>) -> Option<T>,
    ) -> Result<Vec<T>> {
        let page = |root: Node<'_, '_>| {
            let items = items(root, set).map(&read).collect::<Option<_>>()?;
            Some((items, text_at(root, "nextToken").map(str::to_owned)))
        };
        EC2.pages(&self.aws, action, &request, "NextToken", absent, page).await
    }
}

impl Vpc {
    fn read(item: Node<'_, '_>) -> Option<Self> {
        let id = text_at(item, "vpcId")?.to_owned();
        let cidr = text_at(item, "cidrBlock")?.to_owned();
        Some(Self { id, cidr, is_default: is_true(item, "isDefault") })
    }
}

impl Subnet {
    fn read(item: Node<'_, '_>) -> Option<Self> {
        Some(Self {
            id: text_at(item, "subnetId")?.to_owned(),
            zone: text_at(item, "availabilityZone")?.to_owned(),
            // A subnet with IPv6 only has none.
            cidr: text_at(item, "cidrBlock").unwrap_or_default().to_owned(),
            public_ip: is_true(item, "mapPublicIpOnLaunch"),
            default_for_zone: is_true(item, "defaultForAz"),
            on_outpost: text_at(item, "outpostArn").is_some(),
        })
    }
}

impl InstanceType {
    fn read(item: Node<'_, '_>) -> Option<Self> {
        let nvidia = |gpu: &Node<'_, '_>| text_at(*gpu, "manufacturer").is_none_or(|maker| maker == "NVIDIA");
        let count = |gpu: Node<'_, '_>| text_at(gpu, "count").and_then(|count| count.parse::<u32>().ok());
        Some(Self {
            name: text_at(item, "instanceType")?.to_owned(),
            vcpus: text_at(item, "vCpuInfo/defaultVCpus")?.parse().ok()?,
            memory_mib: text_at(item, "memoryInfo/sizeInMiB")?.parse().ok()?,
            gpus: items(item, "gpuInfo/gpus").filter(nvidia).filter_map(count).sum(),
            arch: items(item, "processorInfo/supportedArchitectures")
                .filter_map(|arch| Some(arch.text()?.into()))
                .collect(),
            bare_metal: is_true(item, "bareMetal"),
        })
    }
}

impl Image {
    fn read(item: Node<'_, '_>) -> Option<Self> {
        let root_device = text_at(item, "rootDeviceName")?.to_owned();
        Some(Self { root_device, arch: text_at(item, "architecture")?.to_owned() })
    }
}

/// Reads a zone; `Some(None)` if the zone cannot be used.
#[expect(clippy::option_option, reason = "the outer `None` is an unreadable response, the inner one a zone to skip")]
fn zone(item: Node<'_, '_>) -> Option<Option<Zone>> {
    let name = text_at(item, "zoneName")?.to_owned();
    let id = text_at(item, "zoneId").unwrap_or_default().to_owned();
    let is_available = text_at(item, "zoneState")? == "available";
    let is_full_zone = text_at(item, "zoneType").is_none_or(|kind| kind == "availability-zone");
    let is_enabled = text_at(item, "optInStatus").is_none_or(|status| status != "not-opted-in");
    Some((is_available && is_full_zone && is_enabled).then_some(Zone { name, id }))
}

fn offering(item: Node<'_, '_>) -> Option<(String, String)> {
    Some((text_at(item, "instanceType")?.to_owned(), text_at(item, "location")?.to_owned()))
}

fn is_true(item: Node<'_, '_>, name: &str) -> bool {
    text_at(item, name) == Some("true")
}

/// Returns the EC2 filter patterns that match a chosen type, family or other name.
fn patterns(chosen: &str) -> Vec<String> {
    match bundle(chosen) {
        Some(families) => families.iter().map(|family| format!("{family}.*")).collect(),
        None if chosen.contains('.') => vec![chosen.to_owned()],
        None => vec![format!("{chosen}.*")],
    }
}

fn is_among(chosen: &str, found: &[InstanceType]) -> bool {
    found.iter().any(|kind| matches_instance_type(chosen, &kind.name))
}

fn matches_instance_type(chosen: &str, name: &str) -> bool {
    let is_in_family = |family: &str| name.split_once('.').is_some_and(|(prefix, _)| prefix == family);
    match bundle(chosen) {
        Some(families) => families.iter().any(|family| is_in_family(family)),
        None => chosen == name || is_in_family(chosen),
    }
}

/// Returns whether AWS Batch may have instance types for one of these names that are not known here.
pub(crate) fn may_have_more(names: &[String]) -> bool {
    names.iter().any(|name| bundle(name).is_some())
}

fn bundle(chosen: &str) -> Option<&'static [&'static str]> {
    BUNDLES.iter().find(|(name, _)| *name == chosen).map(|(_, families)| *families)
}

/// Formats the first few names for use in a sentence.
fn quoted(names: &[String]) -> String {
    let (shown, rest) = names.split_at(names.len().min(4));
    let shown: Vec<String> = shown.iter().map(|name| format!("`{name}`")).collect();
    match rest.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests;
