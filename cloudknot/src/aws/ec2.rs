//! EC2, and nothing else of AWS: reads networks and machines, and makes the default VPC where there is none.
//!
//! Its SDK takes five minutes to compile, so the few requests are written here and sent by `query.rs`.

use std::collections::{BTreeMap, BTreeSet};

use roxmltree::Node;

use super::query::{self, Api, Ask, items, part};
use super::{Aws, code};
use crate::error::{Error, ErrorKind, Result};

/// The version has not changed since EC2 called it so.
const EC2: Api = Api::new("EC2", "ec2", false, "2016-11-15");

/// How many values one filter is given; EC2 takes 200.
const VALUES: usize = 200;
/// How many instance types a page has; EC2 gives no more.
const PAGE: &str = "100";

/// What Batch knows by one name, and the families that stand for it.
///
/// `optimal` was C4, M4 and R4, or C5, M5 and R5 where these are not; since November 2025 it is moved to what `default_x86_64`
/// is. An account may have either, so it is both here. (`instanceTypes` in `ComputeResource` and `ComputeResourceUpdate` of
/// Batch's API reference; Batch's user guide, "Optimal instance type configuration to receive automatic instance family
/// updates". Batch may add families to them: what is listed here is what they have at least.)
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

/// A network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vpc {
    pub(crate) id: String,
    pub(crate) cidr: String,
    pub(crate) is_default: bool,
}

/// The part of a network that is in one zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subnet {
    pub(crate) id: String,
    pub(crate) zone: String,
    pub(crate) cidr: String,
    /// Whether what starts here gets a public address.
    pub(crate) public_ip: bool,
    pub(crate) default_for_zone: bool,
}

/// What a machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstanceType {
    pub(crate) name: String,
    pub(crate) vcpus: u32,
    /// All of it; a job gets less.
    pub(crate) memory_mib: u64,
    /// Those that a container can be given: NVIDIA's.
    pub(crate) gpus: u32,
    /// EC2's words: `x86_64`, `arm64`, `i386`.
    pub(crate) arch: Vec<String>,
    pub(crate) bare_metal: bool,
}

/// What a machine starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// The name of its disk, to which a size can be given.
    pub(crate) root_device: String,
    pub(crate) arch: String,
}

impl Ec2 {
    pub(crate) fn new(aws: &Aws) -> Self {
        Self { aws: aws.clone() }
    }

    /// The VPC that every account has in every region, unless somebody deleted it.
    pub(crate) async fn default_vpc(&self) -> Result<Option<Vpc>> {
        let ask = Ask::new("DescribeVpcs").filter("is-default", ["true"]);
        let found = self.list("look for the default VPC", ask, "vpcSet", &[], Vpc::read).await?;
        Ok(found.into_iter().next())
    }

    /// Makes the default VPC, with a subnet in each zone. If there is one by now, this is it.
    pub(crate) async fn create_default_vpc(&self) -> Result<Vpc> {
        let doing = "make the default VPC";
        let answer = match EC2.send(&self.aws, &Ask::new("CreateDefaultVpc")).await {
            Ok(answer) => answer,
            // Somebody else's, or our own, of which the answer was lost.
            Err(error) if code(&error) == Some("DefaultVpcAlreadyExists") => {
                let missing = || EC2.unreadable(&self.aws, doing, "it exists, and is not found");
                return self.default_vpc().await?.ok_or_else(missing);
            }
            Err(error) => return Err(self.aws.failed(doing, error)),
        };
        let made = |root: Node<'_, '_>| query::below(root, "vpc").and_then(Vpc::read);
        EC2.parse(&self.aws, doing, &answer, made)?
            .ok_or_else(|| EC2.unreadable(&self.aws, doing, "there is no VPC in it"))
    }

    /// The VPC of this id.
    pub(crate) async fn vpc(&self, id: &str) -> Result<Option<Vpc>> {
        let ask = Ask::new("DescribeVpcs").with("VpcId.1", id);
        let (doing, absent) = (format!("look for the VPC `{id}`"), ["InvalidVpcID.NotFound"]);
        Ok(self.list(&doing, ask, "vpcSet", &absent, Vpc::read).await?.into_iter().next())
    }

