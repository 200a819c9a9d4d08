//! The inputs of a deploy: the program, from cargo, and the state of the account, from AWS. Nothing is compiled or
//! written. Errors that can be found without compiling are returned here.

use std::path::PathBuf;

use serde_json::json;

use super::preflight;
use super::stack::{read_note, stack_name};
use super::values::{DesiredKnot, Responses};
use crate::aws::batch::{Batch, Queue};
use crate::aws::cloudformation::{Stack, Stacks};
use crate::aws::ec2::{Ec2, InstanceType};
use crate::aws::ecr::Ecr;
use crate::aws::{Aws, iam, machines};
use crate::build::compile::{Arch, AwsFeature, Compile, CompileError, Program, Selection};
use crate::build::pipeline::{Pipeline, blocking};
use crate::deploy::knot::{Deployed, KnotBuilder};
use crate::deploy::pars::host::{self as pars, ParsResolution, ParsState};
use crate::deploy::pars::{Pars, ParsBuilder};
use crate::deploy::plan::{Intent, denied_note};
use crate::deploy::stack_note::differences;
use crate::error::{Error, ErrorKind, Result};
use crate::event::step;
use crate::settings::account::Account;
use crate::settings::config::{Config, default_pars};
use crate::settings::knot::KnotSettings;
use crate::settings::sizes::{self, Machines};

/// A Knot to deploy, and the state of its account.
pub(super) struct ResolvedKnot {
    pub(super) knot: KnotProgram,
    pub(super) state: AccountState,
    responses: Option<Responses>,
    /// Permissions that the caller lacks, for the notes of a plan.
    pub(super) denied: Option<String>,
}

/// The program of a Knot, with all settings of the Knot.
pub(super) struct KnotProgram {
    pub(super) name: String,
    pub(super) settings: KnotSettings,
    pub(super) package: String,
    pub(super) version: String,
    pub(super) cargo_target: String,
    pub(super) arch: Arch,
    /// Target triple of the worker.
    pub(super) triple: String,
    /// `true` if the image has a base.
    pub(super) has_base: bool,
    /// Source file with a remote function that requests GPUs, if one is known before compiling.
    pub(super) gpus_in_sources: Option<PathBuf>,
    /// cargo options that select features of the package.
    pub(super) features: Vec<String>,
}

/// Stacks in the account that a deploy uses or changes.
pub(super) struct AccountState {
    pub(super) aws: Aws,
    pub(super) stacks: Stacks,
    pub(super) stack: Option<Stack>,
    pub(super) pars: ParsLookup,
}

/// The Pars that the Knot will use.
pub(super) enum ParsLookup {
    Existing(Box<Pars>),
    /// The deploy creates it.
    Missing(Box<ParsState>),
}

impl ResolvedKnot {
    /// Resolves a deploy. Also returns the pipeline that builds the image of the program.
    pub(super) async fn of(builder: &KnotBuilder, intent: Intent) -> Result<(Self, Pipeline)> {
        let pipeline = Pipeline::new(program(builder).await?).image(builder.image.clone());
        KnotProgram::of(builder, &pipeline).desired().check()?;
        pipeline.check()?;
        let pipeline = with_aws_feature(pipeline, builder.add_feature, intent).await?;
        let knot = KnotProgram::of(builder, &pipeline);
        let state = AccountState::of(&knot, &builder.account, intent).await?;
        let mut resolved = Self { knot, state, responses: None, denied: None };
        // With the settings of the last deploy, perhaps nothing has changed: only the image can show it.
        if intent == Intent::Template || !resolved.has_settings_of_stack() {
            resolved.query(intent).await?;
        }
        Ok((resolved, pipeline))
    }

    fn has_settings_of_stack(&self) -> bool {
        let complete = self.state.stack.as_ref().filter(|stack| stack.is_complete());
        complete
            .and_then(|stack| read_note(stack).ok())
            .is_some_and(|note| note.settings.settings == self.knot.settings)
    }

