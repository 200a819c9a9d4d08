//! Keeps a built image beside the crate, as an archive with a note, and removes it, also from the Docker engine.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use cloudknot_runtime::contract::{self, Types};

use crate::build::compile::Worker;
use crate::build::docker::Engine;
use crate::build::docker_image::DockerImage;
use crate::error::{Error, ErrorKind, Result};
use crate::home;
use crate::home::built::{Built, FILE};

impl Built {
    /// Describes the image of this worker, as it would be kept. Runs the worker to read its types.
    pub(super) fn of(image: &DockerImage, worker: &Worker) -> Self {
        let name = image.tags().first().map_or_else(|| "latest".to_owned(), Clone::clone);
        let folder = worker.path.parent().unwrap_or(Path::new("."));
        Self {
            package: worker.package.clone(),
            version: worker.version.clone(),
            cargo_target: worker.cargo_target.option(),
            target: worker.target.clone(),
            worker: worker.path.clone(),
            worker_bytes: image.worker_bytes(),
            compressed_bytes: image.compressed_bytes(),
            digest: image.digest().to_owned(),
            layers: image.layers(),
            name: format!("{}:{name}", image.name()),
            archive: folder.join(Self::archive_name(&worker.package, image.digest())),
            functions: worker.functions.clone(),
            types: types_of(&worker.path),
        }
    }

    /// Keeps the image as the program's current one: saves its archive, and writes a note of it beside the crate.
    pub(super) fn keep(&self, image: &DockerImage, worker: &Worker) -> Result<()> {
        if !self.archive.exists() {
            image.save(&self.archive)?;
        }
        self.write(&home::of_package(&worker.package_folder))
    }

    /// Removes the program's image that the note in this folder describes: from the Docker engine, along with its archive and
    /// the note. Returns whether there was a note.
    pub(crate) async fn clobber(home: &Path) -> Result<bool> {
        if !home.join(FILE).exists() {
            return Ok(false);
        }
        let built = Self::read(home)?;
        match Engine::connect().await {
            Ok(engine) => drop(engine.remove(&built.name).await?),
            Err(error) if error.is_no_engine() => {}
            Err(error) => return Err(error.into()),
        }
        for path in [built.archive, home.join(FILE)] {
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                let message = format!("cannot remove `{}`", path.display());
                return Err(Error::new(ErrorKind::Image, message).with_source(error));
            }
        }
        Ok(true)
    }
}

/// Returns the types that the worker reports. A worker for another machine cannot run on this one; it compares the
/// types when it runs.
fn types_of(worker: &Path) -> Option<Vec<Types>> {
    let mut command = Command::new(worker);
    let output = command.env(contract::ENV_DESCRIBE, "1").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success())
}
