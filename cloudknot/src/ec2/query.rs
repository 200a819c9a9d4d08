//! EC2's Query protocol: a form goes out, XML comes back. Knows no request in particular.
//!
//! Credentials, the signature, timeouts and what is tried again are the SDK's, from the crates that its clients are made of.

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
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use roxmltree::{Document, Node};

use crate::account::Partition;
use crate::aws::{Aws, Retries};

/// What EC2 calls its interface: it has not changed since.
const VERSION: &str = "2016-11-15";

/// All but letters, digits and `-_.~`, as in the SDK's own clients.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    action: &'static str,
    parameters: Vec<(String, String)>,
    filters: usize,
}

impl Ask {
    pub(super) fn new(action: &'static str) -> Self {
        Self { action, parameters: Vec::new(), filters: 0 }
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Only what has one of these values.
    pub(super) fn filter<V: AsRef<str>>(mut self, name: &str, values: impl IntoIterator<Item = V>) -> Self {
        self.filters += 1;
        let number = self.filters;
        self.parameters.push((format!("Filter.{number}.Name"), name.to_owned()));
        for (value, which) in values.into_iter().zip(1..) {
            self.parameters.push((format!("Filter.{number}.Value.{which}"), value.as_ref().to_owned()));
        }
        self
    }

    fn body(&self) -> String {
        let mut body = format!("Action={}&Version={VERSION}", self.action);
        for (name, value) in &self.parameters {
            body.extend(["&", name, "="].into_iter().chain(utf8_percent_encode(value, RESERVED)));
        }
        body
    }
}

/// Sends a request, and gives the XML of its answer. What passes is tried again, as in the SDK's own clients.
pub(super) async fn send(aws: &Aws, ask: &Ask) -> Result<String, SdkError<Refused, HttpResponse>> {
    let config = &aws.config;
    let mut operation = Operation::builder()
        .service_name("EC2")
        .operation_name(ask.action)
        .http_client(config.http_client().expect("the loader of the configuration gives an HTTP client"))
        .endpoint_url(&endpoint(aws))
        .standard_retry(config.retry_config().unwrap_or(&RetryConfig::standard()))
        .retry_classifier(AwsErrorCodeClassifier::<Refused>::new())
        .retry_classifier(TransientErrorClassifier::<Refused>::new())
        .retry_classifier(HttpStatusCodeClassifier::default())
        .retry_classifier(ServiceClockSkewClassifier::<Refused>::new())
        .timeout_config(config.timeout_config().cloned().unwrap_or_else(TimeoutConfig::disabled))
        .interceptor(Retries)
        .interceptor(ServiceClockSkewInterceptor::new())
        .interceptor(ConnectionPoisoningInterceptor::new())
        .runtime_plugin(signature(aws))
        .serializer(request)
        .deserializer(answer);
    if let Some(version) = config.behavior_version() {
        operation = operation.behavior_version(version);
    }
    if let Some(sleep) = config.sleep_impl() {
        operation = operation.sleep_impl(sleep);
    }
    if let Some(clock) = config.time_source() {
        operation = operation.time_source(clock);
    }
    operation.build().invoke(ask.body()).await
}

/// As whom requests are signed, and for what.
fn signature(aws: &Aws) -> StaticRuntimePlugin {
    let mut settings = Layer::new("signature");
    settings.store_put(AuthSchemeOptionResolverParams::new(()));
    settings.store_put(SigV4OperationSigningConfig {
        region: Some(SigningRegion::from(Region::new(aws.region.clone()))),
        name: Some(SigningName::from_static("ec2")),
        ..SigV4OperationSigningConfig::default()
    });
    let only = StaticAuthSchemeOptionResolver::new(vec![SCHEME_ID]);
    let mut parts = RuntimeComponentsBuilder::new("signature");
    parts.set_auth_scheme_option_resolver(Some(SharedAuthSchemeOptionResolver::new(only)));
    parts.push_auth_scheme(SharedAuthScheme::new(SigV4AuthScheme::new()));
    if let Some(credentials) = aws.config.credentials_provider() {
        parts.set_identity_resolver(SCHEME_ID, credentials);
    }
    if let Some(cache) = aws.config.identity_cache() {
        parts.set_identity_cache(Some(cache));
    }
    StaticRuntimePlugin::new().with_config(settings.freeze()).with_runtime_components(parts)
}

/// Where EC2 is asked: where the environment or the profile says, as in the SDK's own clients, or in the region.
fn endpoint(aws: &Aws) -> String {
    let config = &aws.config;
    let of_ec2 = ServiceConfigKey::builder().service_id("EC2").env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
    let of_ec2 = of_ec2.expect("all three parts are there");
    let general = config.endpoint_url().map(str::to_owned);
    let said = if config.get_origin("endpoint_url").is_client_config() {
        general
    } else {
        config.service_config().and_then(|known| known.load_config(of_ec2)).or(general)
    };
    let fips = config.use_fips().unwrap_or_default();
    said.unwrap_or_else(|| of_region(&aws.region, fips, config.use_dual_stack().unwrap_or_default()))
}

fn of_region(region: &str, fips: bool, dual_stack: bool) -> String {
    let partition = Partition::of(region);
    let domain = if dual_stack { partition.dual_stack } else { partition.domain };
    // In these regions every endpoint is one.
    let fips = fips && !region.starts_with("us-gov-");
    format!("https://ec2{}.{region}.{domain}", if fips { "-fips" } else { "" })
}

fn request(body: String) -> Result<HttpRequest, BoxError> {
    let mut request = HttpRequest::new(SdkBody::from(body));
    request.set_method("POST")?;
    request.set_uri("/")?;
    request.headers_mut().insert("content-type", "application/x-www-form-urlencoded");
    Ok(request)
}

fn answer(response: &HttpResponse) -> Result<String, OrchestratorError<Refused>> {
    let body = response.body().bytes().unwrap_or_default();
    let text = String::from_utf8_lossy(body);
    if response.status().is_success() {
        return Ok(text.into_owned());
    }
    Err(OrchestratorError::operation(Refused::read(&text)))
}

/// What EC2 says when it does not do what was asked.
#[derive(Debug)]
pub(super) struct Refused(ErrorMetadata);

impl Refused {
    /// Something between here and EC2 may have answered in its stead, so there may be no code.
    fn read(text: &str) -> Self {
        let mut said = ErrorMetadata::builder();
        let document = Document::parse(text).ok();
        let error =
            document.as_ref().and_then(|document| document.descendants().find(|node| node.has_tag_name("Error")));
        if let Some(error) = error {
            said = said.code(part(error, "Code").unwrap_or_default());
            said = said.message(part(error, "Message").unwrap_or_default());
        }
        Self(said.build())
    }
}

impl ProvideErrorMetadata for Refused {
    fn meta(&self) -> &ErrorMetadata {
        &self.0
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.message(), self.0.code()) {
            (Some(message), Some(code)) => write!(f, "{message} ({code})"),
            _ => f.write_str("EC2 gave no reason"),
        }
    }
}

