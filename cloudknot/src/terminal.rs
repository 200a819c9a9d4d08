//! The terminal's hook, installed by `#[cloudknot::main]` and `cargo knot`. It shows where a map runs, its progress, its
//! failures, and the progress of an image push. All output goes to stderr; stdout belongs to the program.

use std::collections::HashMap;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, Once};
use std::time::{Duration, Instant};

use cloudknot_runtime::contract::ENV_PROGRESS;
use cloudknot_runtime::engine;
use cloudknot_runtime::failure::ItemError;
use indicatif::{
    DecimalBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::event::{Event, Hook, set_hook, stop_all};

/// Installs the hook, unless `CLOUDKNOT_PROGRESS` is `off`.
pub(crate) fn install() {
    let setting = std::env::var(ENV_PROGRESS).unwrap_or_default();
    let bar = match setting.as_str() {
        "off" => return,
        "bar" => true,
        "plain" => false,
        _ => std::io::stderr().is_terminal(),
    };
    if !matches!(setting.as_str(), "" | "bar" | "plain") {
        say(&format!("invalid {ENV_PROGRESS} `{setting}`: must be off, plain or bar"));
    }
    set_hook(Some(Box::new(Terminal { bar, display: Arc::default() })));
}

struct Terminal {
    bar: bool,
    display: Arc<Mutex<Display>>,
}

/// The runs that are shown, by ID, and the image push.
#[derive(Default)]
struct Display {
    runs: HashMap<String, ShownRun>,
    interrupted: bool,
    /// The progress bar of the image push, and the time of the last progress line if there is no bar.
    push: Option<(Option<ProgressBar>, Instant)>,
}

/// A run that is shown.
struct ShownRun {
    function: String,
    items: u64,
    done: u64,
    failed: u64,
    listed_failures: u32,
    bar: Option<ProgressBar>,
    /// Time of the last line of plain progress.
    last_line: Instant,
}

/// Maximum number of failures of a run that are shown individually.
const MAX_SHOWN_FAILURES: u32 = 10;
/// Interval between two lines of plain progress.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum time that an interrupted program waits for finished items to be stored; a container has 30 seconds to store
/// them.
const INTERRUPT_TIMEOUT: Duration = Duration::from_secs(40);

impl Hook for Terminal {
    fn report(&self, event: &Event<'_>) {
        let mut display = lock(&self.display);
        match *event {
            Event::Started { run, function, backend, items, done } => {
                let resumed =
                    if done > 0 { format!(", {} of them done before", HumanCount(done)) } else { String::new() };
                say(&format!("{function} over {} {backend}{resumed} (run {run})", counted(items, "input")));
                display.runs.insert(run.to_owned(), ShownRun::new(function, items, done, self.bar));
                drop(display);
                handle_interrupts(&self.display);
            }
            Event::Progress { run, done, failed } => display.with(run, |shown| shown.progress(done, failed)),
            Event::Failed { run, item, error, last } => display.with(run, |shown| shown.failure(item, error, last)),
            Event::Log { run, text } => display.with(run, |shown| shown.print(text)),
            Event::Waiting { run, since, reason } => display.with(run, |shown| {
                shown.say(&format!("{}: nothing has run for {}: {reason}", shown.function, in_short(since)));
            }),
            Event::Finished { run, done, failed, unfinished, reason, elapsed } => {
                let interrupted = display.interrupted && unfinished > 0;
                if let Some(shown) = display.runs.remove(run) {
                    if interrupted {
                        shown.interrupted(run, done, reason);
                    } else {
                        shown.finish(run, done, failed, unfinished, reason, elapsed);
                    }
                }
                drop(display);
                // Never returns, so that the program does not handle the end of the run: the program is about to exit.
                if interrupted {
                    loop {
                        std::thread::park();
                    }
                }
            }
            Event::Pushing { repository, sent, bytes } => display.pushing(self.bar, repository, sent, bytes),
            Event::PushFinished { repository, sent } => display.pushed(repository, sent),
            Event::Step { action } => say(action),
            Event::Resource { resource, kind, status, reason, .. } => {
                let status = status.to_lowercase().replace('_', " ");
                let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                say(&format!("  {resource} ({kind}) {status}{reason}"));
            }
            Event::Retrying { action, reason, wait } => {
                let line = format!("cannot {action}: {reason}; retrying in {}", in_short(wait));
                match &display.push {
                    Some((Some(bar), _)) => bar.suspend(|| say(&line)),
                    _ => say(&line),
                }
            }
        }
    }
}

impl Display {
    fn with(&mut self, run: &str, f: impl FnOnce(&mut ShownRun)) {
        if let Some(shown) = self.runs.get_mut(run) {
            f(shown);
        }
    }

    fn pushing(&mut self, with_bar: bool, repository: &str, sent: u64, bytes: u64) {
        let (bar, last_line) = self.push.get_or_insert_with(|| {
            say(&format!("pushing {} to {repository}", DecimalBytes(bytes)));
            let style = ProgressStyle::with_template("{bar:30} {decimal_bytes}/{decimal_total_bytes}{left}");
            let style = style.expect("the template is well-formed").with_key("left", show_left);
            let bar = || ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr_with_hz(10));
            (with_bar.then(|| bar().with_style(style)), Instant::now())
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
    fn new(function: &str, items: u64, done: u64, bar: bool) -> Self {
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
        Self {
            function: function.to_owned(),
            items,
            done,
            failed: 0,
            listed_failures: 0,
            bar,
            last_line: Instant::now(),
        }
    }

    fn progress(&mut self, done: u64, failed: u64) {
        (self.done, self.failed) = (done, failed);
        if let Some(bar) = &self.bar {
            if failed > 0 {
                bar.set_message(format!(", {} failed", HumanCount(failed)));
            }
            bar.set_position(done + failed);
        } else if self.last_line.elapsed() >= PLAIN_INTERVAL && done + failed < self.items {
            self.last_line = Instant::now();
            let failed = if failed > 0 { format!(", {} failed", HumanCount(failed)) } else { String::new() };
            say(&format!("{}: {} of {} done{failed}", self.function, HumanCount(done), HumanCount(self.items)));
        }
    }

    fn failure(&mut self, item: u64, error: &ItemError, last: bool) {
        self.listed_failures += 1;
        if self.listed_failures > MAX_SHOWN_FAILURES {
            return;
        }
        let retry = if last { String::new() } else { format!(" (attempt {}; retrying)", error.attempt()) };
        self.say(&format!("{}: item {item} {error}{retry}", self.function));
        if self.listed_failures == MAX_SHOWN_FAILURES {
            self.say(&format!("{}: further failures are counted but not shown", self.function));
        }
    }

    fn print(&self, text: &[u8]) {
        let write = || {
            // If stderr is closed, the error cannot be reported anywhere.
            let _ = std::io::stderr().write_all(text);
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(line)),
            None => say(line),
        }
    }

    fn finish(self, run: &str, done: u64, failed: u64, unfinished: u64, reason: Option<&str>, elapsed: Duration) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
        let nonzero =
            |number, what| if number > 0 { format!(", {} {what}", HumanCount(number)) } else { String::new() };
        let (failed, unfinished_part) = (nonzero(failed, "failed"), nonzero(unfinished, "unfinished"));
        let counts = format!("{} of {} done{failed}{unfinished_part}", HumanCount(done), HumanCount(self.items));
        say(&format!("{}: {counts}, in {} (run {run})", self.function, in_short(elapsed)));
        if let Some(reason) = reason.filter(|_| unfinished > 0) {
            say(&format!("{}: {reason}", self.function));
        }
    }

    fn interrupted(&self, run: &str, done: u64, reason: Option<&str>) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
        say(&format!("interrupted: {} of {} done and kept", HumanCount(done), HumanCount(self.items)));
        // The reason is omitted if it is the interrupt itself.
        if let Some(reason) = reason.filter(|reason| !reason.starts_with("the run was ")) {
            say(&format!("{}: {reason}", self.function));
        }
        say(&format!("continue with `{}.attach(\"{run}\")`", self.function));
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

fn in_short(duration: Duration) -> String {
    match duration.as_millis() {
        millis @ 0..1_000 => format!("{millis} ms"),
        millis @ 1_000..60_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        _ => HumanDuration(duration).to_string(),
    }
}

fn say(line: &str) {
    // If stderr is closed, the error cannot be reported anywhere.
    let _ = writeln!(std::io::stderr(), "cloudknot: {line}");
}

fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", HumanCount(number), if number == 1 { "" } else { "s" })
}

/// Handles Ctrl-C, which ends the program and its item processes: stores the finished items first, and prints what is
/// kept and how to resume.
fn handle_interrupts(display: &Arc<Mutex<Display>>) {
    static ONCE: Once = Once::new();
    let display = Arc::clone(display);
    ONCE.call_once(|| {
        // Registered before the task starts: the user may press Ctrl-C as soon as the start of a run is shown.
        let mut interrupts = match engine::enter(|| signal(SignalKind::interrupt())) {
            Ok(interrupts) => interrupts,
            Err(error) => return say(&format!("cannot listen for Ctrl-C: {error}")),
        };
        engine::spawn(async move {
            interrupts.recv().await;
            lock(&display).interrupted = true;
            stop_all();
            tokio::select! {
                () = wait_for_runs(&display) => {}
                // A second Ctrl-C ends the program at once.
                _ = interrupts.recv() => {}
            }
            for (run, shown) in &lock(&display).runs {
                shown.interrupted(run, shown.done, None);
            }
            // The keepers of the item processes end them, and everything that they started, once this program has ended.
            // The exit code that a shell expects of a program ended by Ctrl-C.
            std::process::exit(128 + 2);
        });
    });
}

async fn wait_for_runs(display: &Mutex<Display>) {
    let began = Instant::now();
    let mut hint_shown = false;
    while !lock(display).runs.is_empty() && began.elapsed() < INTERRUPT_TIMEOUT {
        if !hint_shown && began.elapsed() > Duration::from_secs(1) {
            say("interrupted: storing the finished items; press Ctrl-C again to end at once");
            hint_shown = true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn lock(display: &Mutex<Display>) -> MutexGuard<'_, Display> {
    display.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
