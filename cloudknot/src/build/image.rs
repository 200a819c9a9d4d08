//! Assembles the image of a worker: a small OCI image, built in this process, with the same bytes for the same worker.
//!
//! Handles tar, gzip and the OCI formats. Does not depend on the compilation, on any registry, or on Docker.

mod archive;
pub(crate) mod authorities;
mod layer;
mod worker;

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
#[cfg(feature = "docker")]
use object::read::elf::ElfFile64;
use oci_spec::image::{
    Config, Descriptor, Digest, HistoryBuilder, ImageConfiguration, ImageConfigurationBuilder, ImageManifestBuilder,
    MediaType, Os, RootFsBuilder,
};
use serde::Serialize;
use sha2::Digest as _;

use crate::error::{self, ErrorKind};

pub(crate) use layer::Layer;
pub use worker::Architecture;

/// Media type of the manifest. Docker (since 18.06), ECR, containerd and skopeo accept it.
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// User and group of the worker: the customary number for an unprivileged user in images without a user list.
const USER: &str = "65532:65532";

/// Contents of an image besides the worker itself.
#[derive(Debug, Clone, Default)]
pub struct ImageOptions {
    title: String,
    version: String,
    functions: Vec<String>,
    labels: BTreeMap<String, String>,
    ca_bundles: Vec<PathBuf>,
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

    /// Adds a label. A value that changes with every build does not belong here, since it changes the digest.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Adds a PEM file with certificate authorities that the worker trusts besides the public ones.
    #[must_use]
    pub fn ca_bundle(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_bundles.push(path.into());
        self
    }

    fn all_labels(&self) -> HashMap<String, String> {
        let ours = [
            ("org.opencontainers.image.title", self.title.clone()),
            ("org.opencontainers.image.version", self.version.clone()),
            ("cloudknot.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("cloudknot.functions", self.functions.join(",")),
        ];
        let ours = ours.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key.to_owned(), value));
        ours.chain(self.labels.clone()).collect()
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

impl Blob {
    pub(crate) fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: sha256(&bytes), bytes }
    }
}

impl Image {
    /// Assembles an image with this worker (a static executable for Linux) and no base image.
    ///
    /// # Errors
    /// Returns an error if the worker is not an executable for Linux, or a file of authorities cannot be read.
    pub fn assemble(worker: &[u8], options: &ImageOptions) -> Result<Self, ImageError> {
        let architecture = Architecture::of(worker)?;
        let authorities = authorities::bundle(&options.ca_bundles)?;
        let layer = Layer::of_tar(&layer::tar(worker, Some(&authorities)));
        let configuration = configure(architecture, &layer, options);
        Ok(Self::of_parts(&configuration, vec![layer], architecture, worker.len()))
    }

    /// Assembles an image with this worker on top of another image, whose user, working folder and environment are kept, if it
    /// has any.
    ///
    /// The base's own authorities are kept too, unless `options` names further ones.
    ///
    /// # Errors
    /// Returns the errors of [`Image::assemble`], or an error if the base is for another architecture or lacks a library that
    /// the worker needs.
    #[cfg(feature = "docker")]
    pub(crate) fn assemble_on(base: Self, worker: &[u8], options: &ImageOptions) -> Result<Self, ImageError> {
        let architecture = Architecture::of(worker)?;
        if base.architecture != architecture {
            return Err(ImageError::OtherArchitecture { base: base.architecture, worker: architecture });
        }
        base.check_for(worker)?;
        let wanted = !options.ca_bundles.is_empty() || !base.layers.iter().any(Layer::has_authorities);
        let authorities = wanted.then(|| authorities::bundle(&options.ca_bundles)).transpose()?;
        let layer = Layer::of_tar(&layer::tar(worker, authorities.as_deref()));
        let mut configuration = base.configuration();
        let mut config = configuration.config().clone().unwrap_or_default();
        start_worker(&mut config, options);
        configuration.set_config(Some(config));
        let mut layers = base.layers;
        layers.push(layer);
        configuration.set_rootfs(rootfs(&layers));
        if let Some(history) = configuration.history_mut() {
            history.push(self::history());
        }
        Ok(Self::of_parts(&configuration, layers, architecture, worker.len()))
    }

    /// Returns an error if the base lacks a shared library that the worker needs, since the worker would end at startup.
    #[cfg(feature = "docker")]
    fn check_for(&self, worker: &[u8]) -> Result<(), ImageError> {
        let unreadable = |_| ImageError::NotAWorker { found: "not a readable executable" };
        let mut missing =
            crate::build::elf::needs(&ElfFile64::parse(worker).map_err(unreadable)?).map_err(unreadable)?;
        let here = |path: &String| self.layers.iter().any(|layer| layer.may_have_library(file_name(path)));
        missing.retain(|path| !here(path));
        if missing.is_empty() { Ok(()) } else { Err(ImageError::MissingLibraries { missing }) }
    }

    /// Creates an image from its configuration and layers, as exported by an engine.
    #[cfg(feature = "docker")]
    pub(crate) fn of_base(configuration: &ImageConfiguration, layers: Vec<Layer>) -> Result<Self, ImageError> {
        let architecture = Architecture::of_oci(configuration.architecture())?;
        Ok(Self::of_parts(configuration, layers, architecture, 0))
    }

