//! Cost of a map on AWS Batch for the host, compared with the same requests to S3 in a bare loop of the same SDK.
//!
//! `cargo bench -p cloudknot-tests --features counterparts --bench batch`; all figures are of one run on one machine.
//! S3 and Batch are a separate process that keeps objects in memory, and in which every job has ended as soon as it is
//! submitted: this measures the host alone, from `map` to the last result.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::ops::Bound;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_s3::Client;
use bytes::Bytes;
use cloudknot_runtime::contract::{ENV_TASK, InputLayout, Part, RunKeys, Task};
use cloudknot_tests::memory::{peak, reset_peak};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Returns its input. A value has the same frame as its input, byte for byte, and all have the same length, so the
/// server can store what a worker would.
#[cloudknot::remote]
fn same(x: f64) -> f64 {
    x
}

const BUCKET: &str = "bucket";
const SERVER: &str = "CLOUDKNOT_BENCH_SERVER";
/// Maximum number of concurrent reads, the same as in the store.
const MAX_READS: usize = 32;

#[cloudknot::main]
fn main() -> cloudknot::Result<()> {
    if std::env::var_os(SERVER).is_some() {
        serve();
    }
    cloudknot::set_hook(None);
    let mut server = Command::new(std::env::current_exe().expect("the path of this program is known"));
    let mut server = server.env(SERVER, "1").stdout(Stdio::piped()).spawn().expect("the program can be started again");
    let mut address = String::new();
    BufReader::new(server.stdout.take().expect("stdout is a pipe"))
        .read_line(&mut address)
        .expect("the server prints its address");
    let home = tempfile::tempdir().expect("a temporary folder can be created");
    let note = json!({
        "knot": "bench", "profile": null, "region": "eu-west-1", "bucket": BUCKET, "prefix": "", "log-group": "logs",
        "queue": "queue", "job-definitions": {"cloudknot-tests:batch::same": "definition:1"}, "image": "image", "types": null,
    });
    std::fs::write(home.path().join("knot.json"), note.to_string()).expect("a new folder can be written to");
    let environment = [
        ("CLOUDKNOT_HOME", home.path().to_str().expect("the path is UTF-8")),
        ("AWS_ENDPOINT_URL", address.trim()),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "AKIATEST"),
        ("AWS_SECRET_ACCESS_KEY", "a-secret"),
    ];
    for (name, value) in environment {
        // SAFETY: the server is a separate process, and no other thread of this one has been started yet.
        #[allow(unsafe_code)]
        unsafe {
            std::env::set_var(name, value);
        }
    }
    let measured = measure();
    let _ = server.kill();
    let _ = server.wait();
    measured
}

fn measure() -> cloudknot::Result<()> {
    println!("{:<44}{:>10}{:>10}{:>18}", "", "s", "floor", "expected max");
    for (items, chunk, limit) in [(4_096, 1, 5.0), (10_000, 1, 10.0), (1_000_000, 100, 60.0)] {
        let before = reset_peak();
        let took = map(items)?;
        let grown = peak().saturating_sub(before);
        let floor = floor(items, chunk);
        let what = format!("{items} items, {chunk} a job");
        println!("{what:<44}{:>10.2}{:>10.2}{limit:>18}", took.as_secs_f64(), floor.as_secs_f64());
        if chunk > 1 {
            println!(
                "the host's memory grew by {} MiB at most while they were streamed (expected: at most 128)",
                grown >> 10
            );
        }
    }
    Ok(())
}

/// Measures the time from `map` to the last of the streamed results, and compares each of them.
fn map(items: u64) -> cloudknot::Result<Duration> {
    let began = Instant::now();
    #[allow(clippy::cast_precision_loss, reason = "the numbers are small")]
    let run = same.map((0..items).map(|item| item as f64)).submit().wait()?;
    let mut seen = 0;
    for (index, value) in run.results().wait() {
        #[allow(clippy::cast_precision_loss, clippy::float_cmp, reason = "the numbers are small and whole")]
        let is_same = value.expect("the function does not fail") == index as f64;
        assert!(is_same, "item {index}");
        seen += 1;
    }
    assert_eq!(seen, items);
    Ok(began.elapsed())
}