    /// Queries AWS for resources that the settings only name, and for reasons why the Knot could not be created.
    async fn query(&mut self, intent: Intent) -> Result<()> {
        let (knot, state) = (&self.knot, &self.state);
        if let Some(deployed) = state.before().and_then(|stack| read_note(stack).ok()) {
            preflight::check_queue_name(&deployed.settings.settings, &knot.settings)?;
        }
        let responses = knot.query(&state.aws).await?;
        if intent != Intent::Template {
            let is_new = state.before().is_none();
            let pars = state.pars.planned();
            let desired = knot.desired();
            if is_new {
                let checked = preflight::check_permissions(&state.aws, &desired, &responses, &pars).await;
                self.denied = denied_note(checked, intent)?;
            }
            preflight::check_mounts(&state.aws, &knot.settings, &pars).await?;
            let checked = preflight::check_account(&state.aws, &desired, is_new).await;
            self.denied = self.denied.take().or(denied_note(checked, intent)?);
        }
        self.responses = Some(responses);
        Ok(())
    }

    /// Looks up the stack of the Knot again: others may have deployed during the compilation.
    pub(super) async fn refresh_stack(&mut self) -> Result<()> {
        let stack = self.state.stacks.find_settled(&stack_name(&self.knot.name)).await?;
        self.knot.check_existing_owner(stack.as_ref(), &self.state.pars.planned().name)?;
        self.state.stack = stack;
        Ok(())
    }

    /// Looks up the Pars again, and everything that has not been looked up yet, before the Knot is changed.
    pub(super) async fn refresh_for_a_change(&mut self, account: &Account, intent: Intent) -> Result<()> {
        let name = self.state.pars.planned().name;
        match (pars::find(&self.state.stacks, &name, account).await?, &self.state.pars) {
            (Some(pars), _) => self.state.pars = ParsLookup::Existing(Box::new(pars)),
            (None, ParsLookup::Missing(_)) => {}
            (None, ParsLookup::Existing(_)) => {
                let message =
                    format!("cannot deploy the Knot `{}`: its Pars `{name}` was just clobbered", self.knot.name);
                return Err(Error::new(ErrorKind::NotFound, message).with_hint("run the same command again"));
            }
        }
        if self.responses.is_none() { self.query(intent).await } else { Ok(()) }
    }

    /// Records the machines of the Knot's own environment: the names of their types and families, and the instance types.
    pub(super) fn set_machines(&mut self, names: &[String], types: &[InstanceType]) {
        let largest = sizes::largest(machines::of_types(types));
        let responses = self.responses.as_mut().expect("the account is looked up before the machines are chosen");
        responses.machines = Some(Machines { names: names.to_vec(), largest });
    }

    /// Returns the responses from AWS to [`query`](Self::query).
    pub(super) fn responses(&self) -> &Responses {
        self.responses.as_ref().expect("the account is looked up before the Knot is changed")
    }
}

/// Finds the program, by cargo.
async fn program(builder: &KnotBuilder) -> Result<Program> {
    let mut compile = builder.compile.clone().unwrap_or_else(|| {
        let (manifest_path, package) = (builder.manifest_path.clone(), builder.package.clone());
        Compile::new(Selection { manifest_path, package, ..Selection::default() }).report(step)
    });
    if builder.settings.arm64 == Some(true) {
        compile = compile.arch(Arch::Arm64);
    }
    if builder.image.has_base() {
        compile = compile.dynamic();
    }
    Ok(blocking(move || compile.resolve()).await?)
}

/// Returns an error if the workers of the program cannot reach S3, or selects the feature for it if `add` is set.
async fn with_aws_feature(pipeline: Pipeline, add: bool, intent: Intent) -> Result<Pipeline> {
    let enable = move || -> Result<Pipeline, CompileError> {
        let Some(feature) = pipeline.program().missing_aws_feature()? else { return Ok(pipeline) };
        // Only a deploy edits `Cargo.toml`.
        let edits = matches!(feature, AwsFeature::OfDependency { .. });
        if !add || (edits && intent != Intent::Apply) {
            return Err(feature.refusal(pipeline.program().package()));
        }
        step(&match &feature {
            AwsFeature::OfPackage { feature } => format!("selecting the feature `{feature}` of the package"),
            AwsFeature::OfDependency { .. } => format!("running `{feature}`"),
        });
        pipeline.with_aws_feature(&feature)
    };
    Ok(blocking(enable).await?)
}

