//! The checks of this machine and of the account.

use std::path::{Path, PathBuf};

use super::{Examination, Finding, State, in_one_line};
use crate::build::compile::{Compile, Machine, Selection};
use crate::deploy::knot::Knot;
use crate::deploy::policy::Allowed;
use crate::error::{Error, Result};
use crate::home;
use crate::home::knot_note::KnotNote;

mod account;
mod machine;
mod permissions;

/// Verbs whose permissions are checked.
const VERBS: [Allowed; 4] = [Allowed::ParsCreate, Allowed::Deploy, Allowed::Run, Allowed::Clobber];

pub(super) async fn examine(examination: &Examination) -> Vec<Finding> {
    // Waiting for cargo and rustc would block a thread that other tasks need.
    let local = tokio::task::spawn_blocking(LocalState::read).await.expect("reading does not panic");
    // Boxed, because the future is large and rarely polled.
    let (account, docker) = tokio::join!(Box::pin(account::examine(examination, &local)), machine::docker());
    let (needs_arm64, account) = account;
    let mut found = account;
    found.extend(machine::tools(local.machine, needs_arm64));
    found.push(docker);
    found
}

/// State of this machine, which is read without any request.
struct LocalState {
    machine: Result<Machine>,
    /// Name of the program's Knot, and folder of its package.
    program: Result<(String, PathBuf)>,
}

impl LocalState {
    fn read() -> Self {
        let compile = Compile::new(Selection::default());
        let program = compile.knot_name().and_then(|name| Ok((name, compile.package_folder()?)));
        Self { machine: Machine::here().map_err(Error::from), program: program.map_err(Error::from) }
    }

    fn note(&self) -> Result<Option<KnotNote>> {
        let folder = self.program.as_ref().map_or(Path::new("."), |(_, folder)| folder);
        KnotNote::read(&home::of_package(folder))
    }
}

/// Checks the program in this folder, and its note.
fn program(local: &LocalState, note: &Result<Option<KnotNote>>, knot: Option<&Knot>) -> Finding {
    let subject = "program";
    let note = match note {
        Ok(note) => note.as_ref(),
        Err(error) => return Finding::failed(subject, State::Bad, error),
    };
    let name = match (&local.program, note) {
        (Err(error), None) => {
            return Finding::unknown(subject, in_one_line(error))
                .remedy("run the command in the folder of a program with remote functions");
        }
        (Err(_), Some(note)) => note.knot.as_str(),
        (Ok((name, _)), _) => name.as_str(),
    };
    let Some(note) = note else {
        let found = format!("`{name}` has not been deployed from this folder: its maps run on this machine");
        return Finding::doubtful(subject, found).remedy("`cargo knot deploy` deploys it to AWS");
    };
    let found = format!("its maps run on the Knot `{}` in {}", note.knot, note.region);
    let again = "run `cargo knot deploy` again";
    match knot.filter(|knot| knot.name == note.knot && knot.region == note.region) {
        Some(knot) if knot.image() == note.image && knot.queue() == note.queue => Finding::good(subject, found),
        Some(_) => {
            Finding::doubtful(subject, format!("{found}, which has been deployed again since then")).remedy(again)
        }
        None => Finding::doubtful(subject, format!("{found}, which was not found")).remedy(again),
    }
}
