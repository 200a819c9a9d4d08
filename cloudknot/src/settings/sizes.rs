//! vCPUs and memory that jobs get for what they request. Does not depend on a Knot and makes no requests.

use cloudknot_runtime::contract::Resources;
use cloudknot_runtime::function;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Defaults for a function that sets no resources.
pub(crate) const VCPUS: f64 = 1.0;
pub(crate) const MEMORY_MIB: u64 = 2048;

/// Rounds vCPUs up to a whole number, and to at least one, as EC2 requires.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the macro and the map let small positive numbers pass"
)]
pub(crate) fn whole(vcpus: f64) -> u32 {
    vcpus.ceil().max(1.0) as u32
}

/// Returns a number with its unit, in the plural if needed.
pub(crate) fn counted(number: u32, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Number of vCPUs on Fargate, and the amounts of memory that go with it, in MiB.
struct Size {
    vcpus: f64,
    memory: Memory,
}

enum Memory {
    /// First, last, and step between them.
    Steps(u64, u64, usize),
    OneOf(&'static [u64]),
}

/// Combinations of vCPUs and memory that Fargate offers (`value` of `ResourceRequirement` in Batch's API reference, as
/// in botocore 1.44.5).
const FARGATE: [Size; 8] = [
    Size { vcpus: 0.25, memory: Memory::OneOf(&[512, 1024, 2048]) },
    Size { vcpus: 0.5, memory: Memory::Steps(1024, 4096, 1024) },
    Size { vcpus: 1.0, memory: Memory::Steps(2048, 8192, 1024) },
    Size { vcpus: 2.0, memory: Memory::Steps(4096, 16_384, 1024) },
    Size { vcpus: 4.0, memory: Memory::Steps(8192, 30_720, 1024) },
    Size { vcpus: 8.0, memory: Memory::Steps(16_384, 61_440, 4096) },
    Size { vcpus: 16.0, memory: Memory::Steps(32_768, 122_880, 8192) },
    Size { vcpus: 32.0, memory: Memory::OneOf(&[61_440, 122_880, 249_856]) },
];

impl Size {
    /// Returns the least memory that this number of vCPUs can have and that is enough.
    fn memory_for(&self, requested: u64) -> Option<u64> {
        match self.memory {
            Memory::Steps(first, last, step) => (first..=last).step_by(step).find(|&memory| memory >= requested),
            Memory::OneOf(all) => all.iter().copied().find(|&memory| memory >= requested),
        }
    }
}

/// Returns the smallest combination on Fargate that is enough.
///
/// # Errors
/// Returns an error if none is enough, with the reason in words.
pub(crate) fn fargate_size(vcpus: f64, memory_mib: u64) -> Result<(f64, u64), String> {
    let large_enough = FARGATE.iter().filter(|size| size.vcpus >= vcpus);
    let mut sizes = large_enough.filter_map(|size| Some((size.vcpus, size.memory_for(memory_mib)?)));
    sizes
        .next()
        .ok_or_else(|| format!("it requests {vcpus} vCPUs and {memory_mib} MiB, but Fargate has at most 32 and 249856"))
}

/// Memory that the ECS agent of AWS Batch's own machine image reserves for itself, in MiB (AWS Batch user guide,
/// "Compute resource memory management").
pub(crate) const AGENT_RESERVED_MIB: u64 = 32;

/// Machines that the jobs of a Knot run on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Machines {
    /// Types and families of instances, as the compute environment has them.
    pub(crate) names: Vec<String>,
    /// Instance types of which no other one has more of everything.
    pub(crate) largest: Vec<Machine>,
}

/// An instance type, with what jobs on it share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u64,
    #[serde(default)]
    pub(crate) gpus: u32,
}

impl Machine {
    /// Returns whether a job of this size may fit on the machine; `false` if it certainly does not.
    pub(crate) fn holds(&self, vcpus: f64, memory_mib: u64, gpus: u32) -> bool {
        let available = self.memory_mib.saturating_sub(AGENT_RESERVED_MIB);
        whole(vcpus) <= self.vcpus && memory_mib <= available && gpus <= self.gpus
    }

