//! How a Knot is deployed, found and taken away: what is done, and in which order.
//!
//! The repository comes first, then the push, then the rest of the stack. Whatever interrupts it, the same deploy goes on
//! from what is there.

use std::collections::BTreeMap;
use std::path::Path;

use cloudknot_quantity::memory_mib;
use cloudknot_runtime::contract::{FunctionDescription, Types};
use cloudknot_runtime::fingerprint::Fingerprint;
use cloudknot_runtime::store::{S3Store, Store};
use serde_json::json;

use super::preflight;
use super::values::{Answers, Wanted, job_definition};
use super::{Deployed, Knot, KnotBuilder, KnotClobber, KnotSettings};
use crate::aws::batch::{Batch, Definition};
use crate::aws::cloudformation::{self, Body, KNOT_STACKS, LARGEST_BODY, PARS_STACKS, Stack, Stacks};
use crate::aws::ec2::Ec2;
use crate::aws::ecr::Ecr;
use crate::aws::partition::Partition;
use crate::aws::{Aws, iam, s3};
use crate::backend::Backend;
use crate::build::compile::{Arch, Compile, Selection, Worker};
use crate::build::docker_image::{DockerImage, DockerImageBuilder};
use crate::deploy::costs;
use crate::deploy::noted::{Noted, differences, digest};
use crate::deploy::pars::{self, Pars, ParsBuilder};
use crate::deploy::plan::{Action, Plan};
use crate::deploy::template::{self, Resource, output_in, render, resources};
use crate::error::{Error, ErrorKind, Result};
use crate::event::step;
use crate::home;
use crate::home::built::Built;
use crate::home::knot_note::KnotNote;
use crate::settings::account::Account;
use crate::settings::config::{Config, default_pars};
use crate::settings::sizes::JobSizes;

/// A registry that stands before the account's own, such as a proxy of an institution: pushed to, and pulled from.
const ENV_REGISTRY: &str = "CLOUDKNOT_REGISTRY";

fn stack_name(knot: &str) -> String {
    format!("{KNOT_STACKS}{knot}")
}

/// What was built and said, before AWS is asked.
struct Made {
    name: String,
    worker: Worker,
    image: DockerImage,
    built: Built,
    settings: KnotSettings,
}

/// What there is.
struct There {
    aws: Aws,
    stacks: Stacks,
    stack: Option<Stack>,
    pars: Pars,
    /// The Pars is yet to be made.
    without_pars: bool,
}

pub(super) async fn deploy(builder: KnotBuilder) -> Result<Knot> {
    let mut made = Made::of(&builder).await?;
    let there = There::look(&made, &builder.account, true).await?;
    let knot = match &there.stack {
        Some(stack) if made.is_there(stack, &there.pars) => {
            if noted(stack)?.of_a_template {
                made.push(&there, stack.output("RepositoryUri")?).await?;
            }
            step(&format!("the Knot `{}` is there, and nothing has changed", made.name));
            read(stack, &builder.account)?
        }
        _ => made.bring_about(&there, &builder.account).await?,
    };
    let note = note_of(&knot, &there.pars, made.built.types.clone());
    note.write(&home::of_package(&made.worker.package_folder))?;
    Ok(knot)
}

/// What a program has to know of a Knot.
fn note_of(knot: &Knot, pars: &Pars, types: Option<Vec<Types>>) -> KnotNote {
    let definitions = knot.job_definitions().into_iter();
    let deployed = &knot.deployed;
    let noted = |(function, fingerprint): (&String, &u64)| Types {
        function: function.clone(),
        fingerprint: Fingerprint(*fingerprint),
        schema: String::new(),
    };
    let types = types.or_else(|| (!deployed.types.is_empty()).then(|| deployed.types.iter().map(noted).collect()));
    // Those of a queue that exists were asked for by whoever deployed, and are not noted.
    let jobs = deployed.settings.queue.is_none().then(|| JobSizes {
        fargate: deployed.settings.compute.unwrap_or_default().is_fargate(),
        vcpus: deployed.settings.vcpus,
        memory_mib: deployed.settings.memory.as_deref().and_then(|memory| memory_mib(memory).ok()),
    });
    KnotNote {
        knot: knot.name.clone(),
        profile: knot.account.profile.clone(),
        region: knot.region.clone(),
        bucket: pars.bucket().to_owned(),
        prefix: pars.prefix().to_owned(),
        log_group: pars.log_group().to_owned(),
        queue: knot.queue().to_owned(),
        job_definitions: definitions.map(|(function, arn)| (function.to_owned(), arn.to_owned())).collect(),
        image: knot.image(),
        types,
        jobs,
    }
}

