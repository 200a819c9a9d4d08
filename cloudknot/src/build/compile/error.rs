//! What can go wrong between a program and its worker, and what to do about it.

use std::error::Error;
use std::fmt;

use crate::error::{self, ErrorKind};

/// A worker could not be built.
#[derive(Debug)]
pub struct CompileError {
    kind: CompileErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// Which step failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompileErrorKind {
    /// No target, or more than one, is what was asked for.
    Selection,
    /// `[package.metadata.cloudknot]` or an option says something that cannot be.
    Settings,
    /// The program has cloudknot without a feature that is needed.
    Feature,
    /// The program has another version of cloudknot than this one can build.
    Version,
    /// The machine lacks what is needed to compile for the worker's platform.
    Toolchain,
    /// cargo ended with an error, which it has shown itself.
    Cargo,
    /// What cargo built cannot be a worker: no remote function in it, or not static.
    Worker,
    /// A file could not be read or written.
    Io,
}

impl CompileError {
    pub(super) fn new(kind: CompileErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    pub(super) fn advise(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Which step failed.
    pub fn kind(&self) -> CompileErrorKind {
        self.kind
    }

    /// What to do next, where there is something to say.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for CompileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

impl From<CompileError> for error::Error {
    fn from(error: CompileError) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self::wrap(ErrorKind::Compile, error, hint)
    }
}

/// For `map_err` where a file is read or written: "failed to <action> `<path>`".
pub(super) fn io(action: &str, path: impl AsRef<std::path::Path>) -> impl FnOnce(std::io::Error) -> CompileError {
    let message = format!("failed to {action} `{}`", path.as_ref().display());
    move |cause| CompileError::new(CompileErrorKind::Io, message).because(cause)
}
