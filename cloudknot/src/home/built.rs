//! What `cargo knot build` leaves beside the crate: which image stands for the program, and with which types. Written by
//! whoever builds, read by the backends that run images. Knows no engine and no registry.

use std::path::{Path, PathBuf};

use cloudknot_runtime::contract::{FunctionDescription, Types};
#[cfg(feature = "docker")]
use cloudknot_runtime::{fingerprint, function::Function};
use serde::{Deserialize, Serialize};

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

pub(crate) const FILE: &str = "image.json";
const HINT: &str = "run `cargo knot build`, then the program again";

impl Built {
    /// The name under which a Docker engine has the images of a package, without the tag.
    pub fn repository(package: &str) -> String {
        format!("cloudknot/{}", package.to_lowercase().replace('_', "-"))
    }

    /// What was built last of the package in this folder.
    ///
    /// # Errors
    /// If nothing was, or the note cannot be read.
    pub fn of_package(folder: &Path) -> Result<Self> {
        Self::read(&super::of_package(folder))
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

    pub(crate) fn write(&self, home: &Path) -> Result<()> {
        let path = home.join(FILE);
        let text = serde_json::to_vec_pretty(self).expect("a note is texts and numbers");
        super::create(home).and_then(|()| std::fs::write(&path, text)).map_err(|error| {
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
