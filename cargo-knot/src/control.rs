//! `cargo knot wait` and `cancel`: the end of a run.

use std::time::{Duration, Instant};

use cargo_knot::exit;
use clap::Args;
use cloudknot::look::{Items, Look, RunState};
use serde_json::json;

use crate::failure::Failure;
use crate::items::NumberedItemsArgs;
use crate::output;
use crate::patience::{Patience, through_outages};
use crate::scope::{RunArgs, ScopeArgs};
use crate::shown::{counted, duration, function_name, number, run_json, state};
use crate::status;

/// Bounds of the interval between two looks at a run; between them, it is a tenth of the time waited so far.
const LOOK_INTERVAL: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(30));
/// Time for the last look, at the end of the time that the user allows.
const LAST_LOOK: Duration = Duration::from_secs(20);

/// Options of `cargo knot wait`.
#[derive(Args)]
pub(crate) struct Wait {
    #[command(flatten)]
    of: RunArgs,
    /// Wait at most this time, such as "2h"
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Options of `cargo knot cancel`.
#[derive(Args)]
pub(crate) struct Cancel {
    #[command(flatten)]
    of: NumberedItemsArgs,
    /// Reason, which is stored with the run
    #[arg(long, value_name = "TEXT", conflicts_with = "items")]
    reason: Option<String>,
    /// Cancel without a question
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Wait {
    pub(crate) async fn run(self) -> Result<u8, Failure> {
        let look = self.of.look().await?;
        // A run whose record cannot be read never ends.
        look.select(&Items::all())?;
        let look = self.until_ended(look).await?;
        let summary = look.summary();
        if self.json {
            output::versioned(&run_json(summary))?;
        } else {
            output::lines([line(&look)])?;
        }
        Ok(status::code(summary))
    }

    async fn until_ended(&self, mut look: Look) -> Result<Look, Failure> {
        let began = Instant::now();
        let mut patience = Patience::default();
        loop {
            let left = self.timeout.map_or(Duration::MAX, |timeout| timeout.saturating_sub(began.elapsed()));
            if patience.is_over(&look) || left.is_zero() {
                return Ok(look);
            }
            let interval = (began.elapsed() / 10).clamp(LOOK_INTERVAL.0, LOOK_INTERVAL.1);
            tokio::time::sleep(interval.min(left)).await;
            let left = left.saturating_sub(interval);
            let again = through_outages(async || look.again().await, |note| output::remark(note, self.json));
            look = match tokio::time::timeout(left.max(LAST_LOOK), again).await {
                Ok(again) => again?,
                Err(_) => return Ok(look),
            };
        }
    }
}

fn line(look: &Look) -> String {
    let summary = look.summary();
    let counts = status::counts(summary);
    let took = summary.duration().map(|took| format!(" after {}", duration(took))).unwrap_or_default();
    let why = look.abandoned().map(|why| format!("; {why}")).unwrap_or_default();
    let state = match summary.state {
        Some(RunState::Failed) => "has failed",
        Some(RunState::Cancelled) => "was cancelled",
        Some(RunState::Done) => "is done",
        Some(RunState::Running) => "is running",
        Some(_) => "is waiting",
        None => "cannot be read",
    };
    format!("{}  {} {state}{took}: {counts}{why}", summary.word, function_name(summary))
}

impl Cancel {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let look = self.of.find(&self.scope).await?;
        let items = self.of.items();
        // What cannot be cancelled needs no question.
        look.select(&items)?;
        let summary = look.summary();
        let has_ended = summary.state.is_some_and(RunState::is_end);
        if !has_ended {
            self.confirm(&look, &items)?;
        }
        let done =
            if items.is_all() { look.cancel(self.reason.as_deref()).await? } else { look.cancel_items(&items).await? };
        let after = look.again().await?;
        if self.json {
            let counts = json!({"ended": done.ended, "not_started": done.not_started, "kept": done.kept});
            let mut run = run_json(after.summary());
            run["cancelled"] = counts;
            return Ok(output::versioned(&run)?);
        }
        let word = &summary.word;
        let text = match after.summary().state {
            _ if !items.is_all() => format!(
                "{word}  {} being ended; {} before",
                counted(done.ended, "item is", "items are"),
                counted(done.kept, "item had an outcome", "items had outcomes"),
            ),
            Some(RunState::Cancelled) if !has_ended => format!(
                "{word}  {} ended, {} will not start; {} kept",
                counted(done.ended, "item was", "items were"),
                number(done.not_started),
                counted(done.kept, "value is", "values are"),
            ),
            _ => format!("{word}  has ended before: it is {}; nothing was cancelled", state(after.summary())),
        };
        output::lines([text])?;
        self.scope.suggest(&status::next(&after));
        Ok(())
    }

    /// Asks the user at the terminal.
    ///
    /// # Errors
    /// Returns an error if the answer is not yes, or if there is no terminal.
    fn confirm(&self, look: &Look, items: &Items) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        let summary = look.summary();
        let run = format!(
            "{}the run {} ({} over {})",
            if items.is_all() { "" } else { "these items of " },
            summary.word,
            function_name(summary),
            counted(summary.items.items, "input", "inputs")
        );
        let answer = if output::can_ask() { output::ask(&format!("cancel {run}? [y/N]"))? } else { None };
        if answer.is_some_and(|answer| matches!(answer.as_str(), "y" | "Y" | "yes")) {
            return Ok(());
        }
        Err(Failure::new(exit::REFUSED, format!("cannot cancel {run}: this was not confirmed"))
            .with_hint("the same command with `--yes` cancels without a question"))
    }
}
