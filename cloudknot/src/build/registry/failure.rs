//! Errors of a registry, in terms of what the user can do about them.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use crate::build::image::ImageError;
use crate::error::{self, ABSENT, ABSENT_HINT, Absent, ErrorKind};

/// Kind of a registry error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RegistryErrorKind {
    /// The name of the repository or tag is invalid.
    Name,
    /// The registry's host has no address.
    UnknownHost,
    /// The registry's certificate is not trusted, or the registry does not use TLS.
    Untrusted,
    /// The connection failed or was lost, on every attempt.
    Connection,
    /// The registry was too busy, or still lacked a layer that another push was writing, on every attempt.
    Busy,
    /// The registry rejects the login, or requires one.
    Login,
    /// The login is valid, but lacks the permission.
    NotPermitted,
    /// The repository, or an object in it, does not exist.
    NotFound,
    /// The stored login, or a CA bundle, cannot be read.
    Configuration,
    /// The registry rejected the request for another reason.
    Refused,
}

impl RegistryErrorKind {
    /// Returns `true` if the error is transient, so that a retry may succeed.
    pub(super) fn is_transient(self) -> bool {
        matches!(self, Self::Connection | Self::Busy)
    }
}

/// Error of an operation with a registry.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct RegistryError {
    kind: RegistryErrorKind,
    message: String,
    #[source]
    cause: Option<Cause>,
    hint: Option<String>,
}

/// Message of the registry or the connection.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Cause(String);

impl RegistryError {
    pub(super) fn of(
        action: &str,
        registry: &str,
        login_is_explicit: bool,
        (kind, cause): (RegistryErrorKind, String),
    ) -> Self {
        Self {
            kind,
            message: format!("cannot {action}"),
            cause: Some(Cause(cause)),
            hint: hint(kind, registry, login_is_explicit),
        }
    }

    /// Returns the error for an operation without progress for the duration of `timeout`.
    pub(super) fn stalled(action: &str, registry: &str, timeout: Duration) -> Self {
        let seconds = timeout.as_secs();
        Self {
            kind: RegistryErrorKind::Connection,
            message: format!("cannot {action}"),
            cause: Some(Cause(format!("timed out: no data was sent or received for {seconds} seconds"))),
            hint: hint(RegistryErrorKind::Connection, registry, false),
        }
    }

    pub(super) fn name(name: &str, why: &str) -> Self {
        Self {
            kind: RegistryErrorKind::Name,
            message: format!("invalid repository name `{name}`"),
            cause: Some(Cause(why.to_owned())),
            hint: hint(RegistryErrorKind::Name, "", false),
        }
    }

    pub(super) fn stored_login(registry: &str, path: &Path, why: String) -> Self {
        Self {
            kind: RegistryErrorKind::Configuration,
            message: format!("cannot read the login for `{registry}` from `{}`", path.display()),
            cause: Some(Cause(why)),
            hint: Some(format!("run `docker login {registry}` again, or give a user and a password")),
        }
    }

    /// Returns the error for a stored identity token. `docker login` stores one whenever the registry issues it, so running it
    /// again would change nothing.
    pub(super) fn identity_token(registry: &str, path: &Path) -> Self {
        let azure = if registry.ends_with(".azurecr.io") {
            "; for Azure that is the user 00000000-0000-0000-0000-000000000000, with the `accessToken` that \
             `az acr login --expose-token` prints as its password"
        } else {
            ""
        };
        Self {
            hint: Some(format!(
                "give a user and a password, or a token in place of a password: `cargo knot push --username NAME \
                 --password-stdin`{azure}"
            )),
            ..Self::stored_login(registry, path, "it holds an identity token, which only Docker can use".to_owned())
        }
    }

    pub(super) fn with_hint(self, hint: String) -> Self {
        Self { hint: Some(hint), ..self }
    }

    pub(super) fn ca_bundle(error: &ImageError) -> Self {
        let hint = error.hint();
        let cause = error.source().map(|cause| Cause(cause.to_string()));
        Self { kind: RegistryErrorKind::Configuration, message: error.to_string(), cause, hint }
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> RegistryErrorKind {
        self.kind
    }

    /// Returns a hint on what to do next, if there is one.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub(super) fn reason(&self) -> String {
        self.cause.as_ref().map_or_else(|| self.message.clone(), |cause| cause.0.clone())
    }
}

/// Part of a hint. A partially sent layer is sent again from its start.
const KEPT: &str = "uploaded layers are kept";

fn hint(kind: RegistryErrorKind, registry: &str, login_is_explicit: bool) -> Option<String> {
    Some(match kind {
        RegistryErrorKind::Name => "a name is like `registry.example/somebody/my-crate`, in lower case; \
                                    a tag has letters, digits, `.`, `_` and `-`, at most 128 of them"
            .to_owned(),
        RegistryErrorKind::UnknownHost => format!("check the spelling of `{registry}` and this machine's network"),
        RegistryErrorKind::Untrusted => {
            format!(
                "if `{registry}` has a certificate from a private certificate authority, set `ca-bundle` to the CA certificate"
            )
        }
        RegistryErrorKind::Connection => {
            format!("check whether `{registry}` is up, then try again; {KEPT}")
        }
        RegistryErrorKind::Busy => format!("try again later; {KEPT}"),
        RegistryErrorKind::Login if login_is_explicit => {
            "check the user and the password or token; tokens expire".to_owned()
        }
        RegistryErrorKind::Login => format!("run `docker login {registry}`, or give a user and a password"),
        RegistryErrorKind::NotPermitted => "ask the owner of the repository for permission to push".to_owned(),
        RegistryErrorKind::NotFound => {
            "create the repository first; some registries, ECR among them, require it".to_owned()
        }
        RegistryErrorKind::Configuration | RegistryErrorKind::Refused => return None,
    })
}

impl Absent for RegistryError {
    fn absent() -> Self {
        let (message, hint) = (ABSENT.to_owned(), Some(ABSENT_HINT.to_owned()));
        Self { kind: RegistryErrorKind::Configuration, message, cause: None, hint }
    }
}

impl From<RegistryError> for error::Error {
    fn from(error: RegistryError) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self::wrap(ErrorKind::Registry, error, hint)
    }
}
