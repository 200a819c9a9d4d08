//! Settings of a Knot, from `[package.metadata.cloudknot]`, the builder and flags. Does not depend on AWS.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use cloudknot_runtime::contract;
use serde::{Deserialize, Serialize};

use super::checks::{self, refused};
use super::declare::{Kind as ValueKind, Single, declare};
use super::names::{self, Kind};
use crate::error::{self, Error, ErrorKind};

declare! {
    or: or,
    setters: knot_setters for settings,
    /// Settings of a Knot. A setting that was not given is `None` or empty.
    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
    #[non_exhaustive]
    pub struct KnotSettings {
        /// Name of the Knot; the name of the package if not given.
        #[flag("--knot NAME", "Knot")]
        pub knot: Option<String>,
        /// Name of the existing Pars of the Knot; if not given, the one set by `cargo knot configure`, else
        /// `<user>-default`, which is created if it does not exist.
        #[flag("--pars NAME", "Knot")]
        pub pars: Option<String>,
        /// Name of a shared ECR repository, in place of the Knot's own.
        #[flag("--repository NAME", "Knot")]
        #[setter(impl Into<String>)]
        pub repository: Option<String>,
        /// Further policies of the job role, by name or ARN.
        #[flag("--policy POLICY", "Knot")]
        #[setter(policy: impl Into<String>)]
        pub policies: Vec<String>,
        /// ARN of the role of jobs, in place of the Knot's own.
        #[flag("--job-role ARN", "Knot")]
        #[setter(impl Into<String>)]
        pub job_role: Option<String>,
        /// Tags of all resources that can have tags.
        #[flag("--tag KEY=VALUE", "Knot")]
        #[check(checks::knot_tags)]
        #[setter(tag: impl Into<String>, impl Into<String>)]
        pub tags: BTreeMap<String, String>,
        /// Number of virtual CPUs of each item, in place of what the functions request.
        #[flag("--vcpus NUMBER", "Jobs")]
        #[check(checks::above_zero)]
        #[setter(f64)]
        pub vcpus: Option<f64>,
        /// Memory of each item, such as `"8 GiB"`, in place of what the functions request.
        #[flag("--memory AMOUNT", "Jobs")]
        #[check(checks::amount)]
        #[setter(impl Into<String>)]
        pub memory: Option<String>,
        /// Number of GPUs of each item, in place of what the functions request.
        #[flag("--gpus NUMBER", "Jobs")]
        #[setter(u32)]
        pub gpus: Option<u32>,
        /// Size of `/dev/shm`, such as `"1 GiB"`; 64 MiB if not given. Not available on Fargate.
        #[flag("--shared-memory AMOUNT", "Jobs")]
        #[check(checks::amount)]
        #[setter(impl Into<String>)]
        pub shared_memory: Option<String>,
        /// Disk of a container on Fargate, such as `"50 GiB"`; 20 GiB if not given.
        #[flag("--ephemeral-storage AMOUNT", "Jobs")]
        #[check(checks::amount)]
        #[setter(impl Into<String>)]
        pub ephemeral_storage: Option<String>,
        /// Maximum number of starts of a job that is lost with its machine, 1 to 10; 3 if not given.
        #[flag("--attempts NUMBER", "Jobs")]
        #[check(checks::range(1..=10))]
        #[setter(u32)]
        pub attempts: Option<u32>,
        /// Environment variables of every job.
        #[flag("--env NAME=VALUE", "Jobs")]
        #[check(checks::variables)]
        #[setter(env: impl Into<String>, impl Into<String>)]
        pub env: BTreeMap<String, String>,
        /// Environment variables whose values are secrets, by their ARNs in Secrets Manager or SSM.
        #[flag("--secret NAME=ARN", "Jobs")]
        #[check(checks::secrets)]
        #[setter(secret: impl Into<String>, impl Into<String>)]
        pub secrets: BTreeMap<String, String>,
        /// ARNs of the KMS keys that secrets are encrypted with, if these are not AWS's own.
        #[flag("--secret-key ARN", "Jobs")]
        #[check(checks::names(Kind::Key))]
        #[setter(secret_key: impl Into<String>)]
        pub secret_keys: Vec<String>,
        /// Paths in the container, and the EFS file systems that are mounted there.
        #[flag("--mount PATH=ID", "Jobs")]
        #[check(check_mounts)]
        pub mounts: BTreeMap<String, Mount>,
        /// Destination of logs, in place of the log group of the Pars.
        #[check(check_log)]
        #[setter(Log)]
        pub log: Option<Log>,
        /// `true` if everything but `/tmp` is read-only; on Fargate, everything.
        #[flag("--read-only", "Jobs")]
        #[setter(true)]
        pub read_only: Option<bool>,
        /// Compute that jobs run on; EC2 instances if not given.
        #[flag("--compute KIND", "Machines")]
        pub compute: Option<Compute>,
        /// Maximum price of Spot instances, in percent of the On-Demand price.
        #[flag("--bid-percentage PERCENT", "Machines")]
        #[check(checks::range(1..=100))]
        pub bid_percentage: Option<u32>,
        /// Types (`c7g.large`) or families (`c7g`) of instances.
        #[flag("--instance-types TYPE,…", "Machines")]
        pub instance_types: Vec<String>,
        /// Minimum number of virtual CPUs, which cost even if nothing runs; 0 if not given.
        #[flag("--min-vcpus NUMBER", "Machines")]
        #[setter(u32)]
        pub min_vcpus: Option<u32>,
        /// Initial number of virtual CPUs; AWS adjusts it from then on.
        #[flag("--desired-vcpus NUMBER", "Machines")]
        #[setter(u32)]
        pub desired_vcpus: Option<u32>,
        /// Maximum number of virtual CPUs at once; 256 if not given.
        #[flag("--max-vcpus NUMBER", "Machines")]
        #[check(checks::range(1..=u32::MAX))]
        #[setter(u32)]
        pub max_vcpus: Option<u32>,
        /// Disk of an instance, such as `"200 GiB"`; 30 GiB if not given.
        #[flag("--volume-size AMOUNT", "Machines")]
        #[check(checks::amount)]
        #[setter(impl Into<String>)]
        pub volume_size: Option<String>,
        /// Machine image (AMI) of instances; AWS's latest one if not given.
        #[flag("--ami ID", "Machines")]
        #[setter(impl Into<String>)]
        pub ami: Option<String>,
        /// SSH key pair of instances. Inbound connections are not allowed unless you add a rule.
        #[flag("--key-pair NAME", "Machines")]
        #[setter(impl Into<String>)]
        pub key_pair: Option<String>,
        /// ARN of a service role for the compute environment, in place of Batch's own. AWS then replaces the environment at each
        /// change of it, which interrupts running jobs; Batch starts them again.
        #[flag("--service-role ARN", "Machines")]
        #[setter(impl Into<String>)]
        pub service_role: Option<String>,
        /// `true` to run jobs on 64-bit ARM.
        #[setter(true)]
        pub arm64: Option<bool>,
        /// ARN of an existing job queue; no compute environment is created.
        #[flag("--queue ARN", "Machines")]
        #[check(checks::name(Kind::Queue))]
        #[setter(impl Into<String>)]
        pub queue: Option<String>,
        /// Share of the existing queue that the jobs belong to; required if the queue has a fair-share policy.
        #[flag("--share-identifier NAME", "Machines")]
        #[check(checks::name(Kind::Share))]
        #[setter(impl Into<String>)]
        pub share_identifier: Option<String>,
        /// Priority of the jobs within their share, 0 to 9999; 0 if not given.
        #[flag("--scheduling-priority NUMBER", "Machines")]
        #[check(checks::range(0..=9999))]
        #[setter(u32)]
        pub scheduling_priority: Option<u32>,
        /// Name of the job queue that is created; AWS generates one if not given.
        #[flag("--queue-name NAME", "Machines", conflicts: queue)]
        #[setter(impl Into<String>)]
        pub queue_name: Option<String>,
        /// Priority of the job queue that is created, 0 to 1000; 1 if not given.
        #[flag("--priority NUMBER", "Machines", conflicts: queue)]
        #[check(checks::range(0..=1000))]
        #[setter(u32)]
        pub priority: Option<u32>,
        /// Time after which AWS Batch cancels a job at the head of the queue that fits on no machine, such as `"1h"`: 10 minutes
        /// to 24 hours. Such a job waits forever if not given.
        #[flag("--stuck-after TIME", "Machines", conflicts: queue)]
        #[check(checks::time(STUCK_AFTER))]
        #[setter(impl Into<String>)]
        pub stuck_after: Option<String>,
    }
}