pub(super) async fn backend(knot: &Knot) -> Result<Backend> {
    Ok(Backend::knot(note_of(knot, &knot.pars().await?, None)))
}

pub(super) async fn use_beside(knot: &Knot, folder: &Path) -> Result<()> {
    note_of(knot, &knot.pars().await?, None).write(&home::of_package(folder))
}

pub(super) async fn plan(builder: KnotBuilder) -> Result<Plan> {
    let made = Made::of(&builder).await?;
    let there = There::look(&made, &builder.account, false).await?;
    let mut plan = Plan::default();
    if there.without_pars {
        plan = default_pars_builder(&there.pars.name, &builder.account)?.plan().await?;
    }
    if let Some(stack) = there.stack.as_ref().filter(|stack| made.is_there(stack, &there.pars)) {
        if noted(stack)?.of_a_template {
            plan.notes.push(format!("the image {} is pushed if it is not there", made.image.digest()));
        }
        return Ok(plan);
    }
    let mut answers = made.ask(&there.aws).await?;
    let wanted = made.wanted();
    if !there.without_pars {
        preflight::check(&there.aws, &wanted, &answers, &there.pars, there.before().is_none()).await?;
    }
    answers.image_uri = made.pulled_from(&there, &answers);
    answers.has_environment = there.has_environment();
    let before = match there.before() {
        Some(stack) => Some(there.stacks.template(stack).await?),
        None => None,
    };
    let after = render("knot.yaml", &wanted.values(&there.pars, &answers, "", true)?);
    plan.stack(&stack_name(&made.name), before.as_deref(), &after);
    let there_already = there.before().and_then(|stack| stack.outputs.get("ImageDigest"));
    if there_already.is_none_or(|digest| digest != made.image.digest()) {
        let bytes = made.image.compressed_bytes();
        plan.step(
            None,
            Action::Make,
            &format!("image {}", made.image.digest()),
            &format!("at most {bytes} bytes are pushed"),
        );
    }
    plan.notes.extend(there.stack.as_ref().and_then(Stack::goes_first));
    plan.notes.extend(costs::idle(None, made.settings.min_vcpus.unwrap_or(0)));
    Ok(plan)
}

pub(super) async fn template(builder: KnotBuilder) -> Result<String> {
    let made = Made::of(&builder).await?;
    let there = There::look(&made, &builder.account, false).await?;
    if there.without_pars {
        let (pars, region) = (&there.pars.name, &there.aws.region);
        let message = format!("failed to render the Knot `{}`: there is no Pars `{pars}` in {region}", made.name);
        let hint = format!(
            "make it first: `cargo knot pars create {pars}`, or the stack of `cargo knot template pars {pars}`"
        );
        return Err(Error::new(ErrorKind::NotFound, message).with_hint(hint));
    }
    let (mut answers, wanted) = (made.ask(&there.aws).await?, made.wanted());
    preflight::check(&there.aws, &wanted, &answers, &there.pars, false).await?;
    answers.image_uri = made.pulled_from(&there, &answers);
    let noted = Noted { content: made.content(&there.pars), settings: made.deployed(), of_a_template: true };
    let settings = serde_json::to_string(&noted).expect("settings are texts and numbers");
    let template = render("knot.yaml", &wanted.values(&there.pars, &answers, &settings, true)?);
    let digest = made.image.digest();
    let besides = [
        format!("Its jobs start the image {digest}. Then run `cargo knot deploy` with the same options: it finds the"),
        "stack as it should be, pushes that image if it is not there, and notes the Knot beside the crate.".into(),
    ];
    Ok(template::heading(&format!("knot --knot {}", made.name), &stack_name(&made.name), &besides) + &template)
}

