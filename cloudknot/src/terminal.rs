//! The terminal's hook, installed by `#[cloudknot::main]` and `cargo knot`. It shows where a map runs, its progress, its
//! failures, and the progress of an image push, and ends the program on a signal. All output goes to stderr; stdout belongs to
//! the program.
//!
//! One thread prints. Lines are printed with their control characters escaped, because they contain messages of items and of
//! services; the output of functions is printed as it is.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::Duration;

use cloudknot_runtime::contract::{self, ENV_PROGRESS};
use cloudknot_runtime::failure::ItemError;
use cloudknot_runtime::log::{Printed, Source};
use cloudknot_runtime::text::printable;
use indicatif::HumanCount;

use crate::event::{Event, Hook, set_hook};

mod display;
mod failures;
mod queue;
mod signals;

use display::{Display, Message, in_short};
use failures::{Failures, Shown};
use queue::Queue;

/// Installs the hook. If `CLOUDKNOT_PROGRESS` is `off`, it only ends the program on a signal. Returns the function that waits until
/// everything reported so far is printed, for the end of the program.
pub(crate) fn install() -> fn() {
    let setting = std::env::var(ENV_PROGRESS).unwrap_or_default();
    let shows = match setting.as_str() {
        "off" => Shows::Nothing,
        "bar" => Shows::Bars,
        "plain" => Shows::Lines,
        _ if std::io::stderr().is_terminal() => Shows::Bars,
        _ => Shows::Lines,
    };
    if !matches!(setting.as_str(), "" | "off" | "bar" | "plain") {
        say(&format!("invalid {ENV_PROGRESS} `{setting}`: must be off, plain or bar"));
    }
    let terminal = INSTALLED.get_or_init(|| Arc::new(Terminal::new(shows)));
    set_hook(Some(Box::new(Arc::clone(terminal))));
    flush
}

/// The terminal of this program.
static INSTALLED: OnceLock<Arc<Terminal>> = OnceLock::new();

fn flush() {
    if let Some(terminal) = INSTALLED.get() {
        terminal.queue.flush();
    }
}

/// Form in which the terminal shows a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    Nothing,
    Lines,
    Bars,
}

#[derive(Debug)]
struct Terminal {
    shows: Shows,
    queue: Arc<Queue<Message>>,
    printer: Once,
    signals: Once,
    /// The unfinished runs, by ID. The lock is never held over an output.
    runs: Mutex<HashMap<String, TrackedRun>>,
    interrupted: AtomicBool,
}

/// A run in progress.
#[derive(Debug)]
struct TrackedRun {
    function: String,
    items: u64,
    done: u64,
    failures: Failures,
    /// `true` if several items run at once, so that each line of their output names its item.
    names_items: bool,
}

impl Hook for Arc<Terminal> {
    fn report(&self, event: &Event<'_>) {
        match *event {
            Event::Started { run, function, backend, items, done, parallel } => {
                let names_items = items > 1 && parallel > 1;
                let failures = Failures::default();
                let tracked = TrackedRun { function: function.to_owned(), items, done, failures, names_items };
                self.lock().insert(run.to_owned(), tracked);
                self.handle_signals();
                let [run, function, backend] = [run, function, backend].map(str::to_owned);
                self.show(Message::Started { run, function, backend, items, done });
            }
            Event::Progress { run, done, failed } => self.progress(run, done, failed),
            Event::Failed { run, item, error, last } => self.failure(run, item, error, last),
            Event::Log { run, item, attempt, text } => self.log(run, item.zip(attempt), text),
            Event::Waiting { run, since, reason } => {
                let Some(function) = self.function(run) else { return };
                let line = format!("{function}: nothing has run for {}: {reason}", in_short(since));
                self.show(Message::Line { run: Some(run.to_owned()), line });
            }
            Event::Finished { run, done, failed, unfinished, reason, elapsed } => {
                self.finish(run, [done, failed, unfinished], reason, elapsed);
            }
            Event::Pushing { repository, sent, bytes } => {
                self.push(Message::Pushing { repository: repository.to_owned(), sent, bytes });
            }
            Event::PushFinished { repository, sent } => {
                self.show(Message::PushFinished { repository: repository.to_owned(), sent });
            }
            Event::Step { action } => self.say(action.to_owned()),
            Event::Resource { resource, kind, status, reason, .. } => {
                let status = status.to_lowercase().replace('_', " ");
                let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                self.say(format!("  {resource} ({kind}) {status}{reason}"));
            }
            Event::Retrying { action, reason, wait } => {
                self.say(format!("cannot {action}: {reason}; retrying in {}", in_short(wait)));
            }
        }
    }
}

