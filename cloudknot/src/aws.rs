//! Configuration of requests to AWS (credentials, profile and region), and the errors that AWS returns. Each service
//! has a module below this one.
//!
//! Requests share one configuration: the SDK's adaptive retries, which slow down on throttling. Retries are reported,
//! so that users see why an operation takes longer.

use std::error::Error as StdError;
use std::fmt;
use std::time::Instant;

use aws_config::retry::RetryConfig;
use aws_config::{Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, Metadata};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::retries::RequestAttempts;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_types::request_id::RequestId;
use cloudknot_runtime::store::s3::{credentials_cause, loader};

use crate::error::{Error, ErrorKind, Outage, Result};
use crate::event::{self, Event};

pub(crate) mod batch;
#[cfg(feature = "deploy")]
mod deploy;
pub(crate) mod logs;
mod signed;

#[cfg(feature = "deploy")]
pub(crate) use deploy::{cloudformation, ec2, ecr, efs, iam, kms, machines, permissions, quotas, s3};

/// Maximum number of attempts of one request. The delays between them double, for about two minutes in all.
const MAX_ATTEMPTS: u32 = 8;

/// Creates the SDK's client of a service. The client reports its retries.
macro_rules! client {
    ($aws:expr, $service:ident) => {
        $service::Client::from_conf(
            $service::config::Builder::from(&$aws.config).interceptor($crate::aws::Retries).build(),
        )
    };
}
pub(crate) use client;

/// Configuration of requests to AWS: the caller's credentials, and a region.
#[derive(Debug, Clone)]
pub(crate) struct Aws {
    pub(crate) config: SdkConfig,
    pub(crate) region: String,
    profile: Option<String>,
    /// Profiles on this machine, if the chosen one is known not to be among them.
    other_profiles: Option<Vec<String>>,
}

impl Aws {
    /// Loads the configuration for a region. The environment takes precedence over the given profile.
    pub(crate) async fn of_region(region: &str, profile: Option<&str>) -> Self {
        let profile = env_var("AWS_PROFILE").or_else(|| profile.map(str::to_owned));
        let (config, _) = load_config(profile.as_deref(), Some(region.to_owned())).await;
        Self { config, region: region.to_owned(), profile, other_profiles: None }
    }

    /// Creates the configuration from that of the SDK, without reading the environment or `config.toml`.
    #[cfg(test)]
    pub(crate) fn of(config: SdkConfig) -> Self {
        let region = config.region().expect("the configuration of a test has a region").to_string();
        Self { config, region, profile: None, other_profiles: None }
    }

    /// Returns the error of a failed request. `action` names the operation: "create the stack `x`".
    pub(crate) fn failed<E>(&self, action: &str, error: SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let code = code(&error).unwrap_or_default().to_owned();
        let request = error.request_id().map(str::to_owned);
        let is_server_error = error.raw_response().is_some_and(|response| response.status().is_server_error());
        let is_transient = is_transient(&error);
        let source: Box<dyn StdError + Send + Sync> = match error {
            SdkError::ServiceError(response) => {
                let (meta, status) = (response.err().meta(), response.raw().status().as_u16());
                let message = meta.message().unwrap_or_default().to_owned();
                Box::new(ErrorResponse { code: code.clone(), message, status, request })
            }
            error => error.into_source().unwrap_or_else(|error| Box::new(error)),
        };
        let (kind, hint) = self.classify(&code, &*source);
        let hint = if is_server_error {
            Some("AWS reported a server error: try again later; existing resources are kept".to_owned())
        } else {
            hint
        };
        let outage = match kind {
            ErrorKind::Credentials => Some(Outage::Login),
            _ => is_transient.then_some(Outage::Service),
        };
        let reason = self.credentials_problem(&*source).map_or_else(String::new, |problem| format!(": {problem}"));
        let source = credentials_cause(&*source).map_or(source, Into::into);
        let failed = Error::new(kind, format!("cannot {action}{reason}")).with_source(source).with_outage(outage);
        match hint {
            Some(hint) => failed.with_hint(hint),
            None => failed,
        }
    }