pub(super) async fn get(builder: &KnotBuilder) -> Result<Knot> {
    let aws = Aws::load(&builder.account).await?;
    let name = builder.settings.knot.as_deref().unwrap_or_default();
    let found = Stacks::new(&aws).find(&stack_name(name)).await?;
    let absent = |what: &str| {
        Error::new(ErrorKind::NotFound, format!("failed to find the Knot `{name}` in {}{what}", aws.region))
            .with_hint("`cargo knot list` shows those in this region, `cargo knot deploy` makes one")
    };
    let stack = found.ok_or_else(|| absent(""))?;
    if !stack.outputs.contains_key("ImageDigest") {
        return Err(absent(&format!(": its stack is {}, and not complete", stack.status)));
    }
    read(&stack, &builder.account)
}

pub(super) async fn list(account: &Account) -> Result<Vec<Knot>> {
    let aws = Aws::load(account).await?;
    let stacks = Stacks::new(&aws).all(KNOT_STACKS).await?;
    // One without an image is half made.
    let whole = stacks.iter().filter(|stack| stack.outputs.contains_key("ImageDigest"));
    Ok(whole.filter_map(|stack| told(read(stack, account))).collect())
}

/// What can be taken away is: the stack with all that belongs to it, and what is left where the stack is gone already, as it
/// is if a clobber was cut short.
pub(super) async fn clobber(clobber: &KnotClobber) -> Result<()> {
    let aws = Aws::load(&clobber.account).await?;
    let stacks = Stacks::new(&aws);
    let seen = stacks.find(&stack_name(&clobber.name)).await?;
    // Somebody may be deleting it just now.
    let stack = match &seen {
        Some(stack) => stacks.find_at_rest(&stack.id).await?,
        None => None,
    };
    let (pars, left) = match &stack {
        Some(stack) => {
            let pars = below(&stacks, stack).await?;
            take_away(clobber, &aws, &stacks, stack, pars.as_ref()).await?;
            (pars, true)
        }
        None => take_away_what_is_left(clobber, &aws, &stacks).await?,
    };
    let pars = pars.filter(|_| clobber.pars);
    let of_pars = match &pars {
        Some(pars) => clobber_pars(clobber, &aws, pars).await,
        None => Ok(()),
    };
    // Last: it says to the next time on which Pars the Knot was. And also where the Pars has to stay.
    let was_here = clobber_here(clobber, &aws.region).await?;
    of_pars?;
    if seen.is_some() || left || pars.is_some() || was_here {
        return Ok(());
    }
    let message = format!("failed to find the Knot `{}` in {}", clobber.name, aws.region);
    let hint = "`cargo knot list` shows those in this region; a Pars alone goes by `cargo knot pars clobber <name>`";
    Err(Error::new(ErrorKind::NotFound, message).with_hint(hint))
}

/// The stack of the Pars that a Knot's stack is on.
async fn below(stacks: &Stacks, stack: &Stack) -> Result<Option<Stack>> {
    let pars = match stack.outputs.get("Pars") {
        Some(pars) => Some(pars.clone()),
        // One that never came to be has no outputs.
        None => output_in(&stacks.template(stack).await?, "Pars"),
    };
    match pars {
        Some(pars) => stacks.find(&pars::stack_name(&pars)).await,
        None => Ok(None),
    }
}

async fn clobber_pars(clobber: &KnotClobber, aws: &Aws, pars: &Stack) -> Result<()> {
    let name = pars.name.strip_prefix(PARS_STACKS).expect("it was found by its name");
    let leaving = Pars::builder(name).in_account(&clobber.account).region(&aws.region).clobber();
    let leaving = if clobber.keep_data { leaving.keep_data() } else { leaving };
    match leaving.await {
        // Its deletion had begun before.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        gone => gone,
    }
}

