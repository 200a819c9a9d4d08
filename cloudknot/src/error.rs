//! The error type of the public API: the failed operation and its object, the cause, and a hint on how to fix it.

use std::error::Error as StdError;
use std::fmt;

use cloudknot_runtime::failure::{ItemError, ItemErrorKind};
use cloudknot_runtime::store::{StoreError, StoreErrorKind};
use cloudknot_runtime::text::printable;
use cloudknot_runtime::trace_process::TraceError;

use crate::failures::{self, FailureGroup, failure_lines};

/// Result of the functions of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Error of this crate. `Display` is one line; `Debug`, which `main` prints, adds causes and a hint.
///
/// ```
/// # #[cloudknot::remote]
/// # fn double(x: u32) -> u32 { 2 * x }
/// let error = double.attach("20260101-000000000-000000").wait().unwrap_err();
/// assert_eq!(error.kind(), cloudknot::ErrorKind::NotFound);
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    run: Option<String>,
    failed: Vec<(u64, ItemError)>,
    wrapped: Option<Box<dyn StdError + Send + Sync>>,
    outage: Option<Outage>,
}

/// Condition that passes: the same request may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// There was no usable response: no network, a server error, or throttling.
    Service,
    /// The credentials are missing or no longer accepted, until the user logs in again.
    Login,
}

/// Kind of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An input cannot be sent to a worker.
    Input,
    /// Items failed; see [`Error::failed`].
    ItemsFailed,
    /// The run was cancelled.
    Cancelled,
    /// There is no such run, Knot or Pars.
    NotFound,
    /// An existing resource prevents the operation: its name is taken, it is in use, or it has other settings.
    Exists,
    /// The function's types differ from those that the run was submitted with.
    Types,
    /// The store cannot be read or written, or what it contains is damaged. If S3 cannot be reached, or denies access, the kind is `Aws`,
    /// `Credentials` or `Denied`.
    Store,
    /// A setting is invalid, or cannot be applied.
    Config,
    /// A map was called inside a remote function.
    Nested,
    /// An image cannot be assembled or saved.
    Image,
    /// A registry cannot be reached, or rejects a request.
    Registry,
    /// The Docker engine cannot be reached, or rejects a request.
    Docker,
    /// A worker cannot be compiled.
    Compile,
    /// The credentials for AWS are missing, or not accepted.
    Credentials,
    /// The caller lacks an AWS permission.
    Denied,
    /// AWS cannot be reached, or rejects a request.
    Aws,
    /// The machine or the service failed.
    Infrastructure,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            hint: None,
            source: None,
            run: None,
            failed: Vec::new(),
            wrapped: None,
            outage: None,
        }))
    }

    pub(crate) fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Wraps the error of a part of this crate that has a public error of its own: same message, same causes.
    pub(crate) fn wrap(kind: ErrorKind, error: impl StdError + Send + Sync + 'static, hint: Option<String>) -> Self {
        let mut wrapping = hint.into_iter().fold(Self::new(kind, error.to_string()), Self::with_hint);
        wrapping.0.wrapped = Some(Box::new(error));
        wrapping
    }

    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn with_outage(mut self, outage: Option<Outage>) -> Self {
        self.0.outage = outage;
        self
    }

    /// Returns the condition that the error is due to, if that passes.
    #[allow(dead_code, reason = "only AWS Batch waits for what passes")]
    pub(crate) fn outage(&self) -> Option<Outage> {
        self.0.outage
    }

    /// Returns the message, the causes and the hint on one line.
    pub(crate) fn in_one_line(&self) -> String {
        let hint = self.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        with_causes(self) + &hint
    }

    /// Creates the error of a run with items that have no value.
    pub(crate) fn items_failed(function: &str, run: &str, items: usize, failed: Vec<(u64, ItemError)>) -> Self {
        use fmt::Write;
        // Cancelled items are a consequence, not the cause.
        let (cancelled, failures): (Vec<_>, Vec<_>) =
            failed.iter().partition(|(_, error)| error.kind() == ItemErrorKind::Cancelled);
        if let ([], Some((_, first))) = (&failures[..], cancelled.first()) {
            let message = format!(
                "{} of {items} items of `{function}` have no value in run {run}: {}",
                failed.len(),
                first.message()
            );
            return Self::new(ErrorKind::Cancelled, message).of_items(run, failed);
        }
        let mut message = format!("{} of {items} items of `{function}` failed in run {run}", failures.len());
        let groups = failures::group(failures.iter().map(|(index, error)| (*index, error)));
        for line in failure_lines(&groups, MAX_CAUSES).into_iter().chain(example(&groups)) {
            write!(message, "\n  {line}").expect("writing to a `String` does not fail");
        }
        if !cancelled.is_empty() {
            write!(message, "\n  {} were cancelled", cancelled.len()).expect("writing to a `String` does not fail");
        }
        Self::new(ErrorKind::ItemsFailed, message)
            .with_hint(format!(
                "`{function}.attach(\"{run}\")` returns the run: `outcomes()` reads all values and failures, and \
                 `retry_failed()` runs the items without a value again"
            ))
            .of_items(run, failed)
    }

    /// Creates the error of a run during which the store or the machine failed.
    pub(crate) fn run_failed(function: &str, run: &str, why: &str, failed: Vec<(u64, ItemError)>) -> Self {
        Self::new(ErrorKind::Infrastructure, format!("cannot continue run {run} of `{function}`: {why}"))
            .with_hint(format!(
                "once the cause is fixed, `{function}.attach(\"{run}\")` continues: stored results are kept"
            ))
            .of_items(run, failed)
    }

    fn of_items(mut self, run: &str, failed: Vec<(u64, ItemError)>) -> Self {
        self.0.run = Some(run.to_owned());
        self.0.failed = failed;
        self
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the error that this one wraps, with the same message: a `cloudknot::compile::CompileError` if a worker did not compile.
    /// As with [`std::io::Error::get_ref`], [`source`](StdError::source) gives the cause of both.
    ///
    /// ```no_run
    /// # #[cfg(feature = "deploy")]
    /// # fn example(error: cloudknot::Error) {
    /// use cloudknot::compile::{CompileError, CompileErrorKind};
    ///
    /// let compile = error.get_ref().and_then(|error| error.downcast_ref::<CompileError>());
    /// if compile.is_some_and(|error| error.kind() == CompileErrorKind::Cargo) {
    ///     eprintln!("the program does not compile");
    /// }
    /// # }
    /// ```
    pub fn get_ref(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.0.wrapped.as_deref()
    }

    /// Returns `true` if a request to AWS has failed for a reason that may pass: no network, a server error, throttling, or expired
    /// credentials. Errors of a run that has stopped, and of registries and Docker, are never temporary.
    ///
    /// ```
    /// # #[cloudknot::remote]
    /// # fn double(x: u32) -> u32 { 2 * x }
    /// let error = double.attach("20260101-000000000-000000").wait().unwrap_err();
    /// assert!(!error.is_temporary(), "no such run");
    /// ```
    pub fn is_temporary(&self) -> bool {
        self.0.outage.is_some()
    }

    /// Returns a hint on how to fix the error, if there is one.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Returns the ID of the run that the error is about. Its stored results stay readable.
    pub fn run(&self) -> Option<&str> {
        self.0.run.as_deref()
    }

    /// Returns the items of a map that have no value, with their errors.
    pub fn failed(&self) -> &[(u64, ItemError)] {
        &self.0.failed
    }
}

