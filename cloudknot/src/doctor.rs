//! Whether everything is there that a deploy and a map need, on this machine and in the account, and what to do where
//! something lacks. Looks, and changes nothing; one look that fails does not keep the others.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};

use cloudknot_runtime::engine;
use serde::Serialize;

use crate::account::Account;
use crate::aws::Aws;
use crate::batch::Batch;
use crate::built::home_of;
use crate::compile::{Arch, Compile, Machine, Selection};
use crate::config::{Config, default_pars};
use crate::error::{Error, ErrorKind, Result};
use crate::knot::values::MAX_VCPUS;
use crate::knot::{self, Knot};
use crate::note::KnotNote;
use crate::pars::{self, Pars};
use crate::policy::{Allowed, Scope};
use crate::preflight;
use crate::stack::{Stack, Stacks};

pub(crate) mod permissions;

/// An engine that answers does so in milliseconds.
#[cfg(feature = "docker")]
const ENGINE_ANSWERS: std::time::Duration = std::time::Duration::from_secs(5);

/// The quotas of virtual CPUs that a Knot's machines count against: what they are for, and how Service Quotas knows them.
const VCPUS: [(&str, &str, &str); 4] = [
    ("on demand", "ec2", "L-1216C47A"),
    ("on Spot", "ec2", "L-34B43A08"),
    ("on Fargate", "fargate", "L-3032A538"),
    ("on Fargate Spot", "fargate", "L-36FBB829"),
];

/// What somebody may do is looked at for these.
const VERBS: [Allowed; 4] = [Allowed::ParsCreate, Allowed::Deploy, Allowed::Run, Allowed::Clobber];

/// What is examined, where that is not what a deploy would take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Examination {
    /// The profile of AWS.
    pub profile: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The Pars.
    pub pars: Option<String>,
    /// The Knot.
    pub knot: Option<String>,
}

/// What was found at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// What was looked at.
    pub about: String,
    /// How it is.
    pub state: State,
    /// What is there.
    pub found: String,
    /// What to do, where something is to be done.
    pub remedy: Option<String>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// As it should be.
    Good,
    /// Something may lack, depending on what is to be done.
    Doubtful,
    /// It stands in the way.
    Bad,
    /// It could not be looked at.
    Unknown,
}

impl Finding {
    fn new(about: impl Into<String>, state: State, found: impl Into<String>) -> Self {
        Self { about: about.into(), state, found: found.into(), remedy: None }
    }

    fn good(about: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(about, State::Good, found)
    }

    fn doubtful(about: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(about, State::Doubtful, found)
    }

    fn bad(about: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(about, State::Bad, found)
    }

    fn unknown(about: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(about, State::Unknown, found)
    }

