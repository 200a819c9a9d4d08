//! To which part of AWS a region belongs, which decides what ARNs and the names of its hosts are like.

/// Regions that share accounts, and nothing else with the other partitions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// What its regions begin with.
    begins: &'static str,
    /// What stands in ARNs.
    pub(crate) name: &'static str,
    /// Where its services are.
    pub(crate) domain: &'static str,
    /// Where they are with IPv6 too.
    pub(crate) dual_stack: &'static str,
}

/// As in `partitions.json` of the SDKs. The last has all other regions.
const PARTITIONS: [Partition; 8] = [
    partition("cn-", "aws-cn", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
    partition("us-gov-", "aws-us-gov", "amazonaws.com", "api.aws"),
    partition("eusc-", "aws-eusc", "amazonaws.eu", "api.amazonwebservices.eu"),
    partition("us-iso-", "aws-iso", "c2s.ic.gov", "api.aws.ic.gov"),
    partition("us-isob-", "aws-iso-b", "sc2s.sgov.gov", "api.aws.scloud"),
    partition("eu-isoe-", "aws-iso-e", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    partition("us-isof-", "aws-iso-f", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
    partition("", "aws", "amazonaws.com", "api.aws"),
];

const fn partition(
    begins: &'static str,
    name: &'static str,
    domain: &'static str,
    dual_stack: &'static str,
) -> Partition {
    Partition { begins, name, domain, dual_stack }
}

impl Partition {
    /// The one that a region belongs to.
    pub(crate) fn of(region: &str) -> &'static Self {
        let found = PARTITIONS.iter().find(|partition| region.starts_with(partition.begins));
        found.expect("the last takes every region")
    }

    #[cfg(feature = "deploy")]
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
