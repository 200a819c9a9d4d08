//! What `cargo knot build` leaves beside the crate: which image stands for the program, and with which types. Written by
//! whoever builds, read by the backends that run images. Knows no engine and no registry.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cloudknot_runtime::contract::{self, Types};
#[cfg(feature = "docker")]
use cloudknot_runtime::{fingerprint, function::Function};
use serde::{Deserialize, Serialize};

use crate::compile::{FunctionDescription, Worker};
use crate::docker_image::DockerImage;
use crate::error::{Error, ErrorKind, Result};

/// An image of a program, as it was built last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Built {
    /// The package of the program.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The cargo target, as cargo's option names it.
    pub cargo_target: String,
    /// The target that the worker was compiled for.
    pub target: String,
    /// Where the worker is.
    pub worker: PathBuf,
    /// The size of the worker.
    pub worker_bytes: u64,
    /// The size of the image, as it is stored and sent.
    pub compressed_bytes: u64,
    /// The digest by which a registry knows the image.
    pub digest: String,
    /// The layers, the lowest first: digest and size.
    pub layers: Vec<(String, u64)>,
    /// The name of the image in a Docker engine. It holds the digest, so that another image has another name.
    pub name: String,
    /// The image as a tar that `docker load` takes.
    pub archive: PathBuf,
    /// The remote functions.
    pub functions: Vec<FunctionDescription>,
    /// Their types, as the worker said; `None` where it cannot be run on this machine.
    pub(crate) types: Option<Vec<Types>>,
}

const FILE: &str = "image.json";
const HINT: &str = "run `cargo knot build`, then the program again";

impl Built {
    /// The name under which a Docker engine has the images of a package, without the tag.
    pub fn repository(package: &str) -> String {
        format!("cloudknot/{}", package.to_lowercase().replace('_', "-"))
    }

    /// Keeps an image as the one that stands for the program of this worker: saves it, and notes it beside the crate.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn keep(image: &DockerImage, worker: &Worker) -> Result<Self> {
        let hex = image.digest().trim_start_matches("sha256:");
        let short = &hex[..hex.len().min(12)];
        let name = image.tags().first().map_or_else(|| "latest".to_owned(), Clone::clone);
        let folder = worker.path.parent().unwrap_or(Path::new("."));
        let built = Self {
            package: worker.package.clone(),
            version: worker.version.clone(),
            cargo_target: worker.made_of.option(),
            target: worker.target.clone(),
            worker: worker.path.clone(),
            worker_bytes: image.worker_bytes(),
            compressed_bytes: image.compressed_bytes(),
            digest: image.digest().to_owned(),
            layers: image.layers(),
            name: format!("{}:{name}", image.name()),
            archive: folder.join(format!("{}-{short}.tar", worker.package)),
            functions: worker.functions.clone(),
            types: types_of(&worker.path),
        };
        if !built.archive.exists() {
            image.save(&built.archive)?;
        }
        built.write(&home_of(&worker.package_folder))?;
        Ok(built)
    }

    /// What was built last of the package in this folder.
    ///
    /// # Errors
    /// If nothing was, or the note cannot be read.
    pub fn of_package(folder: &Path) -> Result<Self> {
        Self::read(&home_of(folder))
    }

    /// What was built last of the program with this folder of runs.
    pub(crate) fn read(home: &Path) -> Result<Self> {
        let path = home.join(FILE);
        let failed = |message: String| Error::new(ErrorKind::Image, message).with_hint(HINT);
        let text = std::fs::read(&path).map_err(|error| {
            failed(format!("failed to find an image of this program: `{}`", path.display())).with_source(error)
        })?;
        serde_json::from_slice(&text)
            .map_err(|error| failed(format!("failed to read `{}`", path.display())).with_source(error))
    }

    /// Takes away what stands in this folder for a program: image in the Docker engine, archive and note. Whether there was
    /// anything.
    #[cfg_attr(not(feature = "docker"), expect(clippy::unused_async, reason = "with an engine it has to wait"))]
    pub(crate) async fn clobber(home: &Path) -> Result<bool> {
        if !home.join(FILE).exists() {
            return Ok(false);
        }
        let built = Self::read(home)?;
        #[cfg(feature = "docker")]
        match crate::docker::Engine::connect().await {
            Ok(engine) => drop(engine.remove(&built.name).await?),
            Err(error) if error.is_no_engine() => {}
            Err(error) => return Err(error.into()),
        }
        for path in [built.archive, home.join(FILE)] {
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                let message = format!("failed to remove `{}`", path.display());
                return Err(Error::new(ErrorKind::Image, message).with_source(error));
            }
        }
        Ok(true)
    }

    fn write(&self, home: &Path) -> Result<()> {
        let path = home.join(FILE);
        let text = serde_json::to_vec_pretty(self).expect("a note is texts and numbers");
        prepare(home).and_then(|()| std::fs::write(&path, text)).map_err(|error| {
            Error::new(ErrorKind::Image, format!("failed to note the image in `{}`", path.display())).with_source(error)
        })
    }

    /// Whether the image has this function, with the types that this program has.
    #[cfg(feature = "docker")]
    pub(crate) fn check(&self, function: &Function) -> Result<()> {
        let Some(types) = &self.types else { return Ok(()) };
        let id = function.id.to_string();
        let Some(there) = types.iter().find(|types| types.function == id) else {
            let message = format!("failed to find `{id}` in the image `{}`", self.name);
            return Err(Error::new(ErrorKind::Types, message).with_hint(HINT));
        };
        let here = function.schema();
        if there.fingerprint == here.fingerprint {
            return Ok(());
        }
        let difference = fingerprint::difference(&there.schema, &here.text);
        let message =
            format!("the types of `{id}` have changed since the image `{}` was built\n{difference}", self.name);
        Err(Error::new(ErrorKind::Types, message).with_hint(HINT))
    }
}

/// Makes the folder, which no version control is to see.
pub(crate) fn prepare(home: &Path) -> io::Result<()> {
    std::fs::create_dir_all(home)?;
    let ignore = home.join(".gitignore");
    if ignore.exists() { Ok(()) } else { std::fs::write(ignore, "*\n") }
}

/// Where the program of this package looks.
pub(crate) fn home_of(package_folder: &Path) -> PathBuf {
    match std::env::var_os(contract::ENV_HOME).filter(|home| !home.is_empty()) {
        Some(home) => home.into(),
        None => package_folder.join(contract::HOME),
    }
}

/// What the worker says of its types. One for another machine cannot be asked here; it compares them itself when it runs.
fn types_of(worker: &Path) -> Option<Vec<Types>> {
    let mut ask = Command::new(worker);
    let said = ask.env(contract::ENV_DESCRIBE, "1").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    serde_json::from_slice(&said.stdout).ok().filter(|_| said.status.success())
}
