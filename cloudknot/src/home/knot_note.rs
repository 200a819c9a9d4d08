//! What a deploy leaves beside the crate: which Knot the program's maps run on. Written by whoever deploys, read by the program
//! without asking AWS. Holds names, and no secret.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use cloudknot_runtime::contract::Types;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::settings::sizes::JobSizes;

const FILE: &str = "knot.json";

/// The Knot of a program, as far as its maps need to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct KnotNote {
    /// Its name.
    pub(crate) knot: String,
    /// The profile of AWS that it was deployed by, where one was named.
    pub(crate) profile: Option<String>,
    /// Its region.
    pub(crate) region: String,
    /// The bucket that keeps runs.
    pub(crate) bucket: String,
    /// What stands before every key.
    pub(crate) prefix: String,
    /// The log group of its jobs.
    pub(crate) log_group: String,
    /// The ARN of its queue.
    pub(crate) queue: String,
    /// The ARNs of its job definitions, by the id of the function.
    pub(crate) job_definitions: BTreeMap<String, String>,
    /// The image, with its digest.
    pub(crate) image: String,
    /// The types of its functions, as the worker said; `None` where it could not be asked on the machine that deployed. Without
    /// their structure where only the stack was asked.
    pub(crate) types: Option<Vec<Types>>,
    /// What its jobs are; `None` on a queue that is not its own.
    #[serde(default)]
    pub(crate) jobs: Option<JobSizes>,
    /// The features of the package that were selected for the deploy.
    #[serde(default)]
    pub(crate) features: Vec<String>,
}

impl KnotNote {
    /// What is noted in this folder of runs; `None` where nothing is.
    ///
    /// # Errors
    /// If there is a note that cannot be read.
    pub(crate) fn read(home: &Path) -> Result<Option<Self>> {
        let path = home.join(FILE);
        let failed = || Error::new(ErrorKind::Config, format!("failed to read `{}`", path.display()));
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            // Where the folder is none, that is said once runs are to be kept in it.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(failed().with_source(error)),
        };
        let note = serde_json::from_slice(&text);
        note.map(Some).map_err(|error| failed().with_source(error).with_hint("run `cargo knot deploy` again"))
    }

    #[cfg(feature = "deploy")]
    pub(crate) fn write(&self, home: &Path) -> Result<()> {
        let path = home.join(FILE);
        let text = serde_json::to_vec_pretty(self).expect("a note is texts");
        super::create(home).and_then(|()| std::fs::write(&path, text)).map_err(|error| {
            Error::new(ErrorKind::Config, format!("failed to note the Knot in `{}`", path.display())).with_source(error)
        })
    }

    /// Removes the note in this folder, if it is of this Knot; whether it was.
    #[cfg(feature = "deploy")]
    pub(crate) fn remove(home: &Path, knot: &str, region: &str) -> Result<bool> {
        let noted = Self::read(home)?.filter(|note| note.knot == knot && note.region == region);
        if noted.is_none() {
            return Ok(false);
        }
        let path = home.join(FILE);
        std::fs::remove_file(&path).map(|()| true).map_err(|error| {
            Error::new(ErrorKind::Config, format!("failed to remove `{}`", path.display())).with_source(error)
        })
    }
}
