//! What `cargo knot build` leaves beside the crate: which image stands for the program, and with which types. Read by
//! the backends that run images.

use std::path::{Path, PathBuf};

use cloudknot_runtime::contract::Types;
use cloudknot_runtime::fingerprint;
use cloudknot_runtime::function::Function;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// An image of the program, as it was built last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Built {
    /// The image's name in a Docker engine; it holds the digest, so that another image has another name.
    pub(crate) name: String,
    /// The image as a tar that Docker loads.
    pub(crate) archive: PathBuf,
    /// The digest of its manifest.
    pub(crate) digest: String,
    /// Its remote functions, as the worker described them.
    pub(crate) functions: Vec<Types>,
}

const FILE: &str = "image.json";
const HINT: &str = "run `cargo knot build`, then the program again";

impl Built {
    /// What was built last of the program with this folder of runs.
    pub(crate) fn read(home: &Path) -> Result<Self> {
        let path = home.join(FILE);
        let failed = |message: String| Error::new(ErrorKind::Config, message).with_hint(HINT);
        let text = std::fs::read(&path).map_err(|error| {
            failed(format!("failed to find an image of this program: `{}`", path.display())).with_source(error)
        })?;
        serde_json::from_slice(&text)
            .map_err(|error| failed(format!("failed to read `{}`", path.display())).with_source(error))
    }

    /// Notes it for the program with this folder of runs.
    pub(crate) fn write(&self, home: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(home)?;
        let text = serde_json::to_vec_pretty(self).expect("a note is texts and numbers");
        std::fs::write(home.join(FILE), text)
    }

    /// Whether the image has this function, with the types that this program has.
    pub(crate) fn check(&self, function: &Function) -> Result<()> {
        let id = function.id.to_string();
        let Some(there) = self.functions.iter().find(|types| types.function == id) else {
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
