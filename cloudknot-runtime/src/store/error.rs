//! Errors of stores, with messages that name the object. Independent of any particular store.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// Error of a store operation.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    action: String,
    hint: Option<Cow<'static, str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Kind of a store error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// The object does not exist.
    Missing,
    /// The store does not exist: there is no such bucket.
    NoStore,
    /// The object ends before the end of the requested range.
    Short,
    /// The key is not one that stores accept.
    BadKey,
    /// This user has no access to a folder.
    NoAccess,
    /// The service denies access: a permission is missing.
    Denied,
    /// There are no credentials, or the store does not accept them (any longer).
    Credentials,
    /// The store is full.
    Full,
    /// The store cannot be reached, or responds with errors.
    Unavailable,
    /// Anything else.
    Other,
}

impl StoreError {
    /// Creates an error; `action` completes "cannot …" and names the object and the store.
    pub fn new(
        kind: StoreErrorKind,
        action: impl Into<String>,
        source: Option<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, action: action.into(), hint: None, source }
    }

    /// Sets the hint: how the user can resolve the error.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns the cause of the error.
    pub fn into_source(self) -> Option<Box<dyn StdError + Send + Sync>> {
        self.source
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Returns the hint: how the user can resolve the error.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.action)
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