impl KnotProgram {
    fn of(builder: &KnotBuilder, pipeline: &Pipeline) -> Self {
        let program = pipeline.program();
        let settings = builder.settings.clone().or(program.settings().knot.clone());
        Self {
            name: settings.knot.clone().unwrap_or_else(|| program.package().replace('_', "-")),
            settings,
            package: program.package().to_owned(),
            version: program.version().to_owned(),
            cargo_target: program.target().option(),
            arch: program.arch(),
            triple: program.triple().to_owned(),
            has_base: pipeline.has_base(),
            gpus_in_sources: program.gpus_in_sources(),
            features: program.feature_options(),
        }
    }

    /// Returns the Knot without functions and image, which are known only after compiling.
    pub(super) fn desired(&self) -> DesiredKnot<'_> {
        DesiredKnot {
            name: &self.name,
            settings: &self.settings,
            functions: &[],
            ids: Vec::new(),
            gpus_in_sources: self.gpus_in_sources.as_deref(),
            arch: self.arch,
            triple: &self.triple,
            has_base: self.has_base,
            digest: "",
        }
    }

    /// Returns the description of the Knot for its stack, without functions and types.
    pub(super) fn deployed(&self) -> Deployed {
        Deployed {
            package: self.package.clone(),
            version: self.version.clone(),
            cargo_target: self.cargo_target.clone(),
            settings: self.settings.clone(),
            features: self.features.clone(),
            functions: std::collections::BTreeMap::new(),
            types: std::collections::BTreeMap::new(),
            gpu_image: Some(self.has_base),
            machines: None,
        }
    }

    /// Queries AWS for resources that the settings only name.
    async fn query(&self, aws: &Aws) -> Result<Responses> {
        let mut responses = Responses::default();
        if let Some(name) = &self.settings.repository {
            responses.repository = Some(Ecr::new(aws).repository(name).await?);
        }
        if let Some(queue) = &self.settings.queue {
            let queue = Batch::new(aws).queue(queue).await?;
            self.check_share(&queue)?;
            self.check_architecture(aws, &queue).await?;
            responses.compute = Some(queue.compute);
        }
        if let Some(ami) = &self.settings.ami {
            let image = Ec2::new(aws).root_device(ami).await?;
            let image = image.ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("cannot find the machine image `{ami}` in {}", aws.region))
                    .with_hint("set an image of this region, or remove `ami` for AWS's latest one")
            })?;
            responses.root_device = Some(image.root_device);
        }
        responses.policies = iam::policies(aws, &self.settings.policies).await?;
        Ok(responses)
    }

    /// Checks that a share is set if the existing queue has shares, and only then.
    fn check_share(&self, queue: &Queue) -> Result<()> {
        let (message, hint) = match (&self.settings.share_identifier, queue.has_shares) {
            (None, true) => (
                format!("cannot use the queue `{}`: it has a fair-share policy, and no share is set", queue.arn),
                "set the share that the owner of the queue has given you: `share-identifier`, --share-identifier",
            ),
            (Some(share), false) => (
                format!("cannot use the share `{share}`: the queue `{}` has no fair-share policy", queue.arn),
                "remove `share-identifier`: AWS Batch refuses jobs with one on such a queue",
            ),
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Config, message).with_hint(hint))
    }

    /// Checks that the existing queue has instances of the worker's architecture, as far as its compute environments name them.
    async fn check_architecture(&self, aws: &Aws, queue: &Queue) -> Result<()> {
        if queue.compute.is_fargate() || queue.instance_types.is_empty() {
            return Ok(());
        }
        let types = Ec2::new(aws).existing_instance_types(&queue.instance_types).await?;
        let (own, other) = if self.arch == Arch::Arm64 { ("arm64", "x86_64") } else { ("x86_64", "arm64") };
        if types.is_empty() || types.iter().any(|kind| kind.arch.iter().any(|arch| arch == own)) {
            return Ok(());
        }
        let message =
            format!("cannot use the queue `{}`: its instances are for {other}, and the worker is for {own}", queue.arn);
        let hint = match self.arch {
            Arch::Arm64 => "build for x86_64 (`arm64 = false`), or choose another queue",
            Arch::X86_64 => "build for ARM (`arm64 = true`, --arm64), or choose another queue",
        };
        Err(Error::new(ErrorKind::Config, message).with_hint(hint))
    }

    /// Checks that a stack with settings, if there is one, belongs to this program on this Pars.
    fn check_existing_owner(&self, stack: Option<&Stack>, pars: &str) -> Result<()> {
        let with_settings = stack.filter(|stack| stack.outputs.contains_key("Settings"));
        with_settings.map_or(Ok(()), |stack| self.check_owner(stack, pars))
    }

    /// Checks that the stack belongs to this program on this Pars. Only then may it be changed.
    pub(super) fn check_owner(&self, stack: &Stack, pars: &str) -> Result<()> {
        let deployed = read_note(stack)?.settings;
        let identity = |deployed: &Deployed, pars: &str| {
            // A different repository would not have the images that runs still need.
            let repository = &deployed.settings.repository;
            json!({"package": deployed.package, "target": deployed.cargo_target, "pars": pars, "repository": repository})
        };
        let current = identity(&deployed, stack.output("Pars")?);
        let differences = differences(&current, &identity(&self.deployed(), pars));
        if differences.is_empty() {
            return Ok(());
        }
        let message =
            format!("cannot deploy the Knot `{}`: it exists with another program, Pars or repository", self.name);
        Err(Error::new(ErrorKind::Exists, message)
            .with_source(differences.join("\n"))
            .with_hint("choose another name (--knot), or clobber the existing Knot first: `cargo knot clobber`"))
    }
}

