//! Reads an image exported by an engine: a tar with a table, a configuration and layers.

use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use oci_spec::image::ImageConfiguration;
use serde::Deserialize;

use crate::build::image::{Image, Layer};

/// Entry of the export's `manifest.json`, which describes one image.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "Config")]
    config: PathBuf,
    #[serde(rename = "Layers")]
    layers: Vec<PathBuf>,
}

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

pub(super) fn read(file: File) -> Result<Image> {
    let mut export = Export::of(file)?;
    let table: Vec<Entry> = serde_json::from_slice(&export.get(Path::new("manifest.json"))?)?;
    let entry = table.into_iter().next().ok_or("the engine's table of images is empty")?;
    let configuration: ImageConfiguration = serde_json::from_slice(&export.get(&entry.config)?)?;
    let diff_ids = configuration.rootfs().diff_ids().clone();
    if diff_ids.len() != entry.layers.len() {
        return Err("the layers of the exported image do not match its configuration".into());
    }
    let layers = entry.layers.iter().zip(diff_ids).map(|(layer, diff_id)| {
        let bytes = export.get(layer)?;
        Ok(Layer::of_engine(bytes, diff_id))
    });
    let layers = layers.collect::<Result<Vec<_>>>()?;
    Ok(Image::of_base(&configuration, layers)?)
}

/// Tar whose files are read in place, since a base image can be too large to hold twice in memory.
struct Export {
    file: File,
    places: HashMap<PathBuf, Place>,
}

enum Place {
    File { start: u64, size: u64 },
    // Older engines store a layer once and link to it from its other occurrences.
    Link(PathBuf),
}

impl Export {
    fn of(mut file: File) -> Result<Self> {
        file.rewind()?;
        let mut places = HashMap::new();
        let mut archive = tar::Archive::new(&file);
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            let path = plain(&entry.path()?);
            let place = match entry.link_name()? {
                Some(target) => Place::Link(plain(&path.with_file_name("").join(target))),
                None => Place::File { start: entry.raw_file_position(), size: entry.size() },
            };
            places.insert(path, place);
        }
        Ok(Self { file, places })
    }

    fn get(&mut self, path: &Path) -> Result<Vec<u8>> {
        let missing = || format!("`{}` is missing in the engine's export", path.display());
        let mut place = self.places.get(path).ok_or_else(missing)?;
        if let Place::Link(target) = place {
            place = self.places.get(target).ok_or_else(missing)?;
        }
        let Place::File { start, size } = *place else { return Err(missing().into()) };
        self.file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        (&self.file).take(size).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == size { Ok(bytes) } else { Err(missing().into()) }
    }
}

/// Resolves `.` and `..` in a path, and makes it relative.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::Normal(part) => plain.push(part),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    plain
}
