//! `cargo knot logs`: what the items of a run printed.

use std::time::{Duration, SystemTime};

use cargo_knot::exit;
use clap::Args;
use cloudknot::ErrorKind;
use cloudknot::look::{LogEntry, LogLine, LogQuery, RunState, Summary};
use serde_json::json;

use crate::failure::Failure;
use crate::items::ItemsArgs;
use crate::output;
use crate::patience::through_outages;
use crate::scope::ScopeArgs;
use crate::shown::rfc3339;

/// Options of `cargo knot logs`.
#[derive(Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    items: ItemsArgs,
    /// Go on with new lines until the run has ended
    #[arg(short, long)]
    follow: bool,
    /// Only lines of this last period, such as "2h"
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Only the last lines, of those that are otherwise selected
    #[arg(long, value_name = "NUMBER")]
    tail: Option<usize>,
    /// Only lines that contain this text
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Print the time of each line, in UTC
    #[arg(long)]
    timestamps: bool,
    /// Only the lines of this attempt of each item, from 1
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: Option<u32>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Print a JSON object for each line instead of text
    #[arg(long)]
    json: bool,
}

impl Logs {
    pub(crate) async fn run(self) -> Result<u8, Failure> {
        let look = self.items.find(&self.scope).await?;
        let mut logs = look.logs(self.query()).await?;
        while let Some(entry) = logs.next().await {
            match entry? {
                LogEntry::Line(line) => output::item_line(&self.shown(&line))?,
                LogEntry::Note(note) => output::remark(&note, self.json),
                _ => {}
            }
        }
        if !self.follow {
            if !self.json {
                self.scope.suggest(&next(look.summary()));
            }
            return Ok(exit::DONE);
        }
        let has_ended = async || match look.again().await {
            // It was deleted meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            looked => Ok(looked?.summary().state.is_none_or(RunState::is_end)),
        };
        let has_ended = through_outages(has_ended, |note| output::remark(note, self.json)).await?;
        Ok(if has_ended { exit::DONE } else { exit::NOT_ENDED })
    }

    fn query(&self) -> LogQuery {
        let mut query = LogQuery::new().items(self.items.items());
        if let Some(period) = self.since {
            // A period that is longer than the time since 1970 selects all lines.
            query = query.since(SystemTime::now().checked_sub(period).unwrap_or(SystemTime::UNIX_EPOCH));
        }
        if let Some(lines) = self.tail {
            query = query.tail(lines);
        }
        if let Some(text) = &self.grep {
            query = query.containing(text);
        }
        if let Some(number) = self.attempt {
            query = query.attempt(number);
        }
        if self.follow { query.follow() } else { query }
    }

    fn shown(&self, line: &LogLine) -> String {
        let LogLine { item, attempt, round, time, text, .. } = line;
        if self.json {
            let line = json!({"item": item, "attempt": attempt, "round": round, "time": rfc3339(*time), "text": text});
            return line.to_string();
        }
        let time = if self.timestamps { format!("{} ", rfc3339(*time)) } else { String::new() };
        let prefix = match item.zip(*attempt) {
            Some((item, attempt)) => format!("[item {item}, attempt {attempt}] "),
            None => String::new(),
        };
        format!("{time}{prefix}{text}")
    }
}

/// Returns the commands that help next.
fn next(summary: &Summary) -> Vec<String> {
    let word = &summary.word;
    let goes_on = summary.state.is_none_or(|state| !state.is_end());
    let follow = goes_on.then(|| format!("logs {word} --follow"));
    std::iter::once(format!("status {word}")).chain(follow).collect()
}