/// Times in a state after which AWS Batch can cancel a job (`maxTimeSeconds` of `JobStateTimeLimitAction` in the AWS Batch API
/// reference).
const STUCK_AFTER: RangeInclusive<Duration> = Duration::from_mins(10)..=Duration::from_hours(24);

impl KnotSettings {
    /// Returns the time after which a job that fits on no machine is cancelled, in seconds.
    pub(crate) fn stuck_after(&self) -> Option<u64> {
        let time = humantime::parse_duration(self.stuck_after.as_deref()?).ok()?;
        Some(time.as_secs())
    }
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
    pub const fn name(self) -> &'static str {
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

impl Single for Compute {
    const KIND: ValueKind =
        ValueKind::Choice(&[Self::Ec2.name(), Self::Spot.name(), Self::Fargate.name(), Self::FargateSpot.name()]);
}

impl Single for Log {}

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

impl Mount {
    /// Returns the file system, the folder, the access point, and whether jobs can only read.
    pub(crate) fn parts(&self) -> (&str, Option<&str>, Option<&str>, bool) {
        match self {
            Self::Whole(id) => (id, None, None, false),
            Self::Part { file_system, root, access_point, read_only } => {
                (file_system, root.as_deref(), access_point.as_deref(), *read_only)
            }
        }
    }
}

/// Log drivers of a job with one container (`logDriver` of `LogConfiguration` in the AWS Batch API reference).
pub(crate) const LOG_DRIVERS: [&str; 7] = ["awslogs", "fluentd", "gelf", "journald", "json-file", "splunk", "syslog"];
/// Those of them that Fargate supports (same source).
const FARGATE_LOG_DRIVERS: [&str; 2] = ["awslogs", "splunk"];
/// Those of them that the agent of an ECS instance offers by default (`ecs-init/docker/docker.go` of the agent, June 2026).
const AGENT_LOG_DRIVERS: [&str; 4] = ["awslogs", "fluentd", "json-file", "syslog"];

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