    /// That a look has failed, in one line; the remedy is the error's.
    fn failed(about: impl Into<String>, state: State, error: &Error) -> Self {
        let remedy = error.hint().map(str::to_owned);
        Self { remedy, ..Self::new(about, state, in_a_line(error)) }
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// An error and its causes.
fn in_a_line(error: &(dyn StdError + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source()).map(ToString::to_string);
    causes.collect::<Vec<_>>().join(": ").replace('\n', "; ")
}

/// Examines this machine and the account, in the order in which things are needed.
///
/// ```no_run
/// # async fn example() {
/// use cloudknot::doctor::{Examination, State, examine};
///
/// let mut asked = Examination::default();
/// asked.region = Some("eu-central-1".to_owned());
/// for finding in examine(&asked).await.iter().filter(|finding| finding.state == State::Bad) {
///     eprintln!("{}: {}", finding.about, finding.found);
/// }
/// # }
/// ```
pub async fn examine(asked: &Examination) -> Vec<Finding> {
    engine::inside(Box::pin(look(asked))).await
}

async fn look(asked: &Examination) -> Vec<Finding> {
    // cargo and rustc are waited for, and so not on a thread that others need.
    let here = tokio::task::spawn_blocking(Here::look).await.expect("looking does not panic");
    // It is large, and seldom polled.
    let (account, docker) = tokio::join!(Box::pin(in_account(asked, &here)), docker());
    let (needs_arm64, account) = account;
    let mut found = account;
    found.extend(tools(here.machine, needs_arm64));
    found.push(docker);
    found
}

/// What is known without asking anybody.
struct Here {
    machine: Result<Machine>,
    /// The name that the program's Knot has, and its folder.
    program: Result<(String, PathBuf)>,
}

impl Here {
    fn look() -> Self {
        let compile = Compile::new(Selection::default());
        let program = compile.knot_name().and_then(|name| Ok((name, compile.package_folder()?)));
        Self { machine: Machine::here().map_err(Error::from), program: program.map_err(Error::from) }
    }

    fn note(&self) -> Result<Option<KnotNote>> {
        let folder = self.program.as_ref().map_or(Path::new("."), |(_, folder)| folder);
        KnotNote::read(&home_of(folder))
    }
}

/// What the account has to do with; and whether the Knot is on 64-bit ARM.
async fn in_account(asked: &Examination, here: &Here) -> (bool, Vec<Finding>) {
    let (config, choices) = choices().await;
    let account = Account { profile: asked.profile.clone(), region: asked.region.clone() };
    let mut found = Vec::new();
    let aws = match account.load().await {
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
    let knot = asked.knot.clone().or_else(|| noted.map(|note| note.knot.clone()));
    let knot = knot.or_else(|| here.program.as_ref().ok().map(|(name, _)| name.clone()));
    let Some((aws, number, arn)) = aws else {
        let not_asked = "AWS was not asked: it does not know who asks";
        for about in ["permissions", "quotas", "Pars", "Knot"] {
            found.push(Finding::unknown(about, not_asked));
        }
        found.push(program(here, &note, None));
        return (false, found);
    };
    let there = There::look(&aws, &account, asked.pars.clone(), config.pars, knot.as_deref()).await;
    let max_vcpus = there.knot.as_ref().and_then(|knot| knot.deployed.settings.max_vcpus).unwrap_or(MAX_VCPUS);
    let scope = there.scope(&aws, &number, knot.as_deref());
    let (allowed, quotas) = tokio::join!(
        permissions::examine(&aws, &arn, &scope, &VERBS, there.pars.is_some()),
        quotas(&aws, max_vcpus, there.knot.is_some())
    );
    found.extend(allowed);
    found.extend(quotas);
    found.extend(there.found);
    found.push(program(here, &note, there.knot.as_ref()));
    let arm64 = there.knot.is_some_and(|knot| knot.deployed.settings.arm64 == Some(true));
    (arm64, found)
}

/// `config.toml`.
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
                format!("`{path}` chooses the profile `{profile}`, which is not there; there are: {there}"),
            )
            .remedy("choose another: `cargo knot configure --profile NAME`, or \"\" for none")
        }
        _ => Finding::good(about, format!("{chosen} (`{path}`)")),
    };
    (config, finding)
}

/// The Pars and the Knot that would be used.
struct There {
    /// The name of the Pars, there or not.
    name: String,
    pars: Option<Pars>,
    knot: Option<Knot>,
    found: Vec<Finding>,
}

impl There {
    async fn look(
        aws: &Aws,
        account: &Account,
        said: Option<String>,
        chosen: Option<String>,
        knot: Option<&str>,
    ) -> Self {
        let stacks = Stacks::new(aws);
        let (knot, of_knot) = match knot {
            Some(name) => look_at_knot(aws, &stacks, account, name).await,
            None => (None, Finding::unknown("Knot", "none is named").remedy("name one: --knot NAME")),
        };
        // One that is there has a Pars already.
        let named = said.or_else(|| knot.as_ref().map(|knot| knot.pars_name().to_owned())).or(chosen);
        let name = named.clone().unwrap_or_else(default_pars);
        let (pars, of_pars) = match stacks.find(&format!("{}{name}", pars::STACKS)).await {
            Ok(None) => (None, absent_pars(aws, &name, named.is_some())),
            Ok(Some(stack)) => pars_of(aws, account, &name, &stack).await,
            Err(error) => (None, Finding::failed(format!("Pars `{name}`"), State::Unknown, &error)),
        };
        Self { name, pars, knot, found: vec![of_pars, of_knot] }
    }