impl Terminal {
    fn new(shows: Shows) -> Self {
        Self {
            shows,
            queue: Arc::new(Queue::new()),
            printer: Once::new(),
            signals: Once::new(),
            runs: Mutex::default(),
            interrupted: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, TrackedRun>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn function(&self, run: &str) -> Option<String> {
        self.lock().get(run).map(|tracked| tracked.function.clone())
    }

    /// Starts the thread that prints, with the first message.
    fn start_printer(&self) {
        self.printer.call_once(|| {
            let (queue, mut display) = (Arc::clone(&self.queue), Display::new(self.shows == Shows::Bars));
            let thread = std::thread::Builder::new().name("cloudknot-terminal".into());
            // A panic is printed like any other, and must not end the thread that others wait for.
            let mut show = move |message| drop(catch_unwind(AssertUnwindSafe(|| display.show(message))));
            if let Err(error) = thread.spawn(move || queue.print(&mut show)) {
                say(&format!("cannot start the thread that shows progress: {error}"));
                // Nobody may wait for what is never printed.
                self.queue.release();
            }
        });
    }

    /// Hands a message to the thread that prints.
    fn push(&self, message: Message) {
        if self.shows != Shows::Nothing {
            self.start_printer();
            self.queue.push(message);
        }
    }

    /// Prints a message before this returns, so that what the program prints next follows it.
    fn show(&self, message: Message) {
        self.push(message);
        self.queue.flush();
    }

    fn say(&self, line: String) {
        self.show(Message::Line { run: None, line });
    }

    fn progress(&self, run: &str, done: u64, failed: u64) {
        let mut runs = self.lock();
        let Some(tracked) = runs.get_mut(run) else { return };
        tracked.done = done;
        drop(runs);
        if self.shows != Shows::Nothing {
            // If it does not fit, a later one replaces it.
            let _ = self.queue.push_if_fitting(Message::Progress { run: run.to_owned(), done, failed });
        }
    }

    fn log(&self, run: &str, source: Option<(u64, u32)>, text: &[u8]) {
        let names_items = self.lock().get(run).is_some_and(|tracked| tracked.names_items);
        let source = source.filter(|_| names_items).map(|(item, attempt)| Source { item, attempt });
        let text = Printed { source, text: text.to_owned() }.with_prefixes();
        self.push(Message::Log { run: run.to_owned(), text });
    }

    fn failure(&self, run: &str, item: u64, error: &ItemError, last: bool) {
        let mut runs = self.lock();
        let Some(tracked) = runs.get_mut(run) else { return };
        let (shown, function) = (tracked.failures.add(item, error, last), tracked.function.clone());
        drop(runs);
        if shown == Shown::No {
            return;
        }
        let retry = if last { String::new() } else { format!(" (attempt {}; retrying)", error.attempt()) };
        let line = |line| Message::Line { run: Some(run.to_owned()), line };
        self.push(line(format!("{function}: item {item} {error}{retry}")));
        if shown == Shown::Last {
            self.push(line(format!("{function}: further failures are counted, and shown only if their cause is new")));
        }
    }

    fn finish(&self, run: &str, counts: [u64; 3], reason: Option<&str>, elapsed: Duration) {
        let [done, failed, unfinished] = counts;
        let of = |tracked: &TrackedRun| (tracked.function.clone(), tracked.items, tracked.failures.lines(failed));
        let Some((function, items, failures)) = self.lock().get(run).map(of) else { return };
        let interrupted = unfinished > 0 && self.interrupted.load(Ordering::Relaxed);
        let lines = if interrupted {
            interrupted_lines(&function, run, done, items, reason)
        } else {
            let mut lines = finished_lines(&function, run, items, counts, reason, elapsed);
            lines.extend(failures.iter().map(|line| format!("  {line}")));
            lines.extend((failed > 0).then(|| next_line(run)));
            lines
        };
        let ended = Message::Ended { run: run.to_owned(), lines };
        if interrupted {
            self.push_always(ended);
        } else {
            self.push(ended);
        }
        // Removed only now: an interrupted program exits once there are no runs.
        self.lock().remove(run);
        if interrupted {
            // Never returns, so that the program does not handle the end of the run: the program is about to exit.
            loop {
                std::thread::park();
            }
        }
        // The program may exit as soon as this returns.
        self.queue.flush();
    }

    fn handle_signals(self: &Arc<Self>) {
        self.signals.call_once(|| {
            if let Err(error) = signals::handle(Arc::clone(self)) {
                self.say(format!("cannot listen for Ctrl-C: {error}"));
            }
        });
    }
}

/// Operations of the handler of signals. None of them waits for an output without a limit.
impl Terminal {
    fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
        self.queue.release();
    }

    fn has_runs(&self) -> bool {
        !self.lock().is_empty()
    }

    fn show_interrupt_hint(&self) {
        let line = "interrupted: storing the finished items; press Ctrl-C again to end at once".to_owned();
        self.push_always(Message::Line { run: None, line });
    }

    fn show_interrupted_runs(&self) {
        for (run, tracked) in self.lock().drain() {
            let lines = interrupted_lines(&tracked.function, &run, tracked.done, tracked.items, None);
            self.push_always(Message::Ended { run, lines });
        }
    }

    fn push_always(&self, message: Message) {
        if self.shows != Shows::Nothing {
            self.queue.push_always(message);
        }
    }

    fn flush_within(&self, timeout: Duration) {
        self.queue.flush_within(timeout);
    }
}

fn finished_lines(
    function: &str,
    run: &str,
    items: u64,
    [done, failed, unfinished]: [u64; 3],
    reason: Option<&str>,
    elapsed: Duration,
) -> Vec<String> {
    let nonzero = |number, what| if number > 0 { format!(", {} {what}", HumanCount(number)) } else { String::new() };
    let (failed, unfinished_part) = (nonzero(failed, "failed"), nonzero(unfinished, "unfinished"));
    let counts = format!("{} of {} done{failed}{unfinished_part}", HumanCount(done), HumanCount(items));
    let mut lines = vec![format!("{function}: {counts}, in {} (run {run})", in_short(elapsed))];
    lines.extend(reason.filter(|_| unfinished > 0).map(|reason| format!("{function}: {reason}")));
    lines
}

/// Returns the line with the commands that help next, for a run with failures.
fn next_line(run: &str) -> String {
    let run = contract::word_of(run);
    format!("next: cargo knot status {run}     cargo knot retry {run}")
}

fn interrupted_lines(function: &str, run: &str, done: u64, items: u64, reason: Option<&str>) -> Vec<String> {
    let mut lines = vec![format!("interrupted: {} of {} done and kept", HumanCount(done), HumanCount(items))];
    // The reason is omitted if it is the interrupt itself.
    let reason = reason.filter(|reason| !reason.starts_with("the run was "));
    lines.extend(reason.map(|reason| format!("{function}: {reason}")));
    lines.push(format!("continue with `{function}.attach(\"{run}\")`"));
    let word = contract::word_of(run);
    lines.push(format!("next: cargo knot status {word}"));
    lines
}

/// Prints a line. Its control characters are escaped.
fn say(line: &str) {
    // If stderr is closed, the error cannot be reported anywhere.
    let _ = writeln!(std::io::stderr(), "cloudknot: {}", printable(line));
}

/// Prints output of a function.
fn print(text: &[u8]) {
    // As in `say`.
    let _ = std::io::stderr().write_all(text);
}
