//! Image as a single tar file: the OCI layout, and the table that Docker engines before version 25 require.

use std::io::{self, Write};

use serde_json::{Value, json};
use tar::EntryType;

use super::{MANIFEST_TYPE, header};
use crate::build::image::{Blob, Image};

/// Writes the image; `names` are its names in an engine.
pub(super) fn write(image: &Image, names: &[String], out: impl Write) -> io::Result<()> {
    let mut tar = tar::Builder::new(out);
    let mut add = |path: &str, kind, mode, content: &[u8]| {
        tar.append_data(&mut header(kind, mode, content.len() as u64), path, content)
    };
    add("blobs/", EntryType::Directory, 0o755, &[])?;
    add("blobs/sha256/", EntryType::Directory, 0o755, &[])?;
    for blob in image.blobs().chain([image.manifest_blob()]) {
        add(&path_in_tar(blob), EntryType::Regular, 0o644, &blob.bytes)?;
    }
    add("index.json", EntryType::Regular, 0o644, &super::json(&index(image, names)))?;
    add("manifest.json", EntryType::Regular, 0o644, &super::json(&docker(image, names)))?;
    add("oci-layout", EntryType::Regular, 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.into_inner()?.flush()
}

fn path_in_tar(blob: &Blob) -> String {
    format!("blobs/{}", blob.digest.replace(':', "/"))
}

/// Returns the OCI layout's index: the manifest, once for each name.
fn index(image: &Image, names: &[String]) -> Value {
    let manifest = image.manifest_blob();
    let entry = json!({ "mediaType": MANIFEST_TYPE, "digest": manifest.digest, "size": manifest.bytes.len() });
    let for_each_name = names.iter().map(|name| {
        let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let mut entry = entry.clone();
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag, "io.containerd.image.name": name });
        entry
    });
    let manifests: Vec<Value> = if names.is_empty() { vec![entry.clone()] } else { for_each_name.collect() };
    json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests })
}

/// Returns Docker's table, which refers to the same files.
fn docker(image: &Image, names: &[String]) -> Value {
    let layers: Vec<String> = image.layers.iter().map(|layer| path_in_tar(&layer.blob)).collect();
    json!([{ "Config": path_in_tar(&image.config), "RepoTags": names, "Layers": layers }])
}
