//! Findings about the account: credentials, permissions, quotas, Pars and Knot.

use super::{Here, VERBS, permissions, program};
use crate::aws::batch::Batch;
use crate::aws::cloudformation::{KNOT_STACKS, PARS_STACKS, Stack, Stacks};
use crate::aws::{Aws, quotas, s3};
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

/// Quotas of virtual CPUs that a Knot's machines count against: a description, and the service and code in Service
/// Quotas.
const VCPUS: [(&str, &str, &str); 4] = [
    ("on demand", "ec2", "L-1216C47A"),
    ("on Spot", "ec2", "L-34B43A08"),
    ("on Fargate", "fargate", "L-3032A538"),
    ("on Fargate Spot", "fargate", "L-36FBB829"),
];

/// Checks the account. Also returns whether the Knot is on 64-bit ARM.
pub(super) async fn examine(examination: &Examination, here: &Here) -> (bool, Vec<Finding>) {
    let (config, choices) = choices().await;
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
    found.push(choices);
    let note = here.note();
    let noted = note.as_ref().ok().and_then(Option::as_ref);
    let knot = examination.knot.clone().or_else(|| noted.map(|note| note.knot.clone()));
    let knot = knot.or_else(|| here.program.as_ref().ok().map(|(name, _)| name.clone()));
    let Some((aws, number, arn)) = aws else {
        let unchecked = "not checked: AWS does not know the caller";
        for about in ["permissions", "quotas", "Pars", "Knot"] {
            found.push(Finding::unknown(about, unchecked));
        }
        found.push(program(here, &note, None));
        return (false, found);
    };
    let state = AccountState::look(&aws, &account, examination.pars.clone(), config.pars, knot.as_deref()).await;
    let max_vcpus = state.knot.as_ref().and_then(|knot| knot.deployed.settings.max_vcpus).unwrap_or(MAX_VCPUS);
    let scope = state.scope(&aws, &number, knot.as_deref());
    let (allowed, quotas) = tokio::join!(
        permissions::examine(&aws, &arn, &scope, &VERBS, state.pars.is_some()),
        of_quotas(&aws, max_vcpus, state.knot.is_some())
    );
    found.extend(allowed);
    found.extend(quotas);
    found.extend(state.found);
    found.push(program(here, &note, state.knot.as_ref()));
    let arm64 = state.knot.is_some_and(|knot| knot.deployed.settings.arm64 == Some(true));
    (arm64, found)
}