    /// The subnets of a VPC, by zone.
    pub(crate) async fn subnets(&self, vpc: &str) -> Result<Vec<Subnet>> {
        let ask = Ask::new("DescribeSubnets").filter("vpc-id", [vpc]);
        let doing = format!("list the subnets of the VPC `{vpc}`");
        let mut found = self.list(&doing, ask, "subnetSet", &[], Subnet::read).await?;
        found.sort_by(|a, b| (&a.zone, &a.id).cmp(&(&b.zone, &b.id)));
        Ok(found)
    }

    /// How many VPCs there are in the region.
    pub(crate) async fn count_vpcs(&self) -> Result<usize> {
        let there = self.list("count the VPCs", Ask::new("DescribeVpcs"), "vpcSet", &[], Vpc::read).await?;
        Ok(there.len())
    }

    /// How many elastic addresses of Amazon's the account has in the region: its own do not count against a quota.
    pub(crate) async fn count_addresses(&self) -> Result<usize> {
        let is_amazons = |item: Node<'_, '_>| Some(part(item, "publicIpv4Pool").is_none_or(|pool| pool == "amazon"));
        let ask = Ask::new("DescribeAddresses");
        let there = self.list("count the elastic addresses", ask, "addressesSet", &[], is_amazons).await?;
        Ok(there.into_iter().filter(|is_amazons| *is_amazons).count())
    }

    /// How many NAT gateways there are in a zone, with those that come and go.
    pub(crate) async fn count_nat_gateways(&self, zone: &str) -> Result<usize> {
        let doing = format!("count the NAT gateways in {zone}");
        let ask = Ask::new("DescribeNatGateways").filter("state", ["pending", "available", "deleting"]);
        let subnet = |item: Node<'_, '_>| part(item, "subnetId").map(str::to_owned);
        let of_gateways = self.list(&doing, ask, "natGatewaySet", &[], subnet).await?;
        if of_gateways.is_empty() {
            return Ok(0);
        }
        let ask = Ask::new("DescribeSubnets").filter("availability-zone", [zone]);
        let here: BTreeSet<String> = self.list(&doing, ask, "subnetSet", &[], subnet).await?.into_iter().collect();
        Ok(of_gateways.into_iter().filter(|subnet| here.contains(subnet)).count())
    }

    /// The zones of the region that work and that the account may use; without local zones, where Fargate is not.
    pub(crate) async fn zones(&self) -> Result<Vec<String>> {
        let doing = format!("list the zones of `{}`", self.aws.region);
        let all = self.list(&doing, Ask::new("DescribeAvailabilityZones"), "availabilityZoneInfo", &[], zone).await?;
        let mut names: Vec<String> = all.into_iter().flatten().collect();
        names.sort();
        Ok(names)
    }

    /// What these machines have: types (`c7g.large`), families (`c7g`), and what else Batch knows (`optimal`,
    /// `default_x86_64`, `default_arm64`).
    ///
    /// # Errors
    /// If the region has nothing of one of them.
    pub(crate) async fn instance_types(&self, chosen: &[String]) -> Result<Vec<InstanceType>> {
        let patterns: Vec<String> = chosen.iter().flat_map(|chosen| patterns(chosen)).collect();
        let mut found = Vec::new();
        for patterns in patterns.chunks(VALUES) {
            let ask = Ask::new("DescribeInstanceTypes").with("MaxResults", PAGE).filter("instance-type", patterns);
            let doing = format!("look up the instance types {}", quoted(chosen));
            found.extend(self.list(&doing, ask, "instanceTypeSet", &[], InstanceType::read).await?);
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found.dedup_by(|a, b| a.name == b.name);
        let unknown: Vec<String> = chosen
            .iter()
            .filter(|chosen| !found.iter().any(|found| stands_for(chosen, &found.name)))
            .cloned()
            .collect();
        if unknown.is_empty() {
            return Ok(found);
        }
        let region = &self.aws.region;
        let message = format!("failed to find the instance types {} in {region}", quoted(&unknown));
        Err(Error::new(ErrorKind::Config, message).with_hint(
            "name types (`c7g.large`) or families (`c7g`) that this region has, in `instance-types`, or take another region",
        ))
    }

    /// In which zones of the region these types are; by their full names. A type that is nowhere is absent.
    pub(crate) async fn offered_in(&self, types: &[String]) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let mut zones: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for types in types.chunks(VALUES) {
            let ask = Ask::new("DescribeInstanceTypeOfferings")
                .with("LocationType", "availability-zone")
                .filter("instance-type", types);
            let doing = format!("look up the zones that have {}", quoted(types));
            for (name, zone) in self.list(&doing, ask, "instanceTypeOfferingSet", &[], offering).await? {
                zones.entry(name).or_default().insert(zone);
            }
        }
        Ok(zones)
    }

