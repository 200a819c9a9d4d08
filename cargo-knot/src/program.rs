//! Builds a program with cargo, and has it carry out an order: what needs the types of its functions.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use cargo_knot::exit;
use clap::Args;
use cloudknot::__private::{Fingerprint, Order, OrderEnd, OrderedDecode, OrderedTask, Refusal, Report, Request};
use cloudknot::ItemError;
use cloudknot::compile::{CargoTarget, Compile, CompileError, CompileErrorKind, NativeProgram, Profile, Selection};
use cloudknot::look::{Look, RunProgram};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::failure::Failure;
use crate::output;

/// Variable that turns the progress of a program off.
const ENV_PROGRESS: &str = "CLOUDKNOT_PROGRESS";
/// Variable with the backend of a program.
pub(crate) const ENV_BACKEND: &str = "CLOUDKNOT_BACKEND";

/// The program that `cargo run` would start in this folder. The options have cargo's names and meanings.
#[derive(Args)]
pub(crate) struct ProgramArgs {
    /// Package of the program
    #[arg(short, long, value_name = "SPEC", help_heading = "Program")]
    package: Option<String>,
    /// Binary target
    #[arg(long, value_name = "NAME", conflicts_with = "example", help_heading = "Program")]
    bin: Option<String>,
    /// Example target
    #[arg(long, value_name = "NAME", help_heading = "Program")]
    example: Option<String>,
    /// Path to Cargo.toml
    #[arg(long, value_name = "PATH", help_heading = "Program")]
    manifest_path: Option<PathBuf>,
    /// Features to activate, separated by spaces or commas
    #[arg(short = 'F', long, value_name = "FEATURES", help_heading = "Program")]
    features: Vec<String>,
    /// Activate all features
    #[arg(long, help_heading = "Program")]
    all_features: bool,
    /// Do not activate the feature `default`
    #[arg(long, help_heading = "Program")]
    no_default_features: bool,
    /// Compile with optimizations
    #[arg(short, long, conflicts_with = "profile", help_heading = "Program")]
    release: bool,
    /// Compile with this cargo profile instead of `dev`
    #[arg(long, value_name = "NAME", help_heading = "Program")]
    profile: Option<String>,
    #[command(flatten)]
    cargo: CargoArgs,
}

/// Options of cargo for all programs.
#[derive(Args, Clone, Copy)]
pub(crate) struct CargoArgs {
    /// Require Cargo.lock to be up to date
    #[arg(long, help_heading = "Program")]
    locked: bool,
    /// Run cargo without accessing the network
    #[arg(long, help_heading = "Program")]
    offline: bool,
    /// Equivalent to --locked and --offline
    #[arg(long, help_heading = "Program")]
    frozen: bool,
}

impl CargoArgs {
    fn add_to(self, compile: Compile) -> Compile {
        let options = [(self.locked, "--locked"), (self.offline, "--offline"), (self.frozen, "--frozen")];
        options.into_iter().filter(|(on, _)| *on).fold(compile, |compile, (_, option)| compile.cargo_option(option))
    }
}

impl ProgramArgs {
    /// Compiles the program. If `as_json`, messages on stderr are JSON objects.
    pub(crate) async fn build(self, as_json: bool) -> Result<Program, Failure> {
        let target = self.bin.map(CargoTarget::Bin).or(self.example.map(CargoTarget::Example));
        let profile =
            if self.release { "release".to_owned() } else { self.profile.unwrap_or_else(|| "dev".to_owned()) };
        let compile = Compile::new(Selection {
            manifest_path: self.manifest_path,
            package: self.package,
            target,
            features: self.features,
            all_features: self.all_features,
            no_default_features: self.no_default_features,
        });
        Ok(Program::compile(self.cargo.add_to(compile.profile(Profile::Named(profile))), as_json).await?)
    }
}

/// Program that was compiled for this machine.
pub(crate) struct Program(NativeProgram);

impl Program {
    /// Compiles the program of a run as it is now, from the package of its name in this folder's workspace. A record may be anyone's,
    /// so the path in it decides nothing. `profile` is instead of that of the run. If `as_json`, messages on stderr
    /// are JSON objects.
    pub(crate) async fn of_run(
        of: &RunProgram,
        profile: Option<&str>,
        cargo: CargoArgs,
        as_json: bool,
    ) -> Result<Self, Failure> {
        let target = match (of.kind.as_deref(), &of.target) {
            (Some("bin"), Some(name)) => Some(CargoTarget::Bin(name.clone())),
            (Some("example"), Some(name)) => Some(CargoTarget::Example(name.clone())),
            _ => None,
        };
        let profile = profile.or(of.profile.as_deref()).unwrap_or("dev");
        let compile = Compile::new(Selection {
            package: Some(of.package.clone()),
            target,
            no_default_features: of.features.is_some(),
            features: of.features.clone().unwrap_or_default(),
            ..Selection::default()
        });
        let compile = cargo.add_to(compile.profile(Profile::Named(profile.to_owned())));
        Self::compile(compile, as_json).await.map_err(|error| match &of.manifest {
            // The error's hint names options that these commands do not have.
            Some(path) if error.kind() == CompileErrorKind::Selection => Failure::from(error)
                .with_hint(format!("the run is of the program of `{path}`: run the command in that folder")),
            _ => error.into(),
        })
    }

    async fn compile(compile: Compile, as_json: bool) -> Result<Self, CompileError> {
        let compile = compile.report(move |line: &str| output::remark(line, as_json));
        let built = tokio::task::spawn_blocking(move || compile.native()).await;
        Ok(Self(built.expect("a build does not panic")?))
    }

    /// Returns the command that has the program carry out a task.
    pub(crate) fn command(&self, task: OrderedTask) -> Command {
        let mut command = Command::new(&self.0.path);
        order(&mut command, &Order { reports: None, task });
        command
    }

