//! Settings of a Pars, as the user gives them by the builder and by flags, and their defaults.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::checks::{self, refused};
use super::declare::{Kind as ValueKind, Single, declare};
use super::names::Kind;
use crate::error::{Error, ErrorKind, Result};

/// Default number of days after which runs and logs are deleted.
const DEFAULT_EXPIRY_DAYS: u32 = 30;

/// Maximum number of subnets of a compute environment (`subnets` in `ComputeResource` in the AWS Batch API reference).
pub(crate) const MAX_SUBNETS: usize = 16;

/// Default addresses of a new VPC.
const DEFAULT_CIDR: &str = "10.0.0.0/16";

declare! {
    setters: pars_setters for settings,
    /// Settings of a Pars. A setting that was not given is `None` or empty. They are stored in the stack of the Pars, so that
    /// another `create` can report differences.
    #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
    #[non_exhaustive]
    pub struct ParsSettings {
        /// ID of an existing VPC: jobs run in its private subnets that have a route to the internet, or if there are none, in its
        /// public ones, with public addresses. If not given, jobs run in the account's default VPC, which is created if there
        /// is none.
        #[flag("--vpc ID", "Network", conflicts: cidr internet endpoints tenancy)]
        #[setter(impl Into<String>, in_place_of: cidr)]
        pub vpc: Option<String>,
        /// IDs of the subnets that jobs run in, of the existing VPC, in place of those that its routes suggest. At most 16.
        #[flag("--subnet ID", "Network", conflicts: cidr internet endpoints tenancy)]
        #[check(subnets)]
        #[setter(subnet: impl Into<String>)]
        pub subnets: Vec<String>,
        /// Addresses of a new VPC that belongs to the Pars; `10.0.0.0/16` if only other settings of a new VPC are given.
        #[flag("--cidr CIDR", "Network")]
        pub cidr: Option<String>,
        /// Route of jobs in a new VPC to the internet, and with it to AWS; `public-ip` if not given. `public-ip` gives each
        /// machine a public address, which costs nothing while idle; inbound connections are not allowed. `nat` is a NAT
        /// gateway, and `none` means that AWS is reached through endpoints in the VPC: both cost money while idle.
        #[flag("--internet ROUTE", "Network")]
        #[setter(Internet)]
        pub internet: Option<Internet>,
        /// `true` if jobs in a new VPC reach ECR and CloudWatch Logs through VPC endpoints even if there is internet access. VPC
        /// endpoints cost money while idle.
        #[flag("--endpoints", "Network")]
        #[setter(true)]
        pub endpoints: Option<bool>,
        /// Tenancy of the hardware of instances in a new VPC; `default` if not given, which is shared with other accounts.
        /// `dedicated` is hardware of this account alone, at a higher price.
        #[flag("--tenancy TENANCY", "Network")]
        #[setter(Tenancy)]
        pub tenancy: Option<Tenancy>,
        /// Name of the bucket; if not given, AWS generates one. An existing bucket is used, and survives a clobber.
        #[flag("--bucket NAME", "Data")]
        #[check(checks::name(Kind::Bucket))]
        #[setter(impl Into<String>)]
        pub bucket: Option<String>,
        /// Prefix of all keys in the bucket, such as `team/`.
        #[flag("--prefix PREFIX", "Data")]
        #[setter(impl Into<String>)]
        pub prefix: Option<String>,
        /// ARN of the KMS key that objects and logs are encrypted with, in place of AWS's own. Its policy must let CloudWatch Logs use
        /// it.
        #[flag("--kms-key ARN", "Data")]
        #[check(checks::name(Kind::Key))]
        #[setter(impl Into<String>)]
        pub kms_key: Option<String>,
        /// Number of days after which runs are deleted, or 0 for never; 30 if not given. Has no effect on a bucket that existed
        /// before.
        #[flag("--expire-runs DAYS", "Data")]
        #[setter(u32)]
        pub expire_runs: Option<u32>,
        /// Number of days after which logs are deleted, or 0 for never; 30 if not given. CloudWatch accepts only certain
        /// numbers.
        #[flag("--log-retention DAYS", "Data")]
        #[check(checks::log_retention)]
        #[setter(u32)]
        pub log_retention: Option<u32>,
        /// Name of an existing role for instances, in place of the stack's own. It survives a clobber.
        #[flag("--instance-role NAME", "Roles")]
        #[setter(impl Into<String>)]
        pub instance_role: Option<String>,
        /// Name of an existing role that starts containers, in place of the stack's own. It survives a clobber.
        #[flag("--execution-role NAME", "Roles")]
        #[setter(impl Into<String>)]
        pub execution_role: Option<String>,
        /// ARN of the policy that bounds the permissions of every role.
        #[flag("--permissions-boundary ARN", "Roles")]
        #[setter(impl Into<String>)]
        pub permissions_boundary: Option<String>,
        /// Path of every role, such as `/team/`.
        #[flag("--role-path PATH", "Roles")]
        #[check(checks::name(Kind::RolePath))]
        #[setter(impl Into<String>)]
        pub role_path: Option<String>,
        /// Tags of all resources that can have tags.
        #[flag("--tag KEY=VALUE", "Tags")]
        #[check(checks::tags)]
        #[setter(tag: impl Into<String>, impl Into<String>)]
        pub tags: BTreeMap<String, String>,
    }
}

