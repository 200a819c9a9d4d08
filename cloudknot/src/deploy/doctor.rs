//! Checks that everything exists that a deploy and a map need, on this machine and in the account, and gives advice on
//! what is missing. Changes nothing; a check that fails does not prevent the others.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};

use cloudknot_runtime::engine;
use serde::Serialize;

use crate::build::compile::{Compile, Machine, Selection};
use crate::deploy::knot::Knot;
use crate::deploy::policy::Allowed;
use crate::error::{Error, Result, with_causes};
use crate::home;
use crate::home::knot_note::KnotNote;

mod account;
mod machine;
mod permissions;

/// Verbs whose permissions are checked.
const VERBS: [Allowed; 4] = [Allowed::ParsCreate, Allowed::Deploy, Allowed::Run, Allowed::Clobber];

/// Subjects of the checks, where they differ from those that a deploy would use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Examination {
    /// Profile of AWS.
    pub profile: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// Name of the Pars.
    pub pars: Option<String>,
    /// Name of the Knot.
    pub knot: Option<String>,
}

/// Result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Subject of the check.
    pub about: String,
    /// State of the subject.
    pub state: State,
    /// Description of what was found.
    pub found: String,
    /// Advice on what to do, if anything has to be done.
    pub remedy: Option<String>,
}

/// State of the subject of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// No problem was found.
    Good,
    /// Something may be missing, depending on the intended use.
    Doubtful,
    /// A problem that has to be fixed first.
    Bad,
    /// The check could not be performed.
    Unknown,
}

impl Finding {
    fn new(about: impl Into<String>, state: State, found: impl Into<String>) -> Self {
        Self { about: about.into(), state, found: found.into(), remedy: None }
    }

    fn good(about: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(about, State::Good, found)
    }

    fn doubtful(about: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(about, State::Doubtful, found)
    }

    fn bad(about: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(about, State::Bad, found)
    }

    fn unknown(about: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(about, State::Unknown, found)
    }

    /// Creates the finding that a check has failed, in one line; the remedy is the error's hint.
    fn failed(about: impl Into<String>, state: State, error: &Error) -> Self {
        let remedy = error.hint().map(str::to_owned);
        Self { remedy, ..Self::new(about, state, in_one_line(error)) }
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Returns an error and its causes in one line.
fn in_one_line(error: &(dyn StdError + 'static)) -> String {
    with_causes(error).replace('\n', "; ")
}

/// Examines this machine and the account, in the order in which things are needed.
///
/// ```no_run
/// # async fn example() {
/// use cloudknot::doctor::{Examination, State, examine};
///
/// let mut asked = Examination::default();
/// asked.region = Some("eu-central-1".to_owned());
/// for finding in examine(&asked).await.iter().filter(|finding| finding.state == State::Bad) {
///     eprintln!("{}: {}", finding.about, finding.found);
/// }
/// # }
/// ```
pub async fn examine(asked: &Examination) -> Vec<Finding> {
    engine::inside(Box::pin(look(asked))).await
}

async fn look(asked: &Examination) -> Vec<Finding> {
    // Waiting for cargo and rustc would block a thread that other tasks need.
    let here = tokio::task::spawn_blocking(Here::look).await.expect("looking does not panic");
    // Boxed, because the future is large and rarely polled.
    let (account, docker) = tokio::join!(Box::pin(account::examine(asked, &here)), machine::docker());
    let (needs_arm64, account) = account;
    let mut found = account;
    found.extend(machine::tools(here.machine, needs_arm64));
    found.push(docker);
    found
}

/// Facts that are known without any request.
struct Here {
    machine: Result<Machine>,
    /// Name of the program's Knot, and folder of its package.
    program: Result<(String, PathBuf)>,
}

impl Here {
    fn look() -> Self {
        let compile = Compile::new(Selection::default());
        let program = compile.knot_name().and_then(|name| Ok((name, compile.package_folder()?)));
        Self { machine: Machine::here().map_err(Error::from), program: program.map_err(Error::from) }
    }

    fn note(&self) -> Result<Option<KnotNote>> {
        let folder = self.program.as_ref().map_or(Path::new("."), |(_, folder)| folder);
        KnotNote::read(&home::of_package(folder))
    }
}

/// Checks the program in this folder, and the note beside it.
fn program(here: &Here, note: &Result<Option<KnotNote>>, knot: Option<&Knot>) -> Finding {
    let about = "program";
    let note = match note {
        Ok(note) => note.as_ref(),
        Err(error) => return Finding::failed(about, State::Bad, error),
    };
    let name = match (&here.program, note) {
        (Err(error), None) => {
            return Finding::unknown(about, in_one_line(error))
                .remedy("run it in the folder of a program with remote functions");
        }
        (Err(_), Some(note)) => note.knot.as_str(),
        (Ok((name, _)), _) => name.as_str(),
    };
    let Some(note) = note else {
        let found = format!("`{name}` has not been deployed from here: its maps run on this machine");
        return Finding::doubtful(about, found).remedy("`cargo knot deploy` deploys it to AWS");
    };
    let found = format!("its maps run on the Knot `{}` in {}", note.knot, note.region);
    let again = "run `cargo knot deploy` again";
    match knot.filter(|knot| knot.name == note.knot && knot.region == note.region) {
        Some(knot) if knot.image() == note.image && knot.queue() == note.queue => Finding::good(about, found),
        Some(_) => Finding::doubtful(about, format!("{found}, which somebody has deployed again since")).remedy(again),
        None => Finding::doubtful(about, format!("{found}, which was not found there")).remedy(again),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_data() {
        let finding = Finding::bad("Rust", "none").remedy("install it");
        let json = serde_json::json!({"about": "Rust", "state": "bad", "found": "none", "remedy": "install it"});
        assert_eq!(serde_json::json!(finding), json);
    }
}