/// Jobs first, then runs and images, then the stack; what jobs stored while they ended goes last.
async fn take_away(
    clobber: &KnotClobber,
    aws: &Aws,
    stacks: &Stacks,
    stack: &Stack,
    pars: Option<&Stack>,
) -> Result<()> {
    let batch = Batch::new(aws);
    // What is half made has no jobs and no runs.
    let whole = read(stack, &clobber.account).ok();
    let definitions = all_definitions(&clobber.name, whole.as_ref(), &batch.definitions().await?);
    if let Some(knot) = &whole {
        let ended = batch.end_all(knot.queue(), &definitions).await?;
        if ended > 0 {
            step(&format!("ended {ended} jobs of the Knot `{}`", knot.name));
        }
    }
    let pars = pars.filter(|pars| !clobber.keep_data && pars.outputs.contains_key("Bucket"));
    if let Some(pars) = pars {
        step(&format!("deleting the runs of the Knot `{}`", clobber.name));
        delete_runs(clobber, aws, pars).await?;
    }
    if let Some(shared) = whole.as_ref().and_then(|knot| knot.deployed.settings.repository.as_ref()) {
        Ecr::new(aws).delete_tags(shared, &tag_of(&clobber.name, "")).await?;
    }
    stacks.delete(stack, &[]).await?;
    // CloudFormation takes away the newest revisions only: deploys leave those of before to who needs them.
    batch.deregister_all(&definitions).await?;
    if let Some(pars) = pars {
        delete_runs(clobber, aws, pars).await?;
    }
    Ok(())
}

/// What a Knot has left whose stack is gone, and whether that was anything; with the stack of the Pars that it was on.
async fn take_away_what_is_left(clobber: &KnotClobber, aws: &Aws, stacks: &Stacks) -> Result<(Option<Stack>, bool)> {
    // One that cannot be read is told of when it is to be removed.
    let note = KnotNote::read(&home::of_package(&clobber.folder)).ok().flatten();
    let note = note.filter(|note| note.knot == clobber.name && note.region == aws.region);
    let pars = was_below(clobber, stacks, note.as_ref()).await?;
    let batch = Batch::new(aws);
    let definitions = all_definitions(&clobber.name, None, &batch.definitions().await?);
    if !definitions.is_empty() {
        step(&format!("taking away the job definitions that the Knot `{}` has left", clobber.name));
    }
    batch.deregister_all(&definitions).await?;
    let mut left = definitions.len();
    if let Some(pars) = pars.as_ref().filter(|pars| !clobber.keep_data && pars.outputs.contains_key("Settings")) {
        // In a bucket that was there before, a Knot of this name may be another account's, unless it is known from here.
        if note.is_some() || pars::bucket_is_its_own(pars)? {
            left += delete_runs(clobber, aws, pars).await?;
        } else {
            let (bucket, pars, name) = (pars.output("Bucket")?, &pars.name, &clobber.name);
            step(&format!(
                "the bucket `{bucket}` was there before the stack `{pars}`: if it has runs of a Knot `{name}`, they are left alone"
            ));
        }
    }
    Ok((pars, left > 0))
}

/// The stack of the Pars that a Knot was on whose own stack is gone: as CloudFormation remembers it, or as it was noted here.
async fn was_below(clobber: &KnotClobber, stacks: &Stacks, note: Option<&KnotNote>) -> Result<Option<Stack>> {
    let remembered = match stacks.deleted(&stack_name(&clobber.name)).await {
        // Who may delete may not be allowed to look back.
        Err(error) if error.kind() == ErrorKind::Denied => None,
        remembered => remembered?,
    };
    let remembered = remembered.and_then(|knot| Some((output_in(&knot.template, "Pars")?, knot.created)));
    // One that was made since is another one, of the same name.
    if let Some((pars, created)) = remembered {
        let found = stacks.find(&pars::stack_name(&pars)).await?;
        return Ok(found.filter(|pars| pars.created <= created));
    }
    let noted = note.and_then(|note| Some((pars::of_log_group(&note.log_group)?, &note.bucket)));
    let Some((pars, bucket)) = noted else { return Ok(None) };
    let found = stacks.find(&pars::stack_name(pars)).await?;
    Ok(found.filter(|pars| pars.outputs.get("Bucket") == Some(bucket)))
}

