//! Image layer: a tar without anything that differs between two machines, and its compressed form.

use std::io::{self, Read, Write};

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress_to_output, create_comp_flags_from_zip_params,
};
use sha2::{Digest, Sha256};
use tar::EntryType;

use super::{header, sha256_digest};
use crate::build::image::{Blob, Contents, Layer};

/// Path of the file of CA certificates in an image.
pub(super) const CA_CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
/// Path of the list of users in an image.
pub(super) const USERS: &str = "etc/passwd";
/// Path of the time zone database in an image.
pub(super) const ZONES: &str = "usr/share/zoneinfo/";
/// gzip compression level. The next level takes twice the time and saves 1 %.
const COMPRESSION_LEVEL: i32 = 6;

impl Layer {
    /// Creates a layer from an engine's export, compressed or not.
    pub(crate) fn of_engine(bytes: Vec<u8>, diff_id: String) -> Self {
        if bytes.starts_with(&[0x1f, 0x8b]) {
            return Self { diff_id, blob: Blob::new(bytes), contents: None };
        }
        let mut gzip = Gzip::new();
        gzip.write_all(&bytes).expect("compressing in memory does not fail");
        let (_, compressed) = gzip.finish();
        Self { diff_id, blob: Blob::new(compressed), contents: Some(Contents::of_tar(&bytes)) }
    }

    /// Returns `true` if the layer is known to contain a file of CA certificates. In the worst case, the image gets a
    /// second one.
    pub(super) fn has_ca_certificates(&self) -> bool {
        self.contents.as_ref().is_some_and(|contents| contents.ca_certificates)
    }

    /// Returns `true` if the layer is known to contain a time zone database.
    pub(super) fn has_time_zones(&self) -> bool {
        self.contents.as_ref().is_some_and(|contents| contents.time_zones)
    }

    /// Returns `true` if the layer may contain a list of users, which must not be replaced.
    pub(super) fn may_have_users(&self) -> bool {
        self.contents.as_ref().is_none_or(|contents| contents.users)
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
            contents.add(&String::from_utf8_lossy(&entry.path_bytes()));
        }
        contents
    }

    fn add(&mut self, path: &str) {
        // As some tools write it.
        let path = path.trim_start_matches("./");
        let name = path.rsplit('/').next().unwrap_or_default();
        self.ca_certificates |= path == CA_CERTIFICATES;
        self.users |= path == USERS;
        self.time_zones |= path.strip_prefix(ZONES) == Some("Etc/UTC");
        if name.contains(".so") {
            self.libraries.insert(name.to_owned());
        }
    }
}

/// Writer of a layer, which is compressed while it is written: the tar is never in memory as a whole. The paths are added in
/// order.
pub(super) struct LayerWriter {
    tar: tar::Builder<Gzip>,
    contents: Contents,
}

impl LayerWriter {
    pub(super) fn new() -> Self {
        Self { tar: tar::Builder::new(Gzip::new()), contents: Contents::default() }
    }

    pub(super) fn folder(&mut self, path: &str, mode: u32) {
        let mut header = header(EntryType::Directory, mode, 0);
        self.tar.append_data(&mut header, format!("{path}/"), io::empty()).expect(IN_MEMORY);
    }

    /// Adds a file with this content.
    pub(super) fn bytes(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.file(path, mode, content.len() as u64, content).expect(IN_MEMORY);
    }

    /// Adds a file of this length. Returns an error if it cannot be read, or has become shorter.
    pub(super) fn file(&mut self, path: &str, mode: u32, len: u64, content: impl Read) -> io::Result<()> {
        self.contents.add(path);
        let mut content = content.take(len);
        self.tar.append_data(&mut header(EntryType::Regular, mode, len), path, &mut content)?;
        if content.limit() == 0 {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it was changed while it was read"))
    }

    pub(super) fn finish(self) -> Layer {
        let gzip = self.tar.into_inner().expect(IN_MEMORY);
        let (diff_id, compressed) = gzip.finish();
        Layer { diff_id, blob: Blob::new(compressed), contents: Some(self.contents) }
    }
}

const IN_MEMORY: &str = "writing to memory does not fail";

/// Compresses deterministically: no time or name in the header, and one compressor regardless of other dependencies (flate2
/// would switch to another one, with other bytes, if any crate of the program enabled it).
struct Gzip {
    compressor: Box<CompressorOxide>,
    compressed: Vec<u8>,
    digest: Sha256,
    checksum: crc32fast::Hasher,
    len: u64,
}

impl Gzip {
    fn new() -> Self {
        // Raw deflate, with the default strategy.
        let flags = create_comp_flags_from_zip_params(COMPRESSION_LEVEL, 0, 0);
        Self {
            compressor: Box::new(CompressorOxide::new(flags)),
            // Magic, deflate, no flags, no time (4 bytes), no extra flags, unknown system.
            compressed: vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255],
            digest: Sha256::new(),
            checksum: crc32fast::Hasher::new(),
            len: 0,
        }
    }

    fn compress(&mut self, bytes: &[u8], flush: TDEFLFlush) -> TDEFLStatus {
        let compressed = &mut self.compressed;
        let (status, taken) = compress_to_output(&mut self.compressor, bytes, flush, |bytes| {
            compressed.extend_from_slice(bytes);
            true
        });
        assert_eq!(taken, bytes.len(), "the compressor takes all bytes if its output is taken");
        status
    }

    /// Returns the digest of what was written, and its compressed form.
    fn finish(mut self) -> (String, Vec<u8>) {
        let status = self.compress(&[], TDEFLFlush::Finish);
        assert_eq!(status, TDEFLStatus::Done, "the compressor ends if its output is taken");
        self.compressed.extend(self.checksum.finalize().to_le_bytes());
        // The format requires the length modulo 2^32.
        #[expect(clippy::cast_possible_truncation)]
        self.compressed.extend((self.len as u32).to_le_bytes());
        (sha256_digest(self.digest), self.compressed)
    }
}

impl Write for Gzip {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.digest.update(bytes);
        self.checksum.update(bytes);
        self.len += bytes.len() as u64;
        self.compress(bytes, TDEFLFlush::None);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_bytes_do_not_depend_on_the_pieces() {
        let mut bytes = Vec::new();
        for number in 0..200_000_u32 {
            bytes.extend((number % 1_000).wrapping_mul(number / 70).to_le_bytes());
        }
        let whole = miniz_oxide::deflate::compress_to_vec(&bytes, 6);
        for piece in [7, 512, 8 << 10, 100_003, bytes.len()] {
            let mut gzip = Gzip::new();
            for piece in bytes.chunks(piece) {
                gzip.write_all(piece).expect(IN_MEMORY);
            }
            let (digest, compressed) = gzip.finish();
            assert_eq!(digest, super::super::sha256(&bytes));
            assert!(compressed[10..compressed.len() - 8] == whole, "{piece}");
        }
    }

    // A file that grows is cut at the length in its header.
    #[test]
    fn file_that_shrinks_while_it_is_read_is_refused() {
        let mut layer = LayerWriter::new();
        layer.file("grown", 0o644, 2, &b"abc"[..]).expect("the file is long enough");
        let error = layer.file("shrunk", 0o644, 4, &b"abc"[..]).unwrap_err();
        assert_eq!(error.to_string(), "it was changed while it was read");
    }
}