    fn in_words(&self) -> String {
        let Self { name, vcpus, memory_mib, gpus } = self;
        let with_gpus = if *gpus > 0 { format!(", {}", counted(*gpus, "GPU")) } else { String::new() };
        format!("{name} ({vcpus} vCPUs, {memory_mib} MiB{with_gpus})")
    }

    fn has_as_much_as(&self, other: &Self) -> bool {
        self.vcpus >= other.vcpus && self.memory_mib >= other.memory_mib && self.gpus >= other.gpus
    }
}

/// Returns those machines of which no other one has more of everything, in the order of their names.
pub(crate) fn largest(mut machines: Vec<Machine>) -> Vec<Machine> {
    let mut largest: Vec<Machine> = Vec::new();
    machines.sort_by(|a, b| a.name.cmp(&b.name));
    for machine in machines {
        if !largest.iter().any(|other| other.has_as_much_as(&machine)) {
            largest.retain(|other| !machine.has_as_much_as(other));
            largest.push(machine);
        }
    }
    largest
}

/// Compute of a Knot's jobs, and the settings that take precedence over those of its functions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct JobSizes {
    pub(crate) fargate: bool,
    pub(crate) vcpus: Option<f64>,
    pub(crate) memory_mib: Option<u64>,
    #[serde(default)]
    pub(crate) gpus: Option<u32>,
    /// Maximum number of vCPUs of all jobs at once; `None` if it is unknown.
    #[serde(default)]
    pub(crate) max_vcpus: Option<u32>,
    /// Largest machines of the Knot; empty on Fargate, or if they are unknown.
    #[serde(default)]
    pub(crate) machines: Vec<Machine>,
    /// `true` if AWS Batch may add larger machines, though none with GPUs.
    #[serde(default)]
    pub(crate) may_have_larger: bool,
}

impl JobSizes {
    /// Returns the resources of the jobs of a run that requests other resources than were deployed: AWS supports only
    /// some sizes.
    ///
    /// # Errors
    /// Returns an error if there is no size for the request.
    pub(crate) fn job_resources(&self, function: &function::Resources, requested: Resources) -> Result<Resources> {
        if !self.fargate {
            self.check_machines(function, requested)?;
            return Ok(Resources { vcpus: requested.vcpus.map(|vcpus| f64::from(whole(vcpus))), ..requested });
        }
        if requested.gpus.is_some_and(|gpus| gpus > 0) {
            return Err(refused("it requests GPUs, which Fargate does not have"));
        }
        if requested.vcpus.is_none() && requested.memory_mib.is_none() {
            return Ok(requested);
        }
        let vcpus = requested.vcpus.or(self.vcpus).or(function.vcpus).unwrap_or(VCPUS);
        let memory = requested.memory_mib.or(self.memory_mib).or(function.memory_mib).unwrap_or(MEMORY_MIB);
        let (vcpus, memory) = fargate_size(vcpus, memory).map_err(|reason| refused(&reason))?;
        self.check_max_vcpus(vcpus)?;
        Ok(Resources { vcpus: Some(vcpus), memory_mib: Some(memory), ..requested })
    }

