//! The display: lines, the bars of the runs, and the bar of an image push. Used by the thread that prints, and by no other.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use indicatif::{
    DecimalBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};

use super::queue::Measured;
use super::{print, say};

/// Message for the thread that prints.
#[derive(Debug)]
pub(super) enum Message {
    /// A line, above the bar of this run.
    Line { run: Option<String>, line: String },
    /// Output of a function, above the bar of its run.
    Log { run: String, text: Vec<u8> },
    /// A run begins.
    Started { run: String, function: String, backend: String, items: u64, done: u64 },
    /// A run made progress.
    Progress { run: String, done: u64, failed: u64 },
    /// The bar of a run ends, and these lines follow.
    Ended { run: String, lines: Vec<String> },
    /// An image is being pushed.
    Pushing { repository: String, sent: u64, bytes: u64 },
    /// A push ended.
    PushFinished { repository: String, sent: Option<u64> },
}

impl Measured for Message {
    fn bytes(&self) -> usize {
        match self {
            Self::Log { text, .. } => text.len(),
            Self::Line { line, .. } => line.len(),
            _ => 0,
        }
    }
}

/// The runs that are shown, by ID, and the image push.
#[derive(Debug)]
pub(super) struct Display {
    with_bars: bool,
    runs: HashMap<String, ShownRun>,
    /// The progress bar of the image push, and the time of the last progress line if there is no bar.
    push: Option<(Option<ProgressBar>, Instant)>,
}

/// A run that is shown.
#[derive(Debug)]
struct ShownRun {
    function: String,
    items: u64,
    bar: Option<ProgressBar>,
    /// Time of the last line of plain progress.
    last_line: Instant,
}

/// Interval between two lines of plain progress.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

impl Display {
    pub(super) fn new(with_bars: bool) -> Self {
        Self { with_bars, runs: HashMap::new(), push: None }
    }

    pub(super) fn show(&mut self, message: Message) {
        match message {
            Message::Line { run, line } => self.above_bar(run.as_deref(), || say(&line)),
            // Written as it is: the output belongs to the user's program, which may use colours.
            Message::Log { run, text } => self.above_bar(Some(&run), || print(&text)),
            Message::Started { run, function, backend, items, done } => {
                let resumed =
                    if done > 0 { format!(", {} of them done before", HumanCount(done)) } else { String::new() };
                say(&format!("{function} over {} {backend}{resumed} (run {run})", counted(items, "input")));
                self.runs.insert(run, ShownRun::new(function, items, done, self.with_bars));
            }
            Message::Progress { run, done, failed } => {
                if let Some(shown) = self.runs.get_mut(&run) {
                    shown.progress(done, failed);
                }
            }
            Message::Ended { run, lines } => {
                let bar = self.runs.remove(&run).and_then(|shown| shown.bar);
                bar.iter().for_each(ProgressBar::finish_and_clear);
                for line in &lines {
                    say(line);
                }
            }
            Message::Pushing { repository, sent, bytes } => self.pushing(&repository, sent, bytes),
            Message::PushFinished { repository, sent } => self.pushed(&repository, sent),
        }
    }

    /// Writes something while the bar of the run is hidden; without a run, that of the image push.
    fn above_bar(&self, run: Option<&str>, write: impl FnOnce()) {
        let bar = match run {
            Some(run) => self.runs.get(run).and_then(|shown| shown.bar.as_ref()),
            None => self.push.as_ref().and_then(|(bar, _)| bar.as_ref()),
        };
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn pushing(&mut self, repository: &str, sent: u64, bytes: u64) {
        let with_bars = self.with_bars;
        let (bar, last_line) = self.push.get_or_insert_with(|| {
            say(&format!("pushing {} to {repository}", DecimalBytes(bytes)));
            let style = ProgressStyle::with_template("{bar:30} {decimal_bytes}/{decimal_total_bytes}{left}");
            let style = style.expect("the template is well-formed").with_key("left", show_left);
            let bar = || ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr_with_hz(10));
            (with_bars.then(|| bar().with_style(style)), Instant::now())
        });
        if let Some(bar) = bar {
            bar.set_position(sent);
        } else if last_line.elapsed() >= PLAIN_INTERVAL {
            *last_line = Instant::now();
            say(&format!("pushing to {repository}: {} of {}", DecimalBytes(sent), DecimalBytes(bytes)));
        }
    }

    fn pushed(&mut self, repository: &str, sent: Option<u64>) {
        if let Some((Some(bar), _)) = self.push.take() {
            bar.finish_and_clear();
        }
        match sent {
            // The caller of the push reports the error.
            None => {}
            Some(0) => say(&format!("all layers already exist in {repository}: nothing was sent")),
            Some(sent) => say(&format!("pushed to {repository}: {} sent", DecimalBytes(sent))),
        }
    }
}

impl ShownRun {
    fn new(function: String, items: u64, done: u64, bar: bool) -> Self {
        let bar = bar.then(|| {
            let bar = ProgressBar::with_draw_target(Some(items), ProgressDrawTarget::stderr_with_hz(10));
            let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len}{msg}{rate}{left}");
            let style = style.expect("the template is well-formed");
            bar.set_style(style.with_key("rate", show_rate).with_key("left", show_left));
            bar.with_position(done).with_elapsed(Duration::ZERO)
        });
        if let Some(bar) = &bar {
            // The bar is not drawn at each change, so a tick redraws it: it must not keep showing an outdated position.
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { function, items, bar, last_line: Instant::now() }
    }

    fn progress(&mut self, done: u64, failed: u64) {
        let failures = if failed > 0 { format!(", {} failed", HumanCount(failed)) } else { String::new() };
        if let Some(bar) = &self.bar {
            if failed > 0 {
                bar.set_message(failures);
            }
            bar.set_position(done + failed);
        } else if self.last_line.elapsed() >= PLAIN_INTERVAL && done + failed < self.items {
            self.last_line = Instant::now();
            say(&format!("{}: {} of {} done{failures}", self.function, HumanCount(done), HumanCount(self.items)));
        }
    }
}

/// Writes the rate, per minute or per hour if it is low. Writes nothing while the rate is unknown.
fn show_rate(state: &ProgressState, out: &mut dyn fmt::Write) {
    let rate = state.per_sec();
    // If writing fails, the bar is redrawn soon anyway.
    let _ = match rate {
        _ if !rate.is_normal() => Ok(()),
        10.0.. => write!(out, ", {rate:.0}/s"),
        1.0.. => write!(out, ", {rate:.1}/s"),
        _ if rate * 60.0 >= 1.0 => write!(out, ", {:.1}/min", rate * 60.0),
        _ => write!(out, ", {:.1}/h", rate * 3600.0),
    };
}

fn show_left(state: &ProgressState, out: &mut dyn fmt::Write) {
    let remaining = state.eta();
    if remaining.as_secs() > 0 {
        // As in `show_rate`.
        let _ = write!(out, ", {} left", HumanDuration(remaining));
    }
}

pub(super) fn in_short(duration: Duration) -> String {
    match duration.as_millis() {
        millis @ 0..1_000 => format!("{millis} ms"),
        millis @ 1_000..60_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        _ => HumanDuration(duration).to_string(),
    }
}

fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", HumanCount(number), if number == 1 { "" } else { "s" })
}
