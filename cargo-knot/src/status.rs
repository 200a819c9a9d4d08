//! `cargo knot status`: one run, with its speed, times, memory and failures.

use std::time::{Duration, Instant};

use cargo_knot::exit;
use clap::Args;
use cloudknot::look::{Details, Distribution, FailureGroup, Look, Measured, RunState, Summary, failure_lines};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::{self, Screen};
use crate::patience::{Patience, through_outages};
use crate::scope::RunArgs;
use crate::shown::{counted, duration, function_name, now, number, run_json, size, state, when};

/// Shortest interval between two looks at a run on this machine.
const LOCAL_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest interval between two looks at a run on AWS, each of which is up to 300 requests.
const CLOUD_INTERVAL: Duration = Duration::from_secs(10);
/// Number of times that a look fits at least into the interval.
const PART_OF_INTERVAL: u32 = 5;
/// Maximum number of causes of failures that are shown.
const MAX_CAUSES: usize = 10;

/// Options of `cargo knot status`.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each bool is a command-line flag")]
pub(crate) struct Status {
    #[command(flatten)]
    of: RunArgs,
    /// Exit with 11 if the run has not ended, and with 10 if it has ended and items have no value
    #[arg(long)]
    check: bool,
    /// Read the measurements of all items, not only of a sample
    #[arg(long)]
    exact: bool,
    /// Show the run until it has ended: at a terminal in place, otherwise a line for each change
    #[arg(long)]
    watch: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(crate) async fn run(self) -> Result<u8, Failure> {
        let look = self.of.look().await?;
        let (look, details) = if self.watch {
            self.watch(look).await?
        } else {
            let details = look.details(self.exact).await?;
            (look, details)
        };
        if !self.json {
            output::lines(lines(&details))?;
            self.of.scope().suggest(&next(&look));
        } else if !self.watch {
            output::versioned(&as_json(&details))?;
        }
        Ok(if self.check { code(&details.summary) } else { exit::DONE })
    }
}

/// The run on the screen or in a stream, while it goes on.
enum Watched {
    Screen(Screen),
    /// Lines that are printed if they differ from the last one.
    Lines(Option<String>),
    /// A JSON object for each look.
    Json,
}

impl Watched {
    fn show(&mut self, details: &Details) -> Result<(), Failure> {
        match self {
            Self::Screen(screen) => screen.show(&lines(details))?,
            Self::Lines(last) => {
                let counts = counts(&details.summary);
                if last.replace(counts.clone()).as_ref() != Some(&counts) {
                    let speed = speed(details).map(|speed| format!(" ({speed})")).unwrap_or_default();
                    output::lines([format!("{}  {} {}{speed}", details.summary.word, now(), items_line(details))])?;
                }
            }
            Self::Json => output::versioned(&as_json(details))?,
        }
        Ok(())
    }

    /// Prints a sentence below what is shown, which stays there.
    fn note(&mut self, note: &str) {
        if let Self::Screen(screen) = self {
            screen.keep();
        }
        output::remark(note, matches!(self, Self::Json));
    }
}

impl Status {
    /// Shows the run until it has ended, or nothing computes it. Returns what was seen last.
    async fn watch(&self, mut look: Look) -> Result<(Look, Details), Failure> {
        let mut watched = match Screen::of_stdout() {
            _ if self.json => Watched::Json,
            Some(screen) => Watched::Screen(screen),
            None => Watched::Lines(None),
        };
        let mut patience = Patience::default();
        loop {
            let began = Instant::now();
            let details = through_outages(async || look.details(self.exact).await, |note| watched.note(note)).await?;
            let is_over = patience.is_over(&look);
            if is_over && let Watched::Screen(screen) = &mut watched {
                screen.clear()?;
                return Ok((look, details));
            }
            watched.show(&details)?;
            if is_over {
                return Ok((look, details));
            }
            let shortest = if details.summary.region.is_some() { CLOUD_INTERVAL } else { LOCAL_INTERVAL };
            tokio::time::sleep(shortest.max(began.elapsed() * PART_OF_INTERVAL)).await;
            look = through_outages(async || look.again().await, |note| watched.note(note)).await?;
        }
    }
}

