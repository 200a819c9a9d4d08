//! Classifies the errors of the client crate.

use std::error::Error;
use std::io;

use oci_client::errors::{OciDistributionError, OciEnvelope, OciErrorCode};

use crate::build::registry::RegistryErrorKind;

/// Returns the kind of an error and its cause, without URLs (they contain the state of an upload and do not help the user).
pub(super) fn classify(error: &OciDistributionError) -> (RegistryErrorKind, String) {
    match error {
        OciDistributionError::RequestError(error) => match error.status() {
            Some(status) => by_status(status.as_u16(), ""),
            None => by_connection(error),
        },
        OciDistributionError::ServerError { code, message, .. } => by_status(*code, message),
        OciDistributionError::UnauthorizedError { .. } => by_status(401, ""),
        OciDistributionError::RegistryError { envelope, .. } => by_envelope(envelope, RegistryErrorKind::Refused),
        // The client crate does not expose the status of a token service; only the message distinguishes a limit from a
        // refusal.
        OciDistributionError::AuthenticationFailure(message) => match envelope(message) {
            Some(envelope) => by_envelope(&envelope, RegistryErrorKind::Login),
            None => (RegistryErrorKind::Login, format!("the registry rejects the login{}", message_suffix(message))),
        },
        error => (RegistryErrorKind::Refused, error.to_string()),
    }
}

fn by_status(code: u16, message: &str) -> (RegistryErrorKind, String) {
    let (kind, what) = match code {
        _ if envelope(message).is_some_and(|envelope| lacks_a_blob(&envelope)) => {
            (RegistryErrorKind::Busy, "the registry does not have all layers yet")
        }
        401 => (RegistryErrorKind::Login, "the registry rejects the login, or requires one"),
        403 => (RegistryErrorKind::NotPermitted, "the registry denies permission"),
        404 => (RegistryErrorKind::NotFound, "not found in the registry"),
        408 | 429 => (RegistryErrorKind::Busy, "the registry received too many requests"),
        500 | 502..=504 => (RegistryErrorKind::Busy, "the registry is temporarily unavailable"),
        _ => (RegistryErrorKind::Refused, "the registry rejected the request"),
    };
    (kind, format!("{what} (status {code}){}", message_suffix(message)))
}

/// Returns whether the registry lacks a blob of a manifest. A manifest is sent after all its blobs, so this is transient: while
/// another push writes the same blob, the registry of the CNCF (`distribution`) cannot read it.
fn lacks_a_blob(envelope: &OciEnvelope) -> bool {
    envelope.errors.iter().any(|error| matches!(error.code, OciErrorCode::ManifestBlobUnknown))
}

fn by_envelope(envelope: &OciEnvelope, default: RegistryErrorKind) -> (RegistryErrorKind, String) {
    let kind = match envelope.errors.first().map(|error| &error.code) {
        _ if lacks_a_blob(envelope) => RegistryErrorKind::Busy,
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
        _ => default,
    };
    (kind, format!("the registry rejected the request{}", joined_messages(envelope)))
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
    // The connector has no error type for this, only this message.
    if causes.iter().any(|cause| cause.to_string() == "dns error") {
        (RegistryErrorKind::UnknownHost, innermost)
    } else if causes.iter().any(in_tls) {
        (RegistryErrorKind::Untrusted, innermost)
    } else {
        let what = if error.is_timeout() { "no response in time" } else { "the connection failed" };
        (RegistryErrorKind::Connection, format!("{what}: {innermost}"))
    }
}

fn envelope(message: &str) -> Option<OciEnvelope> {
    serde_json::from_str::<OciEnvelope>(message).ok().filter(|envelope| !envelope.errors.is_empty())
}

/// Returns the registry's message in the body of a response, if it can be shown on one line.
fn message_suffix(message: &str) -> String {
    match envelope(message) {
        Some(envelope) => joined_messages(&envelope),
        None => match message.lines().next().unwrap_or_default().trim() {
            "" => String::new(),
            line if line.starts_with('<') => String::new(),
            line => format!(": {}", line.chars().take(200).collect::<String>()),
        },
    }
}

fn joined_messages(envelope: &OciEnvelope) -> String {
    let messages: Vec<&str> = envelope.errors.iter().map(|error| error.message.as_str()).collect();
    let messages = messages.join("; ");
    if messages.is_empty() { messages } else { format!(": {messages}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_blob_of_a_manifest_is_transient() {
        let check = |errors: &str, expected: RegistryErrorKind| {
            let message = format!(r#"{{"errors": [{errors}]}}"#);
            let error = OciDistributionError::ServerError { code: 400, url: String::new(), message: message.clone() };
            assert_eq!(classify(&error).0, expected, "{message}");
            let envelope = envelope(&message).unwrap();
            let error = OciDistributionError::RegistryError { envelope, url: String::new() };
            assert_eq!(classify(&error).0, expected, "{message}");
        };
        // As `distribution` 2.8 responds while another push writes a blob of the manifest.
        let invalid = r#"{"code": "DIGEST_INVALID", "message": "provided digest did not match uploaded content"}"#;
        let unknown = r#"{"code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown to registry", "detail": {"Digest": "sha256:00"}}"#;
        check(&format!("{invalid}, {unknown}"), RegistryErrorKind::Busy);
        check(unknown, RegistryErrorKind::Busy);
        check(invalid, RegistryErrorKind::Refused);
    }
}
