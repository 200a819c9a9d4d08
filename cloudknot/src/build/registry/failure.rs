//! Errors of a registry, in terms of what the user can do about them. Classifies the errors of the client crate.

use std::error::Error;
use std::io;
use std::path::Path;
use std::time::Duration;

use oci_client::errors::{OciDistributionError, OciEnvelope, OciErrorCode};

use crate::build::image::ImageError;
use crate::error::{self, ErrorKind};

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
    /// The registry was too busy, on every attempt.
    Busy,
    /// The registry rejects the login, or requires one.
    Login,
    /// The login is valid, but lacks the permission.
    NotPermitted,
    /// The repository, or an object in it, does not exist.
    NotFound,
    /// The stored login, or a file of authorities, cannot be read.
    Configuration,
    /// The registry refused for another reason.
    Refused,
}

impl RegistryErrorKind {
    /// Returns `true` if the error is transient, so that a retry may succeed.
    pub(super) fn is_passing(self) -> bool {
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
    pub(super) fn of(doing: &str, registry: &str, login_given: bool, error: &OciDistributionError) -> Self {
        let (kind, cause) = classify(error);
        Self {
            kind,
            message: format!("cannot {doing}"),
            cause: Some(Cause(cause)),
            hint: hint(kind, registry, login_given),
        }
    }

    /// Returns the error for an operation without progress for the duration of `patience`.
    pub(super) fn stalled(doing: &str, registry: &str, patience: Duration) -> Self {
        let seconds = patience.as_secs();
        Self {
            kind: RegistryErrorKind::Connection,
            message: format!("cannot {doing}"),
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

    pub(super) fn authorities(error: &ImageError) -> Self {
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

/// Part of a hint. A layer that was not sent completely starts again.
const KEPT: &str = "layers that have arrived are kept";

fn hint(kind: RegistryErrorKind, registry: &str, login_given: bool) -> Option<String> {
    Some(match kind {
        RegistryErrorKind::Name => "a name is like `registry.example/somebody/my-crate`, in lower case; \
                                    a tag has letters, digits, `.`, `_` and `-`, at most 128 of them"
            .to_owned(),
        RegistryErrorKind::UnknownHost => format!("check the spelling of `{registry}` and this machine's network"),
        RegistryErrorKind::Untrusted => {
            format!("if `{registry}` has a certificate of a private authority, name its file with `ca-bundle`")
        }
        RegistryErrorKind::Connection => {
            format!("check whether `{registry}` is up, then try again; {KEPT}")
        }
        RegistryErrorKind::Busy => format!("try again later; {KEPT}"),
        RegistryErrorKind::Login if login_given => "check the user and the password or token; tokens expire".to_owned(),
        RegistryErrorKind::Login => format!("run `docker login {registry}`, or give a user and a password"),
        RegistryErrorKind::NotPermitted => "ask the owner of the repository for permission to push".to_owned(),
        RegistryErrorKind::NotFound => {
            "create the repository first; some registries, ECR among them, require it".to_owned()
        }
        RegistryErrorKind::Configuration | RegistryErrorKind::Refused => return None,
    })
}

/// Returns the kind of an error and its cause, without URLs (they contain the state of an upload and do not help the user).
fn classify(error: &OciDistributionError) -> (RegistryErrorKind, String) {
    match error {
        OciDistributionError::RequestError(error) => match error.status() {
            Some(status) => by_status(status.as_u16(), ""),
            None => by_connection(error),
        },
        OciDistributionError::ServerError { code, message, .. } => by_status(*code, message),
        OciDistributionError::UnauthorizedError { .. } => by_status(401, ""),
        OciDistributionError::RegistryError { envelope, .. } => by_envelope(envelope, RegistryErrorKind::Refused),
        // The client crate does not expose the status of a token service; only its text distinguishes a limit from a refusal.
        OciDistributionError::AuthenticationFailure(message) => match envelope(message) {
            Some(envelope) => by_envelope(&envelope, RegistryErrorKind::Login),
            None => (RegistryErrorKind::Login, format!("the registry rejects the login{}", told(message))),
        },
        error => (RegistryErrorKind::Refused, error.to_string()),
    }
}

fn by_status(code: u16, message: &str) -> (RegistryErrorKind, String) {
    let (kind, what) = match code {
        401 => (RegistryErrorKind::Login, "the registry rejects the login, or requires one"),
        403 => (RegistryErrorKind::NotPermitted, "the registry denies permission"),
        404 => (RegistryErrorKind::NotFound, "not found in the registry"),
        408 | 429 => (RegistryErrorKind::Busy, "the registry received too many requests"),
        500 | 502..=504 => (RegistryErrorKind::Busy, "the registry is temporarily unavailable"),
        _ => (RegistryErrorKind::Refused, "the registry refuses"),
    };
    (kind, format!("{what} (status {code}){}", told(message)))
}

fn by_envelope(envelope: &OciEnvelope, otherwise: RegistryErrorKind) -> (RegistryErrorKind, String) {
    let kind = match envelope.errors.first().map(|error| &error.code) {
        Some(OciErrorCode::Unauthorized) => RegistryErrorKind::Login,
        Some(OciErrorCode::Denied) => RegistryErrorKind::NotPermitted,
        Some(OciErrorCode::NameInvalid | OciErrorCode::TagInvalid) => RegistryErrorKind::Name,
        Some(
            OciErrorCode::NameUnknown
            | OciErrorCode::NotFound
            | OciErrorCode::ManifestUnknown
            | OciErrorCode::BlobUnknown,
        ) => RegistryErrorKind::NotFound,
        Some(OciErrorCode::Toomanyrequests) => RegistryErrorKind::Busy,
        _ => otherwise,
    };
    (kind, format!("the registry refuses{}", words(envelope)))
}

fn by_connection(error: &reqwest::Error) -> (RegistryErrorKind, String) {
    let first: &(dyn Error + 'static) = error;
    let causes: Vec<_> = std::iter::successors(Some(first), |&cause| cause.source()).collect();
    let innermost = causes.last().map_or_else(String::new, ToString::to_string);
    let in_tls = |cause: &&(dyn Error + 'static)| {
        let mut cause = *cause;
        // The source of an I/O error is not the error that it wraps, which can be an I/O error again.
        while let Some(wrapped) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            cause = wrapped;
        }
        cause.is::<rustls::Error>()
    };
    // The connector has no error type for this, only this text.
    if causes.iter().any(|cause| cause.to_string() == "dns error") {
        (RegistryErrorKind::UnknownHost, innermost)
    } else if causes.iter().any(in_tls) {
        (RegistryErrorKind::Untrusted, innermost)
    } else {
        let what = if error.is_timeout() { "no answer in time" } else { "the connection failed" };
        (RegistryErrorKind::Connection, format!("{what}: {innermost}"))
    }
}

fn envelope(message: &str) -> Option<OciEnvelope> {
    serde_json::from_str::<OciEnvelope>(message).ok().filter(|envelope| !envelope.errors.is_empty())
}

/// Returns the registry's message in the body of an answer, if it can be shown on one line.
fn told(message: &str) -> String {
    match envelope(message) {
        Some(envelope) => words(&envelope),
        None => match message.lines().next().unwrap_or_default().trim() {
            "" => String::new(),
            line if line.starts_with('<') => String::new(),
            line => format!(": {}", line.chars().take(200).collect::<String>()),
        },
    }
}

fn words(envelope: &OciEnvelope) -> String {
    let messages: Vec<&str> = envelope.errors.iter().map(|error| error.message.as_str()).collect();
    let messages = messages.join("; ");
    if messages.is_empty() { messages } else { format!(": {messages}") }
}

impl From<RegistryError> for error::Error {
    fn from(error: RegistryError) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self::wrap(ErrorKind::Registry, error, hint)
    }
}
