//! Failure as data: what went wrong with one attempt of one item, as it is stored and as the user reads it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of thing went wrong with an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ItemErrorKind {
    /// The function returned `Err`.
    Returned,
    /// The function panicked.
    Panicked,
    /// The item needed more memory than there was.
    OutOfMemory,
    /// The item took longer than its timeout.
    TimedOut,
    /// The item's process ended: an abort, a fault, a stack overflow, an `exit`, a kill.
    Crashed,
    /// The worker was told to stop before the item was done.
    Interrupted,
    /// An item that this one needs failed.
    Upstream,
    /// The image could not be pulled or started.
    Image,
    /// The input or the result could not be carried by the codec.
    Codec,
    /// The run was cancelled before the item was done.
    Cancelled,
    /// The store or the machine failed; not the function.
    Infrastructure,
}

impl ItemErrorKind {
    /// The kind in words, as a sentence about the item goes on.
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
            Self::Codec => "could not be carried by the codec",
            Self::Cancelled => "was cancelled",
            Self::Infrastructure => "was failed by its surroundings",
        }
    }
}

/// What went wrong, as the attempt itself knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of thing went wrong.
    pub kind: ItemErrorKind,
    /// The error's own message, or the panic's.
    pub message: String,
    /// The causes of the error, outermost first, without the message itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
    /// Where it happened: `file:line:column`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The backtrace of a panic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<String>,
    /// The exit code of the item's process, if it ended by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended the item's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

impl Failure {
    /// A failure of this kind, with a message and nothing else.
    pub fn new(kind: ItemErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            chain: Vec::new(),
            place: None,
            backtrace: None,
            exit_code: None,
            signal: None,
        }
    }
}

/// Why an item has no value: the failure, which attempt it was, and the end of its log.
///
/// ```
/// # use cloudknot_runtime::failure::{Failure, ItemError, ItemErrorKind};
/// let error = ItemError::new(Failure::new(ItemErrorKind::Returned, "no such star"), 1);
/// assert_eq!(error.kind(), ItemErrorKind::Returned);
/// assert_eq!(error.to_string(), "returned an error: no such star");
/// ```
// Boxed, so that a `Result` with it is small where all goes well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ItemError(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Inner {
    #[serde(flatten)]
    failure: Failure,
    attempt: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    log: String,
}

impl ItemError {
    /// The failure of this attempt (from 1), with an empty log.
    pub fn new(failure: Failure, attempt: u32) -> Self {
        Self(Box::new(Inner { failure, attempt, log: String::new() }))
    }

    /// The same with the end of what the item wrote to stdout and stderr.
    #[must_use]
    pub fn with_log(mut self, log: String) -> Self {
        self.0.log = log;
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ItemErrorKind {
        self.0.failure.kind
    }

    /// The message of the error or panic, without its causes.
    pub fn message(&self) -> &str {
        &self.0.failure.message
    }

    /// The causes of the error, outermost first.
    pub fn chain(&self) -> &[String] {
        &self.0.failure.chain
    }

    /// Where it happened: `file:line:column`, for a panic.
    pub fn place(&self) -> Option<&str> {
        self.0.failure.place.as_deref()
    }

    /// The backtrace, for a panic.
    pub fn backtrace(&self) -> Option<&str> {
        self.0.failure.backtrace.as_deref()
    }

    /// Which attempt this was, from 1.
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// The exit code of the item's process, if it ended by one.
    pub fn exit_code(&self) -> Option<i32> {
        self.0.failure.exit_code
    }

    /// The signal that ended the item's process, if one did.
    pub fn signal(&self) -> Option<i32> {
        self.0.failure.signal
    }

    /// The end of what the item wrote to stdout and stderr, at most 16 KiB.
    ///
    /// Of items that take less than a millisecond it may also hold what others wrote just before.
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
        if let Some(place) = self.place() {
            write!(f, ", at {place}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ItemError {}
