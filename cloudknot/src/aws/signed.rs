//! Signed requests to EC2, IAM and CloudWatch Logs: only a few requests are needed, and the SDKs of these services would
//! take minutes to compile. Independent of the particular request.
//!
//! Credentials, signatures, timeouts and retries are those of the SDK, from the crates that its clients are built on.

use std::error::Error as StdError;
use std::fmt;

use aws_runtime::auth::SigV4OperationSigningConfig;
use aws_runtime::auth::sigv4::{SCHEME_ID, SigV4AuthScheme};
use aws_runtime::retries::classifiers::AwsErrorCodeClassifier;
use aws_runtime::service_clock_skew::{ServiceClockSkewClassifier, ServiceClockSkewInterceptor};
use aws_smithy_runtime::client::http::connection_poisoning::ConnectionPoisoningInterceptor;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime::client::retries::classifiers::{HttpStatusCodeClassifier, TransientErrorClassifier};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::auth::{
    AuthSchemeOptionResolverParams, SharedAuthScheme, SharedAuthSchemeOptionResolver,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;
use aws_smithy_runtime_api::client::runtime_plugin::StaticRuntimePlugin;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::Layer;
use aws_smithy_types::error::ErrorMetadata;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SigningName;
use aws_types::region::{Region, SigningRegion};
use aws_types::service_config::ServiceConfigKey;
use serde::Deserialize;

use super::{Aws, Retries};
use crate::settings::partition::Partition;

/// An AWS service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Service {
    /// ID of the service in the SDKs.
    pub(crate) id: &'static str,
    /// Name of the service in host names and signatures.
    pub(crate) name: &'static str,
    /// `true` if one endpoint serves all regions of a partition, as for IAM.
    pub(crate) is_global: bool,
    /// Reads the code and the message of an error response.
    pub(crate) refusal: fn(&str) -> ErrorMetadata,
}

/// A request to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    /// Path and query.
    pub(crate) path: String,
    /// Type of the body; `None` without a body.
    pub(crate) content_type: Option<&'static str>,
    /// Operation, for a service that reads it from a header.
    pub(crate) target: Option<&'static str>,
    pub(crate) body: String,
}

impl Request {
    /// Creates a request whose operation is in the body, or in a header.
    pub(crate) fn post(content_type: &'static str, target: Option<&'static str>, body: String) -> Self {
        Self { method: "POST", path: "/".to_owned(), content_type: Some(content_type), target, body }
    }
}

/// Sends a request and returns the body of the response. Transient errors are retried, as in the SDK's own clients.
pub(crate) async fn send(
    aws: &Aws,
    service: &Service,
    operation: &'static str,
    request: Request,
) -> Result<String, SdkError<ServiceError, HttpResponse>> {
    let config = &aws.config;
    let refusal = service.refusal;
    let mut operation = Operation::builder()
        .service_name(service.id)
        .operation_name(operation)
        .http_client(config.http_client().expect("the loader of the configuration sets an HTTP client"))
        .endpoint_url(&endpoint(aws, service))
        .standard_retry(config.retry_config().unwrap_or(&RetryConfig::standard()))
        .retry_classifier(AwsErrorCodeClassifier::<ServiceError>::new())
        .retry_classifier(TransientErrorClassifier::<ServiceError>::new())
        .retry_classifier(HttpStatusCodeClassifier::default())
        .retry_classifier(ServiceClockSkewClassifier::<ServiceError>::new())
        .timeout_config(config.timeout_config().cloned().unwrap_or_else(TimeoutConfig::disabled))
        .interceptor(Retries)
        .interceptor(ServiceClockSkewInterceptor::new())
        .interceptor(ConnectionPoisoningInterceptor::new())
        .runtime_plugin(signature(aws, service))
        .serializer(serialized)
        .deserializer(move |response: &HttpResponse| read_response(response, refusal));
    if let Some(version) = config.behavior_version() {
        operation = operation.behavior_version(version);
    }
    if let Some(sleep) = config.sleep_impl() {
        operation = operation.sleep_impl(sleep);
    }
    if let Some(clock) = config.time_source() {
        operation = operation.time_source(clock);
    }
    operation.build().invoke(request).await
}