    /// The disk and the architecture of a machine image, if the account may use it.
    pub(crate) async fn root_device(&self, ami: &str) -> Result<Option<Image>> {
        let ask = Ask::new("DescribeImages").with("ImageId.1", ami);
        let absent = ["InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"];
        let doing = format!("look for the machine image `{ami}`");
        Ok(self.list(&doing, ask, "imagesSet", &absent, Image::read).await?.into_iter().next())
    }

    pub(crate) async fn key_pair_exists(&self, name: &str) -> Result<bool> {
        let ask = Ask::new("DescribeKeyPairs").with("KeyName.1", name);
        let doing = format!("look for the key pair `{name}`");
        let named = |item: Node<'_, '_>| part(item, "keyName").map(str::to_owned);
        Ok(!self.list(&doing, ask, "keySet", &["InvalidKeyPair.NotFound"], named).await?.is_empty())
    }

    /// All items of that set, over all pages. Where EC2 answers with one of these codes there are none.
    async fn list<T>(
        &self,
        doing: &str,
        ask: Ask,
        set: &str,
        absent: &[&str],
        read: impl Fn(Node<'_, '_>) -> Option<T>,
    ) -> Result<Vec<T>> {
        let mut all = Vec::new();
        let mut page = ask.clone();
        loop {
            let answer = match EC2.send(&self.aws, &page).await {
                Ok(answer) => answer,
                Err(error) if code(&error).is_some_and(|code| absent.contains(&code)) => return Ok(all),
                Err(error) => return Err(self.aws.failed(doing, error)),
            };
            let next = EC2.parse(&self.aws, doing, &answer, |root| {
                let read: Option<Vec<T>> = items(root, set).map(&read).collect();
                read.map(|read| (read, part(root, "nextToken").map(str::to_owned)))
            })?;
            let (read, next) =
                next.ok_or_else(|| EC2.unreadable(&self.aws, doing, "an item lacks what it is documented to have"))?;
            all.extend(read);
            match next {
                Some(next) => page = ask.clone().with("NextToken", &next),
                None => return Ok(all),
            }
        }
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
            // One that has IPv6 only has none.
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

/// The name of a zone, unless it is of no use.
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

/// What EC2 has to be asked for, to learn of what was chosen.
fn patterns(chosen: &str) -> Vec<String> {
    match bundle(chosen) {
        Some(families) => families.iter().map(|family| format!("{family}.*")).collect(),
        None if chosen.contains('.') => vec![chosen.to_owned()],
        None => vec![format!("{chosen}.*")],
    }
}

fn stands_for(chosen: &str, name: &str) -> bool {
    let of_family = |family: &str| name.split_once('.').is_some_and(|(of, _)| of == family);
    match bundle(chosen) {
        Some(families) => families.iter().any(|family| of_family(family)),
        None => chosen == name || of_family(chosen),
    }
}

fn bundle(chosen: &str) -> Option<&'static [&'static str]> {
    BUNDLES.iter().find(|(name, _)| *name == chosen).map(|(_, families)| *families)
}

/// The first few of them, to be named in a sentence.
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