/// Returns the exit code that states whether the run has ended, and how.
pub(crate) fn code(summary: &Summary) -> u8 {
    match summary.state {
        Some(RunState::Done) => exit::DONE,
        Some(state) if state.is_end() => exit::ITEMS_FAILED,
        _ => exit::NOT_ENDED,
    }
}

/// Returns the commands that help next.
pub(crate) fn next(look: &Look) -> [String; 2] {
    let summary = look.summary();
    let word = &summary.word;
    let failed = format!("logs {word} --failed");
    let of_run = |verb: &str| format!("{verb} {word}");
    match summary.state {
        Some(RunState::Done) => [of_run("results"), of_run("clean")],
        Some(state) if state.is_end() && summary.items.failed > 0 => [failed, of_run("retry")],
        Some(state) if state.is_end() => [of_run("retry"), of_run("results")],
        // On AWS Batch, only a program can submit the jobs of a run that has not ended.
        _ if look.abandoned().is_some() && summary.region.is_some() => [of_run("logs"), of_run("cancel")],
        _ if look.abandoned().is_some() => [of_run("retry"), of_run("cancel")],
        _ => [of_run("wait"), of_run("cancel")],
    }
}

fn lines(details: &Details) -> Vec<String> {
    let mut lines = vec![title(details), format!("items    {}", items_line(details))];
    let Measured { time, memory, .. } = &details.measured;
    lines.extend(speed(details).map(|speed| format!("speed    {speed}")));
    lines.extend(time.map(|time| format!("time     {}", distribution(&time, duration))));
    lines.extend(memory.iter().flat_map(|memory| memory_lines(memory, details)));
    lines.extend(sample(details));
    if let Some(why) = &details.waiting_because {
        lines.push(format!("waiting  {why}"));
    }
    lines.extend(failures(details));
    lines
}

fn title(details: &Details) -> String {
    let summary = &details.summary;
    let name = summary.name.as_ref().map(|name| format!("“{name}”, ")).unwrap_or_default();
    let by = details.user.as_ref().map(|user| format!(" by {user}")).unwrap_or_default();
    let at = summary.submitted.map(|time| format!(", {}", when(time))).unwrap_or_default();
    format!(
        "{}  {name}{} over {}, {}{at}{by}",
        summary.word,
        function_name(summary),
        counted(summary.items.items, "input", "inputs"),
        where_it_runs(summary)
    )
}

fn where_it_runs(summary: &Summary) -> String {
    match summary.backend.as_deref() {
        Some("batch") => {
            format!("on AWS Batch (Knot {}, {})", summary.knot, summary.region.as_deref().unwrap_or("unknown region"))
        }
        Some("docker") => "in containers on this machine".to_owned(),
        _ => "on this machine".to_owned(),
    }
}

fn items_line(details: &Details) -> String {
    format!("{}: {}", state_words(details), counts(&details.summary))
}

/// Returns how fast the run goes on; `None` if it has ended.
fn speed(details: &Details) -> Option<String> {
    let summary = &details.summary;
    let of = &summary.items;
    if of.items == 0 || summary.state.is_none_or(RunState::is_end) {
        return None;
    }
    let percent = format!("{} %", (of.succeeded + of.failed) * 100 / of.items);
    let rate = |rate: f64| if rate < 1.0 { format!("{:.1}/min", rate * 60.0) } else { format!("{rate:.1}/s") };
    // An estimate is not exact to fractions of a second.
    let left = |left: Duration| format!("about {} left", duration(Duration::from_secs(left.as_secs() + 1)));
    Some(
        [Some(percent), details.rate.map(rate), details.left.map(left)]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(", "),
    )
}

/// Returns the number of items in each state that there are.
pub(crate) fn counts(summary: &Summary) -> String {
    let of = &summary.items;
    let counts = [
        (of.succeeded, "done"),
        (of.failed, "failed"),
        (of.running, "running"),
        (of.waiting, "waiting"),
        (of.unfinished, "unfinished"),
    ];
    let shown = counts.iter().filter(|(count, word)| *count > 0 || *word == "done");
    shown.map(|(count, word)| format!("{} {word}", number(*count))).collect::<Vec<_>>().join(", ")
}

