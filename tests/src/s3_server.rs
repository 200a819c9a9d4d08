//! A real S3 server on loopback, that can be told to fail. Knows S3's protocol no more than its status codes.
//!
//! The server is s3s-fs, over a temporary folder, and checks signatures and checksums. One semantic is ours: s3s-fs looks
//! whether an object is there and then writes it, where S3 does both at once. So writes with `If-None-Match` pass one by
//! one here.

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

/// The one bucket that there is.
pub const BUCKET: &str = "a-bucket";
/// Who may use it.
pub const ACCESS_KEY: &str = "AKIATEST";
/// The secret of [`ACCESS_KEY`].
pub const SECRET_KEY: &str = "a-secret";

/// What happens to a request, in place of what should.
#[derive(Debug, Clone, Copy)]
pub enum Mishap {
    /// It is answered with this status and this error code.
    Refused(u16, &'static str),
    /// It is done, but the connection closes before the answer.
    AnswerLost,
    /// It is done, and the answer breaks off in the middle of its body.
    BrokenOff,
}

/// A server; it stops with the runtime that it was started in.
#[derive(Debug)]
pub struct S3Server {
    place: S3,
    _folder: TempDir,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    mishaps: Mutex<VecDeque<Mishap>>,
    seen: Mutex<Vec<String>>,
    file: File,
    connections: AtomicU64,
    once: tokio::sync::Mutex<()>,
}

impl S3Server {
    /// Starts a server with an empty bucket.
    ///
    /// # Panics
    /// Where that is not possible.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same over TLS, with this authority's certificate.
    ///
    /// # Panics
    /// Where that is not possible.
    pub async fn start_tls(authority: &Authority) -> Self {
        let certificates = CertificateDer::pem_file_iter(authority.certificate()).expect("a certificate");
        let certificates = certificates.collect::<Result<_, _>>().expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(authority.key()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has these versions")
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .expect("the key is the certificate's");
        Self::start_with(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let (folder, requests) = (temporary.path().join("buckets"), temporary.path().join("requests"));
        std::fs::create_dir_all(folder.join(BUCKET)).expect("a bucket");
        let mut service = S3ServiceBuilder::new(FileSystem::new(&folder).expect("a file system"));
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            mishaps: Mutex::default(),
            seen: Mutex::default(),
            file: File::create(&requests).expect("a file of a temporary folder"),
            connections: AtomicU64::new(0),
            once: tokio::sync::Mutex::default(),
        });
        tokio::spawn(accept(listener, tls, service.build(), Arc::clone(&state)));
        Self { place: S3 { address, folder, requests }, _folder: temporary, state }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.place.address
    }

    /// Returns the address and files by which other processes reach it.
    pub fn place(&self) -> &S3 {
        &self.place
    }

    /// A store on it.
    pub async fn store(&self, prefix: &str) -> S3Store {
        self.store_as(BUCKET, prefix, Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test")).await
    }

    /// A store on it, as somebody else or in another bucket.
    pub async fn store_as(
        &self,
        bucket: &str,
        prefix: &str,
        who: impl aws_sdk_s3::config::ProvideCredentials + 'static,
    ) -> S3Store {
        store_at(self.place.address, bucket, prefix, who).await
    }

    /// The next requests meet these, in this order.
    ///
    /// # Panics
    /// Where another test panicked.
    pub fn next(&self, mishaps: impl IntoIterator<Item = Mishap>) {
        self.state.mishaps.lock().expect("no panic").extend(mishaps);
    }

    /// The requests since this was last asked: method, path and query.
    ///
    /// # Panics
    /// Where another test panicked.
    pub fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.state.seen.lock().expect("no panic"))
    }

    /// How many connections there were, those included that came to nothing.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// The folder of the server, where uploads that are not complete show as files.
    pub fn folder(&self) -> PathBuf {
        self.place.folder.clone()
    }
}

/// A store at an address, whoever listens there. It retries as a real one does, but waits less.
pub async fn store_at(
    address: SocketAddr,
    bucket: &str,
    prefix: &str,
    who: impl aws_sdk_s3::config::ProvideCredentials + 'static,
) -> S3Store {
    let retries = retries().with_max_attempts(4).with_initial_backoff(std::time::Duration::from_millis(10));
    let config = loader()
        .endpoint_url(format!("http://{address}"))
        // The SDK counts retries by region, for the whole process: what one test provokes must not cost the others.
        .region(Region::new(format!("test-{}", address.port())))
        .credentials_provider(who)
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
                // Who does not trust the certificate hangs up.
                if let Ok(connection) = tls.accept(connection).await {
                    serve(connection, service, state).await;
                }
            })),
        }
    }
}

async fn serve(connection: impl AsyncRead + AsyncWrite + Unpin, service: S3Service, state: Arc<State>) {
    let answer = service_fn(move |request| answer(request, service.clone(), Arc::clone(&state)));
    // A connection that a client closes, or that a mishap ends, is nothing to report.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), answer).await;
}

async fn answer(request: Request<Incoming>, service: S3Service, state: Arc<State>) -> Result<Response<Body>, Broken> {
    let seen = format!("{} {}", request.method(), request.uri());
    (&state.file).write_all(format!("{seen}\n").as_bytes()).expect("a file of a temporary folder");
    state.seen.lock().expect("no panic").push(seen);
    let mishap = state.mishaps.lock().expect("no panic").pop_front();
    if let Some(Mishap::Refused(status, code)) = mishap {
        return Ok(refused(status, code));
    }
    let once = request.method() == Method::PUT && request.headers().contains_key("if-none-match");
    let _one_by_one = if once { Some(state.once.lock().await) } else { None };
    let answer = service.call(request.map(Body::from)).await.map_err(|_| Broken)?;
    match mishap {
        Some(Mishap::AnswerLost) => Err(Broken),
        Some(Mishap::BrokenOff) => Ok(answer.map(|_| Body::http_body(Half { sent: false }))),
        _ => Ok(answer),
    }
}

fn refused(status: u16, code: &str) -> Response<Body> {
    let body = format!("<Error><Code>{code}</Code><Message>Told to say {code}.</Message></Error>");
    let answer = Response::builder().status(status).header("x-amz-request-id", "REQUEST");
    answer.body(Body::from(body)).expect("a status and a body")
}

/// Ends a connection.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("told to break off")
    }
}

impl std::error::Error for Broken {}

/// The beginning of a body, then the end of the connection.
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
