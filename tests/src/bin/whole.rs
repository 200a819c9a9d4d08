//! Program that names all types and modules that the library exports with the feature `deploy`. Its worker compiles
//! nevertheless, and contains no code of a host.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use cloudknot::compile::{
    Allocator, Arch, AwsFeature, CargoTarget, Compile, CompileError, CompileErrorKind, CompileSettings,
    FunctionDescription, Lto, LtoWord, Machine, OptLevel, Profile, Program, Selection, Settings, SizeLevel, Worker,
    WorkerTarget,
};
use cloudknot::docker::{Base, DockerError, Engine};
use cloudknot::doctor::{Examination, Finding, State, examine};
use cloudknot::image::{Architecture, Image, ImageError, ImageOptions};
use cloudknot::policy::{Allowed, Scope};
use cloudknot::prune::{Orphan, OrphanKind, Prune};
use cloudknot::registry::{Deleted, Progress, Pushed, RegistryError, RegistryErrorKind, Repository};
use cloudknot::rehearsal::{Rehearsal, Step};
use cloudknot::{
    Action, Backend, BuildArtifacts, Compute, Deployed, DockerImage, DockerImageBuilder, ImageSettings, Internet, Knot,
    KnotBuilder, KnotClobber, KnotSettings, Log, Login, Mount, Pars, ParsBuilder, ParsClobber, ParsSettings, Pipeline,
    Plan, PlannedStep, Tenancy, built, config,
};

/// Doubles a number.
#[cloudknot::remote]
fn double(x: u64) -> u64 {
    2 * x
}

/// Calls the API of a host in a worker, and returns the error.
#[cloudknot::remote]
async fn refusal(name: &str) -> String {
    Knot::get(name).await.map_or_else(|error| format!("{error:?}"), |knot| knot.name().to_owned())
}

async fn images() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut image = DockerImage::builder("lab/whole", "worker").base_image("debian:12-slim").build().await?;
    image.tag("one")?;
    image.save("whole.tar")?;
    println!("{} {} {:?}", image.digest(), image.load().await?, image.layers());
    println!("{}", image.push("registry.example/lab/whole", &Login::stored()).await?);
    image.clobber().await?;
    println!("{:?}", double.map([1]).on(Backend::docker()).await?);
    DockerImage::builder("lab/whole", "worker").dockerfile("Dockerfile").build().await.map(drop)?;

    let options = ImageOptions::new("whole", "1.0.0").label("of", "a test");
    let image: Image = Image::assemble(b"", &options)?;
    image.save_tar(Path::new("whole.tar"), &[])?;
    let (architecture, error): (Architecture, Option<ImageError>) = (image.architecture(), None);
    println!("{architecture} {} {:?}", image.id(), error.and_then(|error| error.hint()));
    let engine = Engine::connect().await?;
    engine.load(&image, &[]).await?;
    engine.tag("whole", "other").await?;
    println!("{:?} {}", engine.id_of("other").await?, engine.remove("other").await?);
    let refused: Result<Image, DockerError> = engine.assemble(&Base::Image("debian".into()), b"", &options).await;
    println!("{:?}", refused.err().and_then(|error| error.hint()));
    let repository = Repository::new("registry.example/lab/whole")?.login(Login::anonymous());
    let repository = repository.on_progress(|progress: &Progress<'_>| println!("{progress:?}"));
    let pushed: Pushed = repository.push(&image, &["one"]).await?;
    let deleted: Result<Deleted, RegistryError> = repository.delete(&pushed.reference).await;
    println!("{:?}", deleted.map_err(|error| error.kind() == RegistryErrorKind::Login));
    Ok(())
}