/// Reads and checks `config.toml`.
async fn choices() -> (Config, Finding) {
    let about = "config.toml";
    let config = match Config::read() {
        Ok(config) => config,
        Err(error) => return (Config::default(), Finding::failed(about, State::Bad, &error)),
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
    let chosen = if chosen.is_empty() { "nothing is chosen".to_owned() } else { chosen.join(", ") };
    let finding = match (&config.profile, Config::profiles().await) {
        (_, Err(error)) => Finding::failed(about, State::Bad, &error),
        (Some(profile), Ok(profiles)) if !profiles.contains(profile) => {
            let there = if profiles.is_empty() { "none".to_owned() } else { profiles.join(", ") };
            Finding::bad(
                about,
                format!("`{path}` chooses the profile `{profile}`, which does not exist; there are: {there}"),
            )
            .remedy("choose another: `cargo knot configure --profile NAME`, or \"\" for none")
        }
        _ => Finding::good(about, format!("{chosen} (`{path}`)")),
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
    async fn look(
        aws: &Aws,
        account: &Account,
        given: Option<String>,
        chosen: Option<String>,
        knot: Option<&str>,
    ) -> Self {
        let stacks = Stacks::new(aws);
        let (knot, of_knot) = match knot {
            Some(name) => look_at_knot(aws, &stacks, account, name).await,
            None => (None, Finding::unknown("Knot", "none is named").remedy("name one: --knot NAME")),
        };
        // An existing Knot already has a Pars.
        let named = given.or_else(|| knot.as_ref().map(|knot| knot.pars_name().to_owned())).or(chosen);
        let name = named.clone().unwrap_or_else(default_pars);
        let (pars, of_pars) = match stacks.find(&format!("{PARS_STACKS}{name}")).await {
            Ok(None) => (None, absent_pars(aws, &name, named.is_some())),
            Ok(Some(stack)) => pars_of(aws, account, &name, &stack).await,
            Err(error) => (None, Finding::failed(format!("Pars `{name}`"), State::Unknown, &error)),
        };
        Self { name, pars, knot, found: vec![of_pars, of_knot] }
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

async fn look_at_knot(aws: &Aws, stacks: &Stacks, account: &Account, name: &str) -> (Option<Knot>, Finding) {
    let about = format!("Knot `{name}`");
    match stacks.find(&format!("{KNOT_STACKS}{name}")).await {
        Ok(None) => {
            let finding = Finding::doubtful(about, format!("it does not exist in {}", aws.region));
            (None, finding.remedy("`cargo knot deploy` creates it; until then maps run on this machine"))
        }
        Ok(Some(stack)) => knot_of(aws, account, about, &stack).await,
        Err(error) => (None, Finding::failed(about, State::Unknown, &error)),
    }
}

fn absent_pars(aws: &Aws, name: &str, named: bool) -> Finding {
    let (about, found) = (format!("Pars `{name}`"), format!("it does not exist in {}", aws.region));
    if named {
        return Finding::bad(about, found)
            .remedy(format!("`cargo knot pars create {name}` creates it; {}", pars::LOOKED_FOR));
    }
    Finding::doubtful(about, found).remedy("the first `cargo knot deploy` creates it, as does `cargo knot pars create`")
}

async fn pars_of(aws: &Aws, account: &Account, name: &str, stack: &Stack) -> (Option<Pars>, Finding) {
    let about = format!("Pars `{name}`");
    let pars = match (pars::read(stack, account), incomplete(&about, stack, &format!("cargo knot pars create {name}")))
    {
        (read, Some(finding)) => return (read.ok(), finding),
        (Err(error), None) => return (None, Finding::failed(about, State::Bad, &error)),
        (Ok(pars), None) => pars,
    };
    let finding = match s3::is_gone(aws, pars.bucket()).await {
        Ok(true) => {
            Finding::bad(about, format!("it is complete, but its bucket `{}` is gone", pars.bucket())).remedy(format!(
                "clobber it (`cargo knot pars clobber {name}`) and create it again, or create a bucket of that name"
            ))
        }
        Ok(false) => Finding::good(about, format!("complete; bucket `{}`, VPC {}", pars.bucket(), pars.vpc())),
        Err(error) => Finding::failed(about, State::Unknown, &error),
    };
    (Some(pars), finding)
}

async fn knot_of(aws: &Aws, account: &Account, about: String, stack: &Stack) -> (Option<Knot>, Finding) {
    if let Some(finding) = incomplete(&about, stack, "cargo knot deploy") {
        return (None, finding);
    }
    if !stack.outputs.contains_key("ImageDigest") {
        let finding = Finding::bad(about, "its deploy was never finished");
        return (None, finding.remedy("run `cargo knot deploy` again: it continues from there"));
    }
    let knot = match knot::read(stack, account) {
        Ok(knot) => knot,
        Err(error) => return (None, Finding::failed(about, State::Bad, &error)),
    };
    let finding = match Batch::new(aws).queue(knot.queue()).await {
        Ok(_) => Finding::good(about, format!("complete; on the Pars `{}`, image {}", knot.pars_name(), knot.image())),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Config) => {
            Finding::failed(about, State::Bad, &error)
        }
        Err(error) => Finding::failed(about, State::Unknown, &error),
    };
    (Some(knot), finding)
}

/// Returns the finding about a stack that is incomplete, or `None` if it is complete.
fn incomplete(about: &str, stack: &Stack, command: &str) -> Option<Finding> {
    if stack.is_complete() {
        return None;
    }
    let reason = stack.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    let found = format!("its stack is {}{reason}", stack.status);
    if stack.status.as_str().ends_with("_IN_PROGRESS") {
        return Some(
            Finding::doubtful(about, found).remedy("another operation is in progress: check again in a few minutes"),
        );
    }
    Some(Finding::bad(about, found).remedy(format!("run `{command}` again, which repairs it or starts again")))
}

/// Checks the quotas of the account and their use.
async fn of_quotas(aws: &Aws, max_vcpus: u32, has_knot: bool) -> Vec<Finding> {
    let counts = Batch::new(aws).counts().await;
    let mut found = Vec::new();
    for what in ["compute environment", "job queue"] {
        let about = format!("quota of {what}s");
        let in_use = match &counts {
            Ok((environments, _)) if what == "compute environment" => *environments,
            Ok((_, queues)) => *queues,
            Err(error) => {
                found.push(Finding::failed(about, State::Unknown, error));
                continue;
            }
        };
        found.push(match quotas::quota(aws, "batch", what).await {
            Ok(Some(most)) if in_use < most => Finding::good(about, format!("{in_use} of {most} are used")),
            Ok(Some(most)) => {
                // An existing Knot already has its own.
                let state = if has_knot { State::Doubtful } else { State::Bad };
                Finding::new(about, state, format!("{in_use} of {most} are used: no further Knot can have its own"))
                    .remedy("clobber unused Knots, request an increase in Service Quotas, or deploy with --queue")
            }
            Ok(None) => Finding::unknown(about, format!("{in_use} used; Service Quotas reports no quota")),
            Err(error) => unread(about, &format!("{in_use} used; the quota is unknown"), &error),
        });
    }
    for (what, service, code) in VCPUS {
        let about = format!("quota of vCPUs {what}");
        found.push(match quotas::quota_of(aws, service, code).await {
            Ok(Some(most)) if most < max_vcpus as usize => {
                let found = format!("{most} at once; a Knot may start {max_vcpus}, and gets no more than the quota");
                let ask = format!("request an increase in Service Quotas ({service}, {code})");
                Finding::doubtful(about, found).remedy(format!("{ask}, or deploy with --max-vcpus {most}"))
            }
            Ok(Some(most)) => Finding::good(about, format!("{most} at once")),
            Ok(None) => Finding::unknown(about, "Service Quotas reports no quota"),
            Err(error) => unread(about, "the quota is unknown", &error),
        });
    }
    found
}

fn unread(about: String, found: &str, error: &Error) -> Finding {
    let finding = Finding::unknown(about, format!("{found}: {}", in_one_line(error)));
    error.hint().into_iter().fold(finding, Finding::remedy)
}
