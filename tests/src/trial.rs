//! Interface between the tests and the trial, a program with remote functions that do everything a function can do. The
//! program is `src/bin/trial/main.rs`; this module defines the types that both sides share, and does not use
//! cloudknot.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

mod driver;
mod misdeed;

pub use driver::*;
pub use misdeed::Misdeed;

/// Input of the function of these tests: how it behaves for one item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Behavior {
    /// Returns twice this number.
    Double(u64),
    /// Panics with this message.
    Panic(String),
    /// Starts a thread that panics, joins it and unwraps the result.
    PanicInThread,
    /// Starts a thread that panics, and resumes the panic unchanged, as rayon does.
    PanicPassedOn,
    /// Catches a panic of its own, and returns this number plus one.
    Caught(u64),
    /// Returns an error with these causes, outermost first.
    Fail(Vec<String>),
    /// Aborts the process.
    Abort,
    /// Writes to an unmapped address.
    Segfault,
    /// Recurses without end.
    Overflow,
    /// Exits with this code.
    Exit(i32),
    /// Kills its process with SIGKILL.
    Kill,
    /// Allocates more memory than the machine has.
    Allocate,
    /// Sleeps for this many milliseconds, then returns the value.
    Sleep(u64, u64),
    /// Prints to stdout and to stderr, then behaves like this.
    Print(String, String, Box<Self>),
    /// Appends the number to a file, sleeps for this many milliseconds, and returns the number.
    Count(PathBuf, u64, u64),
    /// Appends the number to a file, and fails until the file contains it this many times; then returns the number.
    Until(PathBuf, u64, usize),
    /// Returns the number in this environment variable.
    Env(String),
    /// Returns the numbers of the init functions that have run in this process, as the digits of a number.
    Initialized,
    /// Forks a process that keeps everything it inherits, and kills its own.
    Fork,
    /// Starts a program that sleeps for a long time, and waits for it.
    Child,
    /// Succeeds, and leaves a thread that aborts the process one second later.
    DieLater,
    /// Starts a map from within an item; returns 1 if that is refused.
    Nested,
    /// Returns the remaining milliseconds until the deadline, or an error if there is none.
    Deadline,
    /// Appends the number to the first file, waits until the second one exists, and returns the number.
    Wait(PathBuf, u64, PathBuf),
    /// Waits until the file exists, then behaves like this.
    After(PathBuf, Box<Self>),
    /// Does what a function should not do.
    Misdeed(Misdeed),
}

/// Map as the tests request it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Spec {
    /// Inputs of the map.
    pub inputs: Vec<Behavior>,
    /// `.chunk(..)`.
    pub chunk: Option<u64>,
    /// `.parallel(..)`.
    pub parallel: Option<u32>,
    /// `.retries(..)`.
    pub retries: Option<u32>,
    /// `.recycle(..)`.
    #[serde(default)]
    pub recycle: Option<u64>,
    /// `.timeout(..)`.
    pub timeout_ms: Option<u64>,
    /// `.max_failures(..)`.
    pub max_failures: Option<u64>,
    /// `.env(..)`.
    pub env: BTreeMap<String, String>,
    /// `.tag(..)`.
    pub tags: BTreeMap<String, String>,
    /// `.vcpus(..)`.
    #[serde(default)]
    pub vcpus: Option<f64>,
    /// `.memory(..)`.
    #[serde(default)]
    pub memory: Option<String>,
    /// `.memory_on_retry(..)`.
    #[serde(default)]
    pub memory_on_retry: Option<String>,
    /// `.gpus(..)`.
    #[serde(default)]
    pub gpus: Option<u32>,
    /// `.independent()`.
    #[serde(default)]
    pub independent: bool,
    /// `.name(..)`.
    #[serde(default)]
    pub name: Option<String>,
    /// `.resume()`.
    #[serde(default)]
    pub resume: bool,
    /// `.fresh()`, after `.resume()`.
    #[serde(default)]
    pub fresh: bool,
}

