//! The query protocol of EC2 and IAM: the request is a form, the response is XML. Independent of the particular request.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::ErrorMetadata;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use roxmltree::{Document, Node};

use crate::aws::signed::{self, Request, Service, ServiceError};
use crate::aws::{Aws, code};
use crate::error::{Error, ErrorKind, Result};

/// A service that uses the query protocol.
#[derive(Debug, Clone, Copy)]
pub(super) struct Api {
    pub(super) service: Service,
    /// Version of its API.
    pub(super) version: &'static str,
}

impl Api {
    pub(super) const fn new(id: &'static str, name: &'static str, is_global: bool, version: &'static str) -> Self {
        Self { service: Service { id, name, is_global, refusal }, version }
    }

    /// Sends a request and returns the XML of the response.
    pub(super) async fn send(
        &self,
        aws: &Aws,
        request: &QueryRequest,
    ) -> Result<String, SdkError<ServiceError, HttpResponse>> {
        let body = request.body(self.version);
        let form = Request::post("application/x-www-form-urlencoded", None, body);
        signed::send(aws, &self.service, request.action, form).await
    }

    /// Parses a response, and reads it from its root element.
    ///
    /// # Errors
    /// Returns an error if the response is not XML.
    pub(super) fn parse<T>(
        &self,
        aws: &Aws,
        action: &str,
        response: &str,
        read: impl FnOnce(Node<'_, '_>) -> T,
    ) -> Result<T> {
        match Document::parse(response) {
            Ok(document) => Ok(read(document.root_element())),
            Err(error) => Err(self.unreadable(aws, action, &error.to_string())),
        }
    }

    /// Returns all items of a list, over all pages. `read` returns the items of a page and the token of the next page, which is
    /// sent as the parameter `token`. If the service responds with one of the codes in `absent`, there are no items.
    pub(super) async fn pages<T>(
        &self,
        aws: &Aws,
        action: &str,
        request: &QueryRequest,
        token: &str,
        absent: &[&str],
        read: impl Fn(Node<'_, '_>) -> Option<(Vec<T>, Option<String>)>,
    ) -> Result<Vec<T>> {
        let (mut all, mut page) = (Vec::new(), request.clone());
        loop {
            let response = match self.send(aws, &page).await {
                Ok(response) => response,
                Err(error) if code(&error).is_some_and(|code| absent.contains(&code)) => return Ok(all),
                Err(error) => return Err(aws.failed(action, error)),
            };
            let (items, next) = self
                .parse(aws, action, &response, &read)?
                .ok_or_else(|| self.unreadable(aws, action, "an entry lacks a required field"))?;
            all.extend(items);
            match next {
                Some(next) => page = request.clone().with(token, &next),
                None => return Ok(all),
            }
        }
    }

    /// Returns the error for a response that cannot be parsed or lacks a documented field.
    pub(super) fn unreadable(&self, aws: &Aws, action: &str, why: &str) -> Error {
        let (service, region) = (self.service.id, &aws.region);
        let message = format!("cannot {action}: cannot parse the response from {service} in {region}: {why}");
        Error::new(ErrorKind::Aws, message)
            .with_hint("check that nothing between this machine and AWS (a proxy, AWS_ENDPOINT_URL) responds instead")
    }
}

/// Characters that are percent-encoded: all but letters, digits and `-_.~`, as in the SDK's own clients.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A request of the query protocol.
#[derive(Debug, Clone)]
pub(super) struct QueryRequest {
    action: &'static str,
    parameters: Vec<(String, String)>,
    filters: usize,
}

impl QueryRequest {
    pub(super) fn new(action: &'static str) -> Self {
        Self { action, parameters: Vec::new(), filters: 0 }
    }

    pub(super) fn action(&self) -> &'static str {
        self.action
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a filter: the response contains only items that have one of these values.
    pub(super) fn filter<V: AsRef<str>>(mut self, name: &str, values: impl IntoIterator<Item = V>) -> Self {
        self.filters += 1;
        let number = self.filters;
        self.parameters.push((format!("Filter.{number}.Name"), name.to_owned()));
        for (value, index) in values.into_iter().zip(1..) {
            self.parameters.push((format!("Filter.{number}.Value.{index}"), value.as_ref().to_owned()));
        }
        self
    }

