//! The note that a deploy writes to `.cloudknot/`: the Knot that the program's maps run on. The program reads it
//! without a request to AWS. Contains names, and no secrets.

use std::collections::BTreeMap;
use std::path::Path;

use cloudknot_runtime::contract::Types;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::settings::sizes::JobSizes;

const FILE: &str = "knot.json";

/// The properties of a program's Knot that its maps need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct KnotNote {
    /// Name of the Knot.
    pub(crate) knot: String,
    /// AWS profile that the Knot was deployed with, if one was given.
    pub(crate) profile: Option<String>,
    /// Region of the Knot.
    pub(crate) region: String,
    /// Bucket that stores the runs.
    pub(crate) bucket: String,
    /// Prefix of every key.
    pub(crate) prefix: String,
    /// Log group of the jobs.
    pub(crate) log_group: String,
    /// ARN of the job queue.
    pub(crate) queue: String,
    /// ARNs of the job definitions, by the ID of the function.
    pub(crate) job_definitions: BTreeMap<String, String>,
    /// Image, with its digest.
    pub(crate) image: String,
    /// Types of the functions, as the worker reported them; `None` if the worker could not run on the machine that deployed.
    /// Without their structure if only the stack was queried.
    pub(crate) types: Option<Vec<Types>>,
    /// Sizes of the jobs; `None` on a queue that does not belong to the Knot.
    #[serde(default)]
    pub(crate) jobs: Option<JobSizes>,
    /// `true` if the image has a base, without which nothing in it can use a GPU; `None` if it is unknown.
    #[serde(default)]
    pub(crate) gpu_image: Option<bool>,
    /// Number of the user's tags of the Knot, which its jobs get.
    #[serde(default)]
    pub(crate) tags: usize,
    /// Share of a queue with a fair-share policy that the jobs belong to.
    #[serde(default)]
    pub(crate) share_identifier: Option<String>,
    /// Features of the package that were selected for the deploy.
    #[serde(default)]
    pub(crate) features: Vec<String>,
}

impl KnotNote {
    /// Reads the note of this program. Returns `None` if there is none.
    ///
    /// # Errors
    /// Returns an error if there is a note that cannot be read.
    pub(crate) fn of_this_program() -> Result<Option<Self>> {
        super::of_notes().map_or(Ok(None), |home| Self::read(&home))
    }

    /// Reads the note in this folder of runs. Returns `None` if there is none.
    ///
    /// # Errors
    /// Returns an error if there is a note that cannot be read.
    pub(crate) fn read(home: &Path) -> Result<Option<Self>> {
        let failed = || Error::new(ErrorKind::Config, format!("cannot read `{}`", home.join(FILE).display()));
        let Some(text) = super::read_note(home, FILE).map_err(|error| failed().with_source(error))? else {
            return Ok(None);
        };
        let note = serde_json::from_slice(&text);
        note.map(Some).map_err(|error| failed().with_source(error).with_hint("run `cargo knot deploy` again"))
    }

    pub(crate) fn write(&self, home: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).expect("a note serializes to JSON");
        super::write_note(home, FILE, &json).map_err(|error| {
            let path = home.join(FILE);
            Error::new(ErrorKind::Config, format!("cannot write the note of the Knot to `{}`", path.display()))
                .with_source(error)
        })
    }

    /// Removes the note in this folder if it is for this Knot. Returns whether it was.
    pub(crate) fn remove(home: &Path, knot: &str, region: &str) -> Result<bool> {
        let note = Self::read(home)?.filter(|note| note.knot == knot && note.region == region);
        if note.is_none() {
            return Ok(false);
        }
        let path = home.join(FILE);
        std::fs::remove_file(&path).map(|()| true).map_err(|error| {
            Error::new(ErrorKind::Config, format!("cannot remove `{}`", path.display())).with_source(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use cloudknot_runtime::contract::Resources;

    use super::*;

    const NOTE: &str = r#"{"knot": "sweep", "profile": null, "region": "eu-central-1", "bucket": "b", "prefix": "p", "log-group": "g",
        "queue": "arn:q", "job-definitions": {"f": "arn:f"}, "image": "i", "types": [{"function": "f", "fingerprint": 7, "schema": ""}],
        "jobs": {"fargate": true, "vcpus": 0.5, "memory_mib": 512}, "features": ["aws"]}"#;

    /// Parses a note, and uses the only numbers in it.
    fn read(note: &str) -> bool {
        let Ok(note) = serde_json::from_str::<KnotNote>(note) else { return false };
        for requested in
            [Resources::default(), Resources { vcpus: Some(3.0), memory_mib: Some(u64::MAX), ..Resources::default() }]
        {
            let function = cloudknot_runtime::function::Resources::NONE;
            let _ = note.jobs.as_ref().map(|jobs| jobs.job_resources(&function, requested));
        }
        true
    }

    /// M5: whatever a note contains, it is read or refused.
    #[test]
    fn damaged_notes_are_refused_or_read() {
        assert!(read(NOTE));
        for number in ["-1", "0", "0.0", "1e308", "-1e308", "18446744073709551615", "null"] {
            for original in ["0.5", "512", "7"] {
                read(&NOTE.replacen(original, number, 1));
            }
        }
        for at in 0..NOTE.len() {
            assert!(!read(&NOTE[..at]), "a part of a note is refused");
            for token in ["\"", "{", "[", "}", "]", ",", "0", "\u{1b}"] {
                let (before, after) = NOTE.split_at(at);
                read(&format!("{before}{token}{after}"));
                read(&format!("{before}{token}{}", &after[1..]));
            }
        }
    }
}
