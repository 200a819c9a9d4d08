//! `cargo knot runs`: the runs of a program.

use std::num::NonZero;

use clap::Args;
use clap::builder::PossibleValuesParser;
use cloudknot::look::{Filter, RoundSummary, RunList, RunState, Summary};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::{self, table_with_numbers};
use crate::scope::ScopeArgs;
use crate::shown::{counted, duration, function_name, number, place, run_json, state, when};

const HEADING: [&str; 9] = ["RUN", "SUBMITTED", "FUNCTION", "WHERE", "ITEMS", "DONE", "FAILED", "STATE", "TOOK"];
const NUMBERS: [usize; 3] = [4, 5, 6];
/// Maximum number of characters of a name in the table, so that a line fits into 80 columns.
const MAX_NAME_LEN: usize = 16;

/// Options of `cargo knot runs`.
#[derive(Args)]
pub(crate) struct Runs {
    /// Show all runs, not only the last 20
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Show only the runs of this function
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Show only the runs in this state
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(RunState::ALL.map(RunState::name)))]
    state: Option<String>,
    /// Show at most this number of runs
    #[arg(long, value_name = "NUMBER", default_value_t = NonZero::new(20).expect("20 is not zero"))]
    limit: NonZero<usize>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Runs {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let runs = self.scope.runs().await?;
        let found = runs.list(self.filter()).await.map_err(|error| self.scope.failure(error))?;
        if self.json {
            let runs: Vec<Value> = found.runs.iter().map(run_json).collect();
            return Ok(output::versioned(&json!({"runs": runs}))?);
        }
        table_with_numbers(&HEADING, &NUMBERS, &found.runs.iter().flat_map(rows).collect::<Vec<_>>())?;
        for summary in &found.runs {
            if let Some(problem) = &summary.problem {
                output::note(&format!("{}: {problem}", summary.word));
            }
        }
        self.print_end(&found);
        Ok(())
    }

    fn filter(&self) -> Filter {
        let mut filter = Filter::default();
        if let Some(function) = &self.function {
            filter = filter.function(function);
        }
        if let Some(state) = self.state.as_deref().and_then(RunState::parse) {
            filter = filter.state(state);
        }
        if self.all { filter } else { filter.limit(self.limit.get()) }
    }

    fn print_end(&self, found: &RunList) {
        let shown = found.runs.len();
        let is_filtered = self.function.is_some() || self.state.is_some();
        if shown == 0 {
            let selected = if is_filtered { "such " } else { "" };
            output::note(&format!("there are no {selected}runs in {}", found.scope));
            return;
        }
        if found.is_cut && is_filtered {
            let shown = counted(shown as u64, "such run", "such runs");
            output::note(&format!("{shown}, and there may be more: the same command with `--all` shows all"));
        } else if found.is_cut {
            output::note(&format!("{shown} of {} runs; the same command with `--all` shows all", found.total));
        }
        self.scope.suggest(&[format!("status {}", found.runs[0].word)]);
    }
}

/// Returns the row of a run, and those of its retries.
fn rows(summary: &Summary) -> Vec<Vec<String>> {
    let items = &summary.items;
    let count = |count: u64| if summary.state.is_some() { number(count) } else { "-".to_owned() };
    let first = vec![
        summary.word.clone(),
        summary.submitted.map_or_else(|| "-".to_owned(), when),
        shortened(summary.name.as_deref().unwrap_or_else(|| function_name(summary))),
        shortened(&place(summary)),
        count(items.items),
        count(items.succeeded),
        count(items.failed),
        state(summary).to_owned(),
        took(summary.rounds.first()),
    ];
    let retry = |(position, round): (usize, &RoundSummary)| {
        let empty = String::new;
        let started = round.started.map(when).unwrap_or_default();
        let done = round.succeeded.map(number).unwrap_or_default();
        let name = format!("└ round {}", position + 1);
        vec![name, started, empty(), empty(), number(round.items), done, empty(), empty(), took(Some(round))]
    };
    std::iter::once(first).chain(summary.rounds.iter().enumerate().skip(1).map(retry)).collect()
}

fn took(round: Option<&RoundSummary>) -> String {
    round.and_then(|round| round.duration).map_or_else(|| "-".to_owned(), duration)
}

/// Returns the name, cut at its start if it is long: the ends of names differ more often.
fn shortened(name: &str) -> String {
    let excess = name.chars().count().saturating_sub(MAX_NAME_LEN);
    if excess == 0 {
        return name.to_owned();
    }
    std::iter::once('…').chain(name.chars().skip(excess + 1)).collect()
}
