//! What a store could not do, in words that name the object. Knows no store in particular.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// Something that a store could not do.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    doing: String,
    hint: Option<Cow<'static, str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What kind of thing a store could not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// There is no such object.
    Missing,
    /// There is no such store: the bucket does not exist.
    NoStore,
    /// The object ends before the range that was asked for.
    Short,
    /// Not a key that a store takes.
    BadKey,
    /// The store does not let us.
    Denied,
    /// There are no credentials, or the store does not accept them (any more).
    Credentials,
    /// The store is full.
    Full,
    /// The store cannot be reached, or answers with errors.
    Unavailable,
    /// Anything else.
    Other,
}

impl StoreError {
    /// An error; `doing` completes "failed to …" and names the object and the store.
    pub fn new(
        kind: StoreErrorKind,
        doing: impl Into<String>,
        source: Option<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, doing: doing.into(), hint: None, source }
    }

    /// Says what the user can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Why the store could not do it.
    pub fn into_source(self) -> Option<Box<dyn StdError + Send + Sync>> {
        self.source
    }

    /// What kind of thing it is.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}", self.doing)
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