/// Options of a retry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RetrySpec {
    pub items: Option<Vec<u64>>,
    pub memory: Option<String>,
    pub timeout_ms: Option<u64>,
    pub retries: Option<u32>,
    pub old_code: bool,
}

impl Spec {
    /// Creates a map of these inputs without options.
    pub fn of(inputs: impl IntoIterator<Item = Behavior>) -> Self {
        Self { inputs: inputs.into_iter().collect(), ..Self::default() }
    }
}

/// Surroundings of a function, as it finds them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Surroundings {
    /// Content of the included file.
    pub data: String,
    pub data_is_writable: bool,
    /// Value of `HOME`.
    pub home: String,
    pub home_is_writable: bool,
    /// Name of the user, by the C library.
    pub user: Option<String>,
    pub home_of_user: Option<String>,
    /// Working folder.
    pub folder: PathBuf,
    /// Seconds that local time is ahead of UTC in the summer, by the C library.
    pub offset: i64,
    /// Names of the environment variables, except those of cloudknot.
    pub variables: BTreeSet<String>,
    /// Paths that exist, of those that it was given.
    pub found: Vec<String>,
}

/// Line of the trial's output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    /// ID of the run, printed as soon as it is known.
    Run(String),
    /// Index and value of an item that succeeded.
    Value(usize, u64),
    /// Index and failure of an item that failed.
    Failed(usize, Box<ItemFailure>),
    /// Numbers of succeeded, failed, running, waiting and unfinished items, and whether the run is finished.
    Status([u64; 5], bool),
    /// Kind of an error, and the message that `main` would print for it.
    Error(String, String),
    /// Any other finding of a scenario.
    Found(String),
}

/// Failure of an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ItemFailure {
    pub kind: String,
    pub message: String,
    pub chain: Vec<String>,
    pub location: Option<String>,
    pub backtrace: Option<String>,
    pub attempt: u32,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub log: String,
}

/// Encodes a value as JSON.
///
/// # Panics
/// Never: the values of the tests serialize to JSON.
pub fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("the value serializes to JSON")
}

/// Parses the facts in the trial's output, except for an incomplete last line.
///
/// # Panics
/// If a line is not a fact, because something else was printed to stdout.
pub fn facts(stdout: &[u8]) -> Vec<Fact> {
    let end = stdout.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let text = std::str::from_utf8(&stdout[..end]).expect("facts are UTF-8");
    let fact = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("`{line}` is not a fact: {error}"));
    text.lines().map(fact).collect()
}

/// Prints a fact.
pub fn print(fact: &Fact) {
    let mut stdout = std::io::stdout().lock();
    // If stdout is closed, the facts are not read.
    let _ = writeln!(stdout, "{}", json(fact)).and_then(|()| stdout.flush());
}

/// Returns the ID of the run.
pub fn run_of(facts: &[Fact]) -> Option<String> {
    facts.iter().find_map(|fact| if let Fact::Run(run) = fact { Some(run.clone()) } else { None })
}

/// Returns the values in the order of their items. Each item may be reported only once.
///
/// # Panics
/// If an item is reported twice.
pub fn values(facts: &[Fact]) -> BTreeMap<usize, u64> {
    let mut values = BTreeMap::new();
    for fact in facts {
        if let Fact::Value(item, value) = fact {
            assert_eq!(values.insert(*item, *value), None, "item {item} was reported twice");
        }
    }
    values
}

/// Returns the failures in the order of their items. Each item may be reported only once.
///
/// # Panics
/// If an item is reported twice.
pub fn failures(facts: &[Fact]) -> BTreeMap<usize, ItemFailure> {
    let mut failures = BTreeMap::new();
    for fact in facts {
        if let Fact::Failed(item, failed) = fact {
            assert_eq!(failures.insert(*item, (**failed).clone()), None, "item {item} was reported twice");
        }
    }
    failures
}

/// Returns the numbers that inputs have appended to a file.
///
/// # Panics
/// If the file contains anything else.
pub fn counted(file: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| line.parse().expect("each line is a number")).collect()
}

/// Returns all files below a folder, in order.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files.extend(self::files(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    files
}
