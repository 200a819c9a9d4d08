//! EC2, and no other service of AWS: reads networks and machines, and creates the default VPC where there is none.
//!
//! The SDK of EC2 takes five minutes to compile, so the few requests are written here and sent by `query.rs`.

use std::collections::{BTreeMap, BTreeSet};

use roxmltree::Node;

use super::query::{self, Api, Ask, items, part};
use crate::aws::{Aws, code};
use crate::error::{Error, ErrorKind, Result};

/// API of EC2. Its version has not changed since 2016-11-15.
const EC2: Api = Api::new("EC2", "ec2", false, "2016-11-15");

/// Maximum number of values in one filter, which is the limit of EC2.
const VALUES: usize = 200;
/// Maximum number of instance types on a page, which is the limit of EC2.
const PAGE: &str = "100";

/// Names under which AWS Batch knows several instance families, and these families.
///
/// `optimal` was C4, M4 and R4, or C5, M5 and R5 in regions without those; since November 2025 it is being moved to the
/// families of `default_x86_64`. An account may have either, so both are listed here. (`instanceTypes` in `ComputeResource`
/// and `ComputeResourceUpdate` of the API reference of AWS Batch; user guide of AWS Batch, "Optimal instance type
/// configuration to receive automatic instance family updates". AWS Batch may add families: each name has at least the
/// families that are listed here.)
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
        let ask = Ask::new("DescribeVpcs").filter("is-default", ["true"]);
        let found = self.list("look for the default VPC", ask, "vpcSet", &[], Vpc::read).await?;
        Ok(found.into_iter().next())
    }

    /// Creates the default VPC, with a subnet in each zone. Returns the existing one if there is one by now.
    pub(crate) async fn create_default_vpc(&self) -> Result<Vpc> {
        let action = "make the default VPC";
        let answer = match EC2.send(&self.aws, &Ask::new("CreateDefaultVpc")).await {
            Ok(answer) => answer,
            // Created by another user, or by an earlier request of this program whose answer was lost.
            Err(error) if code(&error) == Some("DefaultVpcAlreadyExists") => {
                let missing = || EC2.unreadable(&self.aws, action, "it exists, but cannot be found");
                return self.default_vpc().await?.ok_or_else(missing);
            }
            Err(error) => return Err(self.aws.failed(action, error)),
        };
        let made = |root: Node<'_, '_>| query::below(root, "vpc").and_then(Vpc::read);
        EC2.parse(&self.aws, action, &answer, made)?
            .ok_or_else(|| EC2.unreadable(&self.aws, action, "the response contains no VPC"))
    }

    /// Returns the VPC with this ID.
    pub(crate) async fn vpc(&self, id: &str) -> Result<Option<Vpc>> {
        let ask = Ask::new("DescribeVpcs").with("VpcId.1", id);
        let (action, absent) = (format!("look for the VPC `{id}`"), ["InvalidVpcID.NotFound"]);
        Ok(self.list(&action, ask, "vpcSet", &absent, Vpc::read).await?.into_iter().next())
    }

    /// Returns the subnets of a VPC, sorted by zone.
    pub(crate) async fn subnets(&self, vpc: &str) -> Result<Vec<Subnet>> {
        let ask = Ask::new("DescribeSubnets").filter("vpc-id", [vpc]);
        let action = format!("list the subnets of the VPC `{vpc}`");
        let mut found = self.list(&action, ask, "subnetSet", &[], Subnet::read).await?;
        found.sort_by(|a, b| (&a.zone, &a.id).cmp(&(&b.zone, &b.id)));
        Ok(found)
    }

    /// Returns the number of VPCs in the region.
    pub(crate) async fn count_vpcs(&self) -> Result<usize> {
        let there = self.list("count the VPCs", Ask::new("DescribeVpcs"), "vpcSet", &[], Vpc::read).await?;
        Ok(there.len())
    }

    /// Returns the number of elastic addresses of Amazon that the account has in the region. Addresses that the account
    /// brought itself do not count against the quota.
    pub(crate) async fn count_addresses(&self) -> Result<usize> {
        let is_amazons = |item: Node<'_, '_>| Some(part(item, "publicIpv4Pool").is_none_or(|pool| pool == "amazon"));
        let ask = Ask::new("DescribeAddresses");
        let there = self.list("count the elastic addresses", ask, "addressesSet", &[], is_amazons).await?;
        Ok(there.into_iter().filter(|is_amazons| *is_amazons).count())
    }

    /// Returns the number of NAT gateways in a zone, including those that are being created or deleted.
    pub(crate) async fn count_nat_gateways(&self, zone: &str) -> Result<usize> {
        let action = format!("count the NAT gateways in {zone}");
        let ask = Ask::new("DescribeNatGateways").filter("state", ["pending", "available", "deleting"]);
        let subnet = |item: Node<'_, '_>| part(item, "subnetId").map(str::to_owned);
        let of_gateways = self.list(&action, ask, "natGatewaySet", &[], subnet).await?;
        if of_gateways.is_empty() {
            return Ok(0);
        }
        let ask = Ask::new("DescribeSubnets").filter("availability-zone", [zone]);
        let here: BTreeSet<String> = self.list(&action, ask, "subnetSet", &[], subnet).await?.into_iter().collect();
        Ok(of_gateways.into_iter().filter(|subnet| here.contains(subnet)).count())
    }

    /// Returns the zones of the region that are available and that the account may use. Local zones are left out, because
    /// they do not have Fargate.
    pub(crate) async fn zones(&self) -> Result<Vec<String>> {
        let action = format!("list the zones of `{}`", self.aws.region);
        let all = self.list(&action, Ask::new("DescribeAvailabilityZones"), "availabilityZoneInfo", &[], zone).await?;
        let mut names: Vec<String> = all.into_iter().flatten().collect();
        names.sort();
        Ok(names)
    }

    /// Returns the chosen instance types: types (`c7g.large`), families (`c7g`), and the other names that AWS Batch knows
    /// (`optimal`, `default_x86_64`, `default_arm64`).
    ///
    /// # Errors
    /// Returns an error if the region has no instance type for one of them.
    pub(crate) async fn instance_types(&self, chosen: &[String]) -> Result<Vec<InstanceType>> {
        let patterns: Vec<String> = chosen.iter().flat_map(|chosen| patterns(chosen)).collect();
        let mut found = Vec::new();
        for patterns in patterns.chunks(VALUES) {
            let ask = Ask::new("DescribeInstanceTypes").with("MaxResults", PAGE).filter("instance-type", patterns);
            let action = format!("look up the instance types {}", quoted(chosen));
            found.extend(self.list(&action, ask, "instanceTypeSet", &[], InstanceType::read).await?);
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found.dedup_by(|a, b| a.name == b.name);
        let unknown: Vec<String> = chosen
            .iter()
            .filter(|chosen| !found.iter().any(|found| matches_instance_type(chosen, &found.name)))
            .cloned()
            .collect();
        if unknown.is_empty() {
            return Ok(found);
        }
        let region = &self.aws.region;
        let message = format!("cannot find the instance types {} in {region}", quoted(&unknown));
        Err(Error::new(ErrorKind::Config, message).with_hint(
            "name types (`c7g.large`) or families (`c7g`) that this region has, in `instance-types`, or choose another region",
        ))
    }

    /// Returns the zones of the region that offer each of these types, by full name. A type that no zone offers is absent.
    pub(crate) async fn offered_in(&self, types: &[String]) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let mut zones: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for types in types.chunks(VALUES) {
            let ask = Ask::new("DescribeInstanceTypeOfferings")
                .with("LocationType", "availability-zone")
                .filter("instance-type", types);
            let action = format!("look up the zones that have {}", quoted(types));
            for (name, zone) in self.list(&action, ask, "instanceTypeOfferingSet", &[], offering).await? {
                zones.entry(name).or_default().insert(zone);
            }
        }
        Ok(zones)
    }

    /// Returns the disk and the architecture of a machine image, if the account may use it.
    pub(crate) async fn root_device(&self, ami: &str) -> Result<Option<Image>> {
        let ask = Ask::new("DescribeImages").with("ImageId.1", ami);
        let absent = ["InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"];
        let action = format!("look for the machine image `{ami}`");
        Ok(self.list(&action, ask, "imagesSet", &absent, Image::read).await?.into_iter().next())
    }

    pub(crate) async fn key_pair_exists(&self, name: &str) -> Result<bool> {
        let ask = Ask::new("DescribeKeyPairs").with("KeyName.1", name);
        let action = format!("look for the key pair `{name}`");
        let named = |item: Node<'_, '_>| part(item, "keyName").map(str::to_owned);
        Ok(!self.list(&action, ask, "keySet", &["InvalidKeyPair.NotFound"], named).await?.is_empty())
    }

    /// Returns all items of a set, over all pages. If EC2 answers with one of the codes in `absent`, there are none.
    async fn list<T>(
        &self,
        action: &str,
        ask: Ask,
        set: &str,
        absent: &[&str],
        read: impl Fn(Node<'_, '_>) -> Option<T>,
    ) -> Result<Vec<T>> {
        let page = |root: Node<'_, '_>| {
            let items = items(root, set).map(&read).collect::<Option<_>>()?;
            Some((items, part(root, "nextToken").map(str::to_owned)))
        };
        EC2.pages(&self.aws, action, &ask, "NextToken", absent, page).await
    }
}