/// Deletes the runs of a Knot, and the templates of its stack; how many objects they were.
async fn delete_runs(clobber: &KnotClobber, aws: &Aws, pars: &Stack) -> Result<usize> {
    let bucket = pars.output("Bucket")?;
    let prefix = pars.outputs.get("BucketPrefix").map_or("", |prefix| prefix.trim_start_matches('/'));
    let mut deleted = 0;
    for folder in ["knots", "stacks"] {
        deleted += s3::delete_below(aws, bucket, prefix, &format!("{folder}/{}/", clobber.name)).await?;
    }
    Ok(deleted)
}

/// The names of a Knot's job definitions.
pub(crate) fn definitions(knot: &Knot) -> Vec<String> {
    knot.deployed.functions.values().map(|id| job_definition(&knot.name, id)).collect()
}

/// Those, and besides them what a Knot of this name has left of functions that its program no longer has.
pub(crate) fn all_definitions(name: &str, knot: Option<&Knot>, there: &[Definition]) -> Vec<String> {
    let beginning = format!("cloudknot-{name}-");
    let tagged = there.iter().filter(|one| one.knot.as_deref() == Some(name));
    let without_number = |arn: &str| Some(arn.split_once(":job-definition/")?.1.rsplit_once(':')?.0.to_owned());
    let mut names: Vec<String> = tagged.filter_map(|one| without_number(&one.arn)).collect();
    names.retain(|name| name.starts_with(&beginning));
    names.extend(knot.map(definitions).unwrap_or_default());
    names.sort();
    names.dedup();
    names
}

/// What a deploy left beside the crate; whether there was anything of this Knot.
async fn clobber_here(clobber: &KnotClobber, region: &str) -> Result<bool> {
    let home = home::of_package(&clobber.folder);
    let was_noted = KnotNote::remove(&home, &clobber.name, region)?;
    Ok((clobber.image && Built::clobber(&home).await?) || was_noted)
}

/// A tag that holds the digest never has to move. The Knot's name tells those in a shared repository apart.
fn tag_of(knot: &str, digest: &str) -> String {
    let digest = digest.trim_start_matches("sha256:");
    format!("{knot}-{}", &digest[..digest.len().min(12)])
}