    /// Returns the path of the executable.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0.path
    }
}

/// Gives a program an order.
pub(crate) fn order(command: &mut Command, order: &Order) {
    let order = serde_json::to_string(order).expect("an order serializes to JSON");
    command.env(cloudknot::__private::ENV_ORDER, order);
}

/// Turns off the progress of the program, unless the user has chosen it: errors on stderr are JSON.
pub(crate) fn quiet(command: &mut Command) {
    if std::env::var_os(ENV_PROGRESS).is_none() {
        command.env(ENV_PROGRESS, "off");
    }
}

/// Runs a program to its end, and handles its reports about runs and items. Ctrl-C is for the program, which stores what is done.
pub(crate) async fn carry_out(
    mut command: Command,
    mut handle: impl FnMut(Report<'_>) -> Result<(), Failure>,
) -> Result<OrderEnd, Failure> {
    let mut running = Running::start(command.stdout(Stdio::piped()))?;
    let mut end = None;
    while let Some(line) = running.next().await? {
        match Report::parse(&line) {
            Some(Report::Ended(ended)) => end = Some(ended),
            Some(Report::Refused(refusal)) => {
                running.ended().await?;
                return Err(refused(refusal));
            }
            Some(report) => {
                if let Err(failure) = handle(report) {
                    running.stop().await?;
                    return Err(failure);
                }
            }
            None => output::note(&line),
        }
    }
    let status = running.ended().await?;
    end.ok_or_else(|| without_end(status))
}

/// Returns the failure of a program that has ended without a last report.
pub(crate) fn without_end(status: ExitStatus) -> Failure {
    Failure::new(exit::OTHER, format!("the program ended before it was done: {status}"))
        .with_hint("`cargo knot status` shows whether it has begun a run; stored values are kept")
}

/// Returns the failure of an order that was refused.
pub(crate) fn refused(refusal: Refusal) -> Failure {
    let code = match refusal.kind.as_str() {
        "Config" | "Input" => exit::USAGE,
        "NotFound" | "Exists" => exit::NOT_FOUND,
        "Aws" | "Denied" | "Credentials" => exit::AWS,
        "Docker" | "Registry" => exit::REGISTRY,
        "Image" => exit::IMAGE,
        _ => exit::OTHER,
    };
    Failure::with_causes(code, refusal.message, refusal.causes, refusal.hint)
}

/// A program that carries out an order, and its reports.
struct Running {
    child: Child,
    reports: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self, Failure> {
        let mut child = spawn(command)?;
        let reports = BufReader::new(child.stdout.take().expect("the standard output is a pipe")).lines();
        Ok(Self { child, reports })
    }

    async fn next(&mut self) -> Result<Option<String>, Failure> {
        self.reports.next_line().await.map_err(|error| Failure::of_io("read the reports of the program", &error))
    }

    async fn ended(&mut self) -> Result<ExitStatus, Failure> {
        wait(&mut self.child).await
    }

    /// Interrupts the program, which stores what is done, and waits for its end.
    async fn stop(&mut self) -> Result<(), Failure> {
        if let Some(id) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // It may have ended meanwhile.
            let _ = kill_process(id, Signal::TERM);
        }
        // It may wait until its reports are read.
        while self.next().await?.is_some() {}
        self.ended().await.map(drop)
    }
}

/// Starts a program. From then on, Ctrl-C does not end this command before the program has ended.
pub(crate) fn spawn(command: &mut Command) -> Result<Child, Failure> {
    tokio::spawn(async { while tokio::signal::ctrl_c().await.is_ok() {} });
    command.spawn().map_err(|error| {
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        Failure::new(exit::OTHER, format!("cannot start `{name}`: {error}"))
    })
}

/// Waits for the end of a program.
pub(crate) async fn wait(child: &mut Child) -> Result<ExitStatus, Failure> {
    child.wait().await.map_err(|error| Failure::of_io("wait for the end of the program", &error))
}

/// Parses the error of an item in a report.
pub(crate) fn item_error(json: &str) -> Result<ItemError, Failure> {
    serde_json::from_str(json)
        .map_err(|error| Failure::new(exit::OTHER, format!("cannot read the error of an item: {error}")))
}

/// Decodes values by the types of their program, which is started for this: those that are opaque in the record.
pub(crate) struct Decoder {
    running: Running,
    frames: ChildStdin,
}

impl Decoder {
    /// Builds and starts the program of a run.
    pub(crate) async fn of_run(look: &Look, cargo: CargoArgs, as_json: bool) -> Result<Self, Failure> {
        let of = look.program()?;
        let program = Program::of_run(&of, None, cargo, as_json).await?;
        let decode = OrderedDecode { function: of.function.clone(), fingerprint: Fingerprint(of.fingerprint) };
        let mut command = program.command(OrderedTask::Decode(decode));
        let mut running = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let frames = running.child.stdin.take().expect("the standard input is a pipe");
        Ok(Self { running, frames })
    }

    /// Returns the value in a frame as JSON, as `serde_json` prints it.
    pub(crate) async fn decode(&mut self, item: u64, frame: &[u8]) -> Result<String, Failure> {
        let mut request = Vec::new();
        Request::append(item, frame, &mut request);
        // A program that has refused reads no frames, and says why below.
        let _ = self.frames.write_all(&request).await;
        while let Some(line) = self.running.next().await? {
            match Report::parse(&line) {
                Some(Report::Value { json, .. }) => return Ok(json.to_owned()),
                Some(Report::Refused(refusal)) => return Err(refused(refusal)),
                _ => output::note(&line),
            }
        }
        Err(without_end(self.running.ended().await?))
    }
}
