//! S3 errors, mapped to kinds and to hints for the user.

use std::error::Error as StdError;
use std::fmt;

use aws_config::meta::{ProviderAttempt, ProviderChainError};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
#[cfg(not(cloudknot_worker))]
use aws_sdk_s3::types::Error as KeyError;

use crate::store::{StoreError, StoreErrorKind as Kind};

type Source = Box<dyn StdError + Send + Sync>;

/// Error of a failed request.
#[derive(Debug)]
pub(super) struct Fault {
    kind: Kind,
    hint: Option<&'static str>,
    /// HTTP status; 0 if there was no response.
    status: u16,
    #[cfg(not(cloudknot_worker))]
    code: String,
    source: Source,
}

/// Error response of the server, displayed in one line.
#[derive(Debug)]
struct ErrorResponse {
    code: String,
    message: String,
    status: u16,
    request: Option<String>,
}

impl Fault {
    pub(super) fn other(source: impl Into<Source>) -> Self {
        Self {
            kind: Kind::Other,
            hint: None,
            status: 0,
            #[cfg(not(cloudknot_worker))]
            code: String::new(),
            source: source.into(),
        }
    }

    pub(super) fn short(size: u64) -> Self {
        Self { kind: Kind::Short, ..Self::other(format!("the object has {size} bytes")) }
    }

    pub(super) fn unavailable(source: impl Into<Source>) -> Self {
        Self { kind: Kind::Unavailable, hint: Some(UNAVAILABLE), ..Self::other(source) }
    }

    /// Creates the error of a key that could not be deleted, one of `count` such keys.
    #[cfg(not(cloudknot_worker))]
    pub(super) fn of_key(error: &KeyError, count: usize) -> Self {
        let message = format!("{} (one of {count} objects)", error.message().unwrap_or_default());
        Self::from_response(ErrorResponse {
            code: error.code().unwrap_or_default().to_owned(),
            message,
            status: 0,
            request: None,
        })
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns `true` if the server has refused the request.
    pub(super) fn is_refusal(&self) -> bool {
        self.status != 0 && self.kind != Kind::Unavailable
    }

    /// Returns `true` if the object exists already.
    pub(super) fn object_exists(&self) -> bool {
        self.status == 412
    }

    /// Returns `true` if another write of the same key is in progress.
    pub(super) fn is_conflict(&self) -> bool {
        self.status == 409
    }

    /// Returns `true` if the multipart upload does not exist: it never did, or no longer does.
    #[cfg(not(cloudknot_worker))]
    pub(super) fn is_no_upload(&self) -> bool {
        self.code == "NoSuchUpload"
    }

    /// Returns the error of an operation, such as `read`, on these objects.
    pub(super) fn into_error(self, verb: &str, objects: &str) -> StoreError {
        let error = StoreError::new(self.kind, format!("{verb} {objects}"), Some(self.source));
        match self.hint.or_else(|| (self.kind == Kind::Denied).then(|| missing_permission(verb))) {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }

    fn from_response(response: ErrorResponse) -> Self {
        let (kind, hint) = classify(&response.code, response.status);
        Self {
            kind,
            hint,
            status: response.status,
            #[cfg(not(cloudknot_worker))]
            code: response.code.clone(),
            source: Box::new(response),
        }
    }

    /// Creates the error of a request without a response, or with one that could not be read.
    fn without_response(kind: Kind, source: Source) -> Self {
        if let Some(cause) = credentials_cause(&*source) {
            return Self { kind: Kind::Credentials, hint: Some(CREDENTIALS), ..Self::other(cause) };
        }
        match kind {
            _ if is_untrusted(&*source) => Self { hint: Some(UNTRUSTED), ..Self::other(source) },
            Kind::Unavailable => Self::unavailable(source),
            _ => Self::other(source),
        }
    }
}

impl<E: ProvideErrorMetadata + StdError + Send + Sync + 'static> From<SdkError<E>> for Fault {
    fn from(error: SdkError<E>) -> Self {
        let kind = match &error {
            SdkError::ConstructionFailure(_) => Kind::Other,
            _ => Kind::Unavailable,
        };
        match error {
            SdkError::ServiceError(error) => {
                let (meta, raw) = (error.err().meta(), error.raw());
                Self::from_response(ErrorResponse {
                    code: meta.code().unwrap_or_default().to_owned(),
                    message: meta.message().unwrap_or_default().to_owned(),
                    status: raw.status().as_u16(),
                    request: raw.headers().get("x-amz-request-id").map(str::to_owned),
                })
            }
            error => match error.into_source() {
                Ok(source) => Self::without_response(kind, source),
                Err(error) => Self::without_response(kind, Box::new(error)),
            },
        }
    }
}

const UNAVAILABLE: &str =
    "check that the network and the S3 endpoint can be reached, then try again; stored results are kept";
const UNTRUSTED: &str = "give the certificate authority of the S3 endpoint to workers with `ca-bundle` in \
    [package.metadata.cloudknot], and to this machine by its own settings or SSL_CERT_FILE";
const CREDENTIALS: &str = "log in to AWS again, or set AWS_PROFILE to a profile with credentials that are valid";
/// Messages of the SDK's errors that only name their kind.
const SDK_KINDS: [&str; 4] = ["service error", "dispatch failure", "io error", "other"];
const CLOCK: &str = "set this machine's clock: the request is signed with the time";
const REGION: &str = "the bucket is in another region: set AWS_REGION to that one";
const BUCKET: &str = "check the name of the bucket, and that it still exists";

/// Returns the hint for an operation that was denied.
fn missing_permission(verb: &str) -> &'static str {
    match verb {
        "read" => {
            "allow s3:GetObject on the prefix and s3:ListBucket on the bucket; without s3:ListBucket, S3 also denies access to \
             objects that do not exist"
        }
        "list" => "allow s3:ListBucket on the bucket",
        "delete" => "allow s3:DeleteObject on the prefix",
        _ => "allow s3:PutObject on the prefix",
    }
}

