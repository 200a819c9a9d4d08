//! Image layer: a tar without anything that differs between two machines, and its compressed form.

use bytes::Bytes;
use tar::EntryType;

use super::{header, sha256};
use crate::build::image::{Blob, Contents, Layer};

/// Path of the worker in an image.
pub(super) const WORKER: &str = "worker";
const CA_CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
/// gzip compression level. The next level takes twice the time and saves 1 %.
const COMPRESSION_LEVEL: u8 = 6;

impl Layer {
    pub(crate) fn of_tar(tar: &[u8]) -> Self {
        Self { diff_id: sha256(tar), blob: Blob::new(gzip(tar)), contents: Some(Contents::of_tar(tar)) }
    }

    /// Creates a layer from an engine's export, compressed or not.
    pub(crate) fn of_engine(bytes: Vec<u8>, diff_id: String) -> Self {
        if bytes.starts_with(&[0x1f, 0x8b]) {
            return Self { diff_id, blob: Blob::new(bytes), contents: None };
        }
        Self { diff_id, ..Self::of_tar(&bytes) }
    }

    /// Returns `true` if the layer is known to contain a file of CA certificates. In the worst case, the image gets a
    /// second one.
    pub(super) fn has_ca_certificates(&self) -> bool {
        self.contents.as_ref().is_some_and(|contents| contents.ca_certificates)
    }

    /// Returns `true` if the layer may contain a shared library of this name.
    pub(super) fn may_have_library(&self, name: &str) -> bool {
        self.contents.as_ref().is_none_or(|contents| contents.libraries.contains(name))
    }
}

impl Contents {
    fn of_tar(tar: &[u8]) -> Self {
        let mut contents = Self::default();
        let mut archive = tar::Archive::new(tar);
        let Ok(entries) = archive.entries() else { return contents };
        for entry in entries.flatten() {
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = path.rsplit('/').next().unwrap_or_default();
            contents.ca_certificates |= path == CA_CERTIFICATES;
            if name.contains(".so") {
                contents.libraries.insert(name.to_owned());
            }
        }
        contents
    }
}

/// Returns the tar of a worker's layer, with the files ordered by name.
pub(crate) fn tar(worker: &[u8], ca_certificates: Option<&str>) -> Bytes {
    let mut tar = tar::Builder::new(Vec::with_capacity(worker.len() + 512 * 1024));
    let mut add = |path: &str, kind, mode, content: &[u8]| {
        tar.append_data(&mut header(kind, mode, content), path, content).expect("writing to memory does not fail");
    };
    if let Some(ca_certificates) = ca_certificates {
        for folder in ["etc/", "etc/ssl/", "etc/ssl/certs/"] {
            add(folder, EntryType::Directory, 0o755, &[]);
        }
        add(CA_CERTIFICATES, EntryType::Regular, 0o644, ca_certificates.as_bytes());
    }
    add("tmp/", EntryType::Directory, 0o1777, &[]);
    add(WORKER, EntryType::Regular, 0o755, worker);
    tar.into_inner().expect("writing to memory does not fail").into()
}

/// Compresses deterministically: no time or name in the header, and one compressor regardless of other dependencies (flate2
/// would switch to another one, with other bytes, if any crate of the program enabled it).
fn gzip(data: &[u8]) -> Vec<u8> {
    // Magic, deflate, no flags, no time (4 bytes), no extra flags, unknown system.
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    out.extend(miniz_oxide::deflate::compress_to_vec(data, COMPRESSION_LEVEL));
    out.extend(crc32fast::hash(data).to_le_bytes());
    // The format requires the length modulo 2^32.
    #[expect(clippy::cast_possible_truncation)]
    out.extend((data.len() as u32).to_le_bytes());
    out
}