/// Measures the same requests: uploads inputs and manifest, lists and downloads results.
fn floor(items: u64, chunk: u64) -> Duration {
    let runtime = tokio::runtime::Runtime::new().expect("a process may start a few threads");
    runtime.block_on(async {
        let config = cloudknot_runtime::store::s3::loader().load().await;
        let config = aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build();
        let client = Client::from_conf(config);
        // Stores what a worker would have stored, before the clock starts.
        let keys = RunKeys::new("floor", &items.to_string());
        let frame = [7_u8; 40];
        let put = |key: String, bytes: Vec<u8>| client.put_object().bucket(BUCKET).key(key).body(bytes.into()).send();
        for part in parts(items, chunk) {
            let length = usize::try_from(part.last - part.first + 1).expect("a part is small");
            put(keys.part(part), frame.repeat(length)).await.expect("the part is stored");
        }
        let began = Instant::now();
        put(keys.inputs(), frame.repeat(usize::try_from(items).expect("the number of items is small")))
            .await
            .expect("the inputs are stored");
        put(keys.manifest(), vec![b' '; 1_000]).await.expect("the manifest is stored");
        let mut pages = client.list_objects_v2().bucket(BUCKET).prefix(keys.results()).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            found.extend(page.expect("the results are listed").contents.unwrap_or_default());
        }
        let mut under_way = JoinSet::new();
        let mut bytes = 0;
        for object in found {
            while under_way.len() >= MAX_READS {
                bytes += under_way.join_next().await.expect("a read is under way").expect("the read does not panic");
            }
            let request = client.get_object().bucket(BUCKET).key(object.key.expect("an object has a key")).send();
            under_way.spawn(async move {
                let response = request.await.expect("the object exists");
                response.body.collect().await.expect("the object can be read").into_bytes().len()
            });
        }
        while let Some(length) = under_way.join_next().await {
            bytes += length.expect("the read does not panic");
        }
        assert_eq!(bytes as u64, items * 40);
        began.elapsed()
    })
}

fn parts(items: u64, chunk: u64) -> impl Iterator<Item = Part> {
    (0..items.div_ceil(chunk)).map(move |part| Part { first: part * chunk, last: ((part + 1) * chunk).min(items) - 1 })
}

// --- the server ---

type Objects = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// Prints the address of the server, and serves until the process is killed.
fn serve() -> ! {
    let runtime = tokio::runtime::Runtime::new().expect("a process may start a few threads");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        println!("http://{}", listener.local_addr().expect("a listener has an address"));
        let objects = Objects::default();
        loop {
            let (connection, _) = listener.accept().await.expect("the listener accepts connections");
            connection.set_nodelay(true).expect("the connection is TCP");
            let objects = Arc::clone(&objects);
            let service = service_fn(move |request| respond(request, Arc::clone(&objects)));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), service));
        }
    })
}

async fn respond(request: Request<Incoming>, objects: Objects) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let query = parts.uri.query().unwrap_or_default();
    let key = parts.uri.path().trim_start_matches('/').trim_start_matches(BUCKET).trim_start_matches('/').to_owned();
    let mut objects = objects.lock().expect("no request panics");
    let (status, response) = match (&parts.method, parts.uri.path()) {
        (_, "/v1/submitjob") => (StatusCode::OK, submit(&mut objects, &body)),
        (_, "/v1/describejobs") => (StatusCode::OK, describe(&body)),
        (&Method::PUT, _) => {
            let streamed = parts.headers.get("x-amz-content-sha256");
            let streamed = streamed.is_some_and(|value| value.as_bytes().starts_with(b"STREAMING"));
            // A part of an upload is kept under a name that no listing shows.
            let key = field(query, "partNumber").map_or(key.clone(), |number| format!("!{key}#{number:0>5}"));
            objects.insert(key, if streamed { unchunked(&body) } else { body });
            (StatusCode::OK, Bytes::new())
        }
        (&Method::POST, _) if query.contains("uploads") => (
            StatusCode::OK,
            "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>".into(),
        ),
        (&Method::POST, _) => {
            let prefix = format!("!{key}#");
            let whole: Vec<u8> = objects
                .range(prefix.clone()..)
                .take_while(|(part, _)| part.starts_with(&prefix))
                .flat_map(|(_, part)| part.to_vec())
                .collect();
            objects.retain(|part, _| !part.starts_with(&prefix));
            objects.insert(key, whole.into());
            (StatusCode::OK, "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>".into())
        }
        (&Method::GET, _) if query.contains("list-type=2") => (StatusCode::OK, list(&objects, query)),
        (&Method::GET, _) => match objects.get(&key) {
            Some(object) => (StatusCode::OK, object.clone()),
            None => (StatusCode::NOT_FOUND, Bytes::from("<Error><Code>NoSuchKey</Code></Error>")),
        },
        _ => (StatusCode::NOT_IMPLEMENTED, Bytes::new()),
    };
    Ok(Response::builder().status(status).body(Full::new(response)).expect("a status and a body"))
}

