//! `cargo knot clean`: lists and deletes runs that have ended.

use std::collections::BTreeSet;
use std::time::Duration;

use cargo_knot::exit;
use clap::Args;
use cloudknot::look::{Removal, Removals, Summary};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::{self, table_with_numbers};
use crate::scope::ScopeArgs;
use crate::shown::{counted, function_name, number, place, run_json, size, state, when};

/// Options of `cargo knot clean`. Without `--yes`, nothing is deleted.
#[derive(Args)]
pub(crate) struct Clean {
    /// Runs to delete: `last`, `last-1`, the start of an ID or of the word at its end, or a name
    runs: Vec<String>,
    /// Delete the runs that were submitted at least this time ago, such as "30d"
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration, conflicts_with = "runs")]
    older_than: Option<Duration>,
    /// Keep this number of runs, the newest ones
    #[arg(long, value_name = "NUMBER", conflicts_with = "runs")]
    keep: Option<usize>,
    /// Delete only the inputs: such a run can be read, but not retried
    #[arg(long)]
    inputs_only: bool,
    /// Delete what is listed; values cannot be restored
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Clean {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let runs = self.scope.runs().await?;
        let found = runs.removals(self.removals()?).await.map_err(|error| self.scope.failure(error))?;
        let (found, kept): (Vec<_>, Vec<_>) = found.into_iter().partition(|removal| removal.kept_because.is_none());
        if let Some(removal) = kept.first().filter(|_| !self.runs.is_empty()) {
            let why = removal.kept_because.as_deref().unwrap_or_default();
            let Summary { run, word, state, .. } = &removal.summary;
            let refused = Failure::new(exit::REFUSED, format!("cannot delete the run `{run}`: {why}"));
            let cancel = self.scope.command(&format!("cancel {word}"));
            return Err(match state {
                Some(state) if !state.is_end() && !self.inputs_only => {
                    refused.with_hint(format!("`{cancel}` cancels the run"))
                }
                _ => refused,
            });
        }
        let reasons: BTreeSet<String> = kept.iter().filter_map(|removal| removal.kept_because.clone()).collect();
        let (mut rows, mut objects, mut failed) = (Vec::new(), Vec::new(), None);
        let (mut bytes, mut deleted) = (0_u64, 0);
        let count = found.len();
        for removal in found {
            rows.push(row(&removal));
            let (size, mut object) = (removal.bytes, run_json(&removal.summary));
            let is_deleted = if self.yes { self.delete(removal, &mut failed).await } else { false };
            bytes = bytes.saturating_add(if is_deleted || !self.yes { size } else { 0 });
            deleted += usize::from(is_deleted);
            (object["bytes"], object["deleted"]) = (json!(size), json!(is_deleted));
            objects.push(object);
        }
        if self.json {
            output::versioned(&json!({"runs": Value::from(objects), "bytes": bytes, "kept": kept.len()}))?;
        } else {
            table_with_numbers(&["RUN", "SUBMITTED", "FUNCTION", "WHERE", "ITEMS", "STATE", "FREES"], &[4, 6], &rows)?;
            self.print_summary(count, deleted, bytes);
            if !kept.is_empty() {
                output::note(&format!("{} kept:", counted(kept.len() as u64, "run is", "runs are")));
                for reason in reasons {
                    output::note(&format!("  {reason}"));
                }
            }
            self.scope.suggest(&["runs".to_owned()]);
        }
        failed.map_or(Ok(()), Err)
    }

    fn removals(&self) -> Result<Removals, Failure> {
        if self.runs.is_empty() && self.older_than.is_none() && self.keep.is_none() {
            let message =
                "cannot choose what to delete: no run is named, and neither `--older-than` nor `--keep` is given";
            return Err(Failure::new(exit::USAGE, message).with_hint(
                "`cargo knot clean --older-than 30d --keep 20` lists old runs, and deletes nothing without `--yes`",
            ));
        }
        let mut removals = self.runs.iter().fold(Removals::default(), Removals::run).keep(self.keep.unwrap_or(0));
        if let Some(age) = self.older_than {
            removals = removals.older_than(age);
        }
        Ok(if self.inputs_only { removals.inputs_only() } else { removals })
    }

    /// Deletes a run, and returns whether that succeeded. A failed deletion does not stop the others.
    async fn delete(&self, removal: Removal, failed: &mut Option<Failure>) -> bool {
        let Err(error) = removal.delete().await else { return true };
        if let Some(previous) = failed.replace(error.into()) {
            previous.report(self.json);
        }
        false
    }

    fn print_summary(&self, found: usize, deleted: usize, bytes: u64) {
        let what = if self.inputs_only { "the inputs of " } else { "" };
        if found == 0 {
            output::note("there are no such runs to delete");
        } else if self.yes {
            output::note(&format!("deleted {what}{}: {} freed", counted(deleted as u64, "run", "runs"), size(bytes)));
        } else {
            let runs = counted(found as u64, "run", "runs");
            output::note(&format!("nothing was deleted: --yes deletes {what}{runs}, and frees {}", size(bytes)));
        }
    }
}

fn row(removal: &Removal) -> Vec<String> {
    let summary = &removal.summary;
    let state = if removal.is_leftover { "incomplete" } else { state(summary) };
    let items = if summary.state.is_some() { number(summary.items.items) } else { "-".to_owned() };
    let submitted = summary.submitted.map_or_else(|| "-".to_owned(), when);
    vec![
        summary.word.clone(),
        submitted,
        function_name(summary).to_owned(),
        place(summary),
        items,
        state.to_owned(),
        size(removal.bytes),
    ]
}