impl Vpc {
    fn read(item: Node<'_, '_>) -> Option<Self> {
        let id = part(item, "vpcId")?.to_owned();
        let cidr = part(item, "cidrBlock")?.to_owned();
        Some(Self { id, cidr, is_default: is(item, "isDefault") })
    }
}

impl Subnet {
    fn read(item: Node<'_, '_>) -> Option<Self> {
        Some(Self {
            id: part(item, "subnetId")?.to_owned(),
            zone: part(item, "availabilityZone")?.to_owned(),
            // A subnet with IPv6 only has none.
            cidr: part(item, "cidrBlock").unwrap_or_default().to_owned(),
            public_ip: is(item, "mapPublicIpOnLaunch"),
            default_for_zone: is(item, "defaultForAz"),
        })
    }
}

impl InstanceType {
    fn read(item: Node<'_, '_>) -> Option<Self> {
        let nvidia = |gpu: &Node<'_, '_>| part(*gpu, "manufacturer").is_none_or(|maker| maker == "NVIDIA");
        let count = |gpu: Node<'_, '_>| part(gpu, "count").and_then(|count| count.parse::<u32>().ok());
        Some(Self {
            name: part(item, "instanceType")?.to_owned(),
            vcpus: part(item, "vCpuInfo/defaultVCpus")?.parse().ok()?,
            memory_mib: part(item, "memoryInfo/sizeInMiB")?.parse().ok()?,
            gpus: items(item, "gpuInfo/gpus").filter(nvidia).filter_map(count).sum(),
            arch: items(item, "processorInfo/supportedArchitectures")
                .filter_map(|arch| Some(arch.text()?.into()))
                .collect(),
            bare_metal: is(item, "bareMetal"),
        })
    }
}

