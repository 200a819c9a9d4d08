//! The task metadata endpoint of Amazon ECS, which runs the containers of AWS Batch: the log of this container, and its zone.
//!
//! The documents are those of "Amazon ECS task metadata endpoint version 4" in the developer guide of Amazon ECS
//! (`task-metadata-endpoint-v4-response.html`, and `task-metadata-endpoint-v4-fargate-response.html` for Fargate). They do not name the EC2
//! instance. Its own metadata service does, but containers cannot reach that: the launch templates of Knots limit it to one hop.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use aws_sdk_s3::config::http::HttpRequest;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_smithy_http_client::Connector;
use aws_smithy_runtime_api::client::http::HttpConnector;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::measurements::Machine;

/// Variable with the address of the documents, which ECS sets in each container.
pub(crate) const ENV_ADDRESS: &str = "ECS_CONTAINER_METADATA_URI_V4";
/// Maximum time until both documents are read. The endpoint is on this machine.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum length in bytes of a document.
const MAX_LEN: usize = 256 * 1024;

/// Document of a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Container {
    log_options: HashMap<String, String>,
}

/// Document of a task.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Task {
    availability_zone: Option<String>,
}

/// Adds to the description of this machine what the endpoint at this address states. Without an answer in time, adds nothing.
pub(crate) async fn complete(mut machine: Machine, address: String) -> Machine {
    if !is_on_this_machine(&address) {
        tracing::warn!(%address, "the task metadata endpoint is not asked: its address is not that of this machine");
        return machine;
    }
    let task = format!("{address}/task");
    let both = async { tokio::join!(get::<Container>(&address), get::<Task>(&task)) };
    let Ok((container, task)) = tokio::time::timeout(TIMEOUT, both).await else { return machine };
    if let Some(mut container) = container {
        machine.log_group = container.log_options.remove("awslogs-group");
        machine.log_stream = container.log_options.remove("awslogs-stream");
    }
    machine.zone = task.and_then(|task| task.availability_zone);
    machine
}

/// Returns whether an address is plain HTTP to an address of this machine or link. A job may set the variable to anything.
fn is_on_this_machine(address: &str) -> bool {
    let host = address.strip_prefix("http://").and_then(|rest| rest.split('/').next());
    // The name of a user, which ends with `@`, may contain a colon as well.
    let host = host.filter(|host| !host.contains('@'));
    let ip = host.and_then(|host| host.rsplit_once(':').map_or(host, |(ip, _)| ip).parse().ok());
    match ip {
        Some(IpAddr::V4(ip)) => ip.is_link_local() || ip.is_loopback(),
        _ => false,
    }
}

/// Requests a document. Returns `None` if there is none.
async fn get<T: DeserializeOwned>(url: &str) -> Option<T> {
    let mut request = HttpRequest::new(SdkBody::empty());
    request.set_uri(url.to_owned()).ok()?;
    let response = Connector::builder().build_http().call(request).await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let mut body = ByteStream::new(response.into_body());
    let mut document = Vec::new();
    while let Some(piece) = body.next().await {
        document.extend_from_slice(&piece.ok()?);
        if document.len() > MAX_LEN {
            return None;
        }
    }
    serde_json::from_slice(&document).ok()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::engine;

    /// Documents as the developer guide of Amazon ECS shows them, shortened.
    const CONTAINER: &str = r#"{"DockerId": "ea32192c8553fbff06c9340478a2ff089b2bb5646fb718b4ee206641c9086d66", "Name": "curl",
        "Labels": {"com.amazonaws.ecs.cluster": "default"}, "DesiredStatus": "RUNNING", "Limits": {"CPU": 10, "Memory": 128},
        "LogDriver": "awslogs", "LogOptions": {"awslogs-create-group": "true", "awslogs-group": "/ecs/metadata",
        "awslogs-region": "us-west-2", "awslogs-stream": "ecs/curl/8f03e41243824aea923aca126495f665"}}"#;
    const TASK: &str = r#"{"Cluster": "default", "TaskARN": "arn:aws:ecs:us-west-2:111122223333:task/default/158d1c8083dd49d6b527399fd6414f5c",
        "Limits": {"CPU": 0.25, "Memory": 512}, "AvailabilityZone": "us-west-2d", "LaunchType": "EC2", "Containers": []}"#;

    fn respond(mut connection: TcpStream, answer: impl Fn(&str) -> Option<String>) {
        let mut request = BufReader::new(connection.try_clone().unwrap());
        let mut line = String::new();
        request.read_line(&mut line).unwrap();
        let mut header = String::new();
        while request.read_line(&mut header).is_ok_and(|_| !header.trim().is_empty()) {
            header.clear();
        }
        let path = line.split(' ').nth(1).unwrap();
        let response = match answer(path) {
            // A length is not given for a document of this size, as by the endpoint.
            Some(document) => {
                let (length, line) = (document.len(), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked");
                format!("{line}\r\n\r\n{length:x}\r\n{document}\r\n0\r\n\r\n")
            }
            None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
        };
        // A client that refuses the document closes the connection.
        let _ = connection.write_all(response.as_bytes());
    }

    /// Asks a server that answers the path after `/v4/1` with this function, and returns what is known then.
    fn ask(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Machine {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/v4/1", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for connection in listener.incoming().take(2) {
                respond(connection.unwrap(), |path| answer(path.strip_prefix("/v4/1").unwrap()));
            }
        });
        engine::block_on(complete(Machine { vcpus: Some(2.0), ..Machine::default() }, address))
    }

    #[test]
    fn documents_name_log_and_zone() {
        let machine = ask(|path| Some(if path == "/task" { TASK } else { CONTAINER }.to_owned()));
        assert_eq!(machine.log_group.as_deref(), Some("/ecs/metadata"));
        assert_eq!(machine.log_stream.as_deref(), Some("ecs/curl/8f03e41243824aea923aca126495f665"));
        assert_eq!((machine.zone.as_deref(), machine.vcpus), (Some("us-west-2d"), Some(2.0)));
    }

    #[test]
    fn what_is_not_stated_is_left_out() {
        let known = Machine { vcpus: Some(2.0), ..Machine::default() };
        assert_eq!(ask(|_| None), known);
        assert_eq!(ask(|_| Some("{}".to_owned())), known);
        assert_eq!(ask(|_| Some("not found".to_owned())), known);
        let long = format!("{{\"a\": \"{}\", {}", "x".repeat(MAX_LEN), &CONTAINER[1..]);
        assert_eq!(ask(move |_| Some(long.clone())), known, "a document is read up to a limit");
    }

    #[test]
    fn endpoint_that_does_not_answer_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/v4/1", listener.local_addr().unwrap());
        assert_eq!(engine::block_on(complete(Machine::default(), address)), Machine::default());
    }

    #[test]
    fn only_this_machine_is_asked() {
        for address in ["http://169.254.170.2/v4/1", "http://127.0.0.1:5000/v4/1"] {
            assert!(is_on_this_machine(address), "{address}");
        }
        for address in [
            "https://169.254.170.2/v4/1",
            "http://10.0.0.1/",
            "http://169.254.170.2@example.com/",
            "http://169.254.170.2:80@example.com/",
            "http://localhost/",
            "",
        ] {
            assert!(!is_on_this_machine(address), "{address}");
        }
    }
}
