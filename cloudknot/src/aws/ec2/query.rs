//! EC2's Query protocol: a form goes out, XML comes back. Knows no request in particular.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::ErrorMetadata;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use roxmltree::{Document, Node};

use crate::aws::Aws;
use crate::aws::signed::{self, Refused, Request, Service};

const EC2: Service = Service { id: "EC2", name: "ec2", refusal };

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

/// Sends a request, and gives the XML of its answer.
pub(super) async fn send(aws: &Aws, ask: &Ask) -> Result<String, SdkError<Refused, HttpResponse>> {
    let form = Request { content_type: "application/x-www-form-urlencoded", target: None, body: ask.body() };
    signed::send(aws, &EC2, ask.action, form).await
}

/// Something between here and EC2 may have answered in its stead, so there may be no code.
fn refusal(text: &str) -> ErrorMetadata {
    let mut said = ErrorMetadata::builder();
    let document = Document::parse(text).ok();
    let error = document.as_ref().and_then(|document| document.descendants().find(|node| node.has_tag_name("Error")));
    if let Some(error) = error {
        said = said.code(part(error, "Code").unwrap_or_default());
        said = said.message(part(error, "Message").unwrap_or_default());
    }
    said.build()
}

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
    fn a_refusal_is_read_and_what_is_none_has_no_code() {
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