impl Image {
    fn read(item: Node<'_, '_>) -> Option<Self> {
        let root_device = part(item, "rootDeviceName")?.to_owned();
        Some(Self { root_device, arch: part(item, "architecture")?.to_owned() })
    }
}

/// Reads the name of a zone; `Some(None)` if the zone cannot be used.
#[expect(clippy::option_option, reason = "one is an answer that cannot be read, the other a zone that is left out")]
fn zone(item: Node<'_, '_>) -> Option<Option<String>> {
    let name = part(item, "zoneName")?;
    let works = part(item, "zoneState")? == "available";
    let whole = part(item, "zoneType").is_none_or(|kind| kind == "availability-zone");
    let ours = part(item, "optInStatus").is_none_or(|status| status != "not-opted-in");
    Some((works && whole && ours).then(|| name.to_owned()))
}

fn offering(item: Node<'_, '_>) -> Option<(String, String)> {
    Some((part(item, "instanceType")?.to_owned(), part(item, "location")?.to_owned()))
}

fn is(item: Node<'_, '_>, name: &str) -> bool {
    part(item, name) == Some("true")
}

/// Returns the patterns of EC2 that match a chosen type, family or other name.
fn patterns(chosen: &str) -> Vec<String> {
    match bundle(chosen) {
        Some(families) => families.iter().map(|family| format!("{family}.*")).collect(),
        None if chosen.contains('.') => vec![chosen.to_owned()],
        None => vec![format!("{chosen}.*")],
    }
}

fn matches_instance_type(chosen: &str, name: &str) -> bool {
    let of_family = |family: &str| name.split_once('.').is_some_and(|(of, _)| of == family);
    match bundle(chosen) {
        Some(families) => families.iter().any(|family| of_family(family)),
        None => chosen == name || of_family(chosen),
    }
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
