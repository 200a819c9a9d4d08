//! The origin of a run or a round: who submitted it, and which program.

use serde::{Deserialize, Serialize};

/// Origin of a run or a round. A record can contain anything, so all of it is only to be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// Who submitted the run.
    pub submitter: Submitter,
    /// Program that submitted the run.
    pub program: Program,
    /// Version of cloudknot.
    pub cloudknot: String,
}

/// Who submitted a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Submitter {
    /// Name of the user on their machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Name of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Command line of the program. Values of options whose names suggest a secret are `***`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

/// Cargo target that a program was built from, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Program {
    /// Name of the package.
    pub package: String,
    /// Version of the package.
    pub version: String,
    /// Kind of the target: `bin`, `example` or `lib`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name of the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Profile: `dev`, `release`, or another one of the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Features that the package was built with; `None` if they are unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<String>>,
    /// Path of the package's `Cargo.toml` on the machine that built the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Git revision of the package's repository at submission.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// `true` if the repository had no uncommitted changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_clean: Option<bool>,
}