async fn programs() -> Result<(), Box<dyn Error + Send + Sync>> {
    let selection = Selection { target: Some(CargoTarget::Lib), ..Selection::default() };
    let compile = Compile::new(selection).arch(Arch::Arm64).profile(Profile::Fast).report(|line| println!("{line}"));
    println!("{} {:?}", compile.package_folder()?.display(), compile.knot_name());
    let program: Program = compile.resolve()?;
    let missing: Option<AwsFeature> = program.missing_aws_feature()?;
    println!("{} {} {:?}", program.package(), program.version(), missing.map(|feature| feature.to_string()));
    let package: &Settings = program.settings();
    let settings: &CompileSettings = &package.compile;
    let (lto, fat): (&Option<Lto>, LtoWord) = (&settings.lto, LtoWord::Fat);
    let (level, small): (&Option<OptLevel>, SizeLevel) = (&settings.opt_level, SizeLevel::S);
    let allocator: Option<Allocator> = settings.allocator;
    println!("{lto:?} {fat:?} {level:?} {small:?} {allocator:?}");
    let machine: Result<Machine, CompileError> = Machine::here();
    println!("{}", machine.as_ref().is_err_and(|error| error.kind() == CompileErrorKind::Toolchain));
    println!("{:?}", machine?.workers.first().map(|target: &WorkerTarget| target.arch));
    let mut image = ImageSettings::default();
    image.base_image = Some("debian".into());
    let artifacts: BuildArtifacts = Pipeline::new(program).image(image).run(str::to_owned).await?;
    artifacts.keep()?;
    let worker: &Worker = &artifacts.worker;
    println!("{:?}", worker.functions.iter().map(FunctionDescription::id).collect::<Vec<_>>());
    let builder: DockerImageBuilder = DockerImageBuilder::of_worker("lab/whole", worker);
    builder.build().await?;
    println!("{}", built::Built::of_package(Path::new("."))?.digest);
    Knot::builder("lab").compile(compile).deploy().await.map(drop)?;
    Ok(())
}

async fn knots() -> cloudknot::Result<()> {
    let builder: ParsBuilder = Pars::builder("lab").new_vpc("10.0.0.0/16").internet(Internet::Nat);
    let pars = builder.tenancy(Tenancy::Default).create().await?;
    let plan: Plan = Knot::builder("lab").plan().await?;
    println!("{:?}", plan.steps.iter().map(|step: &PlannedStep| step.action == Action::Make).collect::<Vec<_>>());
    println!("{} {}", Pars::builder("lab").template().await?, Knot::builder("lab").template().await?);
    let mut settings = KnotSettings::default();
    settings.compute = Some(Compute::Spot);
    let log = Log::new("awslogs", []);
    let builder: KnotBuilder = KnotBuilder::of(settings).log(log).mount("/data", "fs-1");
    let knot = builder.deploy().await?;
    let deployed: &Deployed = knot.deployed();
    println!("{:?} {:?}", deployed.settings.mounts.get("/data"), Some(Mount::Whole("fs-1".into())));
    println!("{:?}", double.map([1]).on(knot.backend().await?).await?);
    println!("{:?}", double.map([1]).on(Backend::batch()?).await?);
    println!("{}", Knot::list().await?.len());
    knot.use_beside(".").await?;
    let (of_knot, of_pars): (KnotClobber, ParsClobber) = (knot.clobber(), pars.clobber());
    of_knot.await?;
    of_pars.await
}

async fn account() -> cloudknot::Result<()> {
    let settings = ParsSettings::default();
    println!("{settings:?}");
    let mut chosen = config::Config::read()?;
    chosen.pars = Some(config::default_pars());
    println!("{} {:?}", config::Config::path()?.display(), config::Config::profiles().await?);
    chosen.write()?;
    let findings: Vec<Finding> = examine(&Examination::default()).await;
    println!("{}", findings.iter().filter(|finding| finding.state == State::Bad).count());
    let rehearsal = Rehearsal::new().computes([Compute::Spot]);
    let report = |step: Step| println!("{}", step.action);
    println!("{} {:?}", rehearsal.plan().await?.len(), rehearsal.run(&report).await);
    rehearsal.clobber(&report).await?;
    let scope = Scope::of_caller(None, Some("eu-central-1"), "lab", "lab").await?;
    println!("{}", Allowed::Deploy.policy(&scope));
    let orphans: Vec<Orphan> = Prune::new().min_age(Duration::from_hours(1)).find().await?;
    for orphan in orphans.into_iter().filter(|orphan| orphan.kind == OrphanKind::Image) {
        orphan.delete().await?;
    }
    Ok(())
}

#[cloudknot::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    images().await?;
    programs().await?;
    knots().await?;
    Ok(account().await?)
}