/// Network that the jobs of a Pars run in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Network {
    /// The account's default VPC.
    Default,
    /// An existing VPC, by its ID.
    Vpc(String),
    /// A new VPC that belongs to the Pars.
    New { cidr: String, tenancy: Tenancy, internet: Internet, endpoints: bool },
}

/// Tenancy of the hardware that instances run on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Tenancy {
    /// Shared with other accounts.
    #[default]
    Default,
    /// Dedicated to this account, at a higher price.
    Dedicated,
}

impl Single for Tenancy {
    const KIND: ValueKind = ValueKind::Choice(&["default", "dedicated"]);
}

/// Route of jobs in a new VPC to the internet, and with it to AWS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Internet {
    /// A NAT gateway, which costs money while idle.
    Nat,
    /// No internet access; AWS is reached through endpoints, which cost money while idle.
    None,
    /// A public address for each machine, which costs nothing while idle. Inbound connections are not allowed.
    #[default]
    PublicIp,
}

impl Single for Internet {
    const KIND: ValueKind = ValueKind::Choice(&["nat", "none", "public-ip"]);
}

impl ParsSettings {
    /// Checks each setting, and that the settings do not exclude each other.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_each()?;
        let existing = [("vpc", self.vpc.is_some()), ("subnets", !self.subnets.is_empty())];
        let existing = existing.into_iter().find_map(|(key, is_set)| is_set.then_some(key));
        match (self.new_vpc_setting(), existing) {
            (Some(new), Some(existing)) => Err(refused(&format!("`{new}` with `{existing}`"), "requires a new VPC")),
            _ => Ok(()),
        }
    }

    /// Returns the key of the first given setting that is only for a new VPC.
    fn new_vpc_setting(&self) -> Option<&'static str> {
        let all = [
            ("cidr", self.cidr.is_some()),
            ("internet", self.internet.is_some()),
            ("endpoints", self.endpoints == Some(true)),
            ("tenancy", self.tenancy.is_some()),
        ];
        all.into_iter().find_map(|(key, is_set)| is_set.then_some(key))
    }

    pub(crate) fn network(&self) -> Network {
        match &self.vpc {
            Some(id) => Network::Vpc(id.clone()),
            None if self.new_vpc_setting().is_none() => Network::Default,
            None => Network::New {
                cidr: self.cidr.clone().unwrap_or_else(|| DEFAULT_CIDR.to_owned()),
                tenancy: self.tenancy.unwrap_or_default(),
                internet: self.internet.unwrap_or_default(),
                endpoints: self.endpoints.unwrap_or_default(),
            },
        }
    }

    /// Returns the prefix of all keys in the bucket: nothing, or `team/`.
    pub(crate) fn prefix(&self) -> String {
        let prefix = self.prefix.as_deref().unwrap_or_default().trim_matches('/');
        if prefix.is_empty() { String::new() } else { format!("{prefix}/") }
    }

    /// Returns the number of days after which runs are deleted; `None` for never.
    pub(crate) fn expire_runs(&self) -> Option<u32> {
        Some(self.expire_runs.unwrap_or(DEFAULT_EXPIRY_DAYS)).filter(|days| *days > 0)
    }

    /// Returns the number of days after which logs are deleted; `None` for never.
    pub(crate) fn log_retention(&self) -> Option<u32> {
        Some(self.log_retention.unwrap_or(DEFAULT_EXPIRY_DAYS)).filter(|days| *days > 0)
    }

    pub(crate) fn role_path(&self) -> &str {
        self.role_path.as_deref().unwrap_or("/")
    }

    /// Returns these settings with the default of each setting that was not given and has one, for comparisons.
    pub(crate) fn with_defaults(mut self) -> Self {
        if let Network::New { cidr, tenancy, internet, .. } = self.network() {
            (self.cidr, self.tenancy, self.internet) = (Some(cidr), Some(tenancy), Some(internet));
        }
        self.endpoints = self.endpoints.filter(|endpoints| *endpoints);
        self.prefix = Some(self.prefix()).filter(|prefix| !prefix.is_empty());
        self.expire_runs = Some(self.expire_runs().unwrap_or(0));
        self.log_retention = Some(self.log_retention().unwrap_or(0));
        self.role_path = Some(self.role_path().to_owned());
        self.subnets.sort();
        self
    }
}

