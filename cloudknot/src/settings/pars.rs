//! Settings of a Pars, as the user gives them by the builder and by flags.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Settings of a Pars. They are stored in its stack, so that another `create` can report differences.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ParsSettings {
    /// Network that jobs run in.
    pub network: Network,
    /// Name of an existing instance role, in place of the stack's own.
    pub instance_role: Option<String>,
    /// Name of an existing execution role, in place of the stack's own.
    pub execution_role: Option<String>,
    /// Name of the bucket; AWS generates one if it is absent. An existing bucket is used, and survives a clobber.
    pub bucket: Option<String>,
    /// Prefix of all keys in the bucket: nothing, or `team/`.
    pub prefix: String,
    /// KMS key that objects and logs are encrypted with, in place of AWS's own.
    pub kms_key: Option<String>,
    /// Number of days after which runs are deleted; `None` for never.
    pub expire_runs: Option<u32>,
    /// Number of days after which logs are deleted; `None` for never.
    pub log_retention: Option<u32>,
    /// Tags of all resources that can have tags.
    pub tags: BTreeMap<String, String>,
    /// ARN of the policy that bounds the permissions of every role.
    pub permissions_boundary: Option<String>,
    /// Path of every role.
    pub role_path: String,
}

/// Network that the jobs of a Pars run in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Network {
    /// The account's default VPC, which is created if there is none. Jobs run in the subnets that AWS creates with it,
    /// one in each zone, and of those in the ones that assign public addresses. If none of them does, that has been
    /// turned off: jobs then run in all of them without public addresses, and need another route to the internet or to
    /// AWS.
    Default,
    /// An existing VPC, by its ID.
    Vpc(String),
    /// A new VPC that belongs to the Pars.
    New {
        /// Addresses of the VPC, such as `10.0.0.0/16`.
        cidr: String,
        /// Tenancy of the hardware that instances run on.
        tenancy: Tenancy,
        /// Route of jobs to the internet, and with it to AWS.
        internet: Internet,
        /// `true` to reach ECR and logs through endpoints in the VPC even if there is internet access.
        #[serde(default)]
        endpoints: bool,
    },
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

impl Default for ParsSettings {
    fn default() -> Self {
        Self {
            network: Network::Default,
            instance_role: None,
            execution_role: None,
            bucket: None,
            prefix: String::new(),
            kms_key: None,
            expire_runs: Some(30),
            log_retention: Some(30),
            tags: BTreeMap::new(),
            permissions_boundary: None,
            role_path: "/".to_owned(),
        }
    }
}