    pub(crate) fn is_on_fargate(&self) -> bool {
        FARGATE_LOG_DRIVERS.contains(&self.driver.as_str())
    }

    /// Returns whether the agent of an instance offers the driver without being configured.
    pub(crate) fn is_on_every_instance(&self) -> bool {
        AGENT_LOG_DRIVERS.contains(&self.driver.as_str())
    }
}

#[expect(clippy::ref_option, reason = "a check takes the value as it is declared")]
fn check_log(key: &str, log: &Option<Log>) -> error::Result<()> {
    let Some(log) = log else { return Ok(()) };
    if !LOG_DRIVERS.contains(&log.driver.as_str()) {
        let message = format!("invalid `{key}`: AWS Batch does not support the log driver `{}`", log.driver);
        return Err(Error::new(ErrorKind::Config, message).with_hint(format!(
            "use one of {}; on Fargate only {}",
            LOG_DRIVERS.join(", "),
            FARGATE_LOG_DRIVERS.join(" or ")
        )));
    }
    log.secrets.values().try_for_each(|arn| names::secret(arn).map(drop))
}

fn check_mounts(key: &str, mounts: &BTreeMap<String, Mount>) -> error::Result<()> {
    mounts.iter().try_for_each(|(path, mount)| {
        let (file_system, root, access_point, _) = mount.parts();
        names::check_name(Kind::FileSystem, file_system)?;
        access_point.iter().try_for_each(|point| names::check_name(Kind::AccessPoint, point))?;
        if !path.starts_with('/') || path.len() == 1 {
            return Err(refused(&format!("`{key}` at `{path}`"), "the path in a container must be absolute"));
        }
        if Path::new(path).starts_with(contract::DATA) {
            return Err(refused(&format!("`{key}` at `{path}`"), "the included files of the image are there"));
        }
        if access_point.is_some() && root.is_some_and(|root| root != "/") {
            let what = format!("`root` with `access-point` in the mount `{path}`");
            return Err(refused(&what, "an access point has its own root, and AWS accepts no other"));
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_that_hide_the_included_files_are_refused() {
        let check = |path: &str| {
            let mount = Mount::Whole("fs-0123456789abcdef0".into());
            check_mounts("mounts", &BTreeMap::from([(path.to_owned(), mount)])).map_err(|error| error.to_string())
        };
        assert_eq!(check("/cloudknot-data"), Ok(()));
        for path in ["/cloudknot", "/cloudknot/data"] {
            let message = format!("invalid `mounts` at `{path}`: the included files of the image are there");
            assert_eq!(check(path), Err(message));
        }
    }

    #[test]
    fn log_drivers_that_batch_lacks_are_refused() {
        let check = |driver: &str| check_log("log", &Some(Log::new(driver, []))).map_err(|error| error.to_string());
        for driver in LOG_DRIVERS {
            assert_eq!(check(driver), Ok(()));
        }
        let message = "invalid `log`: AWS Batch does not support the log driver `awsfirelens`";
        assert_eq!(check("awsfirelens"), Err(message.to_owned()));
    }
}