impl Made {
    async fn of(builder: &KnotBuilder) -> Result<Self> {
        let mut compile = builder.compile.clone().unwrap_or_else(|| {
            let (manifest_path, package) = (builder.manifest_path.clone(), builder.package.clone());
            Compile::new(Selection { manifest_path, package, ..Selection::default() }).report(step)
        });
        if builder.settings.arm64 == Some(true) {
            compile = compile.arch(Arch::Arm64);
        }
        if builder.base.is_some() {
            compile = compile.dynamic();
        }
        // cargo is waited for, and so not on a thread that others need.
        let worker = tokio::task::spawn_blocking(move || compile.run()).await;
        let worker = worker.expect("the compilation does not panic")?;
        if !worker.reaches_s3 {
            let package = &worker.package;
            let message =
                format!("failed to deploy `{package}`: its worker is built without the feature `aws` of cloudknot");
            let hint =
                "a Knot keeps its runs in S3: give cloudknot that feature in Cargo.toml, or deploy with `--features`";
            return Err(Error::new(ErrorKind::Config, message).with_hint(hint));
        }
        let settings = builder.settings.clone().over(worker.settings.knot.clone());
        let name = settings.knot.clone().unwrap_or_else(|| worker.package.replace('_', "-"));
        let image = DockerImageBuilder::of_worker(Built::repository(&worker.package), &worker);
        let image = builder.ca_bundles.iter().fold(image.on(builder.base.clone()), DockerImageBuilder::ca_bundle);
        let mut image = image.build().await?;
        image.tag(tag_of(&name, image.digest()))?;
        let built = Built::keep(&image, &worker)?;
        let made = Self { name, worker, image, built, settings };
        made.wanted().check()?;
        Ok(made)
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            name: &self.name,
            settings: &self.settings,
            functions: &self.worker.functions,
            ids: self.worker.functions.iter().map(FunctionDescription::id).collect(),
            arch: self.worker.arch,
            digest: self.image.digest(),
        }
    }

    fn deployed(&self) -> Deployed {
        Deployed {
            package: self.worker.package.clone(),
            version: self.worker.version.clone(),
            cargo_target: self.worker.made_of.option(),
            settings: self.settings.clone(),
            functions: self.wanted().job_definitions(),
            types: self
                .built
                .types
                .iter()
                .flatten()
                .map(|types| (types.function.clone(), types.fingerprint.0))
                .collect(),
        }
    }

    /// All that the stack depends on, in a few letters: the same again needs no change.
    fn content(&self, pars: &Pars) -> String {
        // The types are the image's, and not every machine can ask it.
        let deployed = Deployed { types: BTreeMap::new(), ..self.deployed() };
        let all = json!([
            template::source("knot.yaml"),
            template::source("policies/job-role.json.j2"),
            deployed,
            self.worker.functions,
            self.image.digest(),
            pars.outputs,
            registry(),
        ]);
        digest(all.to_string())
    }

    fn is_there(&self, stack: &Stack, pars: &Pars) -> bool {
        let noted = noted(stack).is_ok_and(|noted| noted.content == self.content(pars));
        stack.is_complete() && noted && stack.outputs.contains_key("ImageDigest")
    }

    /// Asks AWS for what the settings only name.
    async fn ask(&self, aws: &Aws) -> Result<Answers> {
        let mut answers = Answers::default();
        if let Some(name) = &self.settings.repository {
            answers.repository = Some(Ecr::new(aws).repository(name).await?);
        }
        if let Some(queue) = &self.settings.queue {
            answers.compute = Some(Batch::new(aws).queue(queue).await?.compute);
        }
        if let Some(ami) = &self.settings.ami {
            let image = Ec2::new(aws).root_device(ami).await?;
            let image = image.ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("failed to find the machine image `{ami}` in {}", aws.region))
                    .with_hint("name one of this region, or leave `ami` out for AWS's latest")
            })?;
            answers.root_device = Some(image.root_device);
        }
        answers.policies = iam::policies(aws, &self.settings.policies).await?;
        Ok(answers)
    }

    /// Where the image is pulled from, if not from the repository's own host.
    fn pulled_from(&self, there: &There, answers: &Answers) -> Option<String> {
        let own = || {
            let known = there.before().and_then(|stack| stack.outputs.get("RepositoryUri")).cloned();
            known.unwrap_or_else(|| format!("-/cloudknot/{}", self.name.to_lowercase()))
        };
        let uri = answers.repository.as_ref().map_or_else(own, |shared| shared.uri.clone());
        registry().map(|host| at_host(&uri, &host)).filter(|pulled_from| *pulled_from != uri)
    }

    async fn bring_about(&mut self, there: &There, account: &Account) -> Result<Knot> {
        let mut answers = self.ask(&there.aws).await?;
        preflight::check(&there.aws, &self.wanted(), &answers, &there.pars, there.before().is_none()).await?;
        let uri = match (&answers.repository, &there.stack) {
            (Some(shared), _) => shared.uri.clone(),
            (None, Some(stack)) if stack.can_be_changed() => stack.output("RepositoryUri")?.to_owned(),
            (None, _) => {
                let stack = self.apply(there, &answers, false).await?;
                stack.output("RepositoryUri")?.to_owned()
            }
        };
        let pushed_to = self.push(there, &uri).await?;
        answers.image_uri = Some(pushed_to).filter(|pushed_to| *pushed_to != uri);
        answers.has_environment = there.has_environment();
        if let Some(stack) = there.before().filter(|stack| stack.outputs.contains_key("JobQueue")) {
            self.keep_the_queue(there, stack, &answers).await?;
        }
        let stack = self.apply(there, &answers, true).await?;
        read(&stack, account)
    }

    /// Has the image in this repository; where that is, with a registry before it.
    async fn push(&mut self, there: &There, uri: &str) -> Result<String> {
        let pushed_to = registry().map_or_else(|| uri.to_owned(), |host| at_host(uri, &host));
        let login = Ecr::new(&there.aws).login().await?;
        self.image.push(&pushed_to, &login).await?;
        Ok(pushed_to)
    }

    /// Refuses a change that makes another queue of it while the one that there is has jobs: they would go with it.
    async fn keep_the_queue(&self, there: &There, stack: &Stack, answers: &Answers) -> Result<()> {
        let values = self.wanted().values(&there.pars, answers, "", true)?;
        let after = resources(&render("knot.yaml", &values));
        let before = resources(&there.stacks.template(stack).await?);
        let is_queue = |resource: &Resource| resource.kind == "AWS::Batch::JobQueue";
        let Some((name, queue)) = before.iter().find(|(_, resource)| is_queue(resource)) else { return Ok(()) };
        let stays = after.get(name).is_some_and(|after| after.without("Priority:") == queue.without("Priority:"));
        if stays {
            return Ok(());
        }
        let knot = read(stack, &Account::default())?;
        let jobs = Batch::new(&there.aws).unfinished(knot.queue(), &definitions(&knot)).await?;
        if jobs.is_empty() {
            return Ok(());
        }
        let message = format!(
            "failed to change the Knot `{}`: its queue would be replaced, and has {} jobs",
            self.name,
            jobs.len()
        );
        Err(Error::new(ErrorKind::Exists, message).with_hint(
            "wait for its runs or cancel them; tags, the queue's name and the kind of compute are fixed for a queue",
        ))
    }

    async fn apply(&self, there: &There, answers: &Answers, image: bool) -> Result<Stack> {
        let content = if image { self.content(&there.pars) } else { String::new() };
        let noted = Noted { content, settings: self.deployed(), of_a_template: false };
        let settings = serde_json::to_string(&noted).expect("settings are texts and numbers");
        let values = self.wanted().values(&there.pars, answers, &settings, image)?;
        let template = self.body(there, render("knot.yaml", &values)).await?;
        let own = [("cloudknot:pars", &there.pars.name), ("cloudknot:knot", &self.name)];
        let own = own.map(|(key, value)| (key.to_owned(), value.clone()));
        let tags: Vec<_> = own.into_iter().chain(self.settings.tags.clone()).collect();
        let name = stack_name(&self.name);
        let wanted = cloudformation::Wanted { name: &name, template: &template, tags: &tags, only_new: !image };
        let (stack, _) = there.stacks.apply(&wanted, &|stack| self.is_ours(stack, &there.pars)).await?;
        Ok(stack)
    }

    /// What is too large for a request is fetched by CloudFormation from the bucket.
    async fn body(&self, there: &There, template: String) -> Result<Body> {
        if template.len() <= LARGEST_BODY {
            return Ok(Body::Text(template));
        }
        let (bucket, prefix) = (there.pars.bucket(), there.pars.prefix());
        let key = format!("stacks/{}/{}.yaml", self.name, digest(&template));
        let store = S3Store::new(&there.aws.config, bucket, prefix);
        store.put(&key, template.into()).await?;
        let region = &there.aws.region;
        Ok(Body::Url(format!("https://{bucket}.s3.{region}.{}/{prefix}{key}", Partition::of(region).domain)))
    }

    /// Whether the stack is this program's, on this Pars: only then may it be changed.
    fn is_ours(&self, stack: &Stack, pars: &Pars) -> Result<()> {
        let there = noted(stack)?.settings;
        let of = |deployed: &Deployed, pars: &str| {
            // Another repository would not have the images that runs still need.
            let repository = &deployed.settings.repository;
            json!({"package": deployed.package, "target": deployed.cargo_target, "pars": pars, "repository": repository})
        };
        let there = of(&there, stack.output("Pars")?);
        let differences = differences(&there, &of(&self.deployed(), &pars.name));
        if differences.is_empty() {
            return Ok(());
        }
        let message = format!("failed to deploy the Knot `{}`: one of this name belongs to something else", self.name);
        Err(Error::new(ErrorKind::Exists, message)
            .with_source(differences.join("\n"))
            .with_hint("choose another name (--knot), or clobber that one first: `cargo knot clobber`"))
    }
}