/// Returns the credentials, the region and the service that requests are signed with.
fn signature(aws: &Aws, service: &Service) -> StaticRuntimePlugin {
    let region = if service.is_global { Partition::of(&aws.region).iam.region } else { &aws.region };
    let mut settings = Layer::new("signature");
    settings.store_put(AuthSchemeOptionResolverParams::new(()));
    settings.store_put(SigV4OperationSigningConfig {
        region: Some(SigningRegion::from(Region::new(region.to_owned()))),
        name: Some(SigningName::from_static(service.name)),
        ..SigV4OperationSigningConfig::default()
    });
    let resolver = StaticAuthSchemeOptionResolver::new(vec![SCHEME_ID]);
    let mut components = RuntimeComponentsBuilder::new("signature");
    components.set_auth_scheme_option_resolver(Some(SharedAuthSchemeOptionResolver::new(resolver)));
    components.push_auth_scheme(SharedAuthScheme::new(SigV4AuthScheme::new()));
    if let Some(credentials) = aws.config.credentials_provider() {
        components.set_identity_resolver(SCHEME_ID, credentials);
    }
    if let Some(cache) = aws.config.identity_cache() {
        components.set_identity_cache(Some(cache));
    }
    StaticRuntimePlugin::new().with_config(settings.freeze()).with_runtime_components(components)
}

/// Returns the endpoint of a service: that of the environment or the profile, as in the SDK's own clients, or else that
/// of the region.
fn endpoint(aws: &Aws, service: &Service) -> String {
    let config = &aws.config;
    let key =
        ServiceConfigKey::builder().service_id(service.id).env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
    let key = key.expect("the three parts are non-empty");
    let general = config.endpoint_url().map(str::to_owned);
    let endpoint = if config.get_origin("endpoint_url").is_client_config() {
        general
    } else {
        config.service_config().and_then(|service| service.load_config(key)).or(general)
    };
    let fips = config.use_fips().unwrap_or_default();
    endpoint
        .unwrap_or_else(|| regional_endpoint(service, &aws.region, fips, config.use_dual_stack().unwrap_or_default()))
}

fn regional_endpoint(service: &Service, region: &str, fips: bool, dual_stack: bool) -> String {
    let partition = Partition::of(region);
    // In GovCloud every endpoint is a FIPS endpoint.
    let fips = if fips && !region.starts_with("us-gov-") { "-fips" } else { "" };
    let name = service.name;
    if service.is_global {
        let host = if dual_stack { partition.iam.dual_stack } else { partition.iam.host };
        return format!("https://{name}{fips}.{host}");
    }
    let domain = if dual_stack { partition.dual_stack } else { partition.domain };
    format!("https://{name}{fips}.{region}.{domain}")
}

fn serialized(contents: Request) -> Result<HttpRequest, BoxError> {
    let mut request = HttpRequest::new(SdkBody::from(contents.body));
    request.set_method(contents.method)?;
    request.set_uri(contents.path)?;
    if let Some(content_type) = contents.content_type {
        request.headers_mut().insert("content-type", content_type);
    }
    if let Some(target) = contents.target {
        request.headers_mut().insert("x-amz-target", target);
    }
    Ok(request)
}

fn read_response(
    response: &HttpResponse,
    refusal: fn(&str) -> ErrorMetadata,
) -> Result<String, OrchestratorError<ServiceError>> {
    let body = response.body().bytes().unwrap_or_default();
    let text = String::from_utf8_lossy(body);
    if response.status().is_success() {
        return Ok(text.into_owned());
    }
    Err(OrchestratorError::operation(ServiceError(refusal(&text))))
}

