//! Assembles images: tar, gzip and the OCI formats.

mod archive;
pub(crate) mod ca_certificates;
pub(crate) mod include;
mod layer;
mod time_zones;

use std::collections::HashMap;
use std::io;
use std::path::Path;

use bytes::Bytes;
use object::read::elf::ElfFile64;
use oci_spec::image::{
    Arch, Config, Descriptor, Digest, HistoryBuilder, ImageConfiguration, ImageConfigurationBuilder,
    ImageManifestBuilder, MediaType, Os, RootFsBuilder,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use self::layer::LayerWriter;
use super::{Architecture, Blob, Image, ImageError, ImageOptions, Layer};
use crate::build::elf;

/// Media type of the manifest. Docker (since 18.06), ECR, containerd and skopeo accept it.
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Path of the worker in an image.
const WORKER: &str = "worker";
/// User and group of the worker: the customary number for an unprivileged user in images without a user list.
const USER: &str = "65532:65532";
/// Working folder and home of the worker: the only folder that a read-only container lets it write to.
const HOME: &str = "tmp";
/// User list of an image without a base, with the names of the `static` image of Google's distroless.
const USERS: &str = "root:x:0:0:root:/tmp:/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin
nonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin
";
/// Group list of the same image.
const GROUPS: &str = "root:x:0:
nobody:x:65534:
nonroot:x:65532:
";

pub(super) fn save_tar(image: &Image, path: &Path, names: &[String]) -> Result<(), ImageError> {
    let write = || {
        let mut file = io::BufWriter::new(std::fs::File::create(path)?);
        archive::write(image, names, &mut file)?;
        file.into_inner()?.sync_all()
    };
    write().map_err(|source| ImageError::Save { path: path.to_owned(), source })
}

/// Assembles an image with this worker and no base image.
pub(super) fn without_base(worker: &[u8], options: &ImageOptions) -> Result<Image, ImageError> {
    let architecture = Architecture::of(worker)?;
    let layers = layers_above(&[], worker, options)?;
    let configuration = configure(architecture, &layers, options);
    Ok(Image::of_parts(&configuration, layers, architecture, worker.len()))
}

/// Returns the layers above those of the base, the lowest first: what changes most often is on top.
fn layers_above(base: &[Layer], worker: &[u8], options: &ImageOptions) -> Result<Vec<Layer>, ImageError> {
    let needs_time_zones = options.time_zones && !base.iter().any(Layer::has_time_zones);
    let time_zones = needs_time_zones.then(time_zones::layer);
    let included = include::layer(&options.package_folder, &options.include)?;
    let worker = worker_layer(base, worker, options)?;
    Ok(time_zones.into_iter().chain(included).chain([worker]).collect())
}

/// Returns the layer with the worker and the small files around it, ordered by name.
fn worker_layer(base: &[Layer], worker: &[u8], options: &ImageOptions) -> Result<Layer, ImageError> {
    let needs_users = !base.iter().any(Layer::may_have_users);
    let needs_ca_certificates = !options.ca_bundles.is_empty() || !base.iter().any(Layer::has_ca_certificates);
    let mut layer = LayerWriter::new();
    if needs_users || needs_ca_certificates {
        layer.folder("etc", 0o755);
    }
    if needs_users {
        layer.bytes("etc/group", 0o644, GROUPS.as_bytes());
        layer.bytes(layer::USERS, 0o644, USERS.as_bytes());
    }
    if needs_ca_certificates {
        let ca_certificates = ca_certificates::bundle(&options.ca_bundles)?;
        layer.folder("etc/ssl", 0o755);
        layer.folder("etc/ssl/certs", 0o755);
        layer.bytes(layer::CA_CERTIFICATES, 0o644, ca_certificates.as_bytes());
    }
    layer.folder(HOME, 0o1777);
    layer.bytes(WORKER, 0o755, worker);
    Ok(layer.finish())
}

impl ImageOptions {
    fn all_labels(&self) -> HashMap<String, String> {
        let cloudknot_labels = [
            ("org.opencontainers.image.title", self.title.clone()),
            ("org.opencontainers.image.version", self.version.clone()),
            ("cloudknot.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("cloudknot.functions", self.functions.join(",")),
        ];
        let cloudknot_labels = cloudknot_labels
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key.to_owned(), value));
        cloudknot_labels.chain(self.labels.clone()).collect()
    }
}

impl Architecture {
    fn of_oci(architecture: &Arch) -> Result<Self, ImageError> {
        match architecture {
            Arch::Amd64 => Ok(Self::Amd64),
            Arch::ARM64 => Ok(Self::Arm64),
            _ => Err(ImageError::NotAWorker { found: "on a base image for neither x86_64 nor aarch64" }),
        }
    }

    fn oci(self) -> Arch {
        match self {
            Self::Amd64 => Arch::Amd64,
            Self::Arm64 => Arch::ARM64,
        }
    }
}

impl Blob {
    pub(crate) fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: sha256(&bytes), bytes }
    }
}

