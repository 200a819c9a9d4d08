//! The origin of a run or a round: who submitted it, and which program.

use serde::{Deserialize, Serialize};

/// Maximum length in bytes of a [`Provenance`] as JSON.
pub const MAX_PROVENANCE_LEN: usize = 4096;
/// Maximum length in bytes of a command line as JSON.
const MAX_COMMAND_LEN: usize = 2048;

/// Origin of a run or a round. A record can contain anything, so all of it is only to be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// Submitter of the run.
    pub submitter: Submitter,
    /// Program that submitted the run.
    pub program: Program,
    /// Version of cloudknot.
    pub cloudknot: String,
}

impl Provenance {
    /// Returns this without what exceeds [`MAX_PROVENANCE_LEN`]: first the end of the command line, for which `…` stands, then whole
    /// fields. A field is never shortened, because a part of a path or of the features would be taken for all of it.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.submitter.command = beginning(std::mem::take(&mut self.submitter.command));
        let fields: [fn(&mut Self); 5] = [
            |it| it.submitter.command.clear(),
            |it| it.program.features = None,
            |it| it.program.manifest = None,
            |it| it.submitter = Submitter::default(),
            |it| it.program = Program::default(),
        ];
        for remove in fields {
            if self.len() <= MAX_PROVENANCE_LEN {
                break;
            }
            remove(&mut self);
        }
        self
    }

    fn len(&self) -> usize {
        json_len(self)
    }
}

/// Returns the arguments at the beginning that fit into [`MAX_COMMAND_LEN`].
fn beginning(command: Vec<String>) -> Vec<String> {
    const CUT: &str = "…";
    let mut len = 2 + json_len(&CUT);
    let fits = |argument: &&String| {
        len += json_len(argument) + 1;
        len <= MAX_COMMAND_LEN
    };
    let count = command.iter().take_while(fits).count();
    if count == command.len() {
        return command;
    }
    command.into_iter().take(count).chain([CUT.to_owned()]).collect()
}

fn json_len(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).expect("a provenance serializes to JSON").len()
}

/// Submitter of a run: a user on a machine, with a command line.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn provenance(command: Vec<String>) -> Provenance {
        Provenance {
            submitter: Submitter { user: Some("ada".into()), host: Some("lab".into()), command },
            program: Program {
                package: "sweep".into(),
                features: Some(vec!["aws".into()]),
                manifest: Some("/home/ada/sweep/Cargo.toml".into()),
                ..Program::default()
            },
            cloudknot: "0.1.0".into(),
        }
    }

    #[test]
    fn short_provenance_is_kept() {
        let short = provenance(vec!["sweep".into(), "--items".into(), "3".into()]);
        assert_eq!(short.clone().bounded(), short);
    }

    #[test]
    fn end_of_a_long_command_is_left_out() {
        let bounded = provenance(std::iter::repeat_n("\u{1b}".to_owned(), 100_000).collect()).bounded();
        let command = &bounded.submitter.command;
        assert!((200..300).contains(&command.len()), "{}", command.len());
        assert_eq!((command[0].as_str(), command.last().map(String::as_str)), ("\u{1b}", Some("…")));
        assert_eq!(bounded.program.manifest.as_deref(), Some("/home/ada/sweep/Cargo.toml"));
    }

    #[test]
    fn provenance_is_bounded_whatever_is_long() {
        let long = || "\u{1b}".repeat(1000);
        let mut longest = provenance(vec![long()]);
        assert_eq!(longest.clone().bounded().submitter.command, ["…"]);
        longest.program.features = Some(vec![long()]);
        let bounded = longest.clone().bounded();
        assert_eq!((bounded.program.features, bounded.program.package.as_str()), (None, "sweep"));
        longest.submitter.user = Some(long());
        longest.program.package = long();
        let bounded = longest.bounded();
        assert_eq!(bounded, Provenance { cloudknot: "0.1.0".into(), ..Provenance::default() });
        assert!(bounded.len() <= MAX_PROVENANCE_LEN);
    }
}
