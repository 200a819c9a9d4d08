//! Errors of compiling a program to its worker, with hints on what to do about them.

use std::error::Error;

use crate::error::{self, ABSENT, ABSENT_HINT, Absent, ErrorKind};

/// Error while building a worker.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CompileError {
    kind: CompileErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// Step of a worker build that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompileErrorKind {
    /// No target, or more than one, matches the selection.
    Selection,
    /// `[package.metadata.cloudknot]` or an option has an invalid value.
    Settings,
    /// The program's cloudknot lacks a required feature.
    Feature,
    /// The program's version of cloudknot differs from those that this one can build.
    Version,
    /// The machine lacks tools to compile for the worker's platform.
    Toolchain,
    /// cargo ended with an error, which it has printed itself.
    Cargo,
    /// The executable that cargo built cannot be a worker: it has no remote function, or is not static.
    Worker,
    /// A file could not be read or written.
    Io,
}

impl CompileError {
    pub(super) fn new(kind: CompileErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns the step that failed.
    pub fn kind(&self) -> CompileErrorKind {
        self.kind
    }

    /// Returns a hint on what to do next, if there is one.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl Absent for CompileError {
    fn absent() -> Self {
        Self::new(CompileErrorKind::Worker, ABSENT).with_hint(ABSENT_HINT)
    }
}

impl From<CompileError> for error::Error {
    fn from(error: CompileError) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self::wrap(ErrorKind::Compile, error, hint)
    }
}

/// Returns a function for `map_err` on file operations; the message is `cannot <action> <path>`.
pub(super) fn io(action: &str, path: impl AsRef<std::path::Path>) -> impl FnOnce(std::io::Error) -> CompileError {
    let message = format!("cannot {action} `{}`", path.as_ref().display());
    move |cause| CompileError::new(CompileErrorKind::Io, message).with_source(cause)
}
