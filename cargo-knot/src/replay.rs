//! `cargo knot replay`: runs one item of a run here, in the foreground and in one process.

use std::io::Write as _;

use cargo_knot::exit;
use clap::Args;
use cloudknot::__private::{Fingerprint, Order, OrderedReplay, OrderedTask, Report};
use cloudknot::ItemError;
use tempfile::NamedTempFile;
use tokio::process::Command;

use crate::failure::Failure;
use crate::output;
use crate::program::{CargoArgs, ENV_BACKEND, Program, item_error, order, refused, spawn, wait, without_end};
use crate::scope::ScopeArgs;

/// Options of `cargo knot replay`.
#[derive(Args)]
pub(crate) struct Replay {
    /// The run and the item, counted from 0; without a run, an item of the last one
    #[arg(value_name = "[RUN] ITEM", required = true, num_args = 1..=2)]
    run_and_item: Vec<String>,
    /// Run the program in this debugger: `X --args program`
    #[arg(long, value_name = "COMMAND")]
    debugger: Option<String>,
    /// Compile with optimizations, whatever the profile of the run was
    #[arg(short, long)]
    release: bool,
    #[command(flatten)]
    cargo: CargoArgs,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Print errors as JSON
    #[arg(long)]
    json: bool,
}

impl Replay {
    pub(crate) async fn run(self) -> Result<u8, Failure> {
        let (run, item) = match &self.run_and_item[..] {
            [item] => ("last", item),
            [run, item, ..] => (run.as_str(), item),
            [] => unreachable!("clap requires an item"),
        };
        let item: u64 = item.parse().map_err(|_| {
            Failure::new(exit::USAGE, format!("invalid item `{item}`: must be a number, counted from 0"))
                .with_hint("the item follows the run: `cargo knot replay last 17`")
        })?;
        let look = self.scope.find(run).await?;
        let of = look.program()?;
        let input = temporary_file(&look.input(item).await?)?;
        let reports = temporary_file(&[])?;
        let profile = self.release.then_some("release");
        let program = Program::of_run(&of, profile, self.cargo, self.json).await?;
        let task = OrderedTask::Replay(OrderedReplay {
            function: of.function,
            fingerprint: Fingerprint(of.fingerprint),
            run: look.id().to_owned(),
            revision: of.revision,
            is_clean: of.is_clean,
            item,
            input: input.path().to_owned(),
        });
        let mut command = match &self.debugger {
            Some(debugger) => {
                let mut command = Command::new(debugger);
                command.arg("--args").arg(program.path());
                command
            }
            None => Command::new(program.path()),
        };
        command.envs(&of.env).env("RUST_BACKTRACE", "1").env(ENV_BACKEND, "local");
        order(&mut command, &Order { reports: Some(reports.path().to_owned()), task });
        let status = wait(&mut spawn(&mut command)?).await?;
        let text = std::fs::read_to_string(reports.path())
            .map_err(|error| Failure::of_io("read the reports of the program", &error))?;
        for line in text.lines() {
            match Report::parse(line) {
                Some(Report::Value { json, .. }) => {
                    output::text(&format!("{json}\n"))?;
                    return Ok(exit::DONE);
                }
                Some(Report::Failed { json, .. }) => return Err(failed(item, &item_error(json)?)),
                Some(Report::Refused(refusal)) => return Err(refused(refusal)),
                _ => {}
            }
        }
        Err(without_end(status))
    }
}

/// Creates a private file with this content.
fn temporary_file(content: &[u8]) -> Result<NamedTempFile, Failure> {
    let create = || {
        let mut file = NamedTempFile::new()?;
        file.write_all(content)?;
        Ok(file)
    };
    create().map_err(|error: std::io::Error| {
        Failure::new(exit::OTHER, format!("cannot write a temporary file for the input of the item: {error}"))
            .with_hint("set TMPDIR to a folder with free space that this user can write to")
    })
}

fn failed(item: u64, error: &ItemError) -> Failure {
    // The text of the error has its causes and its place.
    let mut message = format!("item {item} {error}");
    if let Some(backtrace) = error.backtrace() {
        message = format!("{message}\n{backtrace}");
    }
    Failure::new(exit::ITEMS_FAILED, message)
}