fn state_words(details: &Details) -> String {
    let took = details.summary.duration().filter(|_| details.summary.state.is_some_and(RunState::is_end));
    let took = took.map(|took| format!(" after {}", duration(took))).unwrap_or_default();
    let because = details.cancelled_because.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    format!("{}{took}{because}", state(&details.summary))
}

fn distribution<T: Copy>(of: &Distribution<T>, shown: impl Fn(T) -> String) -> String {
    format!("{} median, {} for 95 %, {} most (item {})", shown(of.median), shown(of.p95), shown(of.max), of.max_item)
}

/// Returns from how many items the measurements are, unless these are all.
fn sample(details: &Details) -> Option<String> {
    let (read, all) = (details.measured.items, details.summary.items.succeeded);
    (read < all).then(|| format!("{:9}from {} of {} items; --exact reads all", "", number(read), number(all)))
}

/// Returns the peak memory, with all that keeps it from being what the items need.
fn memory_lines(memory: &Distribution<u64>, details: &Details) -> Vec<String> {
    let asked = details.memory_asked.map(|asked| format!(", of {} asked for", size(asked))).unwrap_or_default();
    let measured = &details.measured;
    let mut limits = Vec::new();
    if measured.bounded > 0 {
        limits.push(format!("upper bounds for {}", counted(measured.bounded, "item", "items")));
    }
    if measured.unknown > 0 {
        limits.push(format!("unknown for {}", counted(measured.unknown, "item", "items")));
    }
    if details.failures.iter().any(is_out_of_memory) {
        limits.push("items that ran out of memory needed more".to_owned());
    }
    let limits = (!limits.is_empty()).then(|| format!("{:9}{}", "", limits.join(", ")));
    std::iter::once(format!("memory   {}{asked}", distribution(memory, size))).chain(limits).collect()
}

fn is_out_of_memory(group: &FailureGroup) -> bool {
    group.kind == cloudknot::ItemErrorKind::OutOfMemory
}

/// Returns the failures by cause, as the program's own terminal shows them.
fn failures(details: &Details) -> impl Iterator<Item = String> {
    let labels = std::iter::once("failed").chain(std::iter::repeat(""));
    labels.zip(failure_lines(&details.failures, MAX_CAUSES)).map(|(label, line)| format!("{label:<7}  {line}"))
}

fn as_json(details: &Details) -> Value {
    let mut object = run_json(&details.summary);
    let measured = &details.measured;
    let seconds = |time: Duration| json!(time.as_secs_f64());
    let failures: Vec<Value> = details.failures.iter().map(group_json).collect();
    object["user"] = json!(details.user);
    object["rate"] = json!(details.rate);
    object["seconds_left"] = json!(details.left.map(|left| left.as_secs_f64()));
    object["measured"] = json!(measured.items);
    object["time"] = measured.time.map_or(Value::Null, |time| distribution_json(&time, seconds));
    object["memory"] = measured.memory.map_or(Value::Null, |memory| memory_json(&memory, details));
    object["failures"] = Value::from(failures);
    object["waiting_because"] = json!(details.waiting_because);
    object["cancelled_because"] = json!(details.cancelled_because);
    object
}

fn distribution_json<T: Copy>(of: &Distribution<T>, value: impl Fn(T) -> Value) -> Value {
    json!({"median": value(of.median), "p95": value(of.p95), "max": value(of.max), "max_item": of.max_item})
}

fn memory_json(memory: &Distribution<u64>, details: &Details) -> Value {
    let mut object = distribution_json(memory, |bytes| json!(bytes));
    object["asked"] = json!(details.memory_asked);
    object["upper_bounds"] = json!(details.measured.bounded);
    object["unknown"] = json!(details.measured.unknown);
    object
}

fn group_json(group: &FailureGroup) -> Value {
    let items: Vec<_> = group.items.iter().map(|range| [*range.start(), *range.end()]).collect();
    json!({
        "kind": group.kind.name(),
        "message": group.message,
        "place": group.place,
        "count": group.count,
        "items": items,
    })
}