/// Reads the code and the message of an error response in JSON. Both may be absent.
pub(crate) fn json_refusal(text: &str) -> ErrorMetadata {
    #[derive(Deserialize)]
    struct Fault {
        #[serde(rename = "__type", alias = "ErrorCode")]
        code: Option<String>,
        #[serde(alias = "Message")]
        message: Option<String>,
    }
    let mut metadata = ErrorMetadata::builder();
    // Something between this program and AWS, such as a proxy, may have responded instead.
    if let Ok(Fault { code, message }) = serde_json::from_str(text) {
        let code = code.as_deref().map(|code| code.rsplit('#').next().unwrap_or(code).to_owned());
        metadata = metadata.code(code.unwrap_or_default()).message(message.unwrap_or_default());
    }
    metadata.build()
}

/// Error response from a service.
#[derive(Debug)]
pub(crate) struct ServiceError(ErrorMetadata);

impl ProvideErrorMetadata for ServiceError {
    fn meta(&self) -> &ErrorMetadata {
        &self.0
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.message(), self.0.code()) {
            (Some(message), Some(code)) => write!(f, "{message} ({code})"),
            _ => f.write_str("the service gave no reason"),
        }
    }
}

impl StdError for ServiceError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_matches_the_partition_of_the_region() {
        const EC2: Service =
            Service { id: "EC2", name: "ec2", is_global: false, refusal: |_| ErrorMetadata::builder().build() };
        const IAM: Service = Service { id: "IAM", name: "iam", is_global: true, ..EC2 };
        fn check(region: &str, ec2_host: &str, iam_host: &str) {
            assert_eq!(regional_endpoint(&EC2, region, false, false), format!("https://{ec2_host}"));
            assert_eq!(regional_endpoint(&IAM, region, false, false), format!("https://{iam_host}"));
        }
        check("eu-central-1", "ec2.eu-central-1.amazonaws.com", "iam.amazonaws.com");
        check("cn-northwest-1", "ec2.cn-northwest-1.amazonaws.com.cn", "iam.cn-north-1.amazonaws.com.cn");
        check("us-gov-east-1", "ec2.us-gov-east-1.amazonaws.com", "iam.us-gov.amazonaws.com");
        check("eusc-de-east-1", "ec2.eusc-de-east-1.amazonaws.eu", "iam.eusc-de-east-1.amazonaws.eu");
        check("us-iso-west-1", "ec2.us-iso-west-1.c2s.ic.gov", "iam.us-iso-east-1.c2s.ic.gov");
        check("us-isob-east-1", "ec2.us-isob-east-1.sc2s.sgov.gov", "iam.us-isob-east-1.sc2s.sgov.gov");
        assert_eq!(regional_endpoint(&EC2, "us-east-1", true, false), "https://ec2-fips.us-east-1.amazonaws.com");
        assert_eq!(regional_endpoint(&EC2, "us-east-1", false, true), "https://ec2.us-east-1.api.aws");
        assert_eq!(regional_endpoint(&EC2, "us-gov-east-1", true, false), "https://ec2.us-gov-east-1.amazonaws.com");
        assert_eq!(regional_endpoint(&IAM, "eu-west-1", true, false), "https://iam-fips.amazonaws.com");
        assert_eq!(regional_endpoint(&IAM, "eu-west-1", false, true), "https://iam.global.api.aws");
        assert_eq!(regional_endpoint(&IAM, "us-gov-east-1", true, true), "https://iam.us-gov.api.aws");
    }

    #[test]
    fn error_response_has_its_code() {
        let refused = json_refusal(
            r#"{"__type":"com.amazonaws#ResourceNotFoundException","message":"The stream does not exist."}"#,
        );
        assert_eq!(refused.code(), Some("ResourceNotFoundException"));
        assert_eq!(refused.message(), Some("The stream does not exist."));
        assert_eq!(json_refusal("Bad Gateway").code(), None);
    }
}
