//! What a Knot is made with, as it may be said in `[package.metadata.cloudknot]`, by the builder and by flags. Knows no AWS.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is said of a Knot. What is not said is `None` or empty; see `README.md` for what then counts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct KnotSettings {
    /// The Knot's name.
    pub knot: Option<String>,
    /// The Pars that it stands on.
    pub pars: Option<String>,
    /// Virtual CPUs of each item.
    pub vcpus: Option<f64>,
    /// Memory of each item, such as `8 GiB`.
    pub memory: Option<String>,
    /// GPUs of each item.
    pub gpus: Option<u32>,
    /// The size of `/dev/shm`, such as `1 GiB`.
    pub shared_memory: Option<String>,
    /// Disk of a container on Fargate, such as `50 GiB`.
    pub ephemeral_storage: Option<String>,
    /// How often a job starts that is lost with its machine, 1 to 10.
    pub attempts: Option<u32>,
    /// What jobs run on.
    pub compute: Option<Compute>,
    /// The most that Spot may cost, in percent of what the same costs without.
    pub bid_percentage: Option<u32>,
    /// Types or families of instances.
    pub instance_types: Vec<String>,
    /// Virtual CPUs that are there even if nothing runs.
    pub min_vcpus: Option<u32>,
    /// Virtual CPUs to begin with.
    pub desired_vcpus: Option<u32>,
    /// The most virtual CPUs at once.
    pub max_vcpus: Option<u32>,
    /// Disk of an instance, such as `200 GiB`.
    pub volume_size: Option<String>,
    /// The machine image of instances.
    pub ami: Option<String>,
    /// The key pair of instances.
    pub key_pair: Option<String>,
    /// The service role of the compute environment, by ARN, in place of AWS's own.
    pub service_role: Option<String>,
    /// On 64-bit ARM.
    pub arm64: Option<bool>,
    /// A queue that exists, by ARN.
    pub queue: Option<String>,
    /// The name of the queue that is made.
    pub queue_name: Option<String>,
    /// The priority of the queue that is made.
    pub priority: Option<u32>,
    /// A repository of ECR that others share, by name.
    pub repository: Option<String>,
    /// The job role, by ARN, in place of the Knot's own.
    pub job_role: Option<String>,
    /// Further policies of the job role, by name or ARN.
    pub policies: Vec<String>,
    /// For all that can have tags.
    pub tags: BTreeMap<String, String>,
    /// Variables of every job.
    pub env: BTreeMap<String, String>,
    /// Variables whose values are secrets: ARNs in Secrets Manager or SSM.
    pub secrets: BTreeMap<String, String>,
    /// The ARNs of the KMS keys that secrets are encrypted with, where these are not AWS's own.
    pub secret_keys: Vec<String>,
    /// File systems of EFS, by where a container has them.
    pub mounts: BTreeMap<String, Mount>,
    /// Where logs go, if not to the log group of the Pars.
    pub log: Option<Log>,
    /// Nothing but `/tmp` can be written to; on Fargate nothing at all.
    pub read_only: Option<bool>,
}

/// What jobs run on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Compute {
    /// Instances of EC2.
    #[default]
    Ec2,
    /// Instances that are cheaper and may be taken away.
    Spot,
    /// Fargate: no instances to think of.
    Fargate,
    /// Fargate that is cheaper and may be taken away.
    FargateSpot,
}

impl Compute {
    /// Its name, as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Spot => "spot",
            Self::Fargate => "fargate",
            Self::FargateSpot => "fargate-spot",
        }
    }

    #[cfg(not(cloudknot_worker))]
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

/// A file system of EFS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a mount is a file system's id, or { file-system, root, access-point, read-only }")]
#[non_exhaustive]
pub enum Mount {
    /// All of it, by its id.
    Whole(String),
    /// A part of it, or with conditions.
    #[serde(rename_all = "kebab-case")]
    Part {
        /// Its id.
        file_system: String,
        /// The folder in it that is seen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        root: Option<String>,
        /// The access point, by its id. The job role is then asked for the right to it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        access_point: Option<String>,
        /// Jobs cannot write to it.
        #[serde(default)]
        read_only: bool,
    },
}

/// A log driver of Docker that Batch takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Log {
    /// Its name, such as `splunk`.
    pub driver: String,
    /// Its options.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Options whose values are secrets: ARNs in Secrets Manager or SSM.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
}

impl Log {
    /// To this driver, with these options.
    pub fn new(driver: impl Into<String>, options: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { driver: driver.into(), options: options.into_iter().collect(), secrets: BTreeMap::new() }
    }
}

impl KnotSettings {
    /// These, where they say something; else what `below` says. Tables are merged, lists are not.
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