impl Image {
    /// Assembles an image with this worker on top of another image, whose user, working folder and environment are kept, if it
    /// has any.
    ///
    /// The base's CA certificates are kept too, unless `options` adds others.
    ///
    /// # Errors
    /// Returns the errors of [`Image::assemble`], or an error if the base is for another architecture or lacks a library that
    /// the worker needs.
    pub(crate) fn assemble_on(base: Self, worker: &[u8], options: &ImageOptions) -> Result<Self, ImageError> {
        let architecture = Architecture::of(worker)?;
        if base.architecture != architecture {
            return Err(ImageError::OtherArchitecture { base: base.architecture, worker: architecture });
        }
        base.check_for(worker)?;
        let added = layers_above(&base.layers, worker, options)?;
        let mut configuration = base.configuration();
        let mut config = configuration.config().clone().unwrap_or_default();
        start_worker(&mut config, options);
        configuration.set_config(Some(config));
        if let Some(history) = configuration.history_mut() {
            history.extend(added.iter().map(|_| self::history()));
        }
        let mut layers = base.layers;
        layers.extend(added);
        configuration.set_rootfs(rootfs(&layers));
        Ok(Self::of_parts(&configuration, layers, architecture, worker.len()))
    }

    /// Returns an error if the base lacks a shared library that the worker needs, without which the worker cannot
    /// start.
    fn check_for(&self, worker: &[u8]) -> Result<(), ImageError> {
        let unreadable = |_| ImageError::NotAWorker { found: "not a readable executable" };
        let mut missing = elf::needs(&ElfFile64::parse(worker).map_err(unreadable)?).map_err(unreadable)?;
        let is_present = |path: &String| self.layers.iter().any(|layer| layer.may_have_library(file_name(path)));
        missing.retain(|path| !is_present(path));
        if missing.is_empty() { Ok(()) } else { Err(ImageError::MissingLibraries { missing }) }
    }

    /// Creates an image from its configuration and layers, as exported by an engine.
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
            .expect("all required fields of the manifest are set");
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

    fn configuration(&self) -> ImageConfiguration {
        serde_json::from_slice(&self.config.bytes).expect("the configuration was written by this program")
    }

    /// Returns the tar that [`save_tar`](Image::save_tar) writes, in memory.
    pub(crate) fn tar(&self, names: &[String]) -> Bytes {
        let mut tar = Vec::new();
        archive::write(self, names, &mut tar).expect("writing to memory does not fail");
        tar.into()
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Returns the configuration of an image with only these layers.
fn configure(architecture: Architecture, layers: &[Layer], options: &ImageOptions) -> ImageConfiguration {
    let mut config = Config::default();
    start_worker(&mut config, options);
    ImageConfigurationBuilder::default()
        .architecture(architecture.oci())
        .os(Os::Linux)
        .config(config)
        .rootfs(rootfs(layers))
        .history(layers.iter().map(|_| history()).collect::<Vec<_>>())
        .build()
        .expect("all required fields of the configuration are set")
}

/// Configures the image to start the worker as an unprivileged user, in a folder that is writable.
fn start_worker(config: &mut Config, options: &ImageOptions) {
    config.set_entrypoint(Some(vec![format!("/{WORKER}")]));
    config.set_cmd(None);
    let user = config.user().as_deref().unwrap_or_default();
    if matches!(user.split(':').next(), None | Some("" | "0" | "root")) {
        config.set_user(Some(USER.to_owned()));
        let mut variables = config.env().clone().unwrap_or_default();
        // The home of the user that is replaced cannot be written to.
        variables.retain(|variable| variable != "HOME=/root");
        if !variables.iter().any(|variable| variable.starts_with("HOME=")) {
            variables.push(format!("HOME=/{HOME}"));
        }
        config.set_env(Some(variables));
    }
    if config.working_dir().as_deref().is_none_or(|folder| folder.is_empty() || folder == "/") {
        config.set_working_dir(Some(format!("/{HOME}")));
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
        .expect("all required fields of the root file system are set")
}

// Some tools expect one history entry for each layer. A time would change the digest.
fn history() -> oci_spec::image::History {
    HistoryBuilder::default().created_by("cloudknot").build().expect("a history entry has no required fields")
}

fn descriptor(media_type: MediaType, blob: &Blob) -> Descriptor {
    let digest: Digest = blob.digest.parse().expect("digests of this crate are well-formed");
    Descriptor::new(media_type, blob.bytes.len() as u64, digest)
}

/// Serializes to JSON with sorted keys: labels come from a hash map, whose order differs between two runs.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    let mut value = serde_json::to_value(value).expect("these types serialize to JSON");
    value.sort_all_objects();
    serde_json::to_vec(&value).expect("a JSON value can be serialized")
}

/// Returns the header of a tar's entry, without anything that differs between two machines.
fn header(kind: EntryType, mode: u32, len: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(len);
    header
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    sha256_digest(Sha256::new().chain_update(bytes))
}

fn sha256_digest(hash: Sha256) -> String {
    use std::fmt::Write as _;
    let mut digest = "sha256:".to_owned();
    for byte in hash.finalize() {
        write!(digest, "{byte:02x}").expect("writing to a string does not fail");
    }
    digest
}
