//! Client of a container registry: sends only what the registry lacks, and retries transient errors.
//!
//! Only this module uses the registry protocol. It does not depend on where an image comes from, nor on any cloud.

#[cfg(not(cloudknot_worker))]
pub(crate) mod client;
mod failure;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::build::image::Image;
use crate::host::{host, host_await, host_type};

pub use crate::settings::login::Login;
pub use failure::{RegistryError, RegistryErrorKind};

/// Repository of a registry, such as `ghcr.io/somebody/my-crate`.
///
/// A registry on this machine (`localhost`, `127.0.0.1`) is accessed over HTTP, any other over HTTPS.
#[derive(Clone)]
pub struct Repository {
    name: String,
    reference: host_type!(client::Reference),
    login: Login,
    ca_bundles: Vec<PathBuf>,
    attempts: u32,
    /// Time without progress after which a connection counts as lost.
    timeout: Duration,
    on_progress: Arc<OnProgress>,
}

type OnProgress = dyn Fn(&Progress<'_>) + Send + Sync;

/// Progress of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The registry already has this blob.
    Present {
        /// Digest of the blob.
        digest: &'a str,
        /// Size of the blob in bytes.
        bytes: u64,
    },
    /// A blob is being sent. It starts again from 0 after a lost connection.
    Sending {
        /// Digest of the blob.
        digest: &'a str,
        /// Number of bytes handed to the connection so far.
        sent: u64,
        /// Size of the blob in bytes.
        bytes: u64,
    },
    /// The registry has confirmed this blob.
    Sent {
        /// Digest of the blob.
        digest: &'a str,
        /// Size of the blob in bytes.
        bytes: u64,
    },
    /// An operation failed with a transient error and is retried.
    Retrying {
        /// Operation that is retried.
        action: &'a str,
        /// Cause of the error.
        reason: &'a str,
        /// Number of failed attempts so far.
        failed: u32,
        /// Pause before the next attempt.
        wait: Duration,
    },
    /// The tag now refers to the image.
    Tagged {
        /// Name of the tag.
        tag: &'a str,
    },
}

/// Result of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pushed {
    /// Reference to the image in the registry: `<repository>@<digest>`, which never refers to another image.
    pub reference: String,
    /// Tags of the push, including those that already referred to the image.
    pub tags: Vec<String>,
    /// Size in bytes of the blobs that the registry lacked.
    pub sent_bytes: u64,
}

/// Result of deleting an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deleted {
    /// The image is deleted, along with its tags.
    Yes,
    /// The image did not exist.
    Absent,
    /// The registry does not permit clients to delete with this protocol.
    NotAllowed,
}

impl Repository {
    /// Returns the repository of this name: a registry's host, with its port if it has one, and a path.
    ///
    /// # Errors
    /// Returns an error if the name is invalid.
    pub fn new(name: &str) -> Result<Self, RegistryError> {
        host!(client::repository(name))
    }

    /// Sets the login. The default is the login stored by `docker login`, or none if nothing is stored.
    #[must_use]
    pub fn login(mut self, login: Login) -> Self {
        self.login = login;
        self
    }

    /// Adds a PEM file of CA certificates that are trusted besides those of this machine.
    #[must_use]
    pub fn ca_bundle(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_bundles.push(path.into());
        self
    }

    /// Sets the maximum number of attempts of an operation with transient errors (8 by default, with pauses of 0.25 to 8
    /// seconds between).
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Sets the callback for progress reports.
    #[must_use]
    pub fn on_progress(mut self, hook: impl Fn(&Progress<'_>) + Send + Sync + 'static) -> Self {
        self.on_progress = Arc::new(hook);
        self
    }

    /// Pushes the image to the repository, under these tags. Blobs that the registry already has are not sent.
    ///
    /// Without a tag, the image is tagged with the start of its digest, since registries delete untagged images.
    ///
    /// # Errors
    /// Returns an error if the registry cannot be reached, rejects a request, or keeps failing after several attempts.
    pub async fn push(&self, image: &Image, tags: &[&str]) -> Result<Pushed, RegistryError> {
        host_await!(client::push(self, image, tags))
    }

    /// Deletes an image by its digest, with all its tags, if the registry permits it.
    ///
    /// # Errors
    /// Returns the errors of [`Repository::push`].
    pub async fn delete(&self, digest: &str) -> Result<Deleted, RegistryError> {
        host_await!(client::delete(self, digest))
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("name", &self.name).field("login", &self.login).finish_non_exhaustive()
    }
}
