//! The settings of a Pars, as a person gives them by the builder and by flags.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a Pars is made with. It is noted in its stack, so that another `create` can tell what is different.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ParsSettings {
    /// Where jobs run.
    pub network: Network,
    /// The instance role, by name, if it is not the stack's own.
    pub instance_role: Option<String>,
    /// The execution role, by name, if it is not the stack's own.
    pub execution_role: Option<String>,
    /// The bucket's name; AWS makes one up otherwise. One that exists is used, and survives a clobber.
    pub bucket: Option<String>,
    /// What stands before all keys in the bucket: nothing, or `team/`.
    pub prefix: String,
    /// The key that objects and logs are encrypted with, in place of AWS's own.
    pub kms_key: Option<String>,
    /// Days after which runs are deleted; for ever otherwise.
    pub expire_runs: Option<u32>,
    /// Days after which logs are deleted; for ever otherwise.
    pub log_retention: Option<u32>,
    /// For all that can have tags.
    pub tags: BTreeMap<String, String>,
    /// The ARN of the policy that bounds every role.
    pub permissions_boundary: Option<String>,
    /// The path of every role.
    pub role_path: String,
}

/// Where the jobs of a Pars run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Network {
    /// In the account's default VPC, which is made where there is none: in the subnets that AWS makes with it, one in each
    /// zone, and of those in the ones that give public addresses. If none of them does, somebody has turned that off: then
    /// in all of them, without public addresses, and it takes another way to the internet or to AWS.
    Default,
    /// In a VPC that exists, by its id.
    Vpc(String),
    /// In one of its own.
    New {
        /// Its addresses, such as `10.0.0.0/16`.
        cidr: String,
        /// On hardware of one's own or not.
        tenancy: Tenancy,
        /// How jobs reach the internet, and with it AWS.
        internet: Internet,
        /// ECR and logs are reached by endpoints in the VPC, also where there is an internet.
        #[serde(default)]
        endpoints: bool,
    },
}

/// Whose hardware instances run on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Tenancy {
    /// Shared with other accounts.
    #[default]
    Default,
    /// Nobody else's, at a higher price.
    Dedicated,
}

/// How jobs in a new VPC reach the internet, and with it AWS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Internet {
    /// By a NAT gateway, which costs while idle.
    Nat,
    /// Not at all; AWS is reached by endpoints, which cost while idle.
    None,
    /// By addresses of their own, which cost nothing while idle. Nothing lets connections in.
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
