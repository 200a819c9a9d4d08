//! Whether everything is there that a deploy and a map need, on this machine and in the account, and what to do where
//! something lacks. Looks, and changes nothing; one look that fails does not keep the others.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};

use cloudknot_runtime::engine;
use serde::Serialize;

use crate::build::compile::{Compile, Machine, Selection};
use crate::deploy::knot::Knot;
use crate::deploy::policy::Allowed;
use crate::error::{Error, Result};
use crate::home;
use crate::home::knot_note::KnotNote;

mod account;
mod machine;
mod permissions;

/// The verbs whose permissions are examined.
const VERBS: [Allowed; 4] = [Allowed::ParsCreate, Allowed::Deploy, Allowed::Run, Allowed::Clobber];

/// What is examined, where that is not what a deploy would take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Examination {
    /// The profile of AWS.
    pub profile: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The Pars.
    pub pars: Option<String>,
    /// The Knot.
    pub knot: Option<String>,
}

/// What was found at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// What was looked at.
    pub about: String,
    /// How it is.
    pub state: State,
    /// What is there.
    pub found: String,
    /// What to do, where something is to be done.
    pub remedy: Option<String>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// As it should be.
    Good,
    /// Something may lack, depending on what is to be done.
    Doubtful,
    /// It stands in the way.
    Bad,
    /// It could not be looked at.
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

    /// That a look has failed, in one line; the remedy is the error's.
    fn failed(about: impl Into<String>, state: State, error: &Error) -> Self {
        let remedy = error.hint().map(str::to_owned);
        Self { remedy, ..Self::new(about, state, in_a_line(error)) }
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// An error and its causes.
fn in_a_line(error: &(dyn StdError + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source()).map(ToString::to_string);
    causes.collect::<Vec<_>>().join(": ").replace('\n', "; ")
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
    // cargo and rustc are waited for, and so not on a thread that others need.
    let here = tokio::task::spawn_blocking(Here::look).await.expect("looking does not panic");
    // It is large, and seldom polled.
    let (account, docker) = tokio::join!(Box::pin(account::examine(asked, &here)), machine::docker());
    let (needs_arm64, account) = account;
    let mut found = account;
    found.extend(machine::tools(here.machine, needs_arm64));
    found.push(docker);
    found
}

/// What is known without asking anybody.
struct Here {
    machine: Result<Machine>,
    /// The name that the program's Knot has, and its folder.
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

/// The program in this folder, and what is noted beside it.
fn program(here: &Here, note: &Result<Option<KnotNote>>, knot: Option<&Knot>) -> Finding {
    let about = "program";
    let note = match note {
        Ok(note) => note.as_ref(),
        Err(error) => return Finding::failed(about, State::Bad, error),
    };
    let name = match (&here.program, note) {
        (Err(error), None) => {
            return Finding::unknown(about, in_a_line(error))
                .remedy("run it in the folder of a program with remote functions");
        }
        (Err(_), Some(note)) => note.knot.as_str(),
        (Ok((name, _)), _) => name.as_str(),
    };
    let Some(note) = note else {
        let found = format!("`{name}` has not been deployed from here: its maps run on this machine");
        return Finding::doubtful(about, found).remedy("`cargo knot deploy` takes it to AWS");
    };
    let found = format!("its maps run on the Knot `{}` in {}", note.knot, note.region);
    let again = "run `cargo knot deploy` again";
    match knot.filter(|knot| knot.name == note.knot && knot.region == note.region) {
        Some(knot) if knot.image() == note.image && knot.queue() == note.queue => Finding::good(about, found),
        Some(_) => Finding::doubtful(about, format!("{found}, which somebody has deployed anew since")).remedy(again),
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
