//! HTTP of the recorder: receives a request, forwards it, and receives the response.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::{Fault, InFlight, RecordedRequest, ResponseOverride, State, responses};

type FullResponse = Response<Full<Bytes>>;

/// Serves until the other end of `stop` is dropped. Requests that are under way then end with a cut connection.
pub(super) fn run(listener: TcpListener, state: Arc<State>, stop: oneshot::Receiver<()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a thread can have a runtime");
    runtime.block_on(async {
        tokio::select! {
            () = accept(listener, state) => {}
            _ = stop => {}
        }
    });
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    listener.set_nonblocking(true).expect("a listener need not block");
    let listener = tokio::net::TcpListener::from_std(listener).expect("the runtime accepts the listener");
    while let Ok((connection, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        let service = service_fn(move |request| respond(request, Arc::clone(&state)));
        let mut http = server::Builder::new();
        http.timer(TokioTimer::new());
        // A connection that the program closes or a fault cuts needs no report.
        tokio::spawn(async move { http.serve_connection(TokioIo::new(connection), service).await.ok() });
    }
}

/// Responds to a request. If the program dies, hyper drops this future at any point, so a request that was forwarded is
/// completed by a separate task.
async fn respond(request: Request<Incoming>, state: Arc<State>) -> Result<FullResponse, Broken> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
    let mut line = Line { request: record(&head, &body, state.arrives()), state: Arc::clone(&state), in_flight: None };
    line.request.fault = Some("held".to_owned());
    let Some((in_flight, fault)) = state.wait_while_held(&line.request).await else {
        line.request.fault = Some("cut off".to_owned());
        return Err(Broken);
    };
    line.in_flight = Some(in_flight);
    line.request.fault = None;
    match fault {
        Some(Fault::Respond(status, code)) => {
            line.request.fault = Some(format!("answered {status} {code}"));
            line.request.status = Some(status);
            Ok(responses::error(&line.request, status, &code))
        }
        Some(Fault::Override(ResponseOverride::Respond(status, body))) => {
            line.request.fault = Some("response replaced".to_owned());
            line.request.status = Some(status);
            Ok(responses::response(&line.request, status, body))
        }
        Some(Fault::Override(ResponseOverride::Change(from, to))) => {
            line.request.fault = Some("response changed".to_owned());
            let delivered = tokio::spawn(deliver(state.upstream, head, body, line)).await.map_err(|_| Broken)?;
            Ok(changed(delivered, &from, &to).await)
        }
        Some(Fault::Cut) => {
            line.request.fault = Some("cut".to_owned());
            let _ = tokio::spawn(deliver(state.upstream, head, body, line)).await;
            Err(Broken)
        }
        None => tokio::spawn(deliver(state.upstream, head, body, line)).await.map_err(|_| Broken),
    }
}

async fn deliver(upstream: SocketAddr, head: Parts, body: Bytes, mut line: Line) -> FullResponse {
    let response = send(upstream, head, body).await.unwrap_or_else(|error| {
        line.request.fault = Some(format!("moto did not respond: {error}"));
        responses::error(&line.request, 502, "BadGateway")
    });
    line.request.status = Some(response.status().as_u16());
    response
}

async fn changed(response: FullResponse, from: &str, to: &str) -> FullResponse {
    let (mut head, body) = response.into_parts();
    let Ok(body) = body.collect().await;
    let body = String::from_utf8_lossy(&body.to_bytes()).replace(from, to);
    // The length has changed; hyper sets the new one.
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, Full::from(body))
}

async fn send(
    upstream: SocketAddr,
    mut head: Parts,
    body: Bytes,
) -> Result<FullResponse, Box<dyn std::error::Error + Send + Sync>> {
    // These apply to a single connection only. The host stays as it is, because it is signed.
    for name in [CONNECTION, EXPECT, TRANSFER_ENCODING] {
        head.headers.remove(name);
    }
    let stream = TcpStream::connect(upstream).await?;
    let (mut sender, connection) = client::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let (mut head, body) = sender.send_request(Request::from_parts(head, Full::from(body))).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    for name in [CONNECTION, TRANSFER_ENCODING] {
        head.headers.remove(name);
    }
    Ok(Response::from_parts(head, Full::from(body)))
}

fn record(head: &Parts, body: &Bytes, number: u64) -> RecordedRequest {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let headers = head.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    });
    let (body, body_hex) = match String::from_utf8(body.to_vec()) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(hexadecimal(body))),
    };
    RecordedRequest {
        number,
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: headers.collect(),
        body,
        body_hex,
        service: signed_for(header("authorization")).unwrap_or_default().to_owned(),
        status: None,
        fault: None,
    }
}

/// Returns the service in `… Credential=KEY/DAY/REGION/SERVICE/aws4_request, …`.
fn signed_for(authorization: &str) -> Option<&str> {
    let scope = authorization.split_once("Credential=")?.1.split(',').next()?;
    scope.split('/').nth(3)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a `String` does not fail");
        text
    })
}

/// Record of a request, written when the request ends in any way.
struct Line {
    request: RecordedRequest,
    state: Arc<State>,
    /// Present once the request was let through. Dropped after the request was recorded.
    in_flight: Option<InFlight>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.state.write(&self.request);
    }
}

/// Error that ends a connection without a response.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("injected connection failure")
    }
}

impl std::error::Error for Broken {}
