//! CloudWatch Logs, and no other AWS service: the end of a job's log, the page of the console that shows all of it, and
//! whether a log group exists.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::aws::signed::{self, Request, Service};
use crate::aws::{self, Aws};
use crate::error::{Error, ErrorKind, Result};
use crate::settings::partition::Partition;

const LOGS: Service = Service { id: "CloudWatch Logs", name: "logs", is_global: false, refusal: signed::json_refusal };

/// Maximum number of lines of a log to request.
const MAX_LINES: u32 = 100;
/// Maximum size of the end of a log that is returned, in bytes.
const MAX_LEN: usize = 16 * 1024;
/// Maximum number of pages of a log to request.
const MAX_PAGES: usize = 4;

#[derive(Deserialize)]
struct Events {
    #[serde(default)]
    events: Vec<Event>,
    /// Token of the page before this one, or the token of the request if there is none.
    #[serde(rename = "nextBackwardToken")]
    before: Option<String>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    message: String,
}

/// Request of lines of several streams of a group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filter<'a> {
    pub(crate) group: &'a str,
    /// At most 100.
    pub(crate) streams: &'a [String],
    pub(crate) pattern: Option<&'a str>,
    /// Time of the first line, in milliseconds since 1970.
    pub(crate) from_ms: u64,
    pub(crate) token: Option<&'a str>,
}

/// Page of lines of several streams, in the order of their times. It may be empty although another one follows.
#[derive(Debug, Deserialize)]
pub(crate) struct FilteredEvents {
    #[serde(default)]
    pub(crate) events: Vec<FilteredEvent>,
    #[serde(rename = "nextToken")]
    pub(crate) next: Option<String>,
}

/// A line of a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct FilteredEvent {
    #[serde(rename = "eventId", default)]
    pub(crate) id: String,
    #[serde(rename = "logStreamName", default)]
    pub(crate) stream: String,
    #[serde(rename = "timestamp", default)]
    pub(crate) time_ms: u64,
    #[serde(default)]
    pub(crate) message: String,
}

#[derive(Deserialize)]
struct Groups {
    #[serde(default, rename = "logGroups")]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(rename = "logGroupName")]
    name: String,
}

/// Returns whether there is a log group with this name.
pub(crate) async fn group_exists(aws: &Aws, group: &str) -> Result<bool> {
    // Groups are sorted by name: the one whose name is the prefix itself comes first.
    let body = json!({"logGroupNamePrefix": group, "limit": 1});
    let target = ("DescribeLogGroups", "Logs_20140328.DescribeLogGroups");
    let found: Groups = request(aws, target, &body, &format!("find the log group `{group}`")).await?;
    Ok(found.groups.iter().any(|found| found.name == group))
}

/// Returns the end of a log: at most 100 lines and 16 KiB.
pub(crate) async fn end_of(aws: &Aws, group: &str, stream: &str) -> Result<String> {
    let mut body = json!({"logGroupName": group, "logStreamName": stream, "limit": MAX_LINES, "startFromHead": false});
    let target = ("GetLogEvents", "Logs_20140328.GetLogEvents");
    let action = format!("read the log `{stream}` of `{group}`");
    let mut page: Events = request(aws, target, &body, &action).await?;
    // A page may be empty although there are events before it (`GetLogEvents` in the API reference of CloudWatch Logs).
    for _ in 1..MAX_PAGES {
        let Some(token) = page.before.filter(|token| page.events.is_empty() && body["nextToken"] != **token) else {
            break;
        };
        body["nextToken"] = token.into();
        page = request(aws, target, &body, &action).await?;
    }
    let mut text: String = page.events.into_iter().map(|event| event.message + "\n").collect();
    let mut start = text.len().saturating_sub(MAX_LEN);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    Ok(text.split_off(start))
}

/// Returns a page of the lines of several streams.
///
/// # Errors
/// `NotFound` if the group or one of the streams does not exist.
pub(crate) async fn filter(aws: &Aws, filter: &Filter<'_>) -> Result<FilteredEvents> {
    let mut body = json!({"logGroupName": filter.group, "logStreamNames": filter.streams, "startTime": filter.from_ms});
    let optional = [("filterPattern", filter.pattern), ("nextToken", filter.token)];
    for (name, value) in optional.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        body[name] = value.into();
    }
    let target = ("FilterLogEvents", "Logs_20140328.FilterLogEvents");
    request(aws, target, &body, &format!("read the log group `{}`", filter.group)).await
}

/// Sends the request of an operation, which is given by its name and by the value of its target header.
async fn request<T: DeserializeOwned>(
    aws: &Aws,
    (operation, target): (&'static str, &'static str),
    body: &Value,
    action: &str,
) -> Result<T> {
    let request = Request::post("application/x-amz-json-1.1", Some(target), body.to_string());
    let failed = |error| {
        let is_absent = aws::code(&error) == Some("ResourceNotFoundException");
        let failed = aws.failed(action, error);
        if is_absent { failed.of_kind(ErrorKind::NotFound) } else { failed }
    };
    let response = signed::send(aws, &LOGS, operation, request).await.map_err(failed)?;
    serde_json::from_str(&response)
        .map_err(|error| Error::new(ErrorKind::Aws, format!("cannot {action}")).with_source(error))
}

/// Returns the URL of the page of the console that shows a log.
pub(crate) fn page(region: &str, group: &str, stream: &str) -> String {
    // The console expects names escaped twice, with `$` instead of `%` the second time.
    let escaped = |name: &str| {
        let once = utf8_percent_encode(name, NON_ALPHANUMERIC).to_string();
        once.replace('%', "$25")
    };
    let domain = match Partition::of(region).name {
        "aws-cn" => "amazonaws.cn",
        "aws-us-gov" => "amazonaws-us-gov.com",
        _ => "aws.amazon.com",
    };
    format!(
        "https://{region}.console.{domain}/cloudwatch/home?region={region}#logsV2:log-groups/log-group/{}/log-events/{}",
        escaped(group),
        escaped(stream)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn console_page_names_group_and_stream() {
        assert_eq!(
            page("eu-central-1", "cloudknot/lab", "sweep/default/0a1b"),
            "https://eu-central-1.console.aws.amazon.com/cloudwatch/home?region=eu-central-1#logsV2:log-groups/log-group/\
             cloudknot$252Flab/log-events/sweep$252Fdefault$252F0a1b"
        );
        assert!(page("cn-north-1", "a", "b").starts_with("https://cn-north-1.console.amazonaws.cn/"));
    }
}
