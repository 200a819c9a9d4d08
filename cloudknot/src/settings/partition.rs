//! AWS partitions. The partition of a region determines the form of its ARNs and host names.

/// A group of regions that share accounts. Partitions share nothing with each other.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// Prefix of the names of its regions.
    region_prefix: &'static str,
    /// Name of the partition in ARNs.
    pub(crate) name: &'static str,
    /// Domain of its services.
    pub(crate) domain: &'static str,
    /// Domain of its services over both IPv4 and IPv6.
    pub(crate) dual_stack: &'static str,
    /// IAM, which is shared by all of its regions.
    pub(crate) iam: Iam,
}

/// IAM in a partition. The host names lack the prefix `iam.`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Iam {
    pub(crate) host: &'static str,
    /// Host name for both IPv4 and IPv6.
    pub(crate) dual_stack: &'static str,
    /// Region that requests to IAM are signed for.
    pub(crate) region: &'static str,
}

/// All partitions, as in `partitions.json` of the SDKs; the IAM endpoints as in the IAM SDK (`config/endpoint.rs` of
/// aws-sdk-iam 1.133). The last partition matches all other regions.
const PARTITIONS: [Partition; 8] = [
    partition(
        "cn-",
        ["aws-cn", "amazonaws.com.cn", "api.amazonwebservices.com.cn"],
        ["cn-north-1.amazonaws.com.cn", "global.api.amazonwebservices.com.cn", "cn-north-1"],
    ),
    partition(
        "us-gov-",
        ["aws-us-gov", "amazonaws.com", "api.aws"],
        ["us-gov.amazonaws.com", "us-gov.api.aws", "us-gov-west-1"],
    ),
    partition(
        "eusc-",
        ["aws-eusc", "amazonaws.eu", "api.amazonwebservices.eu"],
        ["eusc-de-east-1.amazonaws.eu", "global.api.amazonwebservices.eu", "eusc-de-east-1"],
    ),
    partition(
        "us-iso-",
        ["aws-iso", "c2s.ic.gov", "api.aws.ic.gov"],
        ["us-iso-east-1.c2s.ic.gov", "api.aws.ic.gov", "us-iso-east-1"],
    ),
    partition(
        "us-isob-",
        ["aws-iso-b", "sc2s.sgov.gov", "api.aws.scloud"],
        ["us-isob-east-1.sc2s.sgov.gov", "api.aws.scloud", "us-isob-east-1"],
    ),
    partition(
        "eu-isoe-",
        ["aws-iso-e", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"],
        ["eu-isoe-west-1.cloud.adc-e.uk", "api.cloud-aws.adc-e.uk", "eu-isoe-west-1"],
    ),
    partition(
        "us-isof-",
        ["aws-iso-f", "csp.hci.ic.gov", "api.aws.hci.ic.gov"],
        ["us-isof-south-1.csp.hci.ic.gov", "api.aws.hci.ic.gov", "us-isof-south-1"],
    ),
    partition("", ["aws", "amazonaws.com", "api.aws"], ["amazonaws.com", "global.api.aws", "us-east-1"]),
];

/// Creates a partition from the prefix of its regions; its name, domain and dual-stack domain; and the IAM host,
/// dual-stack host and region.
const fn partition(region_prefix: &'static str, names: [&'static str; 3], iam: [&'static str; 3]) -> Partition {
    let [name, domain, dual_stack] = names;
    let [host, iam_dual_stack, region] = iam;
    let iam = Iam { host, dual_stack: iam_dual_stack, region };
    Partition { region_prefix, name, domain, dual_stack, iam }
}

impl Partition {
    /// Returns the partition that a region belongs to.
    pub(crate) fn of(region: &str) -> &'static Self {
        let found = PARTITIONS.iter().find(|partition| region.starts_with(partition.region_prefix));
        found.expect("the last partition matches every region")
    }

    pub(crate) fn is_china(&self) -> bool {
        self.name == "aws-cn"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_region_is_in_its_partition() {
        let check = |region: &str, name: &str, domain: &str| {
            let found = Partition::of(region);
            assert_eq!((found.name, found.domain), (name, domain), "{region}");
        };
        check("eu-central-1", "aws", "amazonaws.com");
        check("cn-northwest-1", "aws-cn", "amazonaws.com.cn");
        check("us-gov-east-1", "aws-us-gov", "amazonaws.com");
        check("eusc-de-east-1", "aws-eusc", "amazonaws.eu");
        check("us-iso-east-1", "aws-iso", "c2s.ic.gov");
        check("us-isob-east-1", "aws-iso-b", "sc2s.sgov.gov");
    }
}
