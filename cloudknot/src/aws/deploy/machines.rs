//! Checks whether machines can hold a job. Sends no requests: the instance types of a region come from `ec2.rs`.
//!
//! AWS Batch does not report that a job fits nowhere: the job stays RUNNABLE forever. Therefore this is checked before
//! anything is created.

use crate::aws::ec2::InstanceType;
use crate::error::{Error, ErrorKind, Result};
use crate::settings::sizes::{self, AGENT_RESERVED_MIB, Machine, counted, whole};

/// Resources that one job of a function requests.
#[derive(Debug, Clone)]
pub(crate) struct Request<'a> {
    /// ID of the function.
    pub(crate) function: &'a str,
    pub(crate) vcpus: f64,
    pub(crate) memory_mib: u64,
    pub(crate) gpus: u32,
    /// `true` if the worker is built for 64-bit ARM.
    pub(crate) arm64: bool,
}

/// Resources that Fargate gives to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FargateResources {
    pub(crate) vcpus: String,
    pub(crate) memory_mib: u64,
    /// `true` if Fargate gives more than the job requests.
    pub(crate) rounded: bool,
}

/// Checks that a job fits on one of these instance types. Returns a warning if its memory may be too tight. With `may_have_more`, AWS
/// Batch may have larger instance types than these, though none with GPUs, and a job without GPUs that is too large causes a warning.
///
/// AWS does not document how much memory the kernel of a machine reserves, only that the agent reserves 32 MiB.
/// Therefore a job that requests more than the memory of the instance minus these 32 MiB is an error, which never
/// rejects a job that would run; and a job that requests more than [`usable`] causes the warning.
///
/// # Errors
/// Returns an error if the job fits on none of them. The error names the one that comes closest.
pub(crate) fn fits(request: &Request<'_>, types: &[InstanceType], may_have_more: bool) -> Result<Option<String>> {
    let candidates = of_one_architecture(request, types)?;
    let vcpus = whole(request.vcpus);
    let too_large = |why: &str, setting| {
        if !may_have_more || request.gpus > 0 {
            return Err(placement_error(request, why, setting));
        }
        let function = request.function;
        Ok(Some(format!(
            "`{function}` may fit on no machine: {why}: if its jobs stay RUNNABLE, request less (`{setting}`)"
        )))
    };
    let gpu_types: Vec<_> = candidates.iter().copied().filter(|kind| kind.gpus >= request.gpus).collect();
    if gpu_types.is_empty() {
        let (machine, available) = largest(&candidates, |kind| u64::from(kind.gpus));
        let offer = if available == 0 {
            "none of the chosen instance types has any".into()
        } else {
            format!("{machine} has {available}")
        };
        return Err(placement_error(
            request,
            &format!("it requests {}, but {offer}", counted(request.gpus, "GPU")),
            "gpus",
        ));
    }
    let vcpu_types: Vec<_> = gpu_types.iter().copied().filter(|kind| kind.vcpus >= vcpus).collect();
    if vcpu_types.is_empty() {
        let (machine, available) = largest(&gpu_types, |kind| u64::from(kind.vcpus));
        return too_large(&format!("it requests {}, but {machine} has {available}", counted(vcpus, "vCPU")), "vcpus");
    }
    let requested = request.memory_mib;
    let (machine, available) = largest(&vcpu_types, |kind| kind.memory_mib);
    let limit = format!("{machine} has {available} MiB, of which jobs get about {}", usable(available));
    if requested > available.saturating_sub(AGENT_RESERVED_MIB) {
        return too_large(&format!("it requests {requested} MiB, but {limit}"), "memory");
    }
    let is_tight = requested > usable(available);
    Ok(is_tight.then(|| {
        format!("`{}` requests {requested} MiB, but {limit}: if its jobs stay RUNNABLE, request less", request.function)
    }))
}

/// Returns the machines of these instance types.
pub(crate) fn of_types(types: &[InstanceType]) -> Vec<Machine> {
    let machine = |kind: &InstanceType| Machine {
        name: kind.name.clone(),
        vcpus: kind.vcpus,
        memory_mib: kind.memory_mib,
        gpus: kind.gpus,
    };
    types.iter().map(machine).collect()
}