    /// Of what the permissions speak: of what is there, or of what would be made.
    fn scope(&self, aws: &Aws, account: &str, knot: Option<&str>) -> Scope {
        let mut scope = Scope::new(account, aws.region.as_str(), &self.name, knot.unwrap_or("example"));
        if let Some(pars) = &self.pars {
            scope.bucket = Some(pars.bucket().to_owned());
            pars.prefix().clone_into(&mut scope.prefix);
            scope.kms_key.clone_from(&pars.settings.kms_key);
            scope.role_path.clone_from(&pars.settings.role_path);
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
    match stacks.find(&format!("{}{name}", knot::STACKS)).await {
        Ok(None) => {
            let finding = Finding::doubtful(about, format!("it is not there, in {}", aws.region));
            (None, finding.remedy("`cargo knot deploy` makes it; until then maps run on this machine"))
        }
        Ok(Some(stack)) => knot_of(aws, account, about, &stack).await,
        Err(error) => (None, Finding::failed(about, State::Unknown, &error)),
    }
}

fn absent_pars(aws: &Aws, name: &str, named: bool) -> Finding {
    let (about, found) = (format!("Pars `{name}`"), format!("it is not there, in {}", aws.region));
    if named {
        return Finding::bad(about, found)
            .remedy(format!("`cargo knot pars create {name}` makes it; {}", pars::LOOKED_FOR));
    }
    Finding::doubtful(about, found).remedy("the first `cargo knot deploy` makes it, as does `cargo knot pars create`")
}

async fn pars_of(aws: &Aws, account: &Account, name: &str, stack: &Stack) -> (Option<Pars>, Finding) {
    let about = format!("Pars `{name}`");
    let pars =
        match (pars::of_stack(stack, account), incomplete(&about, stack, &format!("cargo knot pars create {name}"))) {
            (read, Some(finding)) => return (read.ok(), finding),
            (Err(error), None) => return (None, Finding::failed(about, State::Bad, &error)),
            (Ok(pars), None) => pars,
        };
    let finding = match pars::bucket_is_gone(aws, pars.bucket()).await {
        Ok(true) => Finding::bad(about, format!("it is complete, but its bucket `{}` is gone", pars.bucket())).remedy(
            format!("clobber it (`cargo knot pars clobber {name}`) and make it again, or make a bucket of that name"),
        ),
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
        return (None, finding.remedy("run `cargo knot deploy` again: it goes on from there"));
    }
    let knot = match knot::of_stack(stack, account) {
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

/// What is to be said of a stack that is not as it should be; nothing of one that is.
fn incomplete(about: &str, stack: &Stack, command: &str) -> Option<Finding> {
    if stack.is_complete() {
        return None;
    }
    let reason = stack.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    let found = format!("its stack is {}{reason}", stack.status);
    if stack.status.as_str().ends_with("_IN_PROGRESS") {
        return Some(Finding::doubtful(about, found).remedy("somebody is at work on it: look again in some minutes"));
    }
    Some(Finding::bad(about, found).remedy(format!("run `{command}` again, which mends it or begins anew")))
}

/// The program in this folder, and what is noted beside it.
fn program(here: &Here, note: &Result<Option<KnotNote>>, knot: Option<&Knot>) -> Finding {
    let about = "program";
    let note = match note {
        Ok(note) => note.as_ref(),
        Err(error) => return Finding::failed(about, State::Bad, error),
    };
    let name = match (&here.program, note) {
        (Err(error), None) => {
            return Finding::unknown(about, in_a_line(error))
                .remedy("run it in the folder of a program with remote functions");
        }
        (Err(_), Some(note)) => note.knot.as_str(),
        (Ok((name, _)), _) => name.as_str(),
    };
    let Some(note) = note else {
        let found = format!("`{name}` has not been deployed from here: its maps run on this machine");
        return Finding::doubtful(about, found).remedy("`cargo knot deploy` takes it to AWS");
    };
    let found = format!("its maps run on the Knot `{}` in {}", note.knot, note.region);
    let again = "run `cargo knot deploy` again";
    match knot.filter(|knot| knot.name == note.knot && knot.region == note.region) {
        Some(knot) if knot.image() == note.image && knot.queue() == note.queue => Finding::good(about, found),
        Some(_) => Finding::doubtful(about, format!("{found}, which somebody has deployed anew since")).remedy(again),
        None => Finding::doubtful(about, format!("{found}, which was not found there")).remedy(again),
    }
}

/// What the account may have, and has.
async fn quotas(aws: &Aws, max_vcpus: u32, has_knot: bool) -> Vec<Finding> {
    let counts = Batch::new(aws).counts().await;
    let mut found = Vec::new();
    for what in ["compute environment", "job queue"] {
        let about = format!("quota of {what}s");
        let there = match &counts {
            Ok((environments, _)) if what == "compute environment" => *environments,
            Ok((_, queues)) => *queues,
            Err(error) => {
                found.push(Finding::failed(about, State::Unknown, error));
                continue;
            }
        };
        found.push(match preflight::quota(aws, "batch", what).await {
            Ok(Some(most)) if there < most => Finding::good(about, format!("{there} of {most} are used")),
            Ok(Some(most)) => {
                // One that is there has its own already.
                let state = if has_knot { State::Doubtful } else { State::Bad };
                Finding::new(about, state, format!("{there} of {most} are used: no Knot more can have its own"))
                    .remedy("clobber what is not needed, ask for more in Service Quotas, or deploy with --queue")
            }
            Ok(None) => Finding::unknown(about, format!("{there} used; Service Quotas names no limit")),
            Err(error) => unread(about, &format!("{there} used; how many there may be is not known"), &error),
        });
    }
    for (what, service, code) in VCPUS {
        let about = format!("quota of vCPUs {what}");
        found.push(match preflight::quota_of(aws, service, code).await {
            Ok(Some(most)) if most < max_vcpus as usize => {
                let found = format!("{most} at once; a Knot may start {max_vcpus}, and gets no more than the quota");
                let ask = format!("ask for more in Service Quotas ({service}, {code})");
                Finding::doubtful(about, found).remedy(format!("{ask}, or deploy with --max-vcpus {most}"))
            }
            Ok(Some(most)) => Finding::good(about, format!("{most} at once")),
            Ok(None) => Finding::unknown(about, "Service Quotas names none"),
            Err(error) => unread(about, "it is not known", &error),
        });
    }
    found
}

fn unread(about: String, found: &str, error: &Error) -> Finding {
    let finding = Finding::unknown(about, format!("{found}: {}", in_a_line(error)));
    error.hint().into_iter().fold(finding, Finding::remedy)
}

/// What compiles workers.
fn tools(machine: Result<Machine>, needs_arm64: bool) -> Vec<Finding> {
    let machine = match machine {
        Ok(machine) => machine,
        Err(error) => {
            let finding = Finding::failed("Rust", State::Bad, &error);
            let install = "install Rust (https://rustup.rs)".to_owned();
            return vec![Finding { remedy: finding.remedy.clone().or(Some(install)), ..finding }];
        }
    };
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    let rust = format!("rustc {} for {}", machine.rustc, machine.host);
    let mut found = vec![if is_older(&machine.rustc, oldest) {
        Finding::bad("Rust", format!("{rust}; cloudknot needs {oldest} or newer")).remedy("rustup update stable")
    } else {
        Finding::good("Rust", rust)
    }];
    found.push(match machine.c_compiler {
        Some(name) => Finding::good("C compiler", format!("`{name}`")),
        None => Finding::doubtful("C compiler", "none was found; Rust links by it, and the AWS SDK has some C")
            .remedy("install one: `sudo apt-get install gcc`, or `xcode-select --install`"),
    });
    for target in machine.workers {
        let (name, wanted) = match target.arch {
            Arch::X86_64 => ("x86-64", !needs_arm64),
            Arch::Arm64 => ("64-bit ARM", needs_arm64),
        };
        let about = format!("workers for {name}");
        let lacking = if wanted { State::Bad } else { State::Doubtful };
        let finding = match (target.triple, target.compiles_c) {
            (Some(triple), true) => Finding::good(about, format!("static, as {triple}")),
            (Some(triple), false) => {
                Finding::new(about, lacking, format!("as {triple}, but without C, which a worker needs to speak to S3"))
            }
            (None, _) => Finding::new(about, lacking, "this machine cannot compile them"),
        };
        found.push(Finding { remedy: target.remedy, ..finding });
    }
    found
}

/// Whether this version is older than that one. What is behind a `-` (nightly, beta) is not looked at.
fn is_older(version: &str, than: &str) -> bool {
    let parts = |version: &str| -> Vec<u32> {
        version.split('-').next().unwrap_or_default().split('.').map_while(|part| part.parse().ok()).collect()
    };
    parts(version) < parts(than)
}

/// The Docker engine. Most need none.
#[cfg(feature = "docker")]
async fn docker() -> Finding {
    let about = "Docker";
    let remedy =
        "it takes one only to try images here (CLOUDKNOT_BACKEND=docker) and for a `base-image` or `dockerfile`";
    match tokio::time::timeout(ENGINE_ANSWERS, crate::docker::Engine::connect()).await {
        Ok(Ok(_)) => Finding::good(about, "an engine answers"),
        Ok(Err(error)) => {
            let hint = error.hint().map_or_else(String::new, |hint| format!("; {hint}"));
            Finding::doubtful(about, in_a_line(&error)).remedy(format!("{remedy}{hint}"))
        }
        Err(_) => Finding::doubtful(about, "the engine does not answer").remedy(format!("restart it; {remedy}")),
    }
}

#[cfg(not(feature = "docker"))]
#[expect(clippy::unused_async, reason = "with an engine it has to wait")]
async fn docker() -> Finding {
    Finding::unknown("Docker", "not looked at: cloudknot was built without the feature `docker`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let check = |version: &str, older: bool| assert_eq!(is_older(version, "1.94.1"), older, "{version}");
        check("1.94.1", false);
        check("1.95.0-nightly", false);
        check("1.100.0", false);
        check("2.0.0", false);
        check("1.94.0", true);
        check("1.9.5", true);
    }

    #[test]
    fn a_finding_is_data() {
        let finding = Finding::bad("Rust", "none").remedy("install it");
        let json = serde_json::json!({"about": "Rust", "state": "bad", "found": "none", "remedy": "install it"});
        assert_eq!(serde_json::json!(finding), json);
    }

    #[test]
    fn a_machine_that_lacks_the_other_architecture_is_only_doubtful() {
        let states = |needs_arm64| {
            let machine = Machine::here().map_err(Error::from);
            let mut machine = machine.expect("the machine that runs this test has a toolchain");
            for target in &mut machine.workers {
                target.triple = None;
                target.compiles_c = false;
                target.remedy = Some("install it".to_owned());
            }
            let found = tools(Ok(machine), needs_arm64);
            let of =
                |name: &str| found.iter().find(|finding| finding.about.ends_with(name)).map(|finding| finding.state);
            (of("x86-64"), of("ARM"))
        };
        assert_eq!(states(false), (Some(State::Bad), Some(State::Doubtful)));
        assert_eq!(states(true), (Some(State::Doubtful), Some(State::Bad)));
    }
}
