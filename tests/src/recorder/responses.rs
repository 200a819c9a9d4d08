//! Formats of errors and other responses in AWS's protocols.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;

use super::RecordedRequest;

/// Returns a response of the requested service, in the format of its protocol.
pub(super) fn response(request: &RecordedRequest, status: u16, body: String) -> Response<Full<Bytes>> {
    let kind = match request.service.as_str() {
        "s3" => "application/xml",
        _ if body.starts_with('<') => "text/xml",
        _ if request.headers.iter().any(|(name, _)| name == "x-amz-target") => "application/x-amz-json-1.1",
        _ => "application/json",
    };
    let response =
        Response::builder().status(status).header("x-amzn-requestid", "REQUEST").header("content-type", kind);
    response.body(Full::from(body)).expect("the response is valid")
}

/// Returns an error response of the requested service.
pub(super) fn error(request: &RecordedRequest, status: u16, code: &str) -> Response<Full<Bytes>> {
    let message = format!("Injected {code}.");
    let inner = format!("<Code>{code}</Code><Message>{message}</Message>");
    let has = |name: &str| request.headers.iter().any(|(header, _)| header == name);
    let form =
        request.headers.iter().any(|(name, value)| name == "content-type" && value.contains("x-www-form-urlencoded"));
    let mut response = Response::builder().status(status).header("x-amzn-requestid", "REQUEST");
    let (kind, body) = match request.service.as_str() {
        "s3" => ("application/xml", format!("<Error>{inner}<RequestId>REQUEST</RequestId></Error>")),
        "ec2" => {
            let errors = format!("<Errors><Error>{inner}</Error></Errors>");
            ("text/xml", format!("<Response>{errors}<RequestID>REQUEST</RequestID></Response>"))
        }
        _ if form => {
            let type_ = if status < 500 { "Sender" } else { "Receiver" };
            let error = format!("<Error><Type>{type_}</Type>{inner}</Error>");
            ("text/xml", format!("<ErrorResponse>{error}<RequestId>REQUEST</RequestId></ErrorResponse>"))
        }
        _ if has("x-amz-target") => {
            ("application/x-amz-json-1.1", format!("{{\"__type\":\"{code}\",\"message\":\"{message}\"}}"))
        }
        _ => {
            response = response.header("x-amzn-errortype", code);
            ("application/json", format!("{{\"message\":\"{message}\"}}"))
        }
    };
    // The response to a HEAD request has no body, only a status.
    let body = if request.method == "HEAD" { String::new() } else { body };
    let response = response.header("content-type", kind).body(Full::from(body));
    response.expect("the response is valid")
}
