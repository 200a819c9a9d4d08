//! Conversion of a Knot's settings to the values of its template. Makes no requests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cloudknot_runtime::contract::{self, FunctionDescription};
use serde_json::{Value, json};

use crate::aws::ecr::Repository;
use crate::aws::machines::{self, Request};
use crate::build::compile::Arch;
use crate::deploy::pars::Pars;
use crate::deploy::stack_note::digest;
use crate::error::{Error, ErrorKind, Result};
use crate::settings::checks::{self, refused};
use crate::settings::knot::{Compute, KnotSettings, LOG_DRIVERS, Mount};
use crate::settings::names::{self, Kind};
use crate::settings::sizes::{self, MEMORY_MIB, Machines, VCPUS, counted};

/// Default maximum number of starts of a job that is lost with its machine.
const MAX_ATTEMPTS: u32 = 3;
/// Default maximum number of virtual CPUs at once.
pub(crate) const MAX_VCPUS: u32 = 256;
/// Minimum disk size of Batch's own machine image, in GiB.
const MIN_DISK_GIB: u32 = 30;
/// Size of `/tmp` in a container with a read-only root, in MiB.
const TMP_MIB: u64 = 512;

/// Lines of `Cargo.toml` that give the image of a program with GPUs its base.
const GPU_BASE: &str = "[package.metadata.cloudknot]\nbase-image = \"nvidia/cuda:12.6.3-base-ubuntu24.04\"";

/// Desired Knot, as far as it is known without a request to AWS.
#[derive(Debug)]
pub(crate) struct DesiredKnot<'a> {
    pub(crate) name: &'a str,
    pub(crate) settings: &'a KnotSettings,
    pub(crate) functions: &'a [FunctionDescription],
    /// IDs of the functions, in the same order.
    pub(crate) ids: Vec<String>,
    /// Source file with a remote function that requests GPUs; `None` once the functions are known.
    pub(crate) gpus_in_sources: Option<&'a Path>,
    pub(crate) arch: Arch,
    /// Target triple of the worker.
    pub(crate) triple: &'a str,
    /// `true` if the image has a base.
    pub(crate) has_base: bool,
    pub(crate) digest: &'a str,
}

/// Responses from AWS that the values depend on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Responses {
    /// Shared repository.
    pub(crate) repository: Option<Repository>,
    /// Compute of an existing queue.
    pub(crate) compute: Option<Compute>,
    /// ARNs of further policies.
    pub(crate) policies: Vec<String>,
    /// Name of the root device of a machine image.
    pub(crate) root_device: Option<String>,
    /// Machines of the Knot's own environment, once the functions are known.
    pub(crate) machines: Option<Machines>,
    /// `true` if a compute environment exists already.
    pub(crate) has_environment: bool,
    /// Location that the image is pulled from, if it is not the repository's own host.
    pub(crate) image_uri: Option<String>,
}

