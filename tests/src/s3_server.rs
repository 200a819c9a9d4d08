//! Real S3 server on loopback that can inject faults. Of the S3 protocol, this module uses only status codes and
//! errors.
//!
//! The server is s3s-fs, over a temporary folder, and checks signatures and checksums. One behaviour is added here:
//! s3s-fs checks whether an object exists and then writes it, whereas S3 does both atomically, so writes with
//! `If-None-Match` are serialized.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use aws_sdk_s3::config::{Credentials, Region};
use bytes::Bytes;
use cloudknot_runtime::store::S3Store;
use cloudknot_runtime::store::s3::{loader, retries};
use hyper::body::{Body as HttpBody, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

use crate::authority::Authority;
use crate::shared::S3;

/// Name of the only bucket.
pub const BUCKET: &str = "a-bucket";
/// Access key that may use the bucket.
pub const ACCESS_KEY: &str = "AKIATEST";
/// Secret key of [`ACCESS_KEY`].
pub const SECRET_KEY: &str = "a-secret";

/// Fault injected into a request.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The request gets a response with this status and this error code.
    Refused(u16, &'static str),
    /// The request is executed, but the connection closes before the response.
    ResponseLost,
    /// The request is executed, and the response is truncated in its body.
    Truncated,
}

/// S3 server. It stops with the runtime in which it was started.
#[derive(Debug)]
pub struct S3Server {
    endpoint: S3,
    _folder: TempDir,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    faults: Mutex<VecDeque<Fault>>,
    requests: Mutex<Vec<String>>,
    file: File,
    connections: AtomicU64,
    /// Serializes writes with `If-None-Match`.
    create_lock: tokio::sync::Mutex<()>,
}

impl S3Server {
    /// Starts a server with an empty bucket.
    ///
    /// # Panics
    /// If the server cannot be started.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Like [`S3Server::start`], over TLS with this authority's certificate.
    ///
    /// # Panics
    /// If the server cannot be started.
    pub async fn start_tls(authority: &Authority) -> Self {
        let certificates = CertificateDer::pem_file_iter(authority.certificate()).expect("the file can be read");
        let certificates = certificates.collect::<Result<_, _>>().expect("the file contains certificates");
        let key = PrivateKeyDer::from_pem_file(authority.key()).expect("the file contains a key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring supports these versions")
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .expect("the key fits the certificate");
        Self::start_with(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder can be created");
        let (folder, requests) = (temporary.path().join("buckets"), temporary.path().join("requests"));
        std::fs::create_dir_all(folder.join(BUCKET)).expect("the folder of the bucket can be created");
        let mut service = S3ServiceBuilder::new(FileSystem::new(&folder).expect("the folder exists"));
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let state = Arc::new(State {
            faults: Mutex::default(),
            requests: Mutex::default(),
            file: File::create(&requests).expect("a temporary file can be created"),
            connections: AtomicU64::new(0),
            create_lock: tokio::sync::Mutex::default(),
        });
        tokio::spawn(accept(listener, tls, service.build(), Arc::clone(&state)));
        Self { endpoint: S3 { address, folder, requests }, _folder: temporary, state }
    }

    /// Returns the address at which the server listens.
    pub fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// Returns the address and files with which other processes reach the server.
    pub fn endpoint(&self) -> &S3 {
        &self.endpoint
    }

    /// Returns a store on this server.
    pub async fn store(&self, prefix: &str) -> S3Store {
        self.store_as(BUCKET, prefix, Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test")).await
    }

    /// Returns a store on this server, with other credentials or in another bucket.
    pub async fn store_as(
        &self,
        bucket: &str,
        prefix: &str,
        credentials: impl aws_sdk_s3::config::ProvideCredentials + 'static,
    ) -> S3Store {
        store_at(self.endpoint.address, bucket, prefix, credentials).await
    }

    /// Injects these faults into the next requests, in this order.
    ///
    /// # Panics
    /// If another test panicked.
    pub fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.faults.lock().expect("no panic").extend(faults);
    }

    /// Takes the requests since the last call: method, path and query.
    ///
    /// # Panics
    /// If another test panicked.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.state.requests.lock().expect("no panic"))
    }

    /// Returns the number of connections so far, including failed ones.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Returns the folder of the server, in which incomplete uploads are visible as files.
    pub fn folder(&self) -> PathBuf {
        self.endpoint.folder.clone()
    }
}

/// Returns a store at any address. It retries as in production, but with shorter delays.
pub async fn store_at(
    address: SocketAddr,
    bucket: &str,
    prefix: &str,
    credentials: impl aws_sdk_s3::config::ProvideCredentials + 'static,
) -> S3Store {
    let retries = retries().with_max_attempts(4).with_initial_backoff(std::time::Duration::from_millis(10));
    let config = loader()
        .endpoint_url(format!("http://{address}"))
        // The SDK counts retries by region, for the whole process: faults in one test must not use up the retries of
        // others.
        .region(Region::new(format!("test-{}", address.port())))
        .credentials_provider(credentials)
        .retry_config(retries)
        .load()
        .await;
    S3Store::new(&config, bucket, prefix)
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, service: S3Service, state: Arc<State>) {
    while let Ok((connection, _)) = listener.accept().await {
        let (service, state) = (service.clone(), Arc::clone(&state));
        state.connections.fetch_add(1, Ordering::Relaxed);
        match tls.clone() {
            None => drop(tokio::spawn(serve(connection, service, state))),
            Some(tls) => drop(tokio::spawn(async move {
                // A client that does not trust the certificate closes the connection.
                if let Ok(connection) = tls.accept(connection).await {
                    serve(connection, service, state).await;
                }
            })),
        }
    }
}

async fn serve(connection: impl AsyncRead + AsyncWrite + Unpin, service: S3Service, state: Arc<State>) {
    let service = service_fn(move |request| respond(request, service.clone(), Arc::clone(&state)));
    // A connection that the client or a fault closes needs no report.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
}

async fn respond(request: Request<Incoming>, service: S3Service, state: Arc<State>) -> Result<Response<Body>, Broken> {
    let line = format!("{} {}", request.method(), request.uri());
    (&state.file).write_all(format!("{line}\n").as_bytes()).expect("a temporary file can be written");
    state.requests.lock().expect("no panic").push(line);
    let fault = state.faults.lock().expect("no panic").pop_front();
    if let Some(Fault::Refused(status, code)) = fault {
        return Ok(refused(status, code));
    }
    let is_create = request.method() == Method::PUT && request.headers().contains_key("if-none-match");
    let _guard = if is_create { Some(state.create_lock.lock().await) } else { None };
    let response = service.call(request.map(Body::from)).await.map_err(|_| Broken)?;
    match fault {
        Some(Fault::ResponseLost) => Err(Broken),
        Some(Fault::Truncated) => Ok(response.map(|_| Body::http_body(Half { sent: false }))),
        _ => Ok(response),
    }
}

fn refused(status: u16, code: &str) -> Response<Body> {
    let body = format!("<Error><Code>{code}</Code><Message>Injected {code}.</Message></Error>");
    let response = Response::builder().status(status).header("x-amz-request-id", "REQUEST");
    response.body(Body::from(body)).expect("the response is valid")
}

/// Error that ends a connection.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("injected connection failure")
    }
}

impl std::error::Error for Broken {}

/// Body that sends its beginning, and then ends the connection.
struct Half {
    sent: bool,
}

impl HttpBody for Half {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if std::mem::replace(&mut self.sent, true) {
            return Poll::Ready(Some(Err(Broken)));
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"half")))))
    }
}
