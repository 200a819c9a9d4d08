//! `cargo knot doctor --rehearse`: asks, rehearses, and deletes what the rehearsal has created, whatever happens.

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cargo_knot::exit;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use cloudknot::rehearsal::{Rehearsal, Step};
use cloudknot::{Compute, ParsSettings};
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::aws::AwsArgs;
use crate::failure::Failure;
use crate::output;

const COMPUTES: [Compute; 4] = [Compute::Ec2, Compute::Spot, Compute::Fargate, Compute::FargateSpot];

#[derive(Args)]
pub(crate) struct RehearsalArgs {
    /// Deploy and run a small program on a Pars and Knots of its own, check it, and delete everything again
    #[arg(long, help_heading = "Rehearsal")]
    rehearse: bool,
    /// Kinds of compute, each with a Knot of its own; `ec2,fargate` if not given
    #[arg(
        long,
        value_name = "KIND,…",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(COMPUTES.map(Compute::name)).map(|name| compute(&name)),
        requires = "rehearse",
        help_heading = "Rehearsal"
    )]
    compute: Vec<Compute>,
    /// Do not ask before something that costs money is created
    #[arg(long, requires = "rehearse", help_heading = "Rehearsal")]
    yes: bool,
}

fn compute(name: &str) -> Compute {
    COMPUTES.into_iter().find(|compute| compute.name() == name).expect("the parser accepts the names of these only")
}

impl RehearsalArgs {
    pub(crate) fn is_requested(&self) -> bool {
        self.rehearse
    }

    pub(crate) async fn run(self, aws: &AwsArgs, settings: ParsSettings, json: bool) -> Result<(), Failure> {
        if !self.yes && !output::can_ask() {
            let message =
                "cannot ask whether to create something that costs money: there is no terminal; `--yes` does not ask";
            return Err(Failure::new(exit::USAGE, message));
        }
        let yes = self.yes;
        let rehearsal = self.rehearsal(aws, settings);
        rehearsal.plan().await?.iter().for_each(|sentence| output::note(sentence));
        if !yes && !output::ask("go on? [y/N]")?.is_some_and(|answer| matches!(&*answer.to_lowercase(), "y" | "yes")) {
            output::note("nothing was created");
            return Ok(());
        }
        perform(&rehearsal, json).await
    }

    fn rehearsal(self, aws: &AwsArgs, settings: ParsSettings) -> Rehearsal {
        let mut rehearsal = Rehearsal::new().pars(settings);
        if !self.compute.is_empty() {
            rehearsal = rehearsal.computes(self.compute);
        }
        if let Some(profile) = aws.profile() {
            rehearsal = rehearsal.profile(profile);
        }
        match aws.region() {
            Some(region) => rehearsal.region(region),
            None => rehearsal,
        }
    }
}

/// Rehearses, and then deletes everything, also after a failure or a signal. A second signal ends this, too.
async fn perform(rehearsal: &Rehearsal, json: bool) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let steps = Mutex::new(Vec::new());
    let report = |step: Step| {
        // If nobody reads stdout any more, everything that was created still has to be deleted.
        let _ = if json { Ok(()) } else { output::lines(as_lines(&step)) };
        steps.lock().unwrap_or_else(PoisonError::into_inner).push(as_json(&step));
    };
    let outcome = tokio::select! {
        outcome = rehearsal.run(&report) => Some(outcome),
        () = signals.next() => None,
    };
    if outcome.is_none() && !rehearsal.remaining().is_empty() {
        output::note("interrupted: deleting what was created; press Ctrl-C again to keep it");
    }
    let deleted = tokio::select! {
        deleted = rehearsal.clobber(&report) => deleted.is_ok(),
        () = signals.next() => false,
    };
    if json {
        output::json(&Value::from(steps.into_inner().unwrap_or_else(PoisonError::into_inner)))?;
    }
    if !deleted && !rehearsal.remaining().is_empty() {
        let commands = rehearsal.remaining().join("\n  ");
        output::note(&format!("some of what was created still exists; these commands delete it:\n  {commands}"));
    }
    match outcome {
        None => Err(Failure::new(exit::OTHER, "the rehearsal was interrupted")),
        Some(Err(error)) => Err(Failure::new(exit::DOCTOR_ERROR, error.to_string())),
        Some(Ok(())) if !deleted => Err(Failure::new(exit::DOCTOR_ERROR, "not everything was deleted")),
        Some(Ok(())) => Ok(()),
    }
}

/// The signals by which a user or a system ends a program.
struct Signals([Signal; 3]);

impl Signals {
    /// Handles the signals from now on.
    fn new() -> std::io::Result<Self> {
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

fn as_lines(step: &Step) -> Vec<String> {
    let state = if step.error.is_some() { "error" } else { "ok" };
    let mut lines = vec![format!("{state:<7}  {} ({})", step.action, duration(step.elapsed))];
    if let Some(error) = &step.error {
        let causes = causes(error).into_iter().map(|cause| format!("caused by: {cause}"));
        let hint = error.hint().map(|hint| format!("hint: {hint}"));
        let all: Vec<_> = std::iter::once(error.to_string()).chain(causes).chain(hint).collect();
        lines.extend(all.join("\n").lines().map(|line| format!("           {line}")));
    }
    lines
}

fn as_json(step: &Step) -> Value {
    let error = step
        .error
        .as_ref()
        .map(|error| json!({"message": error.to_string(), "causes": causes(error), "hint": error.hint()}));
    json!({"step": step.action, "seconds": step.elapsed.as_secs(), "error": error})
}

fn causes(error: &cloudknot::Error) -> Vec<String> {
    std::iter::successors(error.source(), |&error| error.source()).map(ToString::to_string).collect()
}

fn duration(elapsed: Duration) -> String {
    match (elapsed.as_secs() / 60, elapsed.as_secs() % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}
