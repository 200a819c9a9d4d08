//! Assembles the image of a worker: a small OCI image, built in this process, with the same bytes for the same worker.
//!
//! Handles tar, gzip and the OCI formats. Does not depend on the compilation, on any registry, or on Docker.

mod architecture;
#[cfg(not(cloudknot_worker))]
pub(crate) mod assemble;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::error::{self, ABSENT, ABSENT_HINT, Absent, ErrorKind};
use crate::host::host;

pub use architecture::Architecture;

/// Contents of an image besides the worker itself.
#[derive(Debug, Clone, Default)]
pub struct ImageOptions {
    title: String,
    version: String,
    functions: Vec<String>,
    labels: BTreeMap<String, String>,
    ca_bundles: Vec<PathBuf>,
    package_folder: PathBuf,
    include: Vec<PathBuf>,
    time_zones: bool,
}

impl ImageOptions {
    /// Creates the options of an image named after this crate and its version.
    pub fn new(title: impl Into<String>, version: impl Into<String>) -> Self {
        Self { title: title.into(), version: version.into(), ..Self::default() }
    }

    /// Sets the IDs of the remote functions in the worker; their order does not matter.
    #[must_use]
    pub fn functions<I: IntoIterator<Item: Into<String>>>(mut self, functions: I) -> Self {
        self.functions = functions.into_iter().map(Into::into).collect();
        self.functions.sort();
        self
    }

    /// Adds a label. A value that changes with every build must not be a label, since it changes the digest.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Adds a PEM file of CA certificates that the worker trusts besides the public ones.
    #[must_use]
    pub fn ca_bundle(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_bundles.push(path.into());
        self
    }

    /// Sets the folder that included files are relative to; the current folder if not set.
    #[must_use]
    pub fn package_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.package_folder = folder.into();
        self
    }

    /// Adds the time zone database of IANA.
    #[must_use]
    pub fn timezones(mut self) -> Self {
        self.time_zones = true;
        self
    }

    /// Adds a file or a folder of the package, where [`data`](crate::data()) finds it.
    #[must_use]
    pub fn include(mut self, path: impl Into<PathBuf>) -> Self {
        self.include.push(path.into());
        self
    }
}

/// Assembled image for a registry, a tar file or an engine.
#[derive(Debug, Clone)]
pub struct Image {
    manifest: Blob,
    config: Blob,
    layers: Vec<Layer>,
    labels: BTreeMap<String, String>,
    architecture: Architecture,
    worker_bytes: u64,
}

/// Bytes and their digest.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pub(crate) digest: String,
    pub(crate) bytes: Bytes,
}

/// Compressed layer.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// Digest of the tar.
    diff_id: String,
    blob: Blob,
    /// Relevant files in the layer; `None` for a layer that was already compressed, which is not inspected.
    contents: Option<Contents>,
}

/// Files in a layer that matter to a worker on top of it.
#[derive(Debug, Clone, Default)]
struct Contents {
    /// `true` if the layer contains a file of CA certificates.
    ca_certificates: bool,
    /// `true` if the layer contains a list of users.
    users: bool,
    /// `true` if the layer contains files of the time zone database.
    time_zones: bool,
    /// Names of shared libraries, without their folders.
    libraries: BTreeSet<String>,
}

impl Image {
    /// Assembles an image with this worker (a static executable for Linux) and no base image.
    ///
    /// # Errors
    /// Returns an error if the worker is not an executable for Linux, or a CA bundle or an included file cannot be read.
    pub fn assemble(worker: &[u8], options: &ImageOptions) -> Result<Self, ImageError> {
        host!(assemble::without_base(worker, options))
    }

    /// Returns the digest by which a registry identifies the image: that of its manifest.
    pub fn digest(&self) -> &str {
        &self.manifest.digest
    }

    /// Returns the ID by which an engine identifies the image: the digest of its configuration.
    pub fn id(&self) -> &str {
        &self.config.digest
    }

    /// Returns the manifest, as JSON.
    pub fn manifest(&self) -> &[u8] {
        &self.manifest.bytes
    }

    /// Returns the configuration, as JSON.
    pub fn config(&self) -> &[u8] {
        &self.config.bytes
    }