/// Checks the subnets that the user chose.
fn subnets(key: &str, subnets: &Vec<String>) -> Result<()> {
    checks::names(Kind::Subnet)(key, subnets)?;
    if subnets.len() > MAX_SUBNETS {
        let message = format!("invalid `{key}`: {} are set; must be at most {MAX_SUBNETS}", subnets.len());
        return Err(Error::new(ErrorKind::Config, message).with_hint("remove some, which AWS Batch does not accept"));
    }
    let is_repeated = |(index, subnet): &(usize, &String)| subnets[..*index].contains(subnet);
    let Some((_, repeated)) = subnets.iter().enumerate().find(is_repeated) else { return Ok(()) };
    Err(Error::new(ErrorKind::Config, format!("invalid `{key}`: `{repeated}` must be set only once")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_new_vpc_exclude_an_existing_one() {
        let check = |json: &str, expected: Result<Network, &str>| {
            let settings: ParsSettings = serde_json::from_str(json).unwrap();
            let checked = settings.check().map(|()| settings.network()).map_err(|error| error.to_string());
            assert_eq!(checked, expected.map_err(ToOwned::to_owned), "{json}");
        };
        let new = |cidr: &str, tenancy, internet, endpoints| Network::New {
            cidr: cidr.to_owned(),
            tenancy,
            internet,
            endpoints,
        };
        check("{}", Ok(Network::Default));
        check(r#"{"vpc": "vpc-1"}"#, Ok(Network::Vpc("vpc-1".to_owned())));
        let public = (Tenancy::Default, Internet::PublicIp);
        check(r#"{"cidr": "10.1.0.0/16"}"#, Ok(new("10.1.0.0/16", public.0, public.1, false)));
        check(r#"{"internet": "nat"}"#, Ok(new("10.0.0.0/16", public.0, Internet::Nat, false)));
        check(r#"{"tenancy": "dedicated"}"#, Ok(new("10.0.0.0/16", Tenancy::Dedicated, public.1, false)));
        check(r#"{"endpoints": true}"#, Ok(new("10.0.0.0/16", public.0, public.1, true)));
        let why = "invalid `internet` with `vpc`: requires a new VPC";
        check(r#"{"vpc": "vpc-1", "internet": "none"}"#, Err(why));
        check(r#"{"subnets": ["subnet-0a1b2c3d"]}"#, Ok(Network::Default));
        let why = "invalid `internet` with `subnets`: requires a new VPC";
        check(r#"{"subnets": ["subnet-0a1b2c3d"], "internet": "none"}"#, Err(why));
    }

    #[test]
    fn default_equals_the_same_value_given() {
        let check = |json: &str, same: &str| {
            let [one, other] = [json, same].map(|json| serde_json::from_str::<ParsSettings>(json).unwrap());
            assert_ne!(one, other);
            assert_eq!(one.with_defaults(), other.with_defaults(), "{json} and {same}");
        };
        let all = r#"{"expire-runs": 30, "log-retention": 30, "role-path": "/", "prefix": ""}"#;
        check("{}", all);
        check(r#"{"prefix": "team"}"#, r#"{"prefix": "/team/"}"#);
        check(r#"{"internet": "public-ip"}"#, r#"{"cidr": "10.0.0.0/16"}"#);
        check(r#"{"endpoints": false}"#, "{}");
        check(r#"{"subnets": ["subnet-2", "subnet-1"]}"#, r#"{"subnets": ["subnet-1", "subnet-2"]}"#);
    }

    #[test]
    fn subnets_that_batch_rejects_are_errors() {
        let check = |all: &[&str], expected: Result<(), &str>| {
            let subnets = all.iter().map(ToString::to_string).collect();
            let checked = ParsSettings { subnets, ..ParsSettings::default() }.check();
            assert_eq!(checked.map_err(|error| error.to_string()), expected.map_err(ToOwned::to_owned), "{all:?}");
        };
        let all: Vec<String> = (10..27).map(|number| format!("subnet-0a1b2c{number}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        check(&all[..16], Ok(()));
        check(&all, Err("invalid `subnets`: 17 are set; must be at most 16"));
        check(&[all[0], all[1], all[0]], Err("invalid `subnets`: `subnet-0a1b2c10` must be set only once"));
        check(&["10.0.0.0/20"], Err("invalid subnet `10.0.0.0/20`: must be an ID of this kind"));
    }

    #[test]
    fn zero_days_are_never() {
        let settings = ParsSettings { expire_runs: Some(0), log_retention: Some(0), ..ParsSettings::default() };
        settings.check().unwrap();
        assert_eq!((settings.expire_runs(), settings.log_retention()), (None, None));
        assert_eq!(ParsSettings::default().expire_runs(), Some(30));
    }
}