/// Estimates how much of an instance's memory jobs get, in MiB.
///
/// Based on reported values: 7,953 of 8,192 on m4.large (AWS Batch user guide), 7,820 of 8,192 on m6i.large, 31,672 of
/// 32,768 on r5d.xlarge. Small machines lose the largest share; large ones about a fortieth.
fn usable(memory_mib: u64) -> u64 {
    let kernel = (memory_mib / 40 + 200).min(memory_mib / 8);
    memory_mib.saturating_sub(kernel + AGENT_RESERVED_MIB)
}

/// Returns the instance types if the worker runs on all of them. AWS Batch accepts machines of one architecture only.
fn of_one_architecture<'a>(request: &Request<'_>, types: &'a [InstanceType]) -> Result<Vec<&'a InstanceType>> {
    let (required, other) = if request.arm64 { ("arm64", "x86_64") } else { ("x86_64", "arm64") };
    let (fit, others): (Vec<_>, Vec<_>) = types.iter().partition(|kind| kind.arch.iter().any(|arch| arch == required));
    let hint = if request.arm64 {
        "choose instance types of ARM (`c7g`, `m7g`, `default_arm64`) only, or build for x86_64 (`arm64 = false`)"
    } else {
        "choose instance types of x86_64 (`c6i`, `m6i`, `default_x86_64`) only, or build for ARM (`arm64 = true`)"
    };
    let failed = |why: String| {
        let message = format!("cannot place `{}`: {why}", request.function);
        Err(Error::new(ErrorKind::Config, message).with_hint(hint))
    };
    match (&fit[..], &others[..]) {
        ([], []) => failed("no instance types are chosen".into()),
        ([], [kind, ..]) => failed(format!("its worker is for {required}, and `{}` is for {other}", kind.name)),
        ([kind, ..], [mismatch, ..]) => failed(format!(
            "`{}` is for {required}, but `{}` is not: all instance types must have the same architecture",
            kind.name, mismatch.name
        )),
        (_, []) => Ok(fit),
    }
}

/// Returns the instance type that has the most of a resource, in words, and the amount.
fn largest(types: &[&InstanceType], amount: impl Fn(&InstanceType) -> u64) -> (String, u64) {
    let largest = types.iter().max_by_key(|kind| (amount(kind), std::cmp::Reverse(&kind.name)));
    let largest = largest.expect("`types` is not empty");
    (format!("the largest of the chosen instance types ({})", largest.name), amount(largest))
}

fn placement_error(request: &Request<'_>, why: &str, setting: &str) -> Error {
    Error::new(ErrorKind::Config, format!("cannot place `{}`: {why}", request.function))
        .with_hint(format!("request less (`{setting}`), or choose larger machines (`instance-types`)"))
}

/// Sizes of the disk of a Fargate job that AWS accepts, in GiB.
const EPHEMERAL_GIB: std::ops::RangeInclusive<u32> = 21..=200;