impl From<TraceError> for Error {
    fn from(mut error: TraceError) -> Self {
        let source = error.take_source();
        let converted = Self::new(ErrorKind::Infrastructure, error.to_string());
        match source {
            Some(source) => converted.with_source(source),
            None => converted,
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let hint = error.hint().map(str::to_owned);
        let (kind, outage) = match error.kind() {
            StoreErrorKind::Unavailable => (ErrorKind::Aws, Some(Outage::Service)),
            StoreErrorKind::NoStore => (ErrorKind::Aws, None),
            StoreErrorKind::Credentials => (ErrorKind::Credentials, Some(Outage::Login)),
            StoreErrorKind::Denied => (ErrorKind::Denied, None),
            _ => (ErrorKind::Store, None),
        };
        let converted = Self::new(kind, error.to_string()).with_outage(outage);
        let converted = match hint {
            Some(hint) => converted.with_hint(hint),
            None => converted,
        };
        match error.into_source() {
            Some(source) => converted.with_source(source),
            None => converted,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

/// Writes the message, the causes and the hint, as `main` prints them. Control characters are escaped, because the message can
/// contain those of items.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0.message))?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, "\n  caused by: {}", printable(&error.to_string()))?;
            cause = error.source();
        }
        if let Some(hint) = self.hint() {
            write!(f, "\n  hint: {}", printable(hint))?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.wrapped {
            Some(wrapped) => wrapped.source(),
            None => self.0.source.as_deref().map(|source| source as _),
        }
    }
}

/// Returns the failure of the first item of the first group in full, unless its line shows all of it: the message, and for a process
/// that ended, the end of its output.
fn example(groups: &[FailureGroup]) -> Vec<String> {
    let Some((group, error)) = groups.first().and_then(|group| Some((group, group.example.as_ref()?))) else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    if group.count > 1 || error.message().contains('\n') {
        let item = group.items.first().map_or(0, |range| *range.start());
        lines.extend(format!("for example, item {item} {error}").lines().map(str::to_owned));
    }
    let log: Vec<&str> = error.log().lines().filter(|line| !line.trim().is_empty()).collect();
    if has_no_message(error.kind()) && !log.is_empty() {
        lines.push("its output ended with:".to_owned());
        lines.extend(log[log.len().saturating_sub(MAX_LOG_LINES)..].iter().map(|line| format!("  {line}")));
    }
    lines
}

/// Returns whether the function itself had no opportunity to say what went wrong.
fn has_no_message(kind: ItemErrorKind) -> bool {
    matches!(kind, ItemErrorKind::Crashed | ItemErrorKind::OutOfMemory | ItemErrorKind::TimedOut)
}

/// Maximum number of causes of failures in a message.
const MAX_CAUSES: usize = 5;
/// Maximum number of lines of output in a message.
const MAX_LOG_LINES: usize = 5;

/// A replacement for the result of an operation that a worker build does not have.
#[allow(dead_code, reason = "a host build has all operations")]
pub(crate) trait Absent {
    fn absent() -> Self;
}

impl<T, E: Absent> Absent for Result<T, E> {
    fn absent() -> Self {
        Err(E::absent())
    }
}

impl Absent for Error {
    fn absent() -> Self {
        Self::new(ErrorKind::Config, ABSENT).with_hint(ABSENT_HINT)
    }
}

/// Message of the error for an operation that a worker build does not have.
pub(crate) const ABSENT: &str = "this operation is not available in a worker, which only runs remote functions";
/// Hint of the same error.
pub(crate) const ABSENT_HINT: &str =
    "perform it in `main`, which a worker does not run, and pass the result to the function";

/// Returns the message of an error of any kind, followed by those of its causes.
pub(crate) fn with_causes(error: &dyn StdError) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