impl StdError for Refused {}

/// The element below this one along these names, one level each: `vCpuInfo/defaultVCpus`.
pub(super) fn below<'a, 'input>(node: Node<'a, 'input>, path: &str) -> Option<Node<'a, 'input>> {
    path.split('/').try_fold(node, |node, name| node.children().find(|child| child.has_tag_name(name)))
}

/// The text of that element, unless it is empty.
pub(super) fn part<'a>(node: Node<'a, '_>, path: &str) -> Option<&'a str> {
    below(node, path)?.text().map(str::trim).filter(|text| !text.is_empty())
}

/// The items of that list; none if it is not there.
pub(super) fn items<'a, 'input>(node: Node<'a, 'input>, path: &str) -> impl Iterator<Item = Node<'a, 'input>> {
    below(node, path).into_iter().flat_map(|list| list.children()).filter(|child| child.has_tag_name("item"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_break_out_of_the_form() {
        let ask = Ask::new("DescribeKeyPairs").with("KeyName.1", "Ada's key & more=50%, für alle").filter("a", ["b+c"]);
        let expected = "Action=DescribeKeyPairs&Version=2016-11-15\
            &KeyName.1=Ada%27s%20key%20%26%20more%3D50%25%2C%20f%C3%BCr%20alle&Filter.1.Name=a&Filter.1.Value.1=b%2Bc";
        assert_eq!(ask.body(), expected);
    }

    #[test]
    fn each_region_has_its_domain() {
        fn check(region: &str, plain: &str) {
            assert_eq!(of_region(region, false, false), plain);
        }
        check("eu-central-1", "https://ec2.eu-central-1.amazonaws.com");
        check("cn-north-1", "https://ec2.cn-north-1.amazonaws.com.cn");
        check("us-gov-west-1", "https://ec2.us-gov-west-1.amazonaws.com");
        check("eusc-de-east-1", "https://ec2.eusc-de-east-1.amazonaws.eu");
        check("us-iso-east-1", "https://ec2.us-iso-east-1.c2s.ic.gov");
        check("us-isob-east-1", "https://ec2.us-isob-east-1.sc2s.sgov.gov");
        assert_eq!(of_region("us-east-1", true, false), "https://ec2-fips.us-east-1.amazonaws.com");
        assert_eq!(of_region("us-east-1", false, true), "https://ec2.us-east-1.api.aws");
        assert_eq!(of_region("us-gov-east-1", true, false), "https://ec2.us-gov-east-1.amazonaws.com");
    }

    #[test]
    fn a_refusal_is_read_and_what_is_none_has_no_code() {
        let refused = Refused::read(
            "<Response><Errors><Error><Code>InvalidVpcID.NotFound</Code><Message>The vpc ID 'vpc-1' does not \
             exist</Message></Error></Errors><RequestID>4711</RequestID></Response>",
        );
        assert_eq!(refused.code(), Some("InvalidVpcID.NotFound"));
        assert_eq!(refused.message(), Some("The vpc ID 'vpc-1' does not exist"));
        assert_eq!(Refused::read("<html>Bad Gateway</html>").code(), None);
        assert_eq!(Refused::read("upstream connect error").code(), None);
    }
}
