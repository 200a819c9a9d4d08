//! The program of a rehearsal: its package, and its process, which prints one line of JSON for each check.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cloudknot_runtime::contract;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::build::compile::CompileError;
use crate::build::compile::cargo::generated::GeneratedPackage;
use crate::error::{Error, ErrorKind, Result};

const NAME: &str = "cloudknot-rehearsal";
const PROGRAM: &str = include_str!("program.txt");
/// Dependencies besides cloudknot, which has them as well.
const DEPENDENCIES: &str = "rustix = { version = \"1\", features = [\"process\"] }\nserde_json = \"1\"\n";
/// Maximum time between the end of the program's output and that of its process.
const MAX_EXIT_TIME: Duration = Duration::from_secs(10);
/// Number of items of each map.
const ITEMS: usize = 3;

/// A check of the program, in the order in which it prints them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Check {
    Results,
    Retries,
    Logs,
}

/// Line that the program prints.
#[derive(Deserialize)]
struct Line {
    check: Check,
    error: Option<Failure>,
    /// IDs of the jobs of the map.
    jobs: Vec<String>,
}

#[derive(Deserialize)]
struct Failure {
    message: String,
    #[serde(default)]
    causes: Vec<String>,
    #[serde(default)]
    hint: Option<String>,
}

impl Check {
    pub(super) const ALL: [Self; 3] = [Self::Results, Self::Retries, Self::Logs];

    /// Returns the description of the step.
    pub(super) fn action(self, knot: &str) -> String {
        match self {
            Self::Results => format!("run {ITEMS} items on `{knot}`, and compare their results"),
            Self::Retries => format!("retry {ITEMS} items on `{knot}` whose processes are killed"),
            Self::Logs => format!("find the output of {ITEMS} items on `{knot}` in the logs of their jobs"),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let mut error = Self::new(ErrorKind::ItemsFailed, failure.message);
        if !failure.causes.is_empty() {
            error = error.with_source(failure.causes.join(": "));
        }
        failure.hint.into_iter().fold(error, Self::with_hint)
    }
}

/// Generates the package of the program.
pub(super) fn package() -> Result<GeneratedPackage, CompileError> {
    GeneratedPackage::write(NAME, DEPENDENCIES, PROGRAM)
}

/// Returns the lines of the items that these logs lack.
pub(super) fn missing_lines(logs: &str) -> Vec<String> {
    let expected = (1..=ITEMS).map(|number| format!("this is item {number} of the rehearsal"));
    expected.filter(|line| !logs.contains(line)).collect()
}

/// Process of the program. It is killed when this value is dropped; its jobs go on.
pub(super) struct RunningProgram {
    /// Error of the start, until it is reported.
    process: std::result::Result<Child, Option<std::io::Error>>,
    lines: mpsc::UnboundedReceiver<String>,
}

impl RunningProgram {
    /// Starts the program for the Knot that is recorded beside this folder. Its messages go to stderr.
    pub(super) fn start(executable: &Path, folder: &Path, profile: Option<&str>) -> Self {
        let (sender, lines) = mpsc::unbounded_channel();
        let mut command = Command::new(executable);
        command.current_dir(folder).env(contract::ENV_HOME, folder.join(contract::HOME));
        command.env_remove(contract::ENV_BACKEND).stdin(Stdio::null()).stdout(Stdio::piped());
        if let Some(profile) = profile {
            command.env("AWS_PROFILE", profile);
        }
        let process = command.spawn().map(|mut process| {
            let output = BufReader::new(process.stdout.take().expect("stdout is a pipe"));
            std::thread::spawn(move || {
                output.lines().map_while(std::io::Result::ok).try_for_each(|line| sender.send(line))
            });
            process
        });
        Self { process: process.map_err(Some), lines }
    }

    /// Waits for the result of the next check. Returns the IDs of the jobs of its map.
    ///
    /// # Errors
    /// Returns an error if the check failed, the program ended before it, or the time is over.
    pub(super) async fn next(&mut self, check: Check, deadline: Instant) -> Result<Vec<String>> {
        let received = tokio::time::timeout_at(deadline.into(), self.lines.recv()).await;
        let Ok(received) = received else {
            self.end();
            return Err(Error::new(ErrorKind::Infrastructure, "cannot run the items: they did not end in time").with_hint(
                "the messages above have the reason for which they wait, such as a quota or a network without a route to AWS; \
                 `cargo knot doctor` examines the account",
            ));
        };
        let line =
            received.and_then(|line| serde_json::from_str::<Line>(&line).ok()).filter(|line| line.check == check);
        match line {
            Some(Line { error: Some(failure), .. }) => Err(failure.into()),
            Some(Line { jobs, .. }) => Ok(jobs),
            None => Err(self.ended_early().await),
        }
    }

    /// Returns whether the program was found to have ended, so that it prints no further result.
    pub(super) fn has_ended(&self) -> bool {
        self.process.is_err()
    }

    async fn ended_early(&mut self) -> Error {
        let deadline = Instant::now() + MAX_EXIT_TIME;
        while self.process.as_mut().is_ok_and(|process| matches!(process.try_wait(), Ok(None)))
            && Instant::now() < deadline
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let error =
            Error::new(ErrorKind::Infrastructure, "cannot run the items: the program ended before their results");
        match self.end() {
            Some(cause) => error.with_source(cause),
            None => error,
        }
    }

    /// Ends the program. Returns how it ended.
    fn end(&mut self) -> Option<String> {
        let process = std::mem::replace(&mut self.process, Err(None));
        match process {
            Ok(mut process) => {
                // It may have ended already.
                let _ = process.kill();
                process.wait().ok().map(|status| format!("it ended with {status}"))
            }
            Err(error) => error.map(|error| format!("it cannot be started: {error}")),
        }
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_found_in_logs() {
        let line = |number| format!("this is item {number} of the rehearsal\n");
        let missing: Vec<String> = [1, 3].map(|number| line(number).trim_end().to_owned()).to_vec();
        assert_eq!(missing_lines(&line(2)), missing);
        assert_eq!(missing_lines(&[line(1), "other\n".to_owned(), line(2), line(3)].concat()), [""; 0]);
    }

    #[test]
    fn lines_of_the_program_are_read() {
        let line = r#"{"check": "logs", "error": {"message": "m", "causes": ["a", "b"], "hint": "h"}, "jobs": []}"#;
        let line: Line = serde_json::from_str(line).unwrap();
        let error = Error::from(line.error.unwrap());
        assert_eq!((line.check, error.in_one_line().as_str()), (Check::Logs, "m: a: b; h"));
        let line = r#"{"check": "results", "error": null, "jobs": ["j"]}"#;
        assert!(serde_json::from_str::<Line>(line).is_ok_and(|line| line.error.is_none() && line.jobs == ["j"]));
    }
}