impl DesiredKnot<'_> {
    /// Returns the compute that the settings choose, or the default.
    pub(crate) fn compute(&self) -> Compute {
        self.settings.compute.unwrap_or_default()
    }

    /// Returns the types of instances that jobs run on, as the settings name them, or those that are used if the region has
    /// them.
    pub(crate) fn instance_types(&self) -> Vec<String> {
        if !self.settings.instance_types.is_empty() {
            return self.settings.instance_types.clone();
        }
        let families: &[&str] = match (self.gpus(), self.arch) {
            (true, Arch::Arm64) => &["g5g"],
            (true, _) => &["g4dn", "g5", "g6"],
            // AWS Batch chooses the families of each region.
            (false, Arch::Arm64) => &["default_arm64"],
            (false, _) => &["default_x86_64"],
        };
        families.iter().map(ToString::to_string).collect()
    }

    /// Returns whether jobs request GPUs, as far as the functions are known.
    pub(crate) fn gpus(&self) -> bool {
        self.requester_of_gpus().is_some()
    }

    /// Returns what requests GPUs, in words.
    fn requester_of_gpus(&self) -> Option<String> {
        if let Some(gpus) = self.settings.gpus {
            return (gpus > 0).then(|| format!("`gpus = {gpus}`"));
        }
        let function = self.functions.iter().zip(&self.ids).find(|(function, _)| function.gpus > 0);
        let in_sources = || self.gpus_in_sources.map(|file| format!("a remote function in `{}`", file.display()));
        function.map(|(_, id)| format!("`{id}`")).or_else(in_sources)
    }

    /// Returns an error if jobs request GPUs that nothing in the image could use: the driver consists of shared libraries for glibc,
    /// which the machine adds to the image.
    fn check_gpu_image(&self) -> Result<()> {
        let Some(requester) = self.requester_of_gpus().filter(|_| !self.has_base) else { return Ok(()) };
        let message = format!(
            "cannot use GPUs in the Knot `{}`: {requester} requests them, but the image has no base, so the worker is static, and \
             cannot load the libraries of the GPU's driver",
            self.name
        );
        Err(Error::new(ErrorKind::Config, message)
            .with_hint(format!("add a base image to Cargo.toml, such as NVIDIA's, and see docs/image.md:\n{GPU_BASE}")))
    }

    /// Returns a warning if jobs request GPUs that only programs of the base could use, and not the functions themselves.
    pub(crate) fn gpu_warning(&self) -> Option<String> {
        let requester = self.requester_of_gpus().filter(|_| self.has_base && !self.triple.ends_with("-gnu"))?;
        Some(format!(
            "{requester} requests GPUs, but the worker is for `{}`, and cannot load the libraries of the GPU's driver, which need \
             glibc: only programs of the base image that a function starts can",
            self.triple
        ))
    }

    /// Returns the request of each function for a machine.
    pub(crate) fn requests(&self) -> Result<Vec<Request<'_>>> {
        let memory = checks::mib("memory", self.settings.memory.as_deref())?;
        let all = self.functions.iter().zip(&self.ids);
        Ok(all.map(|(function, id)| self.request(function, id, memory)).collect())
    }

    fn request<'s>(&self, function: &FunctionDescription, id: &'s str, memory: Option<u64>) -> Request<'s> {
        Request {
            function: id,
            vcpus: self.settings.vcpus.or(function.vcpus).unwrap_or(VCPUS),
            memory_mib: memory.or(function.memory_mib).unwrap_or(MEMORY_MIB),
            gpus: self.settings.gpus.unwrap_or(function.gpus),
            arm64: self.arch == Arch::Arm64,
        }
    }

    /// Returns the IDs of the functions, by the logical IDs of their job definitions in the stack.
    pub(crate) fn job_definitions(&self) -> BTreeMap<String, String> {
        self.functions.iter().map(|function| (format!("Job{}", key(&function.id())), function.id())).collect()
    }

    /// Returns the values of `knot.yaml`; without an image, the template creates only the repository.
    pub(crate) fn values(&self, pars: &Pars, responses: &Responses, settings_text: &str, image: bool) -> Result<Value> {
        let settings = self.settings;
        let compute = responses.compute.unwrap_or_else(|| self.compute());
        let execution_role = pars.execution_role();
        let architecture = if self.arch == Arch::Arm64 { "arm64" } else { "x86_64" };
        let repository = if let Some(shared) = &responses.repository {
            json!({"existing": shared.arn, "uri": shared.uri})
        } else {
            let name = format!("cloudknot/{}", self.name.to_lowercase());
            json!({"existing": null, "name": name, "kms_key": pars.settings.kms_key})
        };
        let image =
            image.then(|| json!({"digest": self.digest, "architecture": architecture, "uri": responses.image_uri}));
        Ok(json!({
            "knot": self.name,
            "pars": pars.name,
            "tags": settings.tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect::<Vec<_>>(),
            "permissions_boundary": pars.settings.permissions_boundary,
            "role_path": pars.settings.role_path(),
            "settings": settings_text,
            "repository": repository,
            "image": image,
            "bucket": pars.bucket(),
            "prefix": pars.prefix(),
            "bucket_key": pars.settings.kms_key,
            "log_group": pars.log_group(),
            "subnets": pars.subnets().collect::<Vec<_>>(),
            "security_groups": [pars.security_group()],
            "assign_public_ip": pars.outputs.get("AssignPublicIp").is_some_and(|value| value == "ENABLED"),
            // A Pars of an earlier version has no such output, and its instances get the addresses from their subnets.
            "instance_public_ip": pars.outputs.contains_key("InstancePublicIp"),
            "instance_profile": pars.instance_profile(),
            "execution_role": execution_role,
            "secrets": self.secret_values(),
            "job_role": settings.job_role.as_ref().map(|arn| json!({"arn": arn})),
            "policies": responses.policies,
            "file_systems": self.file_systems(),
            "compute": self.compute_values(compute, responses)?,
            "queue": match &settings.queue {
                Some(arn) => json!({"existing": arn}),
                None => json!({
                    "existing": null,
                    "name": settings.queue_name,
                    "priority": settings.priority.unwrap_or(1),
                    "stuck_after_seconds": settings.stuck_after(),
                }),
            },
            "functions": self.function_values(compute)?,
        }))
    }

    fn compute_values(&self, compute: Compute, responses: &Responses) -> Result<Value> {
        let settings = self.settings;
        let image_type = if self.gpus() { "ECS_AL2023_NVIDIA" } else { "ECS_AL2023" };
        Ok(json!({
            "kind": compute.name(),
            "max_vcpus": settings.max_vcpus.unwrap_or(MAX_VCPUS),
            "min_vcpus": settings.min_vcpus.unwrap_or(0),
            "desired_vcpus": settings.desired_vcpus.filter(|_| !responses.has_environment),
            "instance_types": responses.machines.as_ref().map_or_else(|| self.instance_types(), |all| all.names.clone()),
            "bid_percentage": settings.bid_percentage,
            "image_types": [image_type],
            "ami": settings.ami,
            "root_device": responses.root_device.as_deref().unwrap_or("/dev/xvda"),
            "volume_gib": checks::mib("volume-size", settings.volume_size.as_deref())?.map(gib),
            "key_pair": settings.key_pair,
            "service_role": settings.service_role,
            "log_drivers": self.log_drivers(),
        }))
    }

    /// Returns the log drivers that the agent of an instance has to be configured with, including those that it offers
    /// anyway; none if these are enough.
    fn log_drivers(&self) -> &'static [&'static str] {
        if self.configured_log_driver().is_some() { &LOG_DRIVERS } else { &[] }
    }

    /// Returns the log driver of the jobs, if the agent of an instance offers it only once it is configured.
    fn configured_log_driver(&self) -> Option<&str> {
        self.settings.log.as_ref().filter(|log| !log.is_on_every_instance()).map(|log| log.driver.as_str())
    }

    /// Returns a warning if the instances of an existing queue have to be configured for the log driver.
    pub(crate) fn log_warning(&self) -> Option<String> {
        let driver = self.configured_log_driver()?;
        Some(format!(
            "jobs stay RUNNABLE on instances of the queue whose ECS agent does not offer the log driver `{driver}` \
             (ECS_AVAILABLE_LOGGING_DRIVERS in /etc/ecs/ecs.config)"
        ))
    }

    fn function_values(&self, compute: Compute) -> Result<Vec<Value>> {
        let settings = self.settings;
        // The compute of an existing queue is known only from AWS.
        self.check_compute(compute)?;
        let list = |table: &BTreeMap<String, String>, key: &str| -> Vec<Value> {
            table.iter().map(|(name, value)| json!({"name": name, key: value})).collect()
        };
        // In a share, AWS Batch accepts no job without a priority.
        let scheduling_priority = settings.share_identifier.as_ref().map(|_| settings.scheduling_priority.unwrap_or(0));
        let shared_memory = checks::mib("shared-memory", settings.shared_memory.as_deref())?;
        let ephemeral = checks::mib("ephemeral-storage", settings.ephemeral_storage.as_deref())?.map(gib);
        let log = settings.log.as_ref().map(|log| {
            json!({"driver": log.driver, "options": list(&log.options, "value"), "secrets": list(&log.secrets, "from")})
        });
        let mut values = Vec::new();
        for (function, request) in self.functions.iter().zip(self.requests()?) {
            let (vcpus, memory_mib) = if compute.is_fargate() {
                let placed = machines::fargate_placement(&request, shared_memory, ephemeral)?;
                (placed.vcpus, placed.memory_mib)
            } else {
                // EC2 accepts only whole vCPUs.
                (sizes::whole(request.vcpus).to_string(), request.memory_mib)
            };
            // The worker cannot detect its share of the machine.
            let share = json!({"name": contract::ENV_VCPUS, "value": vcpus});
            let environment: Vec<Value> = list(&settings.env, "value").into_iter().chain([share]).collect();
            values.push(json!({
                "key": key(&function.id()),
                "name": function.id(),
                "job_definition": job_definition(self.name, &function.id()),
                "vcpus": vcpus,
                "memory_mib": memory_mib.to_string(),
                "gpus": request.gpus,
                "scheduling_priority": scheduling_priority,
                "attempts": settings.attempts.unwrap_or(MAX_ATTEMPTS),
                "shared_memory_mib": shared_memory,
                "ephemeral_gib": ephemeral,
                "read_only": settings.read_only.unwrap_or(false),
                "tmp_mib": TMP_MIB,
                "environment": environment,
                "secrets": list(&settings.secrets, "from"),
                "mounts": self.mounts(),
                "log": log,
            }));
        }
        Ok(values)
    }

    /// Checks all settings, without a request to AWS.
    pub(crate) fn check(&self) -> Result<()> {
        let settings = self.settings;
        names::check_name(Kind::Knot, self.name)?;
        settings.check_each()?;
        if !settings.secret_keys.is_empty() && self.secrets().is_empty() {
            return Err(refused("`secret-keys`", "requires `secrets`, which is not set"));
        }
        let (min, max) = (settings.min_vcpus.unwrap_or(0), settings.max_vcpus.unwrap_or(MAX_VCPUS));
        checks::range(0..=max)("min-vcpus", &settings.min_vcpus)?;
        checks::range(min..=max)("desired-vcpus", &settings.desired_vcpus)?;
        if let Some(name) =
            settings.env.keys().find(|name| *name == "AWS_REGION" || settings.secrets.contains_key(*name))
        {
            return Err(refused(&format!("variable `{name}`"), "must not be set twice"));
        }
        if self.gpus() && self.arch == Arch::Arm64 && settings.ami.is_none() {
            return Err(refused(
                "`gpus` on ARM",
                "must be used with `ami`, because AWS has no GPU machine image for ARM",
            ));
        }
        if settings.ami.is_none()
            && checks::mib("volume-size", settings.volume_size.as_deref())?.is_some_and(|mib| gib(mib) < MIN_DISK_GIB)
        {
            return Err(refused("`volume-size`", "must be at least 30 GiB, the size of the machine image"));
        }
        let compute = self.compute();
        // Fargate has no GPUs, in whatever image.
        if !compute.is_fargate() {
            self.check_gpu_image()?;
        }
        self.check_queue()?;
        if !settings.policies.is_empty() && settings.job_role.is_some() {
            return Err(refused("`policies` with `job-role`", "must not be set for an existing role"));
        }
        for (setting, is_set) in [
            ("service-role", settings.service_role.is_some()),
            ("instance-types", !settings.instance_types.is_empty()),
            ("ami", settings.ami.is_some()),
            ("key-pair", settings.key_pair.is_some()),
            ("volume-size", settings.volume_size.is_some()),
            ("min-vcpus", settings.min_vcpus.is_some()),
            ("desired-vcpus", settings.desired_vcpus.is_some()),
        ] {
            if is_set && compute.is_fargate() {
                return Err(refused(
                    &format!("`{setting}` with `compute = \"{}\"`", compute.name()),
                    "must not be set for Fargate, which has no instances",
                ));
            }
            if is_set && settings.queue.is_some() {
                return Err(refused(
                    &format!("`{setting}` with `queue`"),
                    "must not be set for an existing queue, whose machines cannot be changed",
                ));
            }
        }
        if settings.bid_percentage.is_some() && compute != Compute::Spot {
            return Err(refused("`bid-percentage`", "must be used with `compute = \"spot\"`"));
        }
        if settings.queue.is_none() {
            self.check_compute(compute)?;
            self.check_max_vcpus(max)?;
        }
        Ok(())
    }

    /// Checks the settings that only an existing queue has, and those that it cannot have.
    fn check_queue(&self) -> Result<()> {
        let settings = self.settings;
        for (setting, is_set) in [
            ("compute", settings.compute.is_some()),
            ("max-vcpus", settings.max_vcpus.is_some()),
            ("service-role", settings.service_role.is_some()),
            ("queue-name", settings.queue_name.is_some()),
            ("priority", settings.priority.is_some()),
            ("stuck-after", settings.stuck_after.is_some()),
        ] {
            if is_set && settings.queue.is_some() {
                return Err(refused(&format!("`{setting}` with `queue`"), "must not be set for an existing queue"));
            }
        }
        if settings.share_identifier.is_some() && settings.queue.is_none() {
            return Err(refused("`share-identifier`", "requires `queue`: the Knot's own queue has no shares"));
        }
        if settings.scheduling_priority.is_some() && settings.share_identifier.is_none() {
            return Err(refused("`scheduling-priority`", "requires `share-identifier`, which is not set"));
        }
        Ok(())
    }

    /// Returns an error if one job of a function has more vCPUs than all jobs may have: it would stay RUNNABLE.
    fn check_max_vcpus(&self, max: u32) -> Result<()> {
        for request in &self.requests()? {
            let (vcpus, requests, setting) = match sizes::fargate_size(request.vcpus, request.memory_mib) {
                Ok((vcpus, _)) if self.compute().is_fargate() && vcpus > request.vcpus => {
                    (vcpus, format!("on Fargate, its {} MiB require {vcpus} vCPUs", request.memory_mib), "memory")
                }
                _ => {
                    let vcpus = sizes::whole(request.vcpus);
                    (f64::from(vcpus), format!("it requests {}", counted(vcpus, "vCPU")), "vcpus")
                }
            };
            if vcpus > f64::from(max) {
                let message = format!("cannot place `{}`: {requests}, but `max-vcpus` is {max}", request.function);
                let hint = format!("request less (`{setting}`), or set a larger `max-vcpus`");
                return Err(Error::new(ErrorKind::Config, message).with_hint(hint));
            }
        }
        Ok(())
    }

    /// Checks the settings that only instances or only Fargate have, and that an existing queue may have as well.
    fn check_compute(&self, compute: Compute) -> Result<()> {
        if self.settings.ephemeral_storage.is_some() && !compute.is_fargate() {
            return Err(refused("`ephemeral-storage`", "requires Fargate; instances have `volume-size`"));
        }
        match &self.settings.log {
            Some(log) if compute.is_fargate() && !log.is_on_fargate() => Err(refused(
                &format!("`log` with the driver `{}`", log.driver),
                "Fargate supports only `awslogs` and `splunk`",
            )),
            _ => Ok(()),
        }
    }

    fn mounts(&self) -> Vec<Value> {
        let mount = |(index, (path, mount)): (usize, (&String, &Mount))| {
            let (file_system, root, access_point, read_only) = mount.parts();
            json!({
                "volume": format!("efs-{index}"), "file_system": file_system, "root": root, "access_point": access_point,
                // An access point is useful only if IAM decides who may use it.
                "iam": access_point.is_some(), "path": path, "read_only": read_only,
            })
        };
        self.settings.mounts.iter().enumerate().map(mount).collect()
    }

    /// Returns the file systems that are mounted with the permissions of the job role.
    fn file_systems(&self) -> Vec<Value> {
        let mut writable: BTreeMap<&str, bool> = BTreeMap::new();
        for mount in self.settings.mounts.values() {
            let (file_system, _, access_point, read_only) = mount.parts();
            if access_point.is_some() {
                *writable.entry(file_system).or_default() |= !read_only;
            }
        }
        writable.into_iter().map(|(id, writable)| json!({"id": id, "writable": writable})).collect()
    }

    /// Returns all secrets, of variables and of logs.
    fn secrets(&self) -> BTreeSet<&String> {
        let log_secrets = self.settings.log.iter().flat_map(|log| log.secrets.values());
        self.settings.secrets.values().chain(log_secrets).collect()
    }

    /// Returns the secrets and keys that the role that starts containers must be able to use.
    fn secret_values(&self) -> Value {
        // The ARN of a secret has seven parts; a key in the secret may follow.
        let whole = |arn: &String| arn.split(':').take(7).collect::<Vec<_>>().join(":");
        let (manager, parameters): (Vec<_>, Vec<_>) =
            self.secrets().into_iter().partition(|arn| arn.contains(":secretsmanager:"));
        let manager: BTreeSet<String> = manager.into_iter().flat_map(|arn| policy_arns(&whole(arn))).collect();
        json!({"manager": manager, "parameters": parameters, "kms": self.settings.secret_keys})
    }
}

