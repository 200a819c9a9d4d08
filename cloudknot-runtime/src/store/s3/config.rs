//! Configuration of the AWS SDK: TLS, retries, timeouts. Independent of any bucket.

#[cfg(not(cloudknot_worker))]
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
#[cfg(cloudknot_worker)]
use aws_config::{
    Region, ecs::EcsCredentialsProvider, environment::EnvironmentVariableCredentialsProvider,
    meta::credentials::CredentialsProviderChain, provider_config::ProviderConfig,
};
#[cfg(cloudknot_worker)]
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::config::SharedHttpClient;
use aws_sdk_s3::config::interceptors::InterceptorContext;
use aws_sdk_s3::config::retry::{ClassifyRetry, RetryAction};
#[cfg(not(cloudknot_worker))]
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
#[cfg(not(cloudknot_worker))]
use aws_sdk_s3::error::BoxError;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
#[cfg(not(cloudknot_worker))]
use aws_smithy_runtime_api::client::interceptors::{
    context::BeforeDeserializationInterceptorContextRef, dyn_dispatch_hint,
};
use aws_smithy_runtime_api::client::retries::classifiers::RetryClassifierPriority;

use super::error::is_untrusted;

/// Maximum number of attempts of a request. The waits are random, below a limit that doubles up to 20 s, so that a request
/// outlasts about a minute of errors.
const MAX_ATTEMPTS: u32 = 8;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout from the start of an attempt to the beginning of its response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Minimum rate of an upload, in bytes per second. It extends the timeout [`RESPONSE_TIMEOUT`].
const MIN_UPLOAD_RATE: usize = 64 * 1024;

/// Returns a loader for the AWS configuration of the environment and the profile. Its HTTP stack is rustls with ring.
///
/// Settings that the caller adds before loading override these.
pub fn loader() -> ConfigLoader {
    let defaults = aws_config::defaults(BehaviorVersion::latest());
    defaults.http_client(http()).timeout_config(timeouts()).retry_config(retries())
}

/// Loads the configuration of this program.
#[cfg(not(cloudknot_worker))]
pub(super) async fn load() -> SdkConfig {
    loader().load().await
}

/// Loads the configuration of a worker: the environment of the container, and the credentials of its task role.
///
/// Profiles, SSO and the rest of the default chain are for users' machines, and would be a third of the worker's size.
#[cfg(cloudknot_worker)]
#[expect(clippy::unused_async, reason = "the function of a host awaits")]
pub(super) async fn load() -> SdkConfig {
    let http = http();
    let provider = ProviderConfig::without_region().with_http_client(http.clone());
    let role = EcsCredentialsProvider::builder().configure(&provider).build();
    let environment = EnvironmentVariableCredentialsProvider::new();
    let credentials = CredentialsProviderChain::first_try("environment", environment).or_else("role of the task", role);
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts())
        .retry_config(retries())
        .credentials_provider(SharedCredentialsProvider::new(credentials));
    config.set_region(variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).map(Region::new));
    config.set_endpoint_url(variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL")));
    config.build()
}

fn http() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(RESPONSE_TIMEOUT).build()
}

/// Returns the retry settings of requests: random waits below a limit that doubles.
///
/// The SDK's adaptive mode is not used. After S3 responds "slow down", it paces a program by the program's previous request
/// rate, and a worker sends a handful of requests: one such response then delays each of the next requests by half a minute
/// (measured).
pub fn retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(MAX_ATTEMPTS)
}

/// Returns `true` if the user has set an endpoint other than AWS.
pub fn has_custom_endpoint(config: &SdkConfig) -> bool {
    config.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some()
}

/// Returns a configuration with the timeout of one attempt to upload this number of bytes.
pub(super) fn upload_timeout(bytes: usize) -> aws_sdk_s3::config::Builder {
    let seconds = u64::try_from(bytes / MIN_UPLOAD_RATE).unwrap_or(u64::MAX);
    let timeout = RESPONSE_TIMEOUT.saturating_add(Duration::from_secs(seconds));
    aws_sdk_s3::Config::builder().timeout_config(TimeoutConfig::builder().operation_attempt_timeout(timeout).build())
}

/// `true` once any server has responded to this program.
#[cfg(not(cloudknot_worker))]
static REACHED: AtomicBool = AtomicBool::new(false);
/// Number of failed attempts to reach a server before the first response.
#[cfg(not(cloudknot_worker))]
static FAILED_CONNECTIONS: AtomicU32 = AtomicU32::new(0);
/// Maximum number of failed attempts to reach a server for the first time from a user's machine, so that the user learns
/// within a few seconds that there is no network. Once a server has responded, connection errors count as transient.
#[cfg(not(cloudknot_worker))]
const MAX_FIRST_ATTEMPTS: u32 = 3;

/// Interceptor and retry classifier that stop retries early if no server was ever reached.
#[cfg(not(cloudknot_worker))]
#[derive(Debug)]
pub(super) struct FirstContact;

#[cfg(not(cloudknot_worker))]
#[dyn_dispatch_hint]
impl Intercept for FirstContact {
    fn name(&self) -> &'static str {
        "first contact"
    }

    fn read_after_transmit(
        &self,
        _: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        REACHED.store(true, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(not(cloudknot_worker))]
impl ClassifyRetry for FirstContact {
    fn classify_retry(&self, request: &InterceptorContext) -> RetryAction {
        let error = request.output_or_error().and_then(|result| result.err()?.as_connector_error());
        if error.is_none()
            || REACHED.load(Ordering::Relaxed)
            || FAILED_CONNECTIONS.fetch_add(1, Ordering::Relaxed) + 1 < MAX_FIRST_ATTEMPTS
        {
            return RetryAction::NoActionIndicated;
        }
        RetryAction::RetryForbidden
    }

    fn name(&self) -> &'static str {
        "first contact"
    }

    fn priority(&self) -> RetryClassifierPriority {
        RetryClassifierPriority::run_after(RetryClassifierPriority::transient_error_classifier())
    }
}

/// Retry classifier that forbids a retry if the server's certificate is rejected, since it would be rejected again.
#[derive(Debug)]
pub(super) struct UntrustedCertificate;

impl ClassifyRetry for UntrustedCertificate {
    fn classify_retry(&self, request: &InterceptorContext) -> RetryAction {
        let error = request.output_or_error().and_then(|result| result.err()?.as_connector_error());
        match error {
            Some(error) if is_untrusted(error) => RetryAction::RetryForbidden,
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "untrusted certificate"
    }

    fn priority(&self) -> RetryClassifierPriority {
        // Overrules the classifier that treats the error as transient.
        RetryClassifierPriority::run_after(RetryClassifierPriority::transient_error_classifier())
    }
}
