//! Settings of a Knot, from `[package.metadata.cloudknot]`, the builder and flags. Does not depend on AWS.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Settings of a Knot. A setting that was not given is `None` or empty; see `README.md` for the defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct KnotSettings {
    /// Name of the Knot.
    pub knot: Option<String>,
    /// Name of the Pars that the Knot uses.
    pub pars: Option<String>,
    /// Number of virtual CPUs of each item.
    pub vcpus: Option<f64>,
    /// Memory of each item, such as `8 GiB`.
    pub memory: Option<String>,
    /// Number of GPUs of each item.
    pub gpus: Option<u32>,
    /// Size of `/dev/shm`, such as `1 GiB`.
    pub shared_memory: Option<String>,
    /// Disk of a container on Fargate, such as `50 GiB`.
    pub ephemeral_storage: Option<String>,
    /// Maximum number of starts of a job that is lost with its machine, 1 to 10.
    pub attempts: Option<u32>,
    /// Compute that jobs run on.
    pub compute: Option<Compute>,
    /// Maximum price of Spot instances, in percent of the on-demand price.
    pub bid_percentage: Option<u32>,
    /// Types or families of instances.
    pub instance_types: Vec<String>,
    /// Number of virtual CPUs that are kept even if nothing runs.
    pub min_vcpus: Option<u32>,
    /// Initial number of virtual CPUs.
    pub desired_vcpus: Option<u32>,
    /// Maximum number of virtual CPUs at once.
    pub max_vcpus: Option<u32>,
    /// Disk of an instance, such as `200 GiB`.
    pub volume_size: Option<String>,
    /// Machine image of instances.
    pub ami: Option<String>,
    /// Key pair of instances.
    pub key_pair: Option<String>,
    /// ARN of the service role of the compute environment, in place of AWS's own.
    pub service_role: Option<String>,
    /// `true` to run on 64-bit ARM.
    pub arm64: Option<bool>,
    /// ARN of an existing queue.
    pub queue: Option<String>,
    /// Name of the queue that is created.
    pub queue_name: Option<String>,
    /// Priority of the queue that is created.
    pub priority: Option<u32>,
    /// Name of a shared ECR repository.
    pub repository: Option<String>,
    /// ARN of the job role, in place of the Knot's own.
    pub job_role: Option<String>,
    /// Further policies of the job role, by name or ARN.
    pub policies: Vec<String>,
    /// Tags of all resources that can have tags.
    pub tags: BTreeMap<String, String>,
    /// Environment variables of every job.
    pub env: BTreeMap<String, String>,
    /// Environment variables whose values are secrets: ARNs in Secrets Manager or SSM.
    pub secrets: BTreeMap<String, String>,
    /// ARNs of the KMS keys that secrets are encrypted with, if these are not AWS's own.
    pub secret_keys: Vec<String>,
    /// EFS file systems, by their paths in the container.
    pub mounts: BTreeMap<String, Mount>,
    /// Destination of logs, in place of the log group of the Pars.
    pub log: Option<Log>,
    /// `true` to make everything but `/tmp` read-only; on Fargate, everything.
    pub read_only: Option<bool>,
}

/// Compute that jobs run on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Compute {
    /// EC2 instances.
    #[default]
    Ec2,
    /// EC2 Spot instances, which are cheaper and may be reclaimed.
    Spot,
    /// Fargate, which has no instances to manage.
    Fargate,
    /// Fargate Spot, which is cheaper and may be reclaimed.
    FargateSpot,
}

impl Compute {
    /// Returns the name that is used in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Spot => "spot",
            Self::Fargate => "fargate",
            Self::FargateSpot => "fargate-spot",
        }
    }

    pub(crate) fn is_fargate(self) -> bool {
        matches!(self, Self::Fargate | Self::FargateSpot)
    }
}

impl std::str::FromStr for Compute {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Ec2, Self::Spot, Self::Fargate, Self::FargateSpot];
        let meant = all.into_iter().find(|compute| compute.name() == text);
        meant.ok_or_else(|| format!("`{text}` is none of ec2, spot, fargate and fargate-spot"))
    }
}

/// EFS file system to mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a mount must be the ID of a file system, or { file-system, root, access-point, read-only }"
)]
#[non_exhaustive]
pub enum Mount {
    /// The whole file system, by its ID.
    Whole(String),
    /// A part of the file system, or a mount with options.
    #[serde(rename_all = "kebab-case")]
    Part {
        /// ID of the file system.
        file_system: String,
        /// Folder of the file system that is mounted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        root: Option<String>,
        /// ID of the access point. IAM then checks that the job role may use it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        access_point: Option<String>,
        /// `true` if jobs cannot write to it.
        #[serde(default)]
        read_only: bool,
    },
}

/// Docker log driver that AWS Batch supports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Log {
    /// Name of the driver, such as `splunk`.
    pub driver: String,
    /// Options of the driver.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Options whose values are secrets: ARNs in Secrets Manager or SSM.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
}

impl Log {
    /// Creates a configuration of this driver with these options.
    pub fn new(driver: impl Into<String>, options: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { driver: driver.into(), options: options.into_iter().collect(), secrets: BTreeMap::new() }
    }
}

impl KnotSettings {
    /// Returns these settings, with those of `below` where they are not set. Tables are merged; lists are not.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        let list = |above: Vec<String>, below| if above.is_empty() { below } else { above };
        Self {
            knot: self.knot.or(below.knot),
            pars: self.pars.or(below.pars),
            vcpus: self.vcpus.or(below.vcpus),
            memory: self.memory.or(below.memory),
            gpus: self.gpus.or(below.gpus),
            shared_memory: self.shared_memory.or(below.shared_memory),
            ephemeral_storage: self.ephemeral_storage.or(below.ephemeral_storage),
            attempts: self.attempts.or(below.attempts),
            compute: self.compute.or(below.compute),
            bid_percentage: self.bid_percentage.or(below.bid_percentage),
            instance_types: list(self.instance_types, below.instance_types),
            min_vcpus: self.min_vcpus.or(below.min_vcpus),
            desired_vcpus: self.desired_vcpus.or(below.desired_vcpus),
            max_vcpus: self.max_vcpus.or(below.max_vcpus),
            volume_size: self.volume_size.or(below.volume_size),
            ami: self.ami.or(below.ami),
            key_pair: self.key_pair.or(below.key_pair),
            service_role: self.service_role.or(below.service_role),
            arm64: self.arm64.or(below.arm64),
            queue: self.queue.or(below.queue),
            queue_name: self.queue_name.or(below.queue_name),
            priority: self.priority.or(below.priority),
            repository: self.repository.or(below.repository),
            job_role: self.job_role.or(below.job_role),
            policies: list(self.policies, below.policies),
            tags: table(self.tags, below.tags),
            env: table(self.env, below.env),
            secrets: table(self.secrets, below.secrets),
            secret_keys: list(self.secret_keys, below.secret_keys),
            mounts: table(self.mounts, below.mounts),
            log: self.log.or(below.log),
            read_only: self.read_only.or(below.read_only),
        }
    }
}

fn table<T>(above: BTreeMap<String, T>, mut below: BTreeMap<String, T>) -> BTreeMap<String, T> {
    below.extend(above);
    below
}
