//! Puts an image into a registry, by the registry's own protocol: only what it lacks, and again where it failed in passing.
//!
//! The registry protocol is known here and nowhere else. Does not know where an image comes from, nor any cloud.

mod failure;
pub(crate) mod stored;
#[cfg(test)]
#[path = "registry/tests.rs"]
mod tests;
mod watch;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloudknot_runtime::engine;
use futures_util::stream;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::token_cache::{RegistryToken, RegistryTokenType};
use oci_client::{Client, Reference, RegistryOperation};
use reqwest::header::HeaderValue;
use rustls::pki_types::CertificateDer;

use crate::build::image::{Blob, Image, MANIFEST_TYPE, authorities};
pub use crate::settings::login::Login;
pub use failure::{RegistryError, RegistryErrorKind};
use watch::Watch;

/// How much is handed to the connection, and reported as sent, at once.
const PIECE: usize = 64 * 1024;
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// About 24 seconds of waiting in all.
const ATTEMPTS: u32 = 8;
/// How long nothing may move before a connection counts as lost.
const PATIENCE: Duration = Duration::from_mins(1);

/// One repository of a registry, such as `ghcr.io/somebody/my-crate`.
///
/// A registry on this machine (`localhost`, `127.0.0.1`) is spoken to by HTTP, any other by HTTPS.
#[derive(Clone)]
pub struct Repository {
    name: String,
    reference: Reference,
    login: Login,
    ca_bundles: Vec<PathBuf>,
    attempts: u32,
    patience: Duration,
    on_progress: Arc<OnProgress>,
}

type OnProgress = dyn Fn(&Progress<'_>) + Send + Sync;

/// What happens during a push.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The registry has this blob already.
    Present {
        /// The blob.
        digest: &'a str,
        /// Its size.
        bytes: u64,
    },
    /// A blob is on its way. It starts again from 0 after the connection was lost.
    Sending {
        /// The blob.
        digest: &'a str,
        /// How much of it was handed to the connection.
        sent: u64,
        /// Its size.
        bytes: u64,
    },
    /// The registry has confirmed this blob.
    Sent {
        /// The blob.
        digest: &'a str,
        /// Its size.
        bytes: u64,
    },
    /// Something failed in passing and is tried again.
    Retrying {
        /// What is tried again.
        doing: &'a str,
        /// Why.
        reason: &'a str,
        /// How many attempts have failed so far.
        failed: u32,
        /// The pause before the next one.
        wait: Duration,
    },
    /// This tag now names the image.
    Tagged {
        /// The tag.
        tag: &'a str,
    },
}

/// What a push has done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pushed {
    /// The image in the registry: `<repository>@<digest>`, which never comes to mean another image.
    pub reference: String,
    /// The image's tags there, those that were there already included.
    pub tags: Vec<String>,
    /// The bytes of the blobs that the registry lacked.
    pub sent_bytes: u64,
}

/// What became of an image that was to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deleted {
    /// It is gone, and its tags with it.
    Yes,
    /// It was not there.
    Absent,
    /// The registry does not let clients delete by this protocol.
    NotAllowed,
}

impl Repository {
    /// The repository of this name: a registry's host, with its port if it has one, and a path.
    ///
    /// # Errors
    /// If there cannot be a repository of this name.
    pub fn new(name: &str) -> Result<Self, RegistryError> {
        let bad = |why: &str| RegistryError::name(name, why);
        let reference: Reference = name.parse().map_err(|error: oci_client::ParseError| bad(&error.to_string()))?;
        if reference.digest().is_some() || name.rsplit('/').next().is_some_and(|last| last.contains(':')) {
            return Err(bad("a repository is named without a tag or a digest"));
        }
        Ok(Self {
            name: format!("{}/{}", reference.registry(), reference.repository()),
            reference,
            login: Login::default(),
            ca_bundles: Vec::new(),
            attempts: ATTEMPTS,
            patience: PATIENCE,
            on_progress: Arc::new(|_| ()),
        })
    }

    /// How to log in. By default as `docker login` has stored it, or not at all where it has stored nothing.
    #[must_use]
    pub fn login(mut self, login: Login) -> Self {
        self.login = login;
        self
    }

    /// A PEM file with certificate authorities that are trusted besides those of this machine.
    #[must_use]
    pub fn ca_bundle(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_bundles.push(path.into());
        self
    }