/// Returns the ARNs in a policy for a secret of Secrets Manager. AWS appends `-` and six letters or digits to the name
/// of each secret; jobs can omit them, policies cannot.
fn policy_arns(arn: &str) -> Vec<String> {
    let last = arn.rsplit_once('-').map_or("", |(_, last)| last);
    let may_be_suffix = last.len() == 6 && last.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let may_be_word = last.bytes().all(|byte| byte.is_ascii_lowercase());
    let any = format!("{arn}-??????");
    match (may_be_suffix, may_be_word) {
        (false, _) => vec![any],
        // `db-secret` may be a name without a suffix: the six characters from AWS are all lowercase letters in only one
        // of two hundred cases.
        (true, true) => vec![arn.to_owned(), any],
        (true, false) => vec![arn.to_owned()],
    }
}

/// Returns an identifier of letters and digits that stays the same as long as the function's ID does.
fn key(id: &str) -> String {
    let words = name_of(id).split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let capitalized = |word: &str| word[..1].to_uppercase() + &word[1..];
    words.map(capitalized).collect::<String>() + &short_hash(id)
}

/// Returns the name of a function's job definition: at most 128 characters that AWS accepts, and different from those
/// of the Knot's other functions. No name of a Knot contains `_`, so that a policy for one Knot does not fit another.
pub(crate) fn job_definition(knot: &str, id: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = name_of(id).chars().map(fits).take(60).collect();
    format!("cloudknot-{knot}_{name}-{}", short_hash(id))
}