/// Returns the smallest Fargate size that is sufficient: vCPUs and memory.
///
/// # Errors
/// Returns an error if no size is, or the job requests something that Fargate does not have.
pub(crate) fn fargate_placement(
    request: &Request<'_>,
    shared_memory_mib: Option<u64>,
    ephemeral_gib: Option<u32>,
) -> Result<FargateResources> {
    let failed = |why: &str, hint: &str| {
        let message = format!("cannot place `{}` on Fargate: {why}", request.function);
        Err(Error::new(ErrorKind::Config, message).with_hint(hint))
    };
    if request.gpus > 0 {
        return failed("it requests GPUs, which Fargate does not have", "use `compute = \"ec2\"` or \"spot\"");
    }
    if shared_memory_mib.is_some() {
        let why = "it sets `shared-memory`, which Fargate does not support";
        return failed(why, "remove `shared-memory`, or use `compute = \"ec2\"` or \"spot\"");
    }
    if let Some(disk) = ephemeral_gib.filter(|disk| !EPHEMERAL_GIB.contains(disk)) {
        let why = format!("it requests a disk of {disk} GiB, but Fargate has 21 to 200 GiB");
        return failed(&why, "remove `ephemeral-storage` for 20 GiB, or set a size in this range");
    }
    let (vcpus, memory) = (request.vcpus, request.memory_mib);
    match sizes::fargate_size(vcpus, memory) {
        Ok((placed_vcpus, memory_mib)) => {
            let rounded = placed_vcpus > vcpus || memory_mib > memory;
            Ok(FargateResources { vcpus: placed_vcpus.to_string(), memory_mib, rounded })
        }
        Err(why) => failed(&why, "request less (`vcpus`, `memory`), or use `compute = \"ec2\"` or \"spot\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str, vcpus: u32, memory_mib: u64, gpus: u32, arch: &str) -> InstanceType {
        InstanceType { name: name.into(), vcpus, memory_mib, gpus, arch: vec![arch.into()], bare_metal: false }
    }

    fn job(vcpus: f64, memory_mib: u64, gpus: u32) -> Request<'static> {
        Request { function: "sweep::train", vcpus, memory_mib, gpus, arm64: false }
    }

    fn sample_types() -> Vec<InstanceType> {
        vec![
            kind("m4.large", 2, 8192, 0, "x86_64"),
            kind("c5.4xlarge", 16, 32_768, 0, "x86_64"),
            kind("r5.xlarge", 4, 32_768, 0, "x86_64"),
            kind("g4dn.xlarge", 4, 16_384, 1, "x86_64"),
        ]
    }

    fn refused(request: &Request<'_>, types: &[InstanceType]) -> String {
        fits(request, types, false).unwrap_err().to_string()
    }

    #[test]
    fn larger_machines_that_aws_may_add_are_not_ruled_out() {
        let types = sample_types();
        let check = |request, expected: &str| {
            assert!(fits(&request, &types, false).is_err());
            let warning = fits(&request, &types, true).unwrap();
            let expected = format!("`sweep::train` may fit on no machine: it requests {expected}");
            assert_eq!(warning, Some(expected));
        };
        let vcpus = "17 vCPUs, but the largest of the chosen instance types (c5.4xlarge) has 16";
        check(job(17.0, 100, 0), &format!("{vcpus}: if its jobs stay RUNNABLE, request less (`vcpus`)"));
        let memory = "32737 MiB, but the largest of the chosen instance types (c5.4xlarge) has 32768 MiB, of which jobs get about \
                      31717";
        check(job(1.0, 32_737, 0), &format!("{memory}: if its jobs stay RUNNABLE, request less (`memory`)"));
        for with_gpus in [job(1.0, 100, 2), job(9.0, 100, 1)] {
            assert!(fits(&with_gpus, &types, true).is_err(), "the families that AWS may add have no GPUs");
        }
    }

    #[test]
    fn tight_memory_causes_a_warning() {
        let types = [kind("m4.large", 2, 8192, 0, "x86_64")];
        let check = |memory, tight| {
            let warning = fits(&job(2.0, memory, 0), &types, false).unwrap();
            assert_eq!(warning.is_some(), tight, "{warning:?}");
        };
        check(7756, false);
        // A job of this size runs: an m4.large registers with 7,953 MiB.
        check(7953, true);
        check(8160, true);
        let why = "cannot place `sweep::train`: it requests 8161 MiB, but the largest of the chosen instance types \
                   (m4.large) has 8192 MiB, of which jobs get about 7756";
        assert_eq!(refused(&job(2.0, 8161, 0), &types), why);
        let tiny = [kind("t3.nano", 2, 512, 0, "x86_64")];
        assert_eq!(fits(&job(1.0, 400, 0), &tiny, false).unwrap(), None);
    }

    #[test]
    fn usable_memory_is_below_the_refusal_limit() {
        for (has, found) in [(8192, 7985), (8192, 7820), (32_768, 31_672)] {
            let types = [kind("m", 2, has, 0, "x86_64")];
            assert!(fits(&job(1.0, found, 0), &types, false).is_ok());
            assert!(usable(has).abs_diff(found) < has / 30, "{} and {found}", usable(has));
        }
    }

    #[test]
    fn one_machine_must_hold_all_requested_resources() {
        let types = sample_types();
        assert_eq!(fits(&job(16.0, 30_000, 0), &types, false).unwrap(), None);
        assert_eq!(fits(&job(0.5, 15_000, 1), &types, false).unwrap(), None);
        let prefix = "cannot place `sweep::train`: it requests ";
        let check = |request, expected: &str| assert_eq!(refused(&request, &types), format!("{prefix}{expected}"));
        check(job(17.0, 100, 0), "17 vCPUs, but the largest of the chosen instance types (c5.4xlarge) has 16");
        check(job(4.5, 100, 1), "5 vCPUs, but the largest of the chosen instance types (g4dn.xlarge) has 4");
        check(job(1.0, 100, 2), "2 GPUs, but the largest of the chosen instance types (g4dn.xlarge) has 1");
        let memory = "20000 MiB, but the largest of the chosen instance types (g4dn.xlarge) has 16384 MiB, of which jobs \
                      get about 15743";
        check(job(1.0, 20_000, 1), memory);
        let why = refused(&job(1.0, 100, 1), &types[..3]);
        assert_eq!(why, format!("{prefix}1 GPU, but none of the chosen instance types has any"));
    }

    #[test]
    fn machines_must_match_the_workers_architecture() {
        let arm = kind("c7g.large", 2, 4096, 0, "arm64");
        let on_arm = Request { arm64: true, ..job(1.0, 1024, 0) };
        assert_eq!(fits(&on_arm, std::slice::from_ref(&arm), false).unwrap(), None);
        let check = |request: &Request<'_>, types: &[InstanceType], expected: &str| {
            assert_eq!(refused(request, types), format!("cannot place `sweep::train`: {expected}"));
        };
        check(&on_arm, &sample_types(), "its worker is for arm64, and `m4.large` is for x86_64");
        check(&job(1.0, 1, 0), std::slice::from_ref(&arm), "its worker is for x86_64, and `c7g.large` is for arm64");
        let mixed = [sample_types(), vec![arm]].concat();
        let why =
            "`m4.large` is for x86_64, but `c7g.large` is not: all instance types must have the same architecture";
        check(&job(1.0, 1, 0), &mixed, why);
        check(&on_arm, &[], "no instance types are chosen");
    }

    #[test]
    fn fargate_rounds_up_to_the_next_size() {
        let check = |vcpus, memory, expected: (&str, u64, bool)| {
            let placed = fargate_placement(&job(vcpus, memory, 0), None, None).unwrap();
            assert_eq!((&*placed.vcpus, placed.memory_mib, placed.rounded), expected, "{vcpus} and {memory}");
        };
        check(0.25, 512, ("0.25", 512, false));
        check(0.1, 1, ("0.25", 512, true));
        check(0.25, 1025, ("0.25", 2048, true));
        check(0.25, 3000, ("0.5", 3072, true));
        check(1.0, 512, ("1", 2048, true));
        check(1.0, 8192, ("1", 8192, false));
        check(1.0, 8193, ("2", 9216, true));
        check(3.0, 8192, ("4", 8192, true));
        check(4.0, 30_721, ("8", 32_768, true));
        check(8.0, 17_000, ("8", 20_480, true));
        check(16.0, 122_880, ("16", 122_880, false));
        check(16.0, 122_881, ("32", 249_856, true));
        check(17.0, 1, ("32", 61_440, true));
        check(32.0, 249_856, ("32", 249_856, false));
    }

    #[test]
    fn fargate_rejects_unsupported_requests() {
        let check = |request, shared, disk, expected: &str| {
            let error = fargate_placement(&request, shared, disk).unwrap_err();
            assert!(error.hint().is_some());
            assert_eq!(error.to_string(), format!("cannot place `sweep::train` on Fargate: {expected}"));
        };
        let most = "but Fargate has at most 32 and 249856";
        check(job(33.0, 1024, 0), None, None, &format!("it requests 33 vCPUs and 1024 MiB, {most}"));
        check(job(0.5, 249_857, 0), None, None, &format!("it requests 0.5 vCPUs and 249857 MiB, {most}"));
        check(job(1.0, 1024, 1), None, None, "it requests GPUs, which Fargate does not have");
        let shared = "it sets `shared-memory`, which Fargate does not support";
        check(job(1.0, 1024, 0), Some(64), None, shared);
        for disk in [20, 201] {
            let why = format!("it requests a disk of {disk} GiB, but Fargate has 21 to 200 GiB");
            check(job(1.0, 1024, 0), None, Some(disk), &why);
        }
        for disk in [21, 200] {
            assert!(fargate_placement(&job(1.0, 2048, 0), None, Some(disk)).is_ok());
        }
    }
}