    /// How often what fails in passing is tried in all (8 by default, with pauses of 0.25 to 8 seconds between).
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Who is told what happens.
    #[must_use]
    pub fn on_progress(mut self, hook: impl Fn(&Progress<'_>) + Send + Sync + 'static) -> Self {
        self.on_progress = Arc::new(hook);
        self
    }

    /// Has the image in the repository, under these tags. What is there already is not sent.
    ///
    /// Without a tag the image is tagged by the start of its digest, since registries forget what has none.
    ///
    /// # Errors
    /// If the registry cannot be reached, refuses, or goes on failing after several attempts.
    pub async fn push(&self, image: &Image, tags: &[&str]) -> Result<Pushed, RegistryError> {
        engine::inside(Box::pin(self.send(image, tags))).await
    }

    async fn send(&self, image: &Image, tags: &[&str]) -> Result<Pushed, RegistryError> {
        let session = self.open().await?;
        let digest = image.digest();
        let own_tag = &digest["sha256:".len()..][..12];
        let tags = if tags.is_empty() { &[own_tag][..] } else { tags };
        let mut sent_bytes = 0;
        // A tag is written last, so that one that names the image already vouches for all that it refers to.
        let mut complete = false;
        for tag in tags {
            let reference = self.tagged(tag)?;
            if session.digest_of(&reference).await?.as_deref() != Some(digest) {
                if !complete {
                    sent_bytes = session.send_blobs(image).await?;
                }
                session.send_manifest(&reference, image).await?;
            }
            complete = true;
            (self.on_progress)(&Progress::Tagged { tag });
        }
        Ok(Pushed {
            reference: format!("{}@{digest}", self.name),
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            sent_bytes,
        })
    }

    /// Deletes an image by its digest, with all its tags, where the registry allows it.
    ///
    /// # Errors
    /// As [`Repository::push`].
    pub async fn delete(&self, digest: &str) -> Result<Deleted, RegistryError> {
        let deleted = async {
            let session = self.open().await?;
            let reference = self.reference.clone_with_digest(digest.to_owned());
            let doing = format!("delete `{digest}` from `{}`", self.name);
            session.attempt(&doing, || Box::pin(session.delete(&reference))).await
        };
        engine::inside(Box::pin(deleted)).await
    }

    /// Whether an image can be called this.
    pub(crate) fn is_name(name: &str) -> bool {
        name.parse::<Reference>().is_ok()
    }

    fn tagged(&self, tag: &str) -> Result<Reference, RegistryError> {
        let name = format!("{}:{tag}", self.name);
        name.parse().map_err(|error: oci_client::ParseError| RegistryError::name(&name, &error.to_string()))
    }

    /// Whether the registry is on this machine, where there is nobody to listen in.
    fn is_local(&self) -> bool {
        let host = self.reference.registry();
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }

    async fn open(&self) -> Result<Session<'_>, RegistryError> {
        // The HTTP client takes the process's provider of cryptography; if the program has chosen one, it stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let registry = self.reference.registry();
        let auth = self.login.resolve(registry).await?;
        let mut authorities = Vec::new();
        for file in &self.ca_bundles {
            authorities.extend(authorities::read(file).map_err(|error| RegistryError::authorities(&error))?);
        }
        let client = Client::try_from(self.config(&authorities));
        let client = client.map_err(|error| self.failed(&format!("set up a connection to `{registry}`"), &error))?;
        let watch = Arc::new(Watch::new(self.patience));
        let mut session = Session { repository: self, client, auth, bearer: None, authorities, watch };
        session.bearer = session
            .attempt(&format!("log in to `{registry}`"), || {
                Box::pin(session.client.auth(&self.reference, &session.auth, RegistryOperation::Push))
            })
            .await?;
        if let Some(token) = session.bearer.clone() {
            // Good for looking up as well: for a new repository some registries give no token that is for pulling only.
            let token = RegistryTokenType::Bearer(RegistryToken::Token { token });
            session.client.tokens.insert(&self.reference, RegistryOperation::Pull, token).await;
        }
        Ok(session)
    }

