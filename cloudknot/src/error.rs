//! The one error of the public API: what we were doing, to which thing, why it failed, and what to do next.

use std::error::Error as StdError;
use std::fmt;

use cloudknot_runtime::failure::ItemError;
use cloudknot_runtime::store::StoreError;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be done. `Display` is one line; `Debug` (what `main` prints) adds causes and a hint.
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
}

/// What kind of thing could not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An input cannot be carried to a worker.
    Input,
    /// Items failed; see [`Error::failed`].
    ItemsFailed,
    /// The run was cancelled.
    Cancelled,
    /// There is no such run.
    NotFound,
    /// The function's types are not those that the run was submitted with.
    Types,
    /// The store cannot be read or written.
    Store,
    /// A setting cannot be understood or followed.
    Config,
    /// A map inside a remote function.
    Nested,
    /// A worker cannot be compiled.
    Compile,
    /// The machine or the service failed.
    Infrastructure,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), hint: None, source: None, run: None, failed: Vec::new() }))
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

    #[must_use]
    pub(crate) fn of_run(mut self, run: &str) -> Self {
        self.0.run = Some(run.to_owned());
        self
    }

    /// Some of a run's items have no value.
    pub(crate) fn items_failed(function: &str, run: &str, items: usize, failed: Vec<(u64, ItemError)>) -> Self {
        use fmt::Write;
        let mut message = format!("{} of {items} items of `{function}` failed in run {run}", failed.len());
        for (index, error) in failed.iter().take(3) {
            write!(message, "\n  item {index} {error}").expect("a text takes more text");
        }
        if failed.len() > 3 {
            write!(message, "\n  and {} more", failed.len() - 3).expect("a text takes more text");
        }
        let mut error = Self::new(ErrorKind::ItemsFailed, message)
            .with_hint(format!(
                "the other values are kept: `attach(\"{run}\")` reads them, `retry_failed()` tries the rest again"
            ))
            .of_run(run);
        error.0.failed = failed;
        error
    }

    /// What kind of thing could not be done.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What to do next, where there is something to be said.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The run that this is about; what is stored of it stays readable.
    pub fn run(&self) -> Option<&str> {
        self.0.run.as_deref()
    }

    /// The items that have no value, with why: of a map that failed.
    pub fn failed(&self) -> &[(u64, ItemError)] {
        &self.0.failed
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let hint = error.hint().map(str::to_owned);
        let made = Self::new(ErrorKind::Store, error.to_string());
        let made = match hint {
            Some(hint) => made.with_hint(hint),
            None => made,
        };
        match error.into_source() {
            Some(source) => made.with_source(source),
            None => made,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, "\n  caused by: {error}")?;
            cause = error.source();
        }
        if let Some(hint) = self.hint() {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
