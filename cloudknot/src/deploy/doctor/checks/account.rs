//! Findings about the account: credentials, permissions, quotas, Pars and Knot.

use std::collections::BTreeSet;

use super::{LocalState, VERBS, permissions, program};
use crate::aws::batch::Batch;
use crate::aws::cloudformation::{KNOT_STACKS, PARS_STACKS, Stack, Stacks};
use crate::aws::quotas::{self, GpuQuota};
use crate::aws::{Aws, s3};
use crate::deploy::doctor::{Examination, Finding, State, in_one_line};
use crate::deploy::knot::Knot;
use crate::deploy::knot::host as knot;
use crate::deploy::knot::host::values::MAX_VCPUS;
use crate::deploy::pars::Pars;
use crate::deploy::pars::host as pars;
use crate::deploy::policy::Scope;
use crate::error::{Error, ErrorKind};
use crate::settings::account::Account;
use crate::settings::config::{Config, default_pars};
use crate::settings::knot::Compute;

/// Quotas of virtual CPUs that a Knot's machines count against: a description, and the service and code in Service
/// Quotas.
const VCPUS: [(&str, &str, &str); 4] = [
    ("On-Demand instances", "ec2", "L-1216C47A"),
    ("Spot instances", "ec2", "L-34B43A08"),
    ("Fargate", "fargate", "L-3032A538"),
    ("Fargate Spot", "fargate", "L-36FBB829"),
];

/// Checks the account. Also returns whether the Knot is on 64-bit ARM.
pub(super) async fn examine(examination: &Examination, local: &LocalState) -> (bool, Vec<Finding>) {
    let (config, config_finding) = config().await;
    let account = Account { profile: examination.profile.clone(), region: examination.region.clone() };
    let mut found = Vec::new();
    let aws = match Aws::load(&account).await {
        Ok(aws) => match aws.caller().await {
            Ok((number, arn)) => {
                found.push(Finding::good("credentials", format!("{arn}, account {number}, region {}", aws.region)));
                Some((aws, number, arn))
            }
            Err(error) => {
                found.push(Finding::failed("credentials", State::Bad, &error));
                None
            }
        },
        Err(error) => {
            found.push(Finding::failed("credentials", State::Bad, &error));
            None
        }
    };
    found.push(config_finding);
    let note = local.note();
    let knot_note = note.as_ref().ok().and_then(Option::as_ref);
    let knot = examination.knot.clone().or_else(|| knot_note.map(|note| note.knot.clone()));
    let knot = knot.or_else(|| local.program.as_ref().ok().map(|(name, _)| name.clone()));
    let Some((aws, number, arn)) = aws else {
        let unchecked = "not checked: the caller is unknown";
        for subject in ["permissions", "quotas", "Pars", "Knot"] {
            found.push(Finding::unknown(subject, unchecked));
        }
        found.push(program(local, &note, None));
        return (false, found);
    };
    let state = AccountState::find(&aws, &account, examination.pars.clone(), config.pars, knot.as_deref()).await;
    let max_vcpus = state.knot.as_ref().and_then(|knot| knot.deployed.settings.max_vcpus).unwrap_or(MAX_VCPUS);
    let scope = state.scope(&aws, &number, knot.as_deref());
    let (allowed, quotas) = tokio::join!(
        permissions::examine(&aws, &arn, &scope, &VERBS, state.pars.is_some()),
        quota_findings(&aws, max_vcpus, state.knot.as_ref())
    );
    found.extend(allowed);
    found.extend(quotas);
    found.extend(state.found);
    found.push(program(local, &note, state.knot.as_ref()));
    let arm64 = state.knot.is_some_and(|knot| knot.deployed.settings.arm64 == Some(true));
    (arm64, found)
}

/// Reads and checks `config.toml`.
async fn config() -> (Config, Finding) {
    let subject = "config.toml";
    let config = match Config::read() {
        Ok(config) => config,
        Err(error) => return (Config::default(), Finding::failed(subject, State::Bad, &error)),
    };
    let path = Config::path().map(|path| path.display().to_string()).unwrap_or_default();
    let chosen = [
        ("profile", &config.profile),
        ("region", &config.region),
        ("pars", &config.pars),
        ("bucket", &config.bucket),
        ("kms-key", &config.kms_key),
    ];
    let chosen: Vec<_> =
        chosen.iter().filter_map(|(name, choice)| Some(format!("{name} {}", choice.as_ref()?))).collect();
    let chosen = if chosen.is_empty() { "nothing is set".to_owned() } else { chosen.join(", ") };
    let finding = match (&config.profile, Config::profiles().await) {
        (_, Err(error)) => Finding::failed(subject, State::Bad, &error),
        (Some(profile), Ok(profiles)) if !profiles.contains(profile) => {
            let existing = if profiles.is_empty() { "none".to_owned() } else { profiles.join(", ") };
            Finding::bad(
                subject,
                format!(
                    "`{path}` chooses the profile `{profile}`, which does not exist; existing profiles: {existing}"
                ),
            )
            .remedy("choose another: `cargo knot configure --profile NAME`, or \"\" for none")
        }
        _ => Finding::good(subject, format!("{chosen} (`{path}`)")),
    };
    (config, finding)
}