/// Returns the kind and the hint of an error response. Without a known code, the status decides: a response to HEAD has no
/// body and so no code, and servers other than AWS have fewer codes.
fn classify(code: &str, status: u16) -> (Kind, Option<&'static str>) {
    match (code, status) {
        ("NoSuchBucket", _) => (Kind::NoStore, Some(BUCKET)),
        ("NoSuchKey" | "NotFound", _) | ("", 404) => (Kind::Missing, None),
        ("InvalidRange", _) | (_, 416) => (Kind::Short, None),
        ("RequestTimeTooSkewed", _) => (Kind::Credentials, Some(CLOCK)),
        ("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _) | (_, 301) => {
            (Kind::Other, Some(REGION))
        }
        (
            "ExpiredToken"
            | "ExpiredTokenException"
            | "TokenRefreshRequired"
            | "InvalidToken"
            | "InvalidAccessKeyId"
            | "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "SignatureDoesNotMatch"
            | "NotSignedUp",
            _,
        )
        | (_, 401) => (Kind::Credentials, Some(CREDENTIALS)),
        ("QuotaExceeded" | "XMinioStorageFull", _) | (_, 507) => (Kind::Full, Some("free space, then try again")),
        ("AccessDenied" | "AllAccessDisabled", _) | (_, 403) => (Kind::Denied, None),
        ("SlowDown" | "InternalError" | "ServiceUnavailable" | "RequestTimeout" | "OperationAborted", _)
        | (_, 409 | 429 | 500..) => (Kind::Unavailable, Some(UNAVAILABLE)),
        _ => (Kind::Other, None),
    }
}

/// Returns why there are no credentials in one sentence, if that is what an error is about.
pub fn credentials_cause(error: &(dyn StdError + 'static)) -> Option<String> {
    let all = std::iter::successors(Some(error), |&error| error.source());
    let mut causes = all.skip_while(|error| !error.is::<CredentialsError>()).peekable();
    causes.peek()?;
    // An error of the SDK around another one only names its kind.
    let is_kind = |error: &&(dyn StdError + 'static)| {
        error.source().is_some() && (error.is::<CredentialsError>() || SDK_KINDS.contains(&&*error.to_string()))
    };
    let parts: Vec<String> = causes.filter(|error| !is_kind(error)).map(in_one_line).collect();
    Some(parts.join(": "))
}

/// Returns the message of an error, without the reason of each provider of credentials.
fn in_one_line(error: &(dyn StdError + 'static)) -> String {
    let Some(chain) = error.downcast_ref::<ProviderChainError<CredentialsError>>() else { return error.to_string() };
    let providers: Vec<&str> = chain.attempts().iter().map(ProviderAttempt::name).collect();
    format!("no credentials found in {}", providers.join(", "))
}

/// Returns `true` if the server's certificate was rejected, for example because no known authority has signed it or it is
/// for another server. Retrying does not change that.
pub(super) fn is_untrusted(error: &(dyn StdError + 'static)) -> bool {
    let refused = |mut error: &(dyn StdError + 'static)| {
        // The `source` of an I/O error skips the error that it wraps, which can be an I/O error again.
        while let Some(wrapped) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            error = wrapped;
        }
        matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))
    };
    std::iter::successors(Some(error), |&error| error.source()).any(refused)
}

impl fmt::Display for ErrorResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> =
            [&*self.code, self.message.trim_end_matches('.')].into_iter().filter(|s| !s.is_empty()).collect();
        match parts.as_slice() {
            [] => write!(f, "unknown reason")?,
            parts => write!(f, "{}", parts.join(": "))?,
        }
        match (self.status, &self.request) {
            (0, _) => Ok(()),
            (status, None) => write!(f, " (status {status})"),
            (status, Some(request)) => write!(f, " (status {status}, request {request})"),
        }
    }
}

impl StdError for ErrorResponse {}
