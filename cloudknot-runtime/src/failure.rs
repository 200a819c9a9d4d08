//! Failures as data: the error of one attempt of an item, as it is stored and as the user reads it.

use std::fmt;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::measurements::{Machine, Measurements};

/// Kind of an item's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ItemErrorKind {
    /// The function returned `Err`.
    Returned,
    /// The function panicked.
    Panicked,
    /// The item needed more memory than was available.
    OutOfMemory,
    /// The item took longer than its timeout.
    TimedOut,
    /// The item's process ended: an abort, a fault, a stack overflow, an `exit`, a kill.
    Crashed,
    /// The worker was stopped before the item was done.
    Interrupted,
    /// An item that this item depends on failed.
    Upstream,
    /// The image could not be pulled or started.
    Image,
    /// The codec could not encode or decode the input or the result.
    Codec,
    /// The run was cancelled before the item was done.
    Cancelled,
    /// The store or the machine failed, not the function.
    Infrastructure,
}

impl ItemErrorKind {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::Returned,
        Self::Panicked,
        Self::OutOfMemory,
        Self::TimedOut,
        Self::Crashed,
        Self::Interrupted,
        Self::Upstream,
        Self::Image,
        Self::Codec,
        Self::Cancelled,
        Self::Infrastructure,
    ];

    /// Returns the name of the kind, as in keys and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Returned => "returned",
            Self::Panicked => "panicked",
            Self::OutOfMemory => "out-of-memory",
            Self::TimedOut => "timed-out",
            Self::Crashed => "crashed",
            Self::Interrupted => "interrupted",
            Self::Upstream => "upstream",
            Self::Image => "image",
            Self::Codec => "codec",
            Self::Cancelled => "cancelled",
            Self::Infrastructure => "infrastructure",
        }
    }

    /// Returns the kind with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns the kind in words, as the predicate of a sentence about the item.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Returned => "returned an error",
            Self::Panicked => "panicked",
            Self::OutOfMemory => "ran out of memory",
            Self::TimedOut => "timed out",
            Self::Crashed => "crashed",
            Self::Interrupted => "was interrupted",
            Self::Upstream => "needs an item that failed",
            Self::Image => "could not start from its image",
            Self::Codec => "could not be encoded or decoded",
            Self::Cancelled => "was cancelled",
            Self::Infrastructure => "failed because of the infrastructure",
        }
    }
}

/// Cause of a failure: attempts that failed for the same reason have the same cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cause {
    /// Kind of the failure.
    pub kind: ItemErrorKind,
    /// Hash of its kind, its source location, and its message with all numbers masked.
    pub hash: u32,
}

/// Replaces each number in a message by `N`, so that messages which differ only in numbers are equal.
///
/// ```
/// # use cloudknot_runtime::failure::mask_numbers;
/// assert_eq!(mask_numbers("index 17 of 3.5e7, at 0x7f"), "index N of NeN, at NxNf");
/// ```
pub fn mask_numbers(message: &str) -> String {
    let mut masked = String::with_capacity(message.len());
    let mut characters = message.chars().peekable();
    while let Some(character) = characters.next() {
        if !character.is_ascii_digit() {
            masked.push(character);
            continue;
        }
        masked.push('N');
        while let Some(next) = characters.next_if(|next| next.is_ascii_digit() || *next == '.') {
            // A full stop after a number ends a sentence.
            if next == '.' && !characters.peek().is_some_and(char::is_ascii_digit) {
                masked.push(next);
                break;
            }
        }
    }
    masked
}

/// Failure of an attempt, as recorded by the attempt itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Kind of the failure.
    pub kind: ItemErrorKind,
    /// Message of the error or panic.
    pub message: String,
    /// Causes of the error, outermost first, without the message itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
    /// Source location of the failure: `file:line:column`.
    #[serde(rename = "place", default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Backtrace of a panic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<String>,
    /// Exit code of the item's process, if it exited with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal that ended the item's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

impl Failure {
    /// Beginning of the message of a failure in an init function, before the first item.
    pub(crate) const INITIALIZATION: &str = "cannot initialize the item process";

    /// Creates a failure of this kind with a message and nothing else.
    pub fn new(kind: ItemErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            chain: Vec::new(),
            location: None,
            backtrace: None,
            exit_code: None,
            signal: None,
        }
    }
}

/// Error of an item without a value: the failure, the number of the attempt, and the end of its log.
///
/// ```
/// # use cloudknot_runtime::failure::{Failure, ItemError, ItemErrorKind};
/// let error = ItemError::new(Failure::new(ItemErrorKind::Returned, "no such star"), 1);
/// assert_eq!(error.kind(), ItemErrorKind::Returned);
/// assert_eq!(error.to_string(), "returned an error: no such star");
/// ```
// Boxed, so that a `Result` with this error is small.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ItemError(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Inner {
    #[serde(flatten)]
    failure: Failure,
    attempt: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    log: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    measurements: Option<Measurements>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    machine: Option<Machine>,
}