/// The Pars and the Knot that would be used.
struct AccountState {
    /// Name of the Pars, whether or not it exists.
    name: String,
    pars: Option<Pars>,
    knot: Option<Knot>,
    found: Vec<Finding>,
}

impl AccountState {
    async fn find(
        aws: &Aws,
        account: &Account,
        from_options: Option<String>,
        from_config: Option<String>,
        knot: Option<&str>,
    ) -> Self {
        let stacks = Stacks::new(aws);
        let (knot, knot_finding) = match knot {
            Some(name) => find_knot(aws, &stacks, account, name).await,
            None => (None, Finding::unknown("Knot", "none is set").remedy("set one: --knot NAME")),
        };
        // An existing Knot already has a Pars.
        let chosen = from_options.or_else(|| knot.as_ref().map(|knot| knot.pars_name().to_owned())).or(from_config);
        let name = chosen.clone().unwrap_or_else(default_pars);
        let (pars, pars_finding) = match stacks.find(&format!("{PARS_STACKS}{name}")).await {
            Ok(None) => (None, absent_pars(aws, &name, chosen.is_some())),
            Ok(Some(stack)) => examine_pars(aws, account, &name, &stack).await,
            Err(error) => (None, Finding::failed(format!("Pars `{name}`"), State::Unknown, &error)),
        };
        Self { name, pars, knot, found: vec![pars_finding, knot_finding] }
    }

    /// Returns the resources that the permissions are checked for: those that exist, or would be created.
    fn scope(&self, aws: &Aws, account: &str, knot: Option<&str>) -> Scope {
        let mut scope = Scope::new(account, aws.region.as_str(), &self.name, knot.unwrap_or("example"));
        if let Some(pars) = &self.pars {
            scope.bucket = Some(pars.bucket().to_owned());
            pars.prefix().clone_into(&mut scope.prefix);
            scope.kms_key.clone_from(&pars.settings.kms_key);
            pars.settings.role_path().clone_into(&mut scope.role_path);
            scope.permissions_boundary.clone_from(&pars.settings.permissions_boundary);
        }
        if let Some(knot) = &self.knot {
            let settings = &knot.deployed.settings;
            scope.repository.clone_from(&settings.repository);
            scope.queue.clone_from(&settings.queue);
            scope.policies = settings.policies.iter().filter(|policy| policy.starts_with("arn:")).cloned().collect();
        }
        scope
    }
}

async fn find_knot(aws: &Aws, stacks: &Stacks, account: &Account, name: &str) -> (Option<Knot>, Finding) {
    let subject = format!("Knot `{name}`");
    match stacks.find(&format!("{KNOT_STACKS}{name}")).await {
        Ok(None) => {
            let finding = Finding::doubtful(subject, format!("it does not exist in {}", aws.region));
            (None, finding.remedy("`cargo knot deploy` creates it; until then maps run on this machine"))
        }
        Ok(Some(stack)) => examine_knot(aws, account, subject, &stack).await,
        Err(error) => (None, Finding::failed(subject, State::Unknown, &error)),
    }
}

fn absent_pars(aws: &Aws, name: &str, is_chosen: bool) -> Finding {
    let (subject, found) = (format!("Pars `{name}`"), format!("it does not exist in {}", aws.region));
    if is_chosen {
        return Finding::bad(subject, found)
            .remedy(format!("`cargo knot pars create {name}` creates it; {}", pars::PARS_LIST_HINT));
    }
    Finding::doubtful(subject, found)
        .remedy("the first `cargo knot deploy` creates it, as does `cargo knot pars create`")
}

async fn examine_pars(aws: &Aws, account: &Account, name: &str, stack: &Stack) -> (Option<Pars>, Finding) {
    let subject = format!("Pars `{name}`");
    let pars =
        match (pars::read(stack, account), incomplete(&subject, stack, &format!("cargo knot pars create {name}"))) {
            (read, Some(finding)) => return (read.ok(), finding),
            (Err(error), None) => return (None, Finding::failed(subject, State::Bad, &error)),
            (Ok(pars), None) => pars,
        };
    let finding = match s3::bucket_is_absent(aws, pars.bucket()).await {
        Ok(true) => Finding::bad(subject, format!("it is complete, but its bucket `{}` does not exist", pars.bucket()))
            .remedy(format!(
                "clobber it (`cargo knot pars clobber {name}`) and create it again, or create a bucket of that name"
            )),
        Ok(false) => Finding::good(subject, format!("complete; bucket `{}`, VPC {}", pars.bucket(), pars.vpc())),
        Err(error) => Finding::failed(subject, State::Unknown, &error),
    };
    (Some(pars), finding)
}