/// Returns the function's own name, the last part of its ID.
fn name_of(id: &str) -> &str {
    id.rsplit_once("::").map_or(id, |(_, name)| name)
}

fn short_hash(id: &str) -> String {
    let mut hash = digest(id);
    hash.truncate(8);
    hash
}

/// Converts MiB to GiB and rounds up, because AWS counts disks in whole GiB.
fn gib(mib: u64) -> u32 {
    u32::try_from(mib.div_ceil(1024)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(settings: &KnotSettings) -> DesiredKnot<'_> {
        DesiredKnot {
            name: "sweep",
            settings,
            functions: &[],
            ids: Vec::new(),
            gpus_in_sources: None,
            arch: Arch::X86_64,
            triple: "x86_64-unknown-linux-musl",
            has_base: false,
            digest: "sha256:aa",
        }
    }

    fn parsed(text: &str) -> KnotSettings {
        serde_json::from_str(text).expect("the settings are JSON")
    }

    fn refusal(settings: &str) -> String {
        desired(&parsed(settings)).check().unwrap_err().to_string()
    }

    #[test]
    fn settings_that_batch_rejects_are_errors() {
        let check = |settings: &str, why: &str| assert!(refusal(settings).contains(why), "{}", refusal(settings));
        let mount = |more: &str| format!(r#"{{"mounts": {{"/data": {{"file-system": "fs-01234567", {more}}}}}}}"#);
        let point = r#""access-point": "fsap-01234567""#;
        desired(&parsed(&mount(point))).check().unwrap();
        desired(&parsed(&mount(&format!(r#"{point}, "root": "/""#)))).check().unwrap();
        desired(&parsed(&mount(r#""root": "/shared""#))).check().unwrap();
        check(&mount(&format!(r#"{point}, "root": "/shared""#)), "an access point has its own root");
        check(r#"{"mounts": {"data": "fs-01234567"}}"#, "`mounts` at `data`");
        check(r#"{"ephemeral-storage": "50 GiB"}"#, "requires Fargate");
        check(r#"{"ephemeral-storage": "50 GiB", "compute": "spot"}"#, "requires Fargate");
        let gelf = r#""log": {"driver": "gelf"}"#;
        check(&format!(r#"{{{gelf}, "compute": "fargate"}}"#), "Fargate supports only `awslogs` and `splunk`");
        desired(&parsed(&format!("{{{gelf}}}"))).check().unwrap();
        let queue = "arn:aws:batch:eu-west-1:123456789012:job-queue/lab";
        let on_queue = |more: &str| format!(r#"{{"queue": "{queue}", {more}}}"#);
        check(r#"{"share-identifier": "physics"}"#, "requires `queue`");
        check(&on_queue(r#""scheduling-priority": 7"#), "requires `share-identifier`");
        check(&on_queue(r#""stuck-after": "1h""#), "must not be set for an existing queue");
        desired(&parsed(&on_queue(r#""share-identifier": "physics", "scheduling-priority": 7"#))).check().unwrap();
        for time in ["9m", "25h", "1", "soon"] {
            check(&format!(r#"{{"stuck-after": "{time}"}}"#), &format!("invalid `stuck-after`: {time}"));
        }
        for time in ["10m", "1h", "24h", "1day"] {
            desired(&parsed(&format!(r#"{{"stuck-after": "{time}"}}"#))).check().unwrap();
        }
        let on_existing_queue = parsed(&format!(r#"{{"ephemeral-storage": "50 GiB", "queue": "{queue}"}}"#));
        desired(&on_existing_queue).check().unwrap();
    }

    #[test]
    fn log_drivers_that_an_agent_lacks_are_configured() {
        let drivers = |driver: &str| {
            let settings = parsed(&format!(r#"{{"log": {{"driver": "{driver}"}}}}"#));
            desired(&settings).log_drivers()
        };
        assert_eq!(drivers("fluentd"), [""; 0]);
        assert_eq!(drivers("splunk"), LOG_DRIVERS);
        assert_eq!(desired(&KnotSettings::default()).log_drivers(), [""; 0]);
    }

    #[test]
    fn gpus_require_an_image_that_can_use_them() {
        let check = |settings: &str, change: fn(&mut DesiredKnot<'_>), why: Option<&str>| {
            let settings = parsed(settings);
            let mut desired = desired(&settings);
            change(&mut desired);
            let error = desired.check().err();
            let prefix = "cannot use GPUs in the Knot `sweep`: ";
            assert_eq!(error.as_ref().map(ToString::to_string), why.map(|why| format!("{prefix}{why}")));
            error.and_then(|error| error.hint().map(str::to_owned)).unwrap_or_default()
        };
        let with_base =
            |desired: &mut DesiredKnot<'_>| (desired.has_base, desired.triple) = (true, "x86_64-unknown-linux-gnu");
        let static_on_base = |desired: &mut DesiredKnot<'_>| desired.has_base = true;
        let in_source = |desired: &mut DesiredKnot<'_>| desired.gpus_in_sources = Some(Path::new("src/main.rs"));
        let no_base =
            "the image has no base, so the worker is static, and cannot load the libraries of the GPU's driver";
        let hint = check(r#"{"gpus": 1}"#, |_| (), Some(&format!("`gpus = 1` requests them, but {no_base}")));
        assert!(hint.ends_with(&format!(":\n{GPU_BASE}")), "{hint}");
        let by_attribute = format!("a remote function in `src/main.rs` requests them, but {no_base}");
        check("{}", in_source, Some(&by_attribute));
        check(r#"{"gpus": 0}"#, in_source, None);
        check(r#"{"gpus": 1}"#, with_base, None);
        check(r#"{"gpus": 1}"#, static_on_base, None);
        check("{}", |_| (), None);
    }

    #[test]
    fn default_instance_types_are_for_the_worker() {
        let (plain, with_gpus) = (KnotSettings::default(), parsed(r#"{"gpus": 1}"#));
        for (settings, arch, expected) in [
            (&plain, Arch::X86_64, vec!["default_x86_64"]),
            (&plain, Arch::Arm64, vec!["default_arm64"]),
            (&with_gpus, Arch::X86_64, vec!["g4dn", "g5", "g6"]),
            (&with_gpus, Arch::Arm64, vec!["g5g"]),
        ] {
            assert_eq!(DesiredKnot { arch, ..desired(settings) }.instance_types(), expected);
        }
    }

    #[test]
    fn static_worker_on_a_base_causes_a_warning() {
        let warning = |settings: &str, has_base, triple| {
            let settings = parsed(settings);
            DesiredKnot { triple, has_base, ..desired(&settings) }.gpu_warning()
        };
        let (gnu, musl) = ("x86_64-unknown-linux-gnu", "x86_64-unknown-linux-musl");
        let expected = "`gpus = 1` requests GPUs, but the worker is for `x86_64-unknown-linux-musl`, and cannot load the libraries of \
                        the GPU's driver, which need glibc: only programs of the base image that a function starts can";
        assert_eq!(warning(r#"{"gpus": 1}"#, true, musl).as_deref(), Some(expected));
        assert_eq!(warning(r#"{"gpus": 1}"#, true, gnu), None);
        assert_eq!(warning("{}", true, musl), None);
    }

    #[test]
    fn policy_matches_the_suffix_of_secret_arns() {
        let prefix = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:";
        let check = |name: &str, expected: &[&str]| {
            let expected: Vec<_> = expected.iter().map(|name| format!("{prefix}{name}")).collect();
            assert_eq!(policy_arns(&format!("{prefix}{name}")), expected);
        };
        check("api-AbCdEf", &["api-AbCdEf"]);
        check("api-a1b2c3", &["api-a1b2c3"]);
        check("api", &["api-??????"]);
        check("api-key", &["api-key-??????"]);
        check("lab/db-secret", &["lab/db-secret", "lab/db-secret-??????"]);
    }

    #[test]
    fn execution_role_may_use_keys_of_secrets() {
        let key = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd";
        let secret = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:api-AbCdEf";
        let with_both = parsed(&format!(r#"{{"secrets": {{"KEY": "{secret}:key::"}}, "secret-keys": ["{key}"]}}"#));
        desired(&with_both).check().unwrap();
        let values = desired(&with_both).secret_values();
        assert_eq!(values, json!({"manager": [secret], "parameters": [], "kms": [key]}));
        assert!(refusal(&format!(r#"{{"secret-keys": ["{key}"]}}"#)).contains("requires `secrets`"));
        let alias = "arn:aws:kms:eu-west-1:123456789012:alias/lab";
        assert!(refusal(&format!(r#"{{"secret-keys": ["{alias}"]}}"#)).contains("invalid KMS key"));
    }
}