    /// Adds the values of a list, numbered as IAM expects them.
    pub(super) fn members<V: AsRef<str>>(mut self, name: &str, values: impl IntoIterator<Item = V>) -> Self {
        for (value, number) in values.into_iter().zip(1..) {
            self.parameters.push((format!("{name}.member.{number}"), value.as_ref().to_owned()));
        }
        self
    }

    fn body(&self, version: &str) -> String {
        let mut body = format!("Action={}&Version={version}", self.action);
        for (name, value) in &self.parameters {
            body.extend(["&", name, "="].into_iter().chain(utf8_percent_encode(value, RESERVED)));
        }
        body
    }
}

/// Reads the code and the message of an error response. Both may be absent, because something between this program and the
/// service, such as a proxy, may have responded instead.
fn refusal(text: &str) -> ErrorMetadata {
    let mut metadata = ErrorMetadata::builder();
    let document = Document::parse(text).ok();
    let error = document.as_ref().and_then(|document| document.descendants().find(|node| node.has_tag_name("Error")));
    if let Some(error) = error {
        metadata = metadata.code(text_at(error, "Code").unwrap_or_default());
        metadata = metadata.message(text_at(error, "Message").unwrap_or_default());
    }
    metadata.build()
}

/// Returns the descendant of an element at this path, with one name per level: `vCpuInfo/defaultVCpus`.
pub(super) fn descendant<'a, 'input>(node: Node<'a, 'input>, path: &str) -> Option<Node<'a, 'input>> {
    path.split('/').try_fold(node, |node, name| node.children().find(|child| child.has_tag_name(name)))
}

/// Returns the text of the descendant at this path, unless it is empty.
pub(super) fn text_at<'a>(node: Node<'a, '_>, path: &str) -> Option<&'a str> {
    descendant(node, path)?.text().map(str::trim).filter(|text| !text.is_empty())
}

/// Returns the items of the list at this path; none if the list does not exist.
pub(super) fn items<'a, 'input>(node: Node<'a, 'input>, path: &str) -> impl Iterator<Item = Node<'a, 'input>> {
    descendant(node, path)
        .into_iter()
        .flat_map(|list| list.children())
        .filter(|child| child.has_tag_name("item") || child.has_tag_name("member"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_break_out_of_the_form() {
        let request = QueryRequest::new("DescribeKeyPairs")
            .with("KeyName.1", "Ada's key & more=50%, für alle")
            .filter("a", ["b+c"]);
        let expected = "Action=DescribeKeyPairs&Version=2016-11-15\
            &KeyName.1=Ada%27s%20key%20%26%20more%3D50%25%2C%20f%C3%BCr%20alle&Filter.1.Name=a&Filter.1.Value.1=b%2Bc";
        assert_eq!(request.body("2016-11-15"), expected);
    }

    #[test]
    fn iam_lists_are_numbered() {
        let request = QueryRequest::new("SimulatePrincipalPolicy").members("ActionNames", ["s3:PutObject", "*"]);
        let expected =
            "Action=SimulatePrincipalPolicy&Version=1&ActionNames.member.1=s3%3APutObject&ActionNames.member.2=%2A";
        assert_eq!(request.body("1"), expected);
    }

    #[test]
    fn error_without_xml_has_no_code() {
        let refused = refusal(
            "<Response><Errors><Error><Code>InvalidVpcID.NotFound</Code><Message>The vpc ID 'vpc-1' does not \
             exist</Message></Error></Errors><RequestID>4711</RequestID></Response>",
        );
        assert_eq!(refused.code(), Some("InvalidVpcID.NotFound"));
        assert_eq!(refused.message(), Some("The vpc ID 'vpc-1' does not exist"));
        assert_eq!(refusal("<html>Bad Gateway</html>").code(), None);
        assert_eq!(refusal("upstream connect error").code(), None);
    }
}