    /// Returns the compressed layers, the lowest first: each one's digest and bytes.
    pub fn layers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.layers.iter().map(|layer| (layer.blob.digest.as_str(), &*layer.blob.bytes))
    }

    /// Returns the image's labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// Returns the architecture that the image runs on.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// Returns the size of the worker, in bytes.
    pub fn worker_bytes(&self) -> u64 {
        self.worker_bytes
    }

    /// Returns the size of everything that is stored and sent: layers, configuration and manifest, in bytes.
    pub fn compressed_bytes(&self) -> u64 {
        self.blobs().chain([&self.manifest]).map(|blob| blob.bytes.len() as u64).sum()
    }

    /// Writes the image as a tar that `docker load` and `skopeo` (as `docker-archive:` and `oci-archive:`) accept. `names` are
    /// the image's names in an engine, such as `my-crate:latest`; there may be none.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn save_tar(&self, path: &Path, names: &[String]) -> Result<(), ImageError> {
        host!(assemble::save_tar(self, path, names))
    }

    pub(crate) fn manifest_blob(&self) -> &Blob {
        &self.manifest
    }

    /// Returns the blobs that the manifest refers to.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.layers.iter().map(|layer| &layer.blob).chain([&self.config])
    }
}

/// Checks that certificates can be read from a PEM file.
pub(super) fn check_ca_bundle(path: &Path) -> Result<(), ImageError> {
    host!(assemble::ca_certificates::read(path).map(drop))
}

/// Checks that the included files can be read.
pub(super) fn check_include(package: &Path, include: &[PathBuf]) -> Result<(), ImageError> {
    host!(assemble::include::files(package, include).map(drop))
}

/// Error while assembling or saving an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A worker assembles no images.
    #[error("{ABSENT}")]
    Absent,
    /// The worker is not an executable that an image can start.
    #[error("cannot put the worker into an image: it is {found}")]
    NotAWorker {
        /// Description of the file's actual content.
        found: &'static str,
    },
    /// A CA bundle cannot be read, or contains no certificate.
    #[error("cannot read certificates from `{}`", path.display())]
    CaBundle {
        /// Path of the file.
        path: PathBuf,
        /// Cause of the error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// An included file or folder cannot be read, or must not be put into an image.
    #[error("cannot include `{}` in the image", path.display())]
    Include {
        /// Path of the file or folder, relative to the package's folder.
        path: PathBuf,
        /// Cause of the error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The base image is for another architecture.
    #[error("cannot add a worker for {worker} to a base image for {base}")]
    OtherArchitecture {
        /// Architecture of the base.
        base: Architecture,
        /// Architecture of the worker.
        worker: Architecture,
    },
    /// The base image lacks libraries that the worker needs.
    #[error("cannot find `{}` in the base image: the worker needs it", missing.join("`, `"))]
    MissingLibraries {
        /// Names of the libraries, and possibly the path of the loader.
        missing: Vec<String>,
    },
    /// The tar cannot be written.
    #[error("cannot save the image as `{}`", path.display())]
    Save {
        /// Path of the file.
        path: PathBuf,
        /// Cause of the error.
        source: io::Error,
    },
}

impl ImageError {
    /// Returns a hint on what to do next, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Absent => Some(ABSENT_HINT.into()),
            Self::NotAWorker { .. } => Some(
                "build it for a Linux target, such as x86_64-unknown-linux-musl or aarch64-unknown-linux-musl".into(),
            ),
            Self::CaBundle { .. } => Some("set `ca-bundle` to a PEM file with BEGIN CERTIFICATE blocks".into()),
            Self::Include { .. } => Some(
                "`include` in [package.metadata.cloudknot] names files and folders of the package, relative to its folder"
                    .into(),
            ),
            Self::OtherArchitecture { base, .. } => Some(format!("build the worker for {base}, or use another base image")),
            // The C library is missing: the base image has another one, or none.
            Self::MissingLibraries { missing } if missing.iter().any(|name| name.contains("ld-linux")) => Some(
                "the worker is linked with glibc: use a base image that has it, such as debian:12-slim (Alpine has musl \
                 instead)"
                    .into(),
            ),
            Self::MissingLibraries { .. } => {
                Some("install the package that provides it in the Dockerfile, or link the library statically".into())
            }
            Self::Save { .. } => None,
        }
    }
}

impl Absent for ImageError {
    fn absent() -> Self {
        Self::Absent
    }
}

impl From<ImageError> for error::Error {
    fn from(error: ImageError) -> Self {
        let hint = error.hint();
        Self::wrap(ErrorKind::Image, error, hint)
    }
}