/// Returns the data of a body that is sent in chunks, without the lengths and signatures between them.
fn unchunked(body: &Bytes) -> Bytes {
    let (mut rest, mut whole) = (&body[..], Vec::with_capacity(body.len()));
    while let Some(line) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let head = std::str::from_utf8(&rest[..line]).unwrap_or_default();
        let length = usize::from_str_radix(head.split(';').next().unwrap_or_default(), 16).unwrap_or(0);
        if length == 0 {
            break;
        }
        whole.extend_from_slice(&rest[line + 2..line + 2 + length]);
        rest = &rest[line + 4 + length..];
    }
    whole.into()
}

fn field(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value.replace("%2F", "/"))
}

fn list(objects: &BTreeMap<String, Bytes>, query: &str) -> Bytes {
    let prefix = field(query, "prefix").unwrap_or_default();
    let after = field(query, "continuation-token").unwrap_or_default();
    let after = if after.is_empty() { Bound::Included(prefix.clone()) } else { Bound::Excluded(after) };
    let mut found = objects.range((after, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(&prefix)).peekable();
    let mut page = String::from("<ListBucketResult>");
    let mut last = "";
    for (key, object) in found.by_ref().take(1_000) {
        let size = object.len();
        let _ = write!(
            page,
            "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>{size}</Size></Contents>"
        );
        last = key;
    }
    let more = found.peek().is_some();
    let _ = write!(page, "<IsTruncated>{more}</IsTruncated>");
    if more {
        let _ = write!(page, "<NextContinuationToken>{last}</NextContinuationToken>");
    }
    page.push_str("</ListBucketResult>");
    page.into()
}

/// Stores what all children of the job would have stored.
fn submit(objects: &mut BTreeMap<String, Bytes>, body: &Bytes) -> Bytes {
    let request: Value = serde_json::from_slice(body).expect("a request is JSON");
    let environment = request["containerOverrides"]["environment"].as_array().expect("the job has an environment");
    let task = environment.iter().find(|variable| variable["name"] == ENV_TASK).expect("the job has a task");
    let task: Task =
        serde_json::from_str(task["value"].as_str().expect("the task is a string")).expect("the task is valid");
    let keys = RunKeys::new(&task.knot, &task.run);
    let InputLayout::Uniform(size) = task.inputs else { unreachable!("all inputs are of one size") };
    let inputs = objects[&keys.inputs()].clone();
    for part in parts(task.items, task.chunk) {
        let at = |item: u64| usize::try_from(item * size).expect("the inputs are in memory");
        objects.insert(keys.part(part), inputs.slice(at(part.first)..at(part.last + 1)));
    }
    let children = request["arrayProperties"]["size"].as_u64().unwrap_or(1);
    json!({"jobId": format!("job-{children}"), "jobName": request["jobName"]}).to_string().into()
}

fn describe(body: &Bytes) -> Bytes {
    let request: Value = serde_json::from_slice(body).expect("a request is JSON");
    let job = |id: &Value| {
        let size: i64 =
            id.as_str().and_then(|id| id.split_once('-')?.1.parse().ok()).expect("the server has created the ID");
        json!({"jobId": id, "jobName": "job", "status": "SUCCEEDED", "jobQueue": "queue", "jobDefinition": "definition:1",
               "startedAt": 1, "arrayProperties": {"size": size, "statusSummary": {"SUCCEEDED": size}}})
    };
    let jobs: Vec<Value> = request["jobs"].as_array().expect("the jobs are a list").iter().map(job).collect();
    json!({"jobs": jobs}).to_string().into()
}