    fn config(&self, authorities: &[CertificateDer<'_>]) -> ClientConfig {
        let registry = self.reference.resolve_registry();
        let certificate =
            |der: &CertificateDer<'_>| Certificate { encoding: CertificateEncoding::Der, data: der.to_vec() };
        ClientConfig {
            protocol: if self.is_local() {
                ClientProtocol::HttpsExcept(vec![registry.to_owned()])
            } else {
                ClientProtocol::Https
            },
            // In one piece, as Docker and containerd send it: several registries do not take pieces.
            use_monolithic_push: true,
            extra_root_certificates: authorities.iter().map(certificate).collect(),
            connect_timeout: Some(Duration::from_secs(10)),
            // None for reading: that would end a long upload. The session watches.
            user_agent: concat!("cloudknot/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        }
    }

    fn failed(&self, doing: &str, error: &OciDistributionError) -> RegistryError {
        RegistryError::of(doing, self.reference.registry(), self.login.is_given(), error)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("name", &self.name).field("login", &self.login).finish_non_exhaustive()
    }
}

/// A repository, logged in to.
struct Session<'a> {
    repository: &'a Repository,
    client: Client,
    auth: RegistryAuth,
    /// The token that the registry has given for the login, if it works with tokens.
    bearer: Option<String>,
    authorities: Vec<CertificateDer<'static>>,
    watch: Arc<Watch>,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, OciDistributionError>> + Send + 'a>>;

impl Session<'_> {
    /// Does it, and again after a pause as long as it fails in passing.
    async fn attempt<'f, T>(&self, doing: &str, mut once: impl FnMut() -> Answer<'f, T>) -> Result<T, RegistryError> {
        let mut wait = FIRST_WAIT;
        let mut failed = 0;
        loop {
            self.watch.begin();
            let error = tokio::select! {
                answer = once() => match answer {
                    Ok(value) => return Ok(value),
                    Err(error) => self.repository.failed(doing, &error),
                },
                () = self.watch.over() => {
                    RegistryError::stalled(doing, self.repository.reference.registry(), self.watch.patience())
                }
            };
            failed += 1;
            if !error.kind().is_passing() || failed >= self.repository.attempts {
                return Err(error);
            }
            self.report(&Progress::Retrying { doing, reason: &error.reason(), failed, wait });
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    fn report(&self, progress: &Progress<'_>) {
        (self.repository.on_progress)(progress);
    }

    /// What a tag names, if it names anything.
    async fn digest_of(&self, reference: &Reference) -> Result<Option<String>, RegistryError> {
        let doing = format!("look up `{reference}`");
        let found = self.attempt(&doing, || Box::pin(self.client.fetch_manifest_digest(reference, &self.auth))).await;
        match found {
            Ok(digest) => Ok(Some(digest)),
            Err(error) if error.kind() == RegistryErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends the blobs that the registry lacks; gives their size in all.
    async fn send_blobs(&self, image: &Image) -> Result<u64, RegistryError> {
        let mut sent = 0;
        for blob in image.blobs() {
            let (digest, bytes) = (blob.digest.as_str(), blob.bytes.len() as u64);
            let doing = format!("send `{digest}` to `{}`", self.repository.name);
            if self.attempt(&doing, || Box::pin(self.send_blob(blob))).await? {
                sent += bytes;
                self.report(&Progress::Sent { digest, bytes });
            } else {
                self.report(&Progress::Present { digest, bytes });
            }
        }
        Ok(sent)
    }

    /// Sends a blob unless the registry has it. On a further attempt it may have it, when only its answer was lost.
    async fn send_blob(&self, blob: &Blob) -> Result<bool, OciDistributionError> {
        let reference = &self.repository.reference;
        if self.client.blob_exists(reference, &blob.digest).await? {
            return Ok(false);
        }
        let size = blob.bytes.len() as u64;
        let pieces = pieces(blob.clone(), self.repository.on_progress.clone(), self.watch.clone());
        self.client.push_blob_stream(reference, stream::iter(pieces), &blob.digest, Some(size)).await?;
        Ok(true)
    }

    async fn send_manifest(&self, reference: &Reference, image: &Image) -> Result<(), RegistryError> {
        let body = image.manifest_blob().bytes.clone();
        let kind = HeaderValue::from_static(MANIFEST_TYPE);
        let doing = format!("tag `{reference}`");
        self.attempt(&doing, || Box::pin(self.client.push_manifest_raw(reference, body.clone(), kind.clone()))).await?;
        Ok(())
    }

    /// The client crate knows no deletion, so this one request is made by hand.
    async fn delete(&self, reference: &Reference) -> Result<Deleted, OciDistributionError> {
        let registry = reference.resolve_registry();
        let scheme = if self.repository.is_local() { "http" } else { "https" };
        let digest = reference.digest().unwrap_or_default();
        let url = format!("{scheme}://{registry}/v2/{}/manifests/{digest}", reference.repository());
        let trusted = self.authorities.iter().map(|der| reqwest::Certificate::from_der(der));
        let http = reqwest::Client::builder().tls_certs_merge(trusted.collect::<Result<Vec<_>, _>>()?).build()?;
        let request = http.delete(&url);
        let request = match (&self.bearer, &self.auth) {
            (Some(token), _) => request.bearer_auth(token),
            (None, RegistryAuth::Basic(user, password)) => request.basic_auth(user, Some(password)),
            (None, _) => request,
        };
        let answer = request.send().await?;
        match answer.status().as_u16() {
            200..300 => Ok(Deleted::Yes),
            404 => Ok(Deleted::Absent),
            405 => Ok(Deleted::NotAllowed),
            code => Err(OciDistributionError::ServerError { code, url, message: answer.text().await? }),
        }
    }
}

fn pieces(
    blob: Blob,
    on_progress: Arc<OnProgress>,
    watch: Arc<Watch>,
) -> impl Iterator<Item = Result<Bytes, OciDistributionError>> + Send + 'static {
    let bytes = blob.bytes.len();
    (0..bytes).step_by(PIECE).map(move |start| {
        let end = bytes.min(start + PIECE);
        let goes_on = if end == bytes { Watch::sent } else { Watch::moved };
        goes_on(&watch);
        on_progress(&Progress::Sending { digest: &blob.digest, sent: end as u64, bytes: bytes as u64 });
        Ok(blob.bytes.slice(start..end))
    })
}