impl There {
    /// The stack that is changed; one that never came to be is taken away first, and made anew.
    fn before(&self) -> Option<&Stack> {
        self.stack.as_ref().filter(|stack| !stack.is_stuck())
    }

    /// Whether there is an environment, of which Batch moves the number of vCPUs from the first day on, and refuses to go
    /// below where it is.
    fn has_environment(&self) -> bool {
        self.before().is_some_and(|stack| stack.outputs.contains_key("ComputeEnvironment"))
    }

    async fn look(made: &Made, account: &Account, with_pars: bool) -> Result<Self> {
        let aws = Aws::load(account).await?;
        let stacks = Stacks::new(&aws);
        let said = made.settings.pars.clone();
        let chosen = if said.is_some() { said } else { Config::read()?.pars };
        let name = chosen.clone().unwrap_or_else(default_pars);
        let knot = stack_name(&made.name);
        let (stack, found) = tokio::try_join!(stacks.find_at_rest(&knot), pars::find(&stacks, &name, account))?;
        if let Some(stack) = stack.as_ref().filter(|stack| stack.outputs.contains_key("Settings")) {
            let of_this_name = found.as_ref().map_or(name.as_str(), |pars| &pars.name).to_owned();
            made.is_ours_by_name(stack, &of_this_name)?;
        }
        let (pars, without_pars) = match found {
            Some(pars) => (pars, false),
            None if chosen.is_some() => {
                let message = format!("failed to find the Pars `{name}` in {}", aws.region);
                let hint = format!("`cargo knot pars create {name}` makes it; {}", pars::LOOKED_FOR);
                return Err(Error::new(ErrorKind::NotFound, message).with_hint(hint));
            }
            None if with_pars => {
                step(&format!("there is no Pars yet: making `{name}`"));
                (default_pars_builder(&name, account)?.create().await?, false)
            }
            None => (Pars::planned(&name, &aws.region), true),
        };
        Ok(Self { aws, stacks, stack, pars, without_pars })
    }
}