    /// Returns an error if no machine can hold the jobs of a run that requests other resources than were deployed: AWS Batch does
    /// not report it, and the jobs would stay RUNNABLE.
    fn check_machines(&self, function: &function::Resources, requested: Resources) -> Result<()> {
        let is_as_deployed = requested.vcpus.is_none() && requested.memory_mib.is_none() && requested.gpus.is_none();
        if is_as_deployed {
            return Ok(());
        }
        let vcpus = requested.vcpus.or(self.vcpus).or(function.vcpus).unwrap_or(VCPUS);
        self.check_max_vcpus(f64::from(whole(vcpus)))?;
        let memory = requested.memory_mib.or(self.memory_mib).or(function.memory_mib).unwrap_or(MEMORY_MIB);
        let gpus = requested.gpus.or(self.gpus).unwrap_or(function.gpus);
        let is_unknown = self.machines.is_empty() || (self.may_have_larger && gpus == 0);
        if is_unknown || self.machines.iter().any(|machine| machine.holds(vcpus, memory, gpus)) {
            return Ok(());
        }
        let vcpus = counted(whole(vcpus), "vCPU");
        let job = match gpus {
            0 => format!("{vcpus} and {memory} MiB"),
            _ => format!("{vcpus}, {memory} MiB and {}", counted(gpus, "GPU")),
        };
        let machines: Vec<String> = self.machines.iter().map(Machine::in_words).collect();
        let machines = machines.join(", ");
        let message = format!(
            "cannot submit: a job of {job} fits on no machine of the Knot, of which the largest are {machines}"
        );
        Err(Error::new(ErrorKind::Config, message)
            .with_hint("request less, or deploy the Knot with larger machines (`instance-types`)"))
    }

    /// Returns an error if one job has more vCPUs than all jobs of the Knot may have.
    fn check_max_vcpus(&self, vcpus: f64) -> Result<()> {
        match self.max_vcpus {
            Some(max) if vcpus > f64::from(max) => {
                let message =
                    format!("cannot submit: a job requests {vcpus} vCPUs, but `max-vcpus` of the Knot is {max}");
                Err(Error::new(ErrorKind::Config, message)
                    .with_hint("request less, or deploy the Knot with a larger `max-vcpus`"))
            }
            _ => Ok(()),
        }
    }
}

