//! Client of the registry protocol: a session with a repository, and its retries.

mod classify;
pub(crate) mod stored;
#[cfg(test)]
mod tests;
mod watch;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
pub(super) use oci_client::Reference;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::token_cache::{RegistryToken, RegistryTokenType};
use oci_client::{Client, RegistryOperation};
use reqwest::header::HeaderValue;
use rustls::pki_types::CertificateDer;

use super::{Deleted, OnProgress, Progress, Pushed, RegistryError, RegistryErrorKind, Repository};
use crate::build::image::assemble::{MANIFEST_TYPE, ca_certificates};
use crate::build::image::{Blob, Image};
use crate::settings::login::Login;
use classify::classify;
use watch::Watch;

/// Number of bytes handed to the connection, and reported as sent, at once.
const CHUNK_SIZE: usize = 64 * 1024;
const INITIAL_WAIT: Duration = Duration::from_millis(250);
const MAX_WAIT: Duration = Duration::from_secs(8);
/// Default maximum number of attempts: about 24 seconds of waiting in all.
const MAX_ATTEMPTS: u32 = 8;
/// Time without progress after which a connection counts as lost.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// Parses the name of a repository.
pub(super) fn repository(name: &str) -> Result<Repository, RegistryError> {
    let bad = |why: &str| RegistryError::name(name, why);
    let reference: Reference = name.parse().map_err(|error: oci_client::ParseError| bad(&error.to_string()))?;
    if reference.digest().is_some() || name.rsplit('/').next().is_some_and(|last| last.contains(':')) {
        return Err(bad("a repository must not have a tag or a digest"));
    }
    Ok(Repository {
        name: format!("{}/{}", reference.registry(), reference.repository()),
        reference,
        login: Login::default(),
        ca_bundles: Vec::new(),
        attempts: MAX_ATTEMPTS,
        timeout: IDLE_TIMEOUT,
        on_progress: Arc::new(|_| ()),
    })
}

/// Pushes the image with these tags.
pub(super) async fn push(repository: &Repository, image: &Image, tags: &[&str]) -> Result<Pushed, RegistryError> {
    let session = repository.open().await?;
    let digest = image.digest();
    let digest_tag = &digest["sha256:".len()..][..12];
    let tags = if tags.is_empty() { &[digest_tag][..] } else { tags };
    let mut sent_bytes = 0;
    // A tag is written last, so a tag that already refers to the image implies that everything it refers to exists.
    let mut complete = false;
    for tag in tags {
        let reference = repository.tagged(tag)?;
        if session.digest_of(&reference).await?.as_deref() != Some(digest) {
            if !complete {
                sent_bytes = session.send_blobs(image).await?;
            }
            session.send_manifest(&reference, image).await?;
        }
        complete = true;
        (repository.on_progress)(&Progress::Tagged { tag });
    }
    Ok(Pushed {
        reference: format!("{}@{digest}", repository.name),
        tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        sent_bytes,
    })
}

/// Deletes the manifest with this digest.
pub(super) async fn delete(repository: &Repository, digest: &str) -> Result<Deleted, RegistryError> {
    let session = repository.open().await?;
    let reference = repository.reference.clone_with_digest(digest.to_owned());
    let action = format!("delete `{digest}` from `{}`", repository.name);
    session.attempt(&action, || Box::pin(session.delete(&reference))).await
}

/// Returns whether this is a valid name for an image.
pub(crate) fn is_name(name: &str) -> bool {
    name.parse::<Reference>().is_ok()
}

impl Repository {
    fn tagged(&self, tag: &str) -> Result<Reference, RegistryError> {
        let name = format!("{}:{tag}", self.name);
        name.parse().map_err(|error: oci_client::ParseError| RegistryError::name(&name, &error.to_string()))
    }

    /// Returns whether the registry is on this machine, where a connection cannot be intercepted.
    fn is_local(&self) -> bool {
        let host = self.reference.registry();
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }

    async fn open(&self) -> Result<Session<'_>, RegistryError> {
        // The HTTP client uses the cryptography provider of the process; a provider that the program has chosen is kept.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let registry = self.reference.registry();
        let auth = self.login.resolve(registry).await?;
        let mut ca_certificates = Vec::new();
        for file in &self.ca_bundles {
            ca_certificates.extend(ca_certificates::read(file).map_err(|error| RegistryError::ca_bundle(&error))?);
        }
        let client = Client::try_from(self.config(&ca_certificates));
        let client = client.map_err(|error| self.failed(&format!("set up a connection to `{registry}`"), &error))?;
        let watch = Arc::new(Watch::new(self.timeout));
        let mut session = Session { repository: self, client, auth, bearer: None, ca_certificates, watch };
        session.bearer = session
            .attempt(&format!("log in to `{registry}`"), || {
                Box::pin(session.client.auth(&self.reference, &session.auth, RegistryOperation::Push))
            })
            .await?;
        if let Some(token) = session.bearer.clone() {
            // The token also serves for reading: for a new repository, some registries do not issue a token for pulling only.
            let token = RegistryTokenType::Bearer(RegistryToken::Token { token });
            session.client.tokens.insert(&self.reference, RegistryOperation::Pull, token).await;
        }
        Ok(session)
    }

    fn config(&self, ca_certificates: &[CertificateDer<'_>]) -> ClientConfig {
        let registry = self.reference.resolve_registry();
        let certificate =
            |der: &CertificateDer<'_>| Certificate { encoding: CertificateEncoding::Der, data: der.to_vec() };
        ClientConfig {
            protocol: if self.is_local() {
                ClientProtocol::HttpsExcept(vec![registry.to_owned()])
            } else {
                ClientProtocol::Https
            },
            // In one request, as in Docker and containerd: several registries do not accept uploads in chunks.
            use_monolithic_push: true,
            extra_root_certificates: ca_certificates.iter().map(certificate).collect(),
            connect_timeout: Some(Duration::from_secs(10)),
            // No read timeout: it would end a long upload. The session's watch detects a stalled one.
            user_agent: concat!("cloudknot/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        }
    }

    fn failed(&self, action: &str, error: &OciDistributionError) -> RegistryError {
        let registry = self.reference.registry();
        let error = RegistryError::of(action, registry, self.login.is_explicit(), classify(error));
        match error.kind() {
            RegistryErrorKind::Login | RegistryErrorKind::NotPermitted => {
                let missing_helper = self.login.missing_helper(registry);
                missing_helper.map(|helper| helper.hint(registry)).into_iter().fold(error, RegistryError::with_hint)
            }
            _ => error,
        }
    }
}

/// Authenticated session with a repository.
struct Session<'a> {
    repository: &'a Repository,
    client: Client,
    auth: RegistryAuth,
    /// Token that the registry issued for the login, if it uses tokens.
    bearer: Option<String>,
    ca_certificates: Vec<CertificateDer<'static>>,
    watch: Arc<Watch>,
}

type ResponseFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, OciDistributionError>> + Send + 'a>>;

impl Session<'_> {
    /// Runs an operation, and repeats it after a pause while it fails with a transient error.
    async fn attempt<'f, T>(
        &self,
        action: &str,
        mut once: impl FnMut() -> ResponseFuture<'f, T>,
    ) -> Result<T, RegistryError> {
        let mut wait = INITIAL_WAIT;
        let mut failed = 0;
        loop {
            self.watch.begin();
            let error = tokio::select! {
                result = once() => match result {
                    Ok(value) => return Ok(value),
                    Err(error) => self.repository.failed(action, &error),
                },
                () = self.watch.expired() => {
                    RegistryError::stalled(action, self.repository.reference.registry(), self.watch.timeout())
                }
            };
            failed += 1;
            if !error.kind().is_transient() || failed >= self.repository.attempts {
                return Err(error);
            }
            self.report(&Progress::Retrying { action, reason: &error.reason(), failed, wait });
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(MAX_WAIT);
        }
    }

    fn report(&self, progress: &Progress<'_>) {
        (self.repository.on_progress)(progress);
    }

    /// Returns the digest that a tag refers to, if the tag exists.
    async fn digest_of(&self, reference: &Reference) -> Result<Option<String>, RegistryError> {
        let action = format!("look up `{reference}`");
        let found = self.attempt(&action, || Box::pin(self.client.fetch_manifest_digest(reference, &self.auth))).await;
        match found {
            Ok(digest) => Ok(Some(digest)),
            Err(error) if error.kind() == RegistryErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends the blobs that the registry lacks. Returns their total size.
    async fn send_blobs(&self, image: &Image) -> Result<u64, RegistryError> {
        let mut sent = 0;
        for blob in image.blobs() {
            let (digest, bytes) = (blob.digest.as_str(), blob.bytes.len() as u64);
            let action = format!("send `{digest}` to `{}`", self.repository.name);
            if self.attempt(&action, || Box::pin(self.send_blob(blob))).await? {
                sent += bytes;
                self.report(&Progress::Sent { digest, bytes });
            } else {
                self.report(&Progress::Present { digest, bytes });
            }
        }
        Ok(sent)
    }

    /// Sends a blob unless the registry has it. Returns whether it was sent. On a later attempt the registry may have it, if
    /// only the response was lost.
    async fn send_blob(&self, blob: &Blob) -> Result<bool, OciDistributionError> {
        let reference = &self.repository.reference;
        if self.client.blob_exists(reference, &blob.digest).await? {
            return Ok(false);
        }
        let size = blob.bytes.len() as u64;
        let chunks = chunks(blob.clone(), self.repository.on_progress.clone(), self.watch.clone());
        self.client.push_blob_stream(reference, stream::iter(chunks), &blob.digest, Some(size)).await?;
        Ok(true)
    }

    async fn send_manifest(&self, reference: &Reference, image: &Image) -> Result<(), RegistryError> {
        let body = image.manifest_blob().bytes.clone();
        let kind = HeaderValue::from_static(MANIFEST_TYPE);
        let action = format!("tag `{reference}`");
        self.attempt(&action, || Box::pin(self.client.push_manifest_raw(reference, body.clone(), kind.clone())))
            .await?;
        Ok(())
    }

    /// Sends the delete request without the client crate, which does not support deletion.
    async fn delete(&self, reference: &Reference) -> Result<Deleted, OciDistributionError> {
        let registry = reference.resolve_registry();
        let scheme = if self.repository.is_local() { "http" } else { "https" };
        let digest = reference.digest().unwrap_or_default();
        let url = format!("{scheme}://{registry}/v2/{}/manifests/{digest}", reference.repository());
        let trusted = self.ca_certificates.iter().map(|der| reqwest::Certificate::from_der(der));
        let http = reqwest::Client::builder().tls_certs_merge(trusted.collect::<Result<Vec<_>, _>>()?).build()?;
        let request = http.delete(&url);
        let request = match (&self.bearer, &self.auth) {
            (Some(token), _) => request.bearer_auth(token),
            (None, RegistryAuth::Basic(user, password)) => request.basic_auth(user, Some(password)),
            (None, _) => request,
        };
        let response = request.send().await?;
        match response.status().as_u16() {
            200..300 => Ok(Deleted::Yes),
            404 => Ok(Deleted::Absent),
            405 => Ok(Deleted::NotAllowed),
            code => Err(OciDistributionError::ServerError { code, url, message: response.text().await? }),
        }
    }
}

fn chunks(
    blob: Blob,
    on_progress: Arc<OnProgress>,
    watch: Arc<Watch>,
) -> impl Iterator<Item = Result<Bytes, OciDistributionError>> + Send + 'static {
    let bytes = blob.bytes.len();
    (0..bytes).step_by(CHUNK_SIZE).map(move |start| {
        let end = bytes.min(start + CHUNK_SIZE);
        let record = if end == bytes { Watch::sent } else { Watch::progressed };
        record(&watch);
        on_progress(&Progress::Sending { digest: &blob.digest, sent: end as u64, bytes: bytes as u64 });
        Ok(blob.bytes.slice(start..end))
    })
}