async fn examine_knot(aws: &Aws, account: &Account, subject: String, stack: &Stack) -> (Option<Knot>, Finding) {
    if let Some(finding) = incomplete(&subject, stack, "cargo knot deploy") {
        return (None, finding);
    }
    if !stack.outputs.contains_key("ImageDigest") {
        let finding = Finding::bad(subject, "its deploy was not finished");
        return (None, finding.remedy("run `cargo knot deploy` again: it continues from there"));
    }
    let knot = match knot::read(stack, account) {
        Ok(knot) => knot,
        Err(error) => return (None, Finding::failed(subject, State::Bad, &error)),
    };
    let finding = match Batch::new(aws).queue(knot.queue()).await {
        Ok(_) => {
            Finding::good(subject, format!("complete; on the Pars `{}`, image {}", knot.pars_name(), knot.image()))
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Config) => {
            Finding::failed(subject, State::Bad, &error)
        }
        Err(error) => Finding::failed(subject, State::Unknown, &error),
    };
    (Some(knot), finding)
}

/// Returns the finding about a stack that is incomplete, or `None` if it is complete.
fn incomplete(subject: &str, stack: &Stack, command: &str) -> Option<Finding> {
    if stack.is_complete() {
        return None;
    }
    let reason = stack.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    let found = format!("its stack is {}{reason}", stack.status);
    if stack.status.as_str().ends_with("_IN_PROGRESS") {
        return Some(
            Finding::doubtful(subject, found).remedy("another operation is in progress: check again in a few minutes"),
        );
    }
    Some(
        Finding::bad(subject, found)
            .remedy(format!("run `{command}` again, which repairs the stack or creates it again")),
    )
}

/// Checks the quotas of the account and their use.
async fn quota_findings(aws: &Aws, max_vcpus: u32, knot: Option<&Knot>) -> Vec<Finding> {
    let counts = Batch::new(aws).counts().await;
    let mut found = Vec::new();
    for resource in ["compute environment", "job queue"] {
        let subject = format!("{resource} quota");
        let in_use = match &counts {
            Ok((environments, _)) if resource == "compute environment" => *environments,
            Ok((_, queues)) => *queues,
            Err(error) => {
                found.push(Finding::failed(subject, State::Unknown, error));
                continue;
            }
        };
        found.push(match quotas::quota(aws, "batch", resource).await {
            Ok(Some(limit)) if in_use < limit => Finding::good(subject, format!("{in_use} of {limit} are used")),
            Ok(Some(limit)) => {
                // An existing Knot already has its own one.
                let state = if knot.is_some() { State::Doubtful } else { State::Bad };
                Finding::new(
                    subject,
                    state,
                    format!("{in_use} of {limit} are used: no further Knot can have its own {resource}"),
                )
                .remedy("clobber unused Knots, request an increase in Service Quotas, or deploy with --queue")
            }
            Ok(None) => Finding::unknown(subject, format!("{in_use} used; Service Quotas reports no quota")),
            Err(error) => unread(subject, &format!("{in_use} used; the quota is unknown"), &error),
        });
    }
    let of_gpus = gpu_quotas(knot);
    for (instances, service, code) in VCPUS.iter().chain(&of_gpus).copied() {
        let subject = format!("vCPU quota for {instances}");
        found.push(match quotas::quota_of(aws, service, code).await {
            Ok(Some(0)) if of_gpus.iter().any(|quota| quota.2 == code) => {
                Finding::bad(subject, "0: no machine can start, and jobs stay RUNNABLE")
                    .remedy(format!("request an increase in Service Quotas ({service}, {code})"))
            }
            Ok(Some(limit)) if limit < max_vcpus as usize => {
                let found = format!("{limit} at once; a Knot may start {max_vcpus}, and gets no more than the quota");
                let request = format!("request an increase in Service Quotas ({service}, {code})");
                Finding::doubtful(subject, found).remedy(format!("{request}, or deploy with --max-vcpus {limit}"))
            }
            Ok(Some(limit)) => Finding::good(subject, format!("{limit} at once")),
            Ok(None) => Finding::unknown(subject, "Service Quotas reports no quota"),
            Err(error) => unread(subject, "the quota is unknown", &error),
        });
    }
    found
}

/// Returns the quotas of instances with GPUs that the machines of the Knot count against, as in [`VCPUS`].
fn gpu_quotas(knot: Option<&Knot>) -> Vec<(&'static str, &'static str, &'static str)> {
    let Some(deployed) = knot.map(|knot| &knot.deployed) else { return Vec::new() };
    let names = deployed.machines.iter().flat_map(|machines| &machines.names);
    let quotas: BTreeSet<GpuQuota> = names.filter_map(|name| GpuQuota::of(name)).collect();
    let spot = deployed.settings.compute == Some(Compute::Spot);
    let of_purchase = |quota: GpuQuota| {
        let (instances, code) = quota.of_purchase(spot);
        (instances, "ec2", code)
    };
    quotas.into_iter().map(of_purchase).collect()
}

fn unread(subject: String, found: &str, error: &Error) -> Finding {
    let finding = Finding::unknown(subject, format!("{found}: {}", in_one_line(error)));
    error.hint().into_iter().fold(finding, Finding::remedy)
}
