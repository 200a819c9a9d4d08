//! The steps of a rehearsal. Everything that is created is noted before, so that it is deleted whatever happens in between.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cloudknot_runtime::contract;
use futures_util::future::join_all;

use super::{Rehearsal, Report, Step};
use crate::aws::batch::Batch;
use crate::aws::{Aws, logs};
use crate::build::compile::cargo::generated::GeneratedPackage;
use crate::build::pipeline::blocking;
use crate::deploy::costs;
use crate::deploy::knot::{Knot, KnotBuilder};
use crate::deploy::pars::host::new_network;
use crate::deploy::pars::{Pars, ParsBuilder};
use crate::error::{Error, ErrorKind, Result};
use crate::settings::knot::Compute;
use crate::settings::sizes::counted;

mod program;

use program::{Check, RunningProgram};

/// Maximum number of vCPUs of each Knot. On Fargate, nearly all jobs run at once; on EC2, two of them.
const MAX_VCPUS: u32 = 2;
/// Maximum time that all items of a Knot may take, most of which they wait for a machine.
const MAX_RUN_TIME: Duration = Duration::from_mins(20);
/// Maximum time after which a line is in the log of its job.
const MAX_LOG_DELAY: Duration = Duration::from_mins(2);
/// Interval at which logs are read.
const LOG_INTERVAL: Duration = Duration::from_secs(3);

/// A step has failed, and was reported.
struct Failed;

/// Performs a step, and reports it.
async fn step<T>(
    report: Report<'_>,
    action: impl Into<String>,
    work: impl Future<Output = Result<T>>,
) -> Result<T, Failed> {
    let (action, began) = (action.into(), Instant::now());
    match work.await {
        Ok(value) => {
            report(Step { action, elapsed: began.elapsed(), error: None });
            Ok(value)
        }
        Err(error) => {
            report(Step { action, elapsed: began.elapsed(), error: Some(error) });
            Err(Failed)
        }
    }
}

pub(super) async fn plan(rehearsal: &Rehearsal) -> Result<Vec<String>> {
    refuse_other_home()?;
    let region = Aws::load(&rehearsal.account).await?.region;
    let pars = pars(rehearsal).plan().await?;
    let knots = rehearsal.computes.iter().map(|compute| format!("`{}`", rehearsal.knot(*compute)));
    let usd = costs::rehearsal(new_network(&rehearsal.pars), &rehearsal.computes, MAX_VCPUS);
    let sentences = [
        format!(
            "creates in {region} the Pars `{}` and the Knots {}, runs 9 items on each Knot, and deletes all of it",
            rehearsal.name,
            knots.collect::<Vec<_>>().join(", ")
        ),
        "takes 10 to 20 minutes, and compiles the AWS SDK first, which takes minutes the first time".to_owned(),
        format!(
            "costs at most about {usd:.2} USD (list prices in us-east-1, for half an hour of {} for each Knot)",
            counted(MAX_VCPUS, "vCPU")
        ),
    ];
    // The rehearsal ends long before its runs expire.
    let notes = pars.notes.into_iter().filter(|note| !note.contains("--expire-runs"));
    Ok(sentences.into_iter().chain(notes).collect())
}

pub(super) async fn run(rehearsal: &Rehearsal, report: Report<'_>) -> Result<()> {
    match perform(rehearsal, report).await {
        Ok(()) => Ok(()),
        Err(Failed) => Err(Error::new(ErrorKind::Infrastructure, "the rehearsal failed: a step ended with an error")),
    }
}

async fn perform(rehearsal: &Rehearsal, report: Report<'_>) -> Result<(), Failed> {
    let (package, executable) = step(report, "compile the program and its worker", compile()).await?;
    rehearsal.created(|created| {
        created.folder = Some(package.folder.clone());
        created.has_pars = true;
    });
    let action = format!("create the Pars `{}`", rehearsal.name);
    let pars = step(report, action, pars(rehearsal).create()).await?;
    let program = Deployable { rehearsal, report, pars, package, executable };
    // Boxed, because the futures are large.
    let knots = rehearsal.computes.iter().map(|compute| Box::pin(program.rehearse(*compute)));
    join_all(knots).await.into_iter().collect()
}

/// Compiles the program for this machine, and its worker, before anything is created in the account.
async fn compile() -> Result<(GeneratedPackage, PathBuf)> {
    refuse_other_home()?;
    let compiled = blocking(|| {
        let package = program::package()?;
        let executable = package.build()?;
        package.worker().run()?;
        Ok::<_, Error>((package, executable))
    });
    compiled.await
}

/// Refuses to record the Knots where that of the user's own program is recorded.
fn refuse_other_home() -> Result<()> {
    if std::env::var_os(contract::ENV_HOME).is_none_or(|home| home.is_empty()) {
        return Ok(());
    }
    let message = "cannot rehearse with CLOUDKNOT_HOME: the Knot of your own program is recorded there";
    Err(Error::new(ErrorKind::Config, message)
        .with_hint("unset it for this command: `env -u CLOUDKNOT_HOME cargo knot doctor --rehearse`"))
}

/// Returns the builder of the Pars. Data that should remain is deleted after a day.
fn pars(rehearsal: &Rehearsal) -> ParsBuilder {
    let mut settings = rehearsal.pars.clone();
    settings.expire_runs = settings.expire_runs.or(Some(1));
    settings.log_retention = settings.log_retention.or(Some(1));
    ParsBuilder::of(&rehearsal.name, settings).in_account(&rehearsal.account)
}