impl ItemError {
    /// Creates an error from the failure of an attempt (counted from 1), with an empty log.
    pub fn new(failure: Failure, attempt: u32) -> Self {
        Self(Box::new(Inner { failure, attempt, log: String::new(), measurements: None, machine: None }))
    }

    /// Sets the measurements of the attempt, and the machine of its worker.
    #[must_use]
    pub fn with_measurements(mut self, measurements: Measurements, machine: Machine) -> Self {
        self.0.measurements = Some(measurements);
        self.0.machine = Some(machine);
        self
    }

    /// Sets the machine of the worker, as far as others know it.
    #[must_use]
    pub fn with_machine(mut self, machine: Machine) -> Self {
        self.0.machine = Some(machine);
        self
    }

    /// Sets the log: the end of the item's output to stdout and stderr.
    #[must_use]
    pub fn with_log(mut self, log: String) -> Self {
        self.0.log = log;
        self
    }

    /// Returns the kind of the failure.
    pub fn kind(&self) -> ItemErrorKind {
        self.0.failure.kind
    }

    /// Returns the message of the error or panic, without its causes.
    pub fn message(&self) -> &str {
        &self.0.failure.message
    }

    /// Returns the causes of the error, outermost first.
    pub fn chain(&self) -> &[String] {
        &self.0.failure.chain
    }

    /// Returns the source location of a panic: `file:line:column`.
    pub fn location(&self) -> Option<&str> {
        self.0.failure.location.as_deref()
    }

    /// Returns the backtrace of a panic.
    pub fn backtrace(&self) -> Option<&str> {
        self.0.failure.backtrace.as_deref()
    }

    /// Returns the number of the attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// Returns the exit code of the item's process, if it exited with one.
    pub fn exit_code(&self) -> Option<i32> {
        self.0.failure.exit_code
    }

    /// Returns the signal that ended the item's process, if any.
    pub fn signal(&self) -> Option<i32> {
        self.0.failure.signal
    }

    /// Returns what was measured of the attempt, if it ran.
    pub fn measurements(&self) -> Option<&Measurements> {
        self.0.measurements.as_ref()
    }

    /// Returns the machine of the worker, if the attempt ran.
    pub fn machine(&self) -> Option<&Machine> {
        self.0.machine.as_ref()
    }

    /// Returns the cause, by which failures can be grouped.
    pub fn cause(&self) -> Cause {
        let kind = self.kind();
        let mut text = format!("{}\0{}", kind.name(), self.location().unwrap_or_default());
        for message in std::iter::once(self.message()).chain(self.chain().iter().map(String::as_str)) {
            text.push('\0');
            text.push_str(&mask_numbers(message));
        }
        // The lower half of the hash.
        #[allow(clippy::cast_possible_truncation)]
        let hash = XxHash3_64::oneshot(text.as_bytes()) as u32;
        Cause { kind, hash }
    }

    /// Returns the end of the item's output to stdout and stderr, at most 16 KiB. For the first item of a process, it begins with the
    /// output of init functions.
    pub fn log(&self) -> &str {
        &self.0.log
    }
}

impl fmt::Display for ItemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind().describe(), self.message())?;
        for cause in self.chain() {
            write!(f, ": {cause}")?;
        }
        if let Some(location) = self.location() {
            write!(f, ", at {location}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ItemError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(kind: ItemErrorKind, message: &str, location: &str) -> Cause {
        let failure = Failure { location: Some(location.into()), ..Failure::new(kind, message) };
        ItemError::new(failure, 1).cause()
    }

    #[test]
    fn kinds_have_names() {
        for kind in ItemErrorKind::ALL {
            assert_eq!(ItemErrorKind::parse(kind.name()), Some(kind));
        }
        assert_eq!(ItemErrorKind::parse("sad"), None);
    }

    #[test]
    fn failures_that_differ_only_in_numbers_have_one_cause() {
        let panicked = |message: &str| cause(ItemErrorKind::Panicked, message, "src/main.rs:41:9");
        assert_eq!(panicked("the len is 3 but the index is 17"), panicked("the len is 120 but the index is 9"));
        assert_eq!(panicked("residual 0.125."), panicked("residual 12.5."));
        assert_ne!(panicked("the len is 3"), panicked("the length is 3"));
        assert_ne!(panicked("x"), cause(ItemErrorKind::Returned, "x", "src/main.rs:41:9"));
        assert_ne!(panicked("x"), cause(ItemErrorKind::Panicked, "x", "src/lib.rs:41:9"));
    }

    #[test]
    fn numbers_are_masked() {
        let check = |message: &str, masked: &str| assert_eq!(mask_numbers(message), masked);
        check("", "");
        check("17.fastq", "N.fastq");
        check("read 3.", "read N.");
        check("1.2.3 and 4..5", "N and N..N");
        check("-1.5e-7", "-NeN".replace("eN", "e-N").as_str());
    }
}