    /// Returns why there are no credentials, if that is what an error is about.
    fn credentials_problem(&self, error: &(dyn StdError + 'static)) -> Option<String> {
        let cause = cause::<CredentialsError>(error)?;
        Some(match (&self.profile, &self.other_profiles, cause) {
            (Some(profile), Some(_), _) => format!("there is no AWS profile `{profile}`"),
            (_, _, CredentialsError::CredentialsNotLoaded(_)) => "there are no AWS credentials".to_owned(),
            _ => "the AWS credentials cannot be loaded".to_owned(),
        })
    }

    /// Returns the kind of an error, and the hint for it.
    fn classify(&self, code: &str, error: &(dyn StdError + 'static)) -> (ErrorKind, Option<String>) {
        let caller =
            self.profile.as_ref().map_or_else(|| "your user".to_owned(), |profile| format!("profile `{profile}`"));
        let credentials_error = |hint: String| (ErrorKind::Credentials, Some(hint));
        match code {
            "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestExpired"
            | "TokenRefreshRequired"
            | "InvalidToken"
            | "InvalidAccessKeyId"
            | "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "AuthFailure"
            | "SignatureDoesNotMatch"
            | "InvalidSignatureException"
            | "IncompleteSignature"
            | "OptInRequired" => credentials_error(format!(
                "the credentials of {caller} are not accepted: log in again (`aws sso login`, `aws login`), or choose \
                     others by --profile or AWS_PROFILE"
            )),
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" | "Unauthorized" => {
                let hint = format!(
                    "ask an administrator to grant it to {caller} (`cargo knot policy` prints the policy of each \
                     command), then run the same command; existing resources are kept"
                );
                (ErrorKind::Denied, Some(hint))
            }
            "" if cause::<CredentialsError>(error).is_some() => credentials_error(match &self.other_profiles {
                Some(profiles) => choose_profile(profiles),
                None => "log in to AWS (`aws sso login`, `aws login`), or choose a profile that has credentials: `cargo knot \
                         configure` lists them"
                    .into(),
            }),
            "" => {
                let hint = format!("check the network, and that `{}` is an AWS region", self.region);
                (ErrorKind::Aws, Some(hint))
            }
            _ => {
                (ErrorKind::Aws, Some("fix that, then run the same command again; existing resources are kept".into()))
            }
        }
    }
}

/// Returns the value of an environment variable. An empty variable counts as unset.
fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Loads the configuration, and returns it with the region that it resolved to.
async fn load_config(profile: Option<&str>, region: Option<String>) -> (SdkConfig, Option<String>) {
    let mut loader = loader().retry_config(RetryConfig::adaptive().with_max_attempts(MAX_ATTEMPTS));
    if let Some(profile) = profile {
        loader = loader.profile_name(profile);
    }
    if let Some(region) = region {
        loader = loader.region(Region::new(region));
    }
    let config = loader.load().await;
    let region = config.region().map(ToString::to_string);
    (config, region)
}

/// Returns the error code in AWS's response, if there was one.
pub(crate) fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.as_service_error().and_then(|error| error.meta().code())
}

/// Returns the error message in AWS's response, or an empty string if there was none.
pub(crate) fn message<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> &str {
    error.as_service_error().and_then(|error| error.meta().message()).unwrap_or_default()
}

/// Error response from AWS. It is displayed in one line.
#[derive(Debug)]
struct ErrorResponse {
    code: String,
    message: String,
    status: u16,
    request: Option<String>,
}

impl fmt::Display for ErrorResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, message, status, request } = self;
        match (code.as_str(), message.as_str()) {
            ("", "") => write!(f, "AWS responded with status {status}")?,
            ("", text) | (text, "") => f.write_str(text)?,
            (code, message) => write!(f, "{message} ({code})")?,
        }
        request.iter().try_for_each(|request| write!(f, ", request {request}"))
    }
}

impl StdError for ErrorResponse {}

/// Returns the first error of this type among an error and its causes.
fn cause<'e, T: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e T> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(<dyn StdError>::downcast_ref)
}

/// Returns the hint for a profile that does not exist.
fn choose_profile(profiles: &[String]) -> String {
    let existing = if profiles.is_empty() { "none".to_owned() } else { profiles.join(", ") };
    format!(
        "choose another by --aws-profile, AWS_PROFILE or `cargo knot configure --profile`; existing profiles: {existing}"
    )
}

/// Interceptor that reports each retry of a request, after its delay: only then is it certain that the retry happens.
#[derive(Debug)]
pub(crate) struct Retries;

/// Reason and time of the failure of the previous attempt.
#[derive(Debug)]
struct PreviousFailure {
    reason: String,
    at: Instant,
}

impl Storable for PreviousFailure {
    type Storer = StoreReplace<Self>;
}

#[dyn_dispatch_hint]
impl Intercept for Retries {
    fn name(&self) -> &'static str {
        "report retries"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(Err(error)) = context.output_or_error() {
            let status = context.response().map(|response| response.status().as_u16());
            let reason = match (status, error.as_operation_error()) {
                // The body of such a response is often not a message of the service.
                (Some(status @ 500..), _) | (Some(status), None) => format!("AWS responded with status {status}"),
                (_, Some(error)) => deepest(error),
                (None, None) => deepest(error),
            };
            config.interceptor_state().store_put(PreviousFailure { reason, at: Instant::now() });
        }
        Ok(())
    }

    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let attempt = config.load::<RequestAttempts>().map_or(1, RequestAttempts::attempts);
        if let (2.., Some(failed), Some(operation)) =
            (attempt, config.load::<PreviousFailure>(), config.load::<Metadata>())
        {
            let action = format!("call AWS ({} {})", operation.service(), operation.name());
            event::report(&Event::Retrying { action: &action, reason: &failed.reason, wait: failed.at.elapsed() });
        }
        Ok(())
    }
}

/// Returns whether the same request may succeed later: there was no response, or AWS is overloaded or broken.
fn is_transient<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    match error {
        SdkError::ConstructionFailure(_) => false,
        SdkError::DispatchFailure(failure) => !failure.is_user(),
        SdkError::ServiceError(response) => response.raw().status().is_server_error() || is_throttled(error),
        _ => true,
    }
}

/// Returns whether AWS has refused the request because there were too many.
pub(crate) fn is_throttled<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    error.raw_response().is_some_and(|response| response.status().as_u16() == 429)
        || code(error).is_some_and(|code| code.contains("Throttl"))
}

/// Returns whether a request was not sent because there were no usable credentials.
pub(crate) fn is_credentials_error<E>(error: &SdkError<E, HttpResponse>) -> bool
where
    E: StdError + 'static,
{
    cause::<CredentialsError>(error).is_some()
}

/// Returns the message of the innermost source. The errors around it name types of the SDK.
fn deepest(error: &(dyn StdError + 'static)) -> String {
    std::iter::successors(Some(error), |&error| error.source()).last().unwrap_or(error).to_string()
}
