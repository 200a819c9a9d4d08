//! `cargo knot retry`: runs the items of a run without a value again.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use cargo_knot::exit;
use clap::Args;
use cloudknot::__private::{OrderEnd, OrderedRetry, OrderedTask, Report};
use cloudknot::look::{Items, Look, Retried, RunState, Summary};
use serde_json::json;

use crate::failure::Failure;
use crate::items::ItemsArgs;
use crate::output;
use crate::program::{CargoArgs, Program, carry_out, quiet};
use crate::scope::ScopeArgs;
use crate::shown::{counted, run_json, word_of};
use crate::status;

/// Options of `cargo knot retry`.
#[derive(Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    items: ItemsArgs,
    /// Run the image and the job definition of the last round, instead of those that are deployed now; only on AWS Batch
    #[arg(long)]
    old_code: bool,
    /// Memory of each job, such as "16 GiB"
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Timeout of one attempt of an item, such as "2h"
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Maximum number of retries of a failed item in this round
    #[arg(long, value_name = "NUMBER")]
    retries: Option<u32>,
    /// Run the items in a new run on another backend. For a run that is stored on AWS, this needs the Knot that is recorded here
    #[arg(long, value_name = "BACKEND", value_parser = ["local", "docker", "batch"], conflicts_with_all = ["old_code", "knot"])]
    on: Option<String>,
    /// Wait until the round has ended. On this machine, this is always so
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    cargo: CargoArgs,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Retry {
    pub(crate) async fn run(self) -> Result<u8, Failure> {
        let look = self.items.find(&self.scope).await?;
        let items = self.items.items();
        if let Some(why) = Self::nothing(&look, &items)? {
            return self.end(&look, 0, Some(&why));
        }
        if let Some(refusal) = self.refusal(&look, &items) {
            return Err(refusal);
        }
        match self.on.as_deref() {
            Some(on) => self.on_another(&look, &items, on).await,
            None if is_on_batch(&look) => self.on_batch(&look, &items).await,
            None => self.here(&look, &items).await,
        }
    }

    /// Returns the reason why the run cannot be retried in this way now.
    fn refusal(&self, look: &Look, items: &Items) -> Option<Failure> {
        let Summary { word, state, backend, .. } = look.summary();
        if self.on.is_some() && self.on == *backend {
            let message = "invalid option `--on`: the run is on this backend already";
            return Some(Failure::new(exit::USAGE, message).with_hint("leave it out to retry the items in this run"));
        }
        if state.is_some_and(RunState::is_end) {
            return None;
        }
        let cancel = self.scope.command(&format!("cancel {word}"));
        let Some(abandoned) = look.abandoned() else {
            let wait = self.scope.command(&format!("wait {word}"));
            return Some(
                Failure::new(exit::REFUSED, format!("cannot retry the run {word}: it has not ended"))
                    .with_hint(format!("`{wait}` waits for its end, and `{cancel}` ends it")),
            );
        };
        if is_on_batch(look) {
            let message = format!("cannot retry the run {word}: it has not ended, and {abandoned}");
            let hint = format!("`{cancel}` ends the run, which can be retried then");
            return Some(Failure::new(exit::REFUSED, message).with_hint(hint));
        }
        // On this machine, the program continues such a run.
        if items.is_all() && !self.has_options() {
            return None;
        }
        let message = format!(
            "cannot retry some items of the run {word}, or with other options: it has not ended, although no program computes it"
        );
        let retry = self.scope.command(&format!("retry {word}"));
        Some(Failure::new(exit::REFUSED, message).with_hint(format!(
            "`{retry}` computes all remaining items; `{cancel}` ends the run, which can be retried then"
        )))
    }

    /// Returns whether the next round shall have options of its own.
    fn has_options(&self) -> bool {
        self.memory.is_some() || self.timeout.is_some() || self.retries.is_some() || self.on.is_some()
    }

    /// Returns the reason why there is nothing to retry, if this is so.
    fn nothing(look: &Look, items: &Items) -> Result<Option<String>, Failure> {
        let Summary { word, items: counts, .. } = look.summary();
        let selected = look.select(items)?;
        if items.is_all() {
            let is_done = counts.succeeded == counts.items;
            return Ok(is_done.then(|| format!("every item of run {word} has a value")));
        }
        Ok(selected.is_empty().then(|| format!("no item of run {word} has failed in this way")))
    }

    async fn on_batch(&self, look: &Look, items: &Items) -> Result<u8, Failure> {
        let retried = self.begin(look, items).await?;
        if self.wait {
            let ended = retried.finished().await?;
            return self.end(&ended, retried.items(), None);
        }
        let after = look.again().await?;
        self.print(&after, retried.items(), None)?;
        Ok(exit::DONE)
    }

    async fn begin(&self, look: &Look, items: &Items) -> Result<Retried, Failure> {
        let mut retry = look.retry();
        if !items.is_all() {
            retry = retry.items(items)?;
        }
        if let Some(memory) = &self.memory {
            retry = retry.memory(memory);
        }
        if let Some(timeout) = self.timeout {
            retry = retry.timeout(timeout);
        }
        if let Some(retries) = self.retries {
            retry = retry.retries(retries);
        }
        if self.old_code {
            retry = retry.old_code();
        }
        Ok(retry.await?)
    }

    /// Retries a run on this machine: its program is built as it is now, and computes the items.
    async fn here(&self, look: &Look, items: &Items) -> Result<u8, Failure> {
        let word = &look.summary().word;
        if self.old_code {
            let backend = look.summary().backend.as_deref().unwrap_or("local");
            let message = format!(
                "cannot retry the run {word} with its old code: the backend `{backend}` does not keep the program"
            );
            return Err(Failure::new(exit::USAGE, message).with_hint(
                "check out the earlier source, and retry without --old-code: the program is built from there",
            ));
        }
        let (_, end) = self.by_program(look, items, None).await?;
        self.end(&look.again().await?, end.ran, None)
    }

    /// Has the program submit a new run of the items on another backend.
    async fn on_another(&self, look: &Look, items: &Items, on: &str) -> Result<u8, Failure> {
        let (run, end) = self.by_program(look, items, Some(on)).await?;
        let word = &look.summary().word;
        let new = run.as_deref().map_or("none", word_of);
        if self.json {
            output::versioned(&json!({"run": run, "word": new, "parent": look.id(), "retried": end.ran}))?;
        } else {
            let items = counted(end.ran, "item", "items");
            output::lines([format!("{new}  a new run of {items} of {word}, on the backend `{on}`")])?;
            ScopeArgs::default().suggest(&[format!("status {new}"), format!("wait {new}")]);
        }
        let is_over = self.wait || on != "batch";
        Ok(if is_over && end.failed > 0 { exit::ITEMS_FAILED } else { exit::DONE })
    }

    /// Builds the program of the run as it is now, and has it retry the run. Returns the run that computes the items.
    async fn by_program(
        &self,
        look: &Look,
        items: &Items,
        on: Option<&str>,
    ) -> Result<(Option<String>, OrderEnd), Failure> {
        let of = look.program()?;
        let ranges = |ranges: Vec<RangeInclusive<u64>>| -> Vec<Range<u64>> {
            ranges.into_iter().map(|range| *range.start()..range.end() + 1).collect()
        };
        let items = if items.is_all() { None } else { Some(ranges(look.select(items)?)) };
        let program = Program::of_run(&of, None, self.cargo, self.json).await?;
        let mut command = program.command(OrderedTask::Retry(OrderedRetry {
            run: look.id().to_owned(),
            function: of.function,
            backend: look.summary().backend.clone().unwrap_or_default(),
            home: look.home().filter(|_| look.summary().backend.as_deref() != Some("docker")),
            on: on.map(str::to_owned),
            waits: self.wait || on != Some("batch"),
            items,
            memory: self.memory.clone(),
            timeout_ms: self.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            retries: self.retries,
        }));
        if self.json {
            quiet(&mut command);
        }
        let mut run = None;
        let end = carry_out(command, |report| {
            // The program shows its progress itself.
            if let Report::Run(id) = report {
                run = Some(id);
            }
            Ok(())
        })
        .await?;
        Ok((run, end))
    }

    /// Prints the run after the round, and returns the exit code.
    fn end(&self, look: &Look, retried: u64, nothing: Option<&str>) -> Result<u8, Failure> {
        self.print(look, retried, nothing)?;
        Ok(if nothing.is_some() { exit::DONE } else { status::code(look.summary()) })
    }

    fn print(&self, look: &Look, retried: u64, nothing: Option<&str>) -> Result<(), Failure> {
        let summary = look.summary();
        if self.json {
            let mut run = run_json(summary);
            run["retried"] = json!(retried);
            return Ok(output::versioned(&run)?);
        }
        let counts = status::counts(summary);
        let text = match nothing {
            Some(why) => format!("{}  nothing to retry: {why}", summary.word),
            None => {
                format!("{}  {}; now {counts}", summary.word, counted(retried, "item is retried", "items are retried"))
            }
        };
        output::lines([text])?;
        self.scope.suggest(&status::next(look));
        Ok(())
    }
}

fn is_on_batch(look: &Look) -> bool {
    look.summary().backend.as_deref() == Some("batch")
}