    fn of_parts(
        configuration: &ImageConfiguration,
        layers: Vec<Layer>,
        architecture: Architecture,
        worker_bytes: usize,
    ) -> Self {
        let config = Blob::new(json(configuration));
        let manifest = ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageManifest)
            .config(descriptor(MediaType::ImageConfig, &config))
            .layers(layers.iter().map(|layer| descriptor(MediaType::ImageLayerGzip, &layer.blob)).collect::<Vec<_>>())
            .build()
            .expect("an image's manifest has all that it needs");
        let labels = configuration.labels_of_config().into_iter().flatten();
        Self {
            manifest: Blob::new(json(&manifest)),
            config,
            layers,
            labels: labels.map(|(key, value)| (key.clone(), value.clone())).collect(),
            architecture,
            worker_bytes: worker_bytes as u64,
        }
    }

    #[cfg(feature = "docker")]
    fn configuration(&self) -> ImageConfiguration {
        serde_json::from_slice(&self.config.bytes).expect("the configuration was written by this program")
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
        let write = || {
            let mut file = io::BufWriter::new(std::fs::File::create(path)?);
            archive::write(self, names, &mut file)?;
            file.into_inner()?.sync_all()
        };
        write().map_err(|source| ImageError::Save { path: path.to_owned(), source })
    }

    /// Returns the same tar, in memory.
    #[cfg(feature = "docker")]
    pub(crate) fn tar(&self, names: &[String]) -> Bytes {
        let mut tar = Vec::new();
        archive::write(self, names, &mut tar).expect("writing to memory does not fail");
        tar.into()
    }

    pub(crate) fn manifest_blob(&self) -> &Blob {
        &self.manifest
    }

    /// Returns the blobs that the manifest refers to.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.layers.iter().map(|layer| &layer.blob).chain([&self.config])
    }
}

#[cfg(feature = "docker")]
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Returns the configuration of an image with only this layer.
fn configure(architecture: Architecture, layer: &Layer, options: &ImageOptions) -> ImageConfiguration {
    let mut config = Config::default();
    start_worker(&mut config, options);
    ImageConfigurationBuilder::default()
        .architecture(architecture.oci())
        .os(Os::Linux)
        .config(config)
        .rootfs(rootfs([layer]))
        .history([history()])
        .build()
        .expect("an image's configuration has all that it needs")
}

/// Configures the image to start the worker as an unprivileged user, in a folder that is writable.
fn start_worker(config: &mut Config, options: &ImageOptions) {
    config.set_entrypoint(Some(vec![format!("/{}", layer::WORKER)]));
    config.set_cmd(None);
    let user = config.user().as_deref().unwrap_or_default();
    if matches!(user.split(':').next(), None | Some("" | "0" | "root")) {
        config.set_user(Some(USER.to_owned()));
    }
    if config.working_dir().as_deref().is_none_or(|folder| folder.is_empty() || folder == "/") {
        config.set_working_dir(Some("/tmp".to_owned()));
    }
    let mut labels = config.labels().clone().unwrap_or_default();
    labels.extend(options.all_labels());
    config.set_labels(Some(labels));
}

fn rootfs<'a>(layers: impl IntoIterator<Item = &'a Layer>) -> oci_spec::image::RootFs {
    RootFsBuilder::default()
        .typ("layers")
        .diff_ids(layers.into_iter().map(|layer| layer.diff_id.clone()).collect::<Vec<_>>())
        .build()
        .expect("the file system has all that it needs")
}

// Some tools expect one history entry for each layer. A time would change the digest.
fn history() -> oci_spec::image::History {
    HistoryBuilder::default().created_by("cloudknot").build().expect("nothing is required of a line of history")
}

fn descriptor(media_type: MediaType, blob: &Blob) -> Descriptor {
    let digest: Digest = blob.digest.parse().expect("our digests are well-formed");
    Descriptor::new(media_type, blob.bytes.len() as u64, digest)
}

/// Serializes to JSON with sorted keys: labels come from a hash map, whose order differs between two runs.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    let mut value = serde_json::to_value(value).expect("these types have a form in JSON");
    value.sort_all_objects();
    serde_json::to_vec(&value).expect("a JSON value has a text")
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut digest = "sha256:".to_owned();
    for byte in sha2::Sha256::digest(bytes) {
        write!(digest, "{byte:02x}").expect("writing to a string does not fail");
    }
    digest
}

/// Error while assembling or saving an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The worker is not an executable that an image can start.
    #[error("cannot put the worker into an image: it is {found}")]
    NotAWorker {
        /// Description of the file's actual content.
        found: &'static str,
    },
    /// A file of authorities cannot be read or contains none.
    #[error("cannot read certificates from `{}`", path.display())]
    Authorities {
        /// Path of the file.
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
            Self::NotAWorker { .. } => Some(
                "build it for a Linux target, such as x86_64-unknown-linux-musl or aarch64-unknown-linux-musl".into(),
            ),
            Self::Authorities { .. } => Some("`ca-bundle` names a PEM file with BEGIN CERTIFICATE blocks".into()),
            Self::OtherArchitecture { base, .. } => Some(format!("build the worker for {base}, or use another base image")),
            // The C library itself is missing: the base has another one, or none.
            Self::MissingLibraries { missing } if missing.iter().any(|name| name.contains("ld-linux")) => Some(
                "the worker is linked with glibc: use a base image that has it, such as debian:12-slim (Alpine has musl \
                 instead)"
                    .into(),
            ),
            Self::MissingLibraries { .. } => {
                Some("have the Dockerfile install the package that has it, or link the library statically".into())
            }
            Self::Save { .. } => None,
        }
    }
}

impl From<ImageError> for error::Error {
    fn from(error: ImageError) -> Self {
        let hint = error.hint();
        Self::wrap(ErrorKind::Image, error, hint)
    }
}