fn refused(why: &str) -> Error {
    Error::new(ErrorKind::Config, format!("cannot submit: {why}"))
        .with_hint("request less, or deploy a Knot with `compute = \"ec2\"` or \"spot\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(vcpus: Option<f64>, memory_mib: Option<u64>) -> Resources {
        Resources { vcpus, memory_mib, ..Resources::default() }
    }

    fn function_resources(vcpus: Option<f64>, memory_mib: Option<u64>) -> function::Resources {
        function::Resources { vcpus, memory_mib, ..function::Resources::NONE }
    }

    fn machine(name: &str, vcpus: u32, memory_mib: u64, gpus: u32) -> Machine {
        Machine { name: name.into(), vcpus, memory_mib, gpus }
    }

    fn on_machines(machines: &[Machine]) -> JobSizes {
        JobSizes {
            fargate: false,
            vcpus: None,
            memory_mib: None,
            gpus: None,
            max_vcpus: None,
            machines: machines.to_vec(),
            may_have_larger: false,
        }
    }

    #[test]
    fn machines_that_another_one_exceeds_are_left_out() {
        let all = [
            machine("c7i.large", 2, 4096, 0),
            machine("c7i.48xlarge", 192, 393_216, 0),
            machine("g5.xlarge", 4, 16_384, 1),
            machine("m6i.32xlarge", 128, 524_288, 0),
            machine("r6i.32xlarge", 128, 1_048_576, 0),
            machine("r6i.metal", 128, 1_048_576, 0),
        ];
        let names: Vec<String> = largest(all.to_vec()).into_iter().map(|machine| machine.name).collect();
        assert_eq!(names, ["c7i.48xlarge", "g5.xlarge", "r6i.32xlarge"]);
    }

    #[test]
    fn run_that_fits_on_no_machine_is_refused() {
        let deployed = on_machines(&[machine("c7i.48xlarge", 192, 393_216, 0), machine("g5.xlarge", 4, 16_384, 1)]);
        let function = function_resources(Some(8.0), Some(1024));
        let check = |requested, expected: Option<&str>| {
            let refusal = deployed.job_resources(&function, requested).err().map(|error| error.to_string());
            let machines = "fits on no machine of the Knot, of which the largest are c7i.48xlarge (192 vCPUs, 393216 MiB), \
                            g5.xlarge (4 vCPUs, 16384 MiB, 1 GPU)";
            assert_eq!(refusal, expected.map(|job| format!("cannot submit: a job of {job} {machines}")));
        };
        check(requested(None, None), None);
        check(requested(Some(192.0), Some(393_184)), None);
        check(requested(Some(192.5), None), Some("193 vCPUs and 1024 MiB"));
        check(requested(None, Some(393_185)), Some("8 vCPUs and 393185 MiB"));
        let gpus = |gpus, vcpus| Resources { gpus: Some(gpus), vcpus, ..Resources::default() };
        check(gpus(1, None), Some("8 vCPUs, 1024 MiB and 1 GPU"));
        check(gpus(1, Some(4.0)), None);
        check(gpus(0, None), None);
        let unknown = on_machines(&[]);
        assert!(unknown.job_resources(&function, requested(Some(1000.0), None)).is_ok());
    }

    #[test]
    fn larger_machines_that_aws_may_add_have_no_gpus() {
        let function = function_resources(None, None);
        let known = on_machines(&[machine("c7i.large", 2, 4096, 0)]);
        let deployed = JobSizes { may_have_larger: true, ..known.clone() };
        let large = requested(Some(1000.0), Some(1_000_000));
        assert!(known.job_resources(&function, large).is_err());
        assert!(deployed.job_resources(&function, large).is_ok());
        let with_gpu = Resources { gpus: Some(1), ..requested(None, None) };
        assert!(deployed.job_resources(&function, with_gpu).is_err());
    }

    #[test]
    fn run_with_more_vcpus_than_the_knot_is_refused() {
        let function = function_resources(Some(8.0), Some(1024));
        let check = |fargate, requested, expected: Option<&str>| {
            let deployed = JobSizes { fargate, max_vcpus: Some(8), ..on_machines(&[]) };
            let refusal = deployed.job_resources(&function, requested).err().map(|error| error.to_string());
            let max = "vCPUs, but `max-vcpus` of the Knot is 8";
            assert_eq!(refusal, expected.map(|vcpus| format!("cannot submit: a job requests {vcpus} {max}")));
        };
        check(false, requested(Some(7.5), None), None);
        check(false, requested(Some(8.5), None), Some("9"));
        check(true, requested(None, Some(61_440)), None);
        check(true, requested(None, Some(65_536)), Some("16"));
    }

    #[test]
    fn ec2_vcpus_are_rounded_up() {
        let deployed = on_machines(&[]);
        let resources =
            |vcpus| deployed.job_resources(&function_resources(None, None), requested(vcpus, Some(700))).unwrap();
        assert_eq!(resources(Some(1.5)), requested(Some(2.0), Some(700)));
        assert_eq!(resources(Some(0.25)), requested(Some(1.0), Some(700)));
        assert_eq!(resources(None), requested(None, Some(700)));
    }

    #[test]
    fn fargate_request_is_rounded_up_to_a_supported_size() {
        let function = function_resources(Some(0.5), Some(1024));
        let deployed = JobSizes { fargate: true, vcpus: Some(1.0), ..on_machines(&[]) };
        let resources = |vcpus, memory| deployed.job_resources(&function, requested(vcpus, memory));
        assert_eq!(resources(None, None).unwrap(), requested(None, None), "the deployed size is kept");
        assert_eq!(resources(None, Some(65_536)).unwrap(), requested(Some(16.0), Some(65_536)));
        assert_eq!(resources(Some(0.25), None).unwrap(), requested(Some(0.25), Some(1024)));
        assert_eq!(resources(Some(3.0), None).unwrap(), requested(Some(4.0), Some(8192)));
        let error = resources(Some(64.0), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot submit: it requests 64 vCPUs and 1024 MiB, but Fargate has at most 32 and 249856"
        );
        let with_gpus = Resources { gpus: Some(1), ..Resources::default() };
        assert_eq!(deployed.job_resources(&function, with_gpus).unwrap_err().kind(), ErrorKind::Config);
    }
}
