//! The note that `cargo knot build` writes to `.cloudknot/`: the image of the program, and its types. Read by the
//! backends that run images. Does not depend on an engine or a registry.

use std::path::{Path, PathBuf};

use cloudknot_runtime::contract::{FunctionDescription, Types};
use cloudknot_runtime::{fingerprint, function::Function};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// The image of a program that was built last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Built {
    /// Package of the program.
    pub package: String,
    /// Version of the package.
    pub version: String,
    /// Cargo target, as a cargo option.
    pub cargo_target: String,
    /// Target that the worker was compiled for.
    pub target: String,
    /// Path of the worker.
    pub worker: PathBuf,
    /// Size of the worker in bytes.
    pub worker_bytes: u64,
    /// Size of the image in bytes, as it is stored and sent.
    pub compressed_bytes: u64,
    /// Digest of the image in a registry.
    pub digest: String,
    /// Layers, the lowest first: digest and size.
    pub layers: Vec<(String, u64)>,
    /// Name of the image in a Docker engine. It contains the digest, so that another image has another name.
    pub name: String,
    /// Path of the image as a tar that `docker load` accepts.
    pub archive: PathBuf,
    /// Remote functions of the program.
    pub functions: Vec<FunctionDescription>,
    /// Types of the functions, as the worker reported them; `None` if the worker cannot run on this machine.
    pub(crate) types: Option<Vec<Types>>,
}

pub(crate) const FILE: &str = "image.json";
const HINT: &str = "run `cargo knot build`, then try again";

impl Built {
    /// Returns the name of a package's images in a Docker engine, without the tag. Characters that such a name cannot have are
    /// replaced.
    pub fn repository(package: &str) -> String {
        let allowed = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
        let name: String = package.chars().map(allowed).collect();
        match name.trim_matches('-') {
            "" => "cloudknot/program".to_owned(),
            name => format!("cloudknot/{name}"),
        }
    }

    /// Returns the last build of the package in this folder.
    ///
    /// # Errors
    /// Returns an error if nothing was built, or the note cannot be read.
    pub fn of_package(folder: &Path) -> Result<Self> {
        Self::read(&super::of_package(folder))
    }

    /// Returns the last build of this program.
    pub(crate) fn of_this_program() -> Result<Self> {
        let missing = || {
            let message = format!("cannot find an image of this program: {}", super::NO_CRATE);
            Error::new(ErrorKind::Image, message).with_hint(super::NO_CRATE_HINT)
        };
        Self::read(&super::of_notes().ok_or_else(missing)?)
    }

    /// Returns the last build of the program with this folder of runs.
    pub(crate) fn read(home: &Path) -> Result<Self> {
        let path = home.join(FILE);
        let failed = |message: String| Error::new(ErrorKind::Image, message).with_hint(HINT);
        let missing = || failed(format!("cannot find an image of this program: `{}` does not exist", path.display()));
        let text = super::read_note(home, FILE)
            .map_err(|error| failed(format!("cannot read `{}`", path.display())).with_source(error))?
            .ok_or_else(missing)?;
        let built: Self = serde_json::from_slice(&text)
            .map_err(|error| failed(format!("cannot read `{}`", path.display())).with_source(error))?;
        built.check_archive().map_err(|reason| failed(format!("cannot read `{}`: {reason}", path.display())))?;
        Ok(built)
    }

    /// Returns the file name of the archive of an image.
    pub(crate) fn archive_name(package: &str, digest: &str) -> String {
        let hex = digest.trim_start_matches("sha256:");
        format!("{package}-{}.tar", hex.get(..12).unwrap_or(hex))
    }

    /// Checks that the archive has the name that a build gives it. A clobber removes the file, and a note may come with a clone.
    fn check_archive(&self) -> std::result::Result<(), String> {
        let name = Self::archive_name(&self.package, &self.digest);
        if self.archive.file_name().is_some_and(|found| found == name.as_str()) {
            return Ok(());
        }
        Err(format!("the archive `{}` is not called `{name}`", self.archive.display()))
    }

    pub(crate) fn write(&self, home: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).expect("a note serializes to JSON");
        super::write_note(home, FILE, &json).map_err(|error| {
            let path = home.join(FILE);
            Error::new(ErrorKind::Image, format!("cannot write the note of the image to `{}`", path.display()))
                .with_source(error)
        })
    }

    /// Checks that the image has this function, with the types that this program has.
    pub(crate) fn check(&self, function: &Function) -> Result<()> {
        let Some(types) = &self.types else { return Ok(()) };
        let id = function.id.to_string();
        let Some(built) = types.iter().find(|types| types.function == id) else {
            let message = format!("cannot find `{id}` in the image `{}`", self.name);
            return Err(Error::new(ErrorKind::Types, message).with_hint(HINT));
        };
        let schema = function.schema()?;
        if built.fingerprint == schema.fingerprint {
            return Ok(());
        }
        let difference = fingerprint::difference(&built.schema, &schema.text);
        let message =
            format!("the types of `{id}` have changed since the image `{}` was built\n{difference}", self.name);
        Err(Error::new(ErrorKind::Types, message).with_hint(HINT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_are_valid() {
        let check = |package: &str, name: &str| assert_eq!(Built::repository(package), format!("cloudknot/{name}"));
        check("prog", "prog");
        check("Pushed_App", "pushed-app");
        check("foo_", "foo");
        check("größe", "gr--e");
        check("物理", "program");
    }

    // M5: a note that came with a clone names a file of the user.
    #[test]
    fn note_with_a_foreign_archive_is_refused() {
        let note = |archive: &str| -> Built {
            let digest = format!("sha256:{}", "ab".repeat(32));
            serde_json::from_value(serde_json::json!({
                "package": "p", "version": "1", "cargo_target": "--bin p", "target": "t", "worker": "w", "worker_bytes": 1,
                "compressed_bytes": 1, "digest": digest, "layers": [], "name": "n", "archive": archive, "functions": [],
                "types": null,
            }))
            .expect("it is a note")
        };
        assert_eq!(note("/target/p-abababababab.tar").check_archive(), Ok(()));
        for foreign in ["/home/me/thesis.tar", "/", ".."] {
            assert!(note(foreign).check_archive().is_err(), "{foreign}");
        }
    }
}