impl AccountState {
    /// Looks up the stacks of the Knot and its Pars.
    async fn of(knot: &KnotProgram, account: &Account, intent: Intent) -> Result<Self> {
        let aws = Aws::load(account).await?;
        let stacks = Stacks::new(&aws);
        let mut config = Config::read()?;
        let chosen = knot.settings.pars.clone().or(config.pars.take());
        let name = chosen.clone().unwrap_or_else(default_pars);
        let knot_stack = stack_name(&knot.name);
        let (stack, found) = tokio::try_join!(stacks.find_settled(&knot_stack), pars::find(&stacks, &name, account))?;
        knot.check_existing_owner(stack.as_ref(), &name)?;
        let pars = match found {
            Some(pars) => ParsLookup::Existing(Box::new(pars)),
            None if chosen.is_some() => {
                let message = format!("cannot find the Pars `{name}` in {}", aws.region);
                let hint = format!("`cargo knot pars create {name}` creates it; {}", pars::PARS_LIST_HINT);
                return Err(Error::new(ErrorKind::NotFound, message).with_hint(hint));
            }
            None if intent == Intent::Template => {
                let region = &aws.region;
                let message = format!("cannot render the Knot `{}`: there is no Pars `{name}` in {region}", knot.name);
                return Err(Error::new(ErrorKind::NotFound, message).with_hint(format!(
                    "create it first: `cargo knot pars create {name}`, or the stack of `cargo knot template pars {name}`"
                )));
            }
            // Boxed, because the future is large and rarely polled.
            None => match Box::pin(ParsState::resolve(&default_pars_builder(&name, account, config), intent)).await? {
                ParsResolution::Open(state) => ParsLookup::Missing(state),
                // The Pars has been created in the meantime.
                ParsResolution::Unchanged(pars) => ParsLookup::Existing(pars),
            },
        };
        Ok(Self { aws, stacks, stack, pars })
    }

    /// Returns the stack that is to be changed; `None` if its creation failed: then it is deleted first, and created
    /// again.
    pub(super) fn before(&self) -> Option<&Stack> {
        self.stack.as_ref().filter(|stack| !stack.is_stuck())
    }

    /// Returns whether a compute environment exists already. Batch adjusts its number of vCPUs from the start, and
    /// rejects a number below the current one.
    pub(super) fn has_environment(&self) -> bool {
        self.before().is_some_and(|stack| stack.outputs.contains_key("ComputeEnvironment"))
    }
}

impl ParsLookup {
    /// Returns the Pars, or one without resources if it is yet to be created.
    pub(super) fn planned(&self) -> Pars {
        match self {
            Self::Existing(pars) => (**pars).clone(),
            Self::Missing(state) => state.planned(),
        }
    }
}

/// Returns the builder of a Pars that a deploy creates, with the choices from `config.toml`.
fn default_pars_builder(name: &str, account: &Account, chosen: Config) -> ParsBuilder {
    let mut builder = Pars::builder(name).in_account(account);
    if let Some(bucket) = chosen.bucket {
        builder = builder.bucket(bucket);
    }
    match chosen.kms_key {
        Some(key) => builder.kms_key(key),
        None => builder,
    }
}