/// A Pars that is made on the way has what was chosen once for all of them.
fn default_pars_builder(name: &str, account: &Account) -> Result<ParsBuilder> {
    let chosen = Config::read()?;
    let mut builder = Pars::builder(name).in_account(account);
    if let Some(bucket) = chosen.bucket {
        builder = builder.bucket(bucket);
    }
    Ok(match chosen.kms_key {
        Some(key) => builder.kms_key(key),
        None => builder,
    })
}

impl Made {
    fn is_ours_by_name(&self, stack: &Stack, pars: &str) -> Result<()> {
        self.is_ours(stack, &Pars::planned(pars, stack.region()))
    }
}

fn noted(stack: &Stack) -> Result<Noted<Deployed>> {
    Noted::read(stack)
}

/// One of another version of cloudknot does not keep the others from being listed.
fn told(read: Result<Knot>) -> Option<Knot> {
    read.map_err(|error| step(&format!("warning: {error}"))).ok()
}

/// What such a stack says that it is.
pub(crate) fn read(stack: &Stack, account: &Account) -> Result<Knot> {
    for key in ["Knot", "Pars", "RepositoryUri", "ImageDigest", "JobRole", "JobQueue"] {
        stack.output(key)?;
    }
    Ok(Knot {
        name: stack.output("Knot")?.to_owned(),
        region: stack.region().to_owned(),
        stack_id: stack.id.clone(),
        deployed: noted(stack)?.settings,
        outputs: stack.outputs.clone(),
        changed: stack.changed,
        account: account.clone(),
    })
}

fn registry() -> Option<String> {
    std::env::var(ENV_REGISTRY).ok().filter(|host| !host.is_empty())
}

fn at_host(uri: &str, host: &str) -> String {
    let path = uri.split_once('/').map_or(uri, |(_, path)| path);
    format!("{}/{path}", host.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_knot_has_left_of_functions_that_are_gone_is_its_own() {
        let there = |name: &str, knot: Option<&str>| Definition {
            arn: format!("arn:aws:batch:eu-west-1:123456789012:job-definition/{name}"),
            knot: knot.map(str::to_owned),
            images: Vec::new(),
        };
        let all = [
            there("cloudknot-sweep-f-1a:1", Some("sweep")),
            there("cloudknot-sweep-f-1a:12", Some("sweep")),
            there("cloudknot-sweep-big-f-1a:1", Some("sweep-big")),
            there("cloudknot-sweep-g-2b:1", None),
            there("theirs:1", Some("sweep")),
        ];
        assert_eq!(all_definitions("sweep", None, &all), ["cloudknot-sweep-f-1a"]);
    }
}
