//! Checks that everything exists that a deploy and a map need, on this machine and in the account, and gives advice if
//! something is missing. Changes nothing; a check that fails does not prevent the others.

use std::error::Error as StdError;

use serde::Serialize;

use crate::error::{ABSENT, ABSENT_HINT, Absent, Error, with_causes};
use crate::host::host_await;

#[cfg(not(cloudknot_worker))]
mod checks;

/// Subjects of the checks, where they differ from those that a deploy would use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Examination {
    /// AWS profile.
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
    pub subject: String,
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
    fn new(subject: impl Into<String>, state: State, found: impl Into<String>) -> Self {
        Self { subject: subject.into(), state, found: found.into(), remedy: None }
    }

    fn good(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(subject, State::Good, found)
    }

    fn doubtful(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(subject, State::Doubtful, found)
    }

    fn bad(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(subject, State::Bad, found)
    }

    fn unknown(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(subject, State::Unknown, found)
    }

    /// Creates the finding that a check has failed, in one line; the remedy is the error's hint.
    fn failed(subject: impl Into<String>, state: State, error: &Error) -> Self {
        let remedy = error.hint().map(str::to_owned);
        Self { remedy, ..Self::new(subject, state, in_one_line(error)) }
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
/// let mut examination = Examination::default();
/// examination.region = Some("eu-central-1".to_owned());
/// for finding in examine(&examination).await.iter().filter(|finding| finding.state == State::Bad) {
///     eprintln!("{}: {}", finding.subject, finding.found);
/// }
/// # }
/// ```
pub async fn examine(examination: &Examination) -> Vec<Finding> {
    host_await!(checks::examine(examination))
}

impl Absent for Vec<Finding> {
    fn absent() -> Self {
        vec![Finding::unknown("machine", ABSENT).remedy(ABSENT_HINT)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding_serializes_to_json() {
        let finding = Finding::bad("Rust", "none").remedy("install it");
        let json = serde_json::json!({"subject": "Rust", "state": "bad", "found": "none", "remedy": "install it"});
        assert_eq!(serde_json::json!(finding), json);
    }
}