fn knot(rehearsal: &Rehearsal, name: &str) -> KnotBuilder {
    let mut builder = Knot::builder(name);
    builder.account.clone_from(&rehearsal.account);
    builder
}

/// Program that is compiled, and the Pars that its Knots are deployed on.
struct Deployable<'r> {
    rehearsal: &'r Rehearsal,
    report: Report<'r>,
    pars: Pars,
    package: GeneratedPackage,
    executable: PathBuf,
}

impl Deployable<'_> {
    /// Deploys the Knot on this kind of compute, and runs items on it.
    async fn rehearse(&self, compute: Compute) -> Result<(), Failed> {
        let name = self.rehearsal.knot(compute);
        self.rehearsal.created(|created| created.knots.insert(name.clone()));
        let folder = notes(&self.package.folder, &name);
        let deploy = Box::pin(self.deploy(&name, compute, &folder));
        step(self.report, format!("deploy the Knot `{name}`"), deploy).await?;
        let mut program = RunningProgram::start(&self.executable, &folder, self.rehearsal.account.profile.as_deref());
        let (deadline, mut outcome) = (Instant::now() + MAX_RUN_TIME, Ok(()));
        for check in Check::ALL {
            let checked = Box::pin(self.check(&mut program, check, deadline));
            outcome = step(self.report, check.action(&name), checked).await.and(outcome);
            if program.has_ended() {
                break;
            }
        }
        outcome
    }

    /// Deploys the Knot, and records it in this folder.
    async fn deploy(&self, name: &str, compute: Compute, folder: &Path) -> Result<()> {
        let mut builder = knot(self.rehearsal, name).pars(&self.pars).compile(self.package.worker());
        builder.settings.compute = Some(compute);
        builder.settings.max_vcpus = Some(MAX_VCPUS);
        builder.deploy().await?.use_beside(folder).await
    }

    async fn check(&self, program: &mut RunningProgram, check: Check, deadline: Instant) -> Result<()> {
        let jobs = program.next(check, deadline).await?;
        if check == Check::Logs { self.read_logs(&jobs).await } else { Ok(()) }
    }

    /// Waits until the log of each of these jobs has the line that its item has printed.
    async fn read_logs(&self, jobs: &[String]) -> Result<()> {
        let aws = Aws::load(&self.rehearsal.account).await?;
        let deadline = Instant::now() + MAX_LOG_DELAY;
        loop {
            let log = self.logs_of(&aws, jobs).await?;
            let missing = program::missing_lines(&log);
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let message = format!(
                    "cannot find the output of the items in the log group `{}`: the logs of the jobs lack `{}`",
                    self.pars.log_group(),
                    missing.join("`, `")
                );
                return Err(Error::new(ErrorKind::Aws, message).with_source(log));
            }
            tokio::time::sleep(LOG_INTERVAL).await;
        }
    }

    /// Returns the end of the log of each job, one after another. A log that does not exist yet is empty.
    async fn logs_of(&self, aws: &Aws, jobs: &[String]) -> Result<String> {
        let mut text = String::new();
        for job in Batch::new(aws).describe(jobs).await? {
            let group = job.log_group.as_deref().unwrap_or(self.pars.log_group());
            if let Some(stream) = &job.log {
                match logs::end_of(aws, group, stream).await {
                    Ok(log) => text.push_str(&log),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(text)
    }
}

/// Returns the folder in which the Knot of this name is recorded.
fn notes(package: &Path, knot: &str) -> PathBuf {
    package.join("knots").join(knot)
}

pub(super) async fn clobber(rehearsal: &Rehearsal, report: Report<'_>) -> Result<()> {
    let (knots, folder, has_pars) =
        rehearsal.created(|created| (created.knots.clone(), created.folder.clone(), created.has_pars));
    let folder = folder.unwrap_or_default();
    let deletions = knots.iter().map(|name| {
        let notes = notes(&folder, name);
        Box::pin(async move {
            let deletion = knot(rehearsal, name).clobber().beside(&notes);
            step(report, format!("delete the Knot `{name}`"), async { if_present(deletion.await) }).await?;
            // It does not exist if nothing was deployed. Otherwise, `cargo clean` removes it as well.
            let _ = std::fs::remove_dir_all(&notes);
            rehearsal.created(|created| created.knots.remove(name));
            Ok(())
        })
    });
    let mut outcome: Result<(), Failed> = join_all(deletions).await.into_iter().collect();
    // A Pars that a Knot uses cannot be deleted.
    if has_pars && outcome.is_ok() {
        let action = format!("delete the Pars `{}`", rehearsal.name);
        outcome = step(report, action, async { if_present(pars(rehearsal).clobber().await) }).await;
        if outcome.is_ok() {
            rehearsal.created(|created| created.has_pars = false);
        }
    }
    outcome
        .map_err(|Failed| Error::new(ErrorKind::Infrastructure, "cannot delete everything that the rehearsal created"))
}

/// Turns the error that something does not exist into a success: its creation may not have begun.
fn if_present(deleted: Result<()>) -> Result<()> {
    match deleted {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        deleted => deleted,
    }
}
