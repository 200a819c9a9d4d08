//! Failure of the command: the message for users and the exit code for scripts.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

use cargo_knot::exit;
use cloudknot::compile::{CompileError, CompileErrorKind};

use crate::output;

/// Error of a failed command, with its exit code.
pub(crate) struct Failure {
    code: u8,
    error: Box<dyn Error>,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self::of(code, message.into().into(), None)
    }

    fn of(code: u8, error: Box<dyn Error>, hint: Option<String>) -> Self {
        Self { code, error, hint }
    }

    /// Returns whether the reader of the output has ended, as `head` does. It wants no more, and no error either.
    fn is_closed_pipe(&self) -> bool {
        self.error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Creates a failure with the messages of its causes, outermost first.
    pub(crate) fn with_causes(code: u8, message: String, causes: Vec<String>, hint: Option<String>) -> Self {
        let cause = causes.into_iter().rev().fold(None, |cause, message| Some(Box::new(Cause { message, cause })));
        Self::of(code, Box::new(Cause { message, cause }), hint)
    }

    /// Creates a failure of an operation of the system. `action` completes "cannot".
    pub(crate) fn of_io(action: &str, error: &io::Error) -> Self {
        Self::with_causes(exit::OTHER, format!("cannot {action}"), vec![error.to_string()], None)
    }

    /// Creates the failure of a command line that cannot be parsed.
    pub(crate) fn of_options(error: &clap::Error) -> Self {
        // The message is followed by the usage.
        let text = error.render().to_string();
        let message = text.split("\n\n").next().unwrap_or_default();
        Self::new(exit::USAGE, message.trim_start_matches("error: ")).with_hint("`--help` lists the options")
    }

    /// Returns the message, the causes and the hint on one line.
    pub(crate) fn in_one_line(&self) -> String {
        let causes = std::iter::successors(self.error.source(), |&error| error.source()).map(ToString::to_string);
        let parts: Vec<String> = std::iter::once(self.error.to_string()).chain(causes).collect();
        let hint = self.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        format!("{}{hint}", parts.join(": "))
    }

    /// Adds to the hint.
    pub(crate) fn with_further_hint(self, further: &str) -> Self {
        let hint = self.hint.as_ref().map_or_else(|| further.to_owned(), |hint| format!("{hint}; {further}"));
        self.with_hint(hint)
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Prints the error, as JSON if so requested, and returns the exit code.
    pub(crate) fn report(self, as_json: bool) -> ExitCode {
        if self.is_closed_pipe() {
            return ExitCode::from(self.code);
        }
        if as_json {
            output::json_error(&*self.error, self.hint.as_deref(), self.code);
        } else {
            output::error(&*self.error, self.hint.as_deref());
        }
        ExitCode::from(self.code)
    }
}

/// Message of an error that happened in another process, with its cause.
#[derive(Debug)]
struct Cause {
    message: String,
    cause: Option<Box<Self>>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

fn code_of(compile: CompileErrorKind) -> u8 {
    match compile {
        CompileErrorKind::Selection | CompileErrorKind::Settings | CompileErrorKind::Feature => exit::USAGE,
        CompileErrorKind::Toolchain | CompileErrorKind::Version => exit::SETUP,
        CompileErrorKind::Worker => exit::WORKER,
        CompileErrorKind::Cargo => exit::COMPILATION,
        _ => exit::OTHER,
    }
}

impl From<CompileError> for Failure {
    fn from(error: CompileError) -> Self {
        let hint = error.hint().map(ToString::to_string);
        Self::of(code_of(error.kind()), Box::new(error), hint)
    }
}

impl From<cloudknot::Error> for Failure {
    fn from(error: cloudknot::Error) -> Self {
        let code = match error.kind() {
            cloudknot::ErrorKind::Compile => compile_code(&error),
            cloudknot::ErrorKind::Image => exit::IMAGE,
            cloudknot::ErrorKind::Registry | cloudknot::ErrorKind::Docker => exit::REGISTRY,
            cloudknot::ErrorKind::Config => exit::USAGE,
            cloudknot::ErrorKind::Aws | cloudknot::ErrorKind::Denied | cloudknot::ErrorKind::Credentials => exit::AWS,
            cloudknot::ErrorKind::NotFound | cloudknot::ErrorKind::Exists => exit::NOT_FOUND,
            _ => exit::OTHER,
        };
        let hint = error.hint().map(ToString::to_string);
        Self::of(code, Box::new(error), hint)
    }
}

/// Returns the exit code of an error that wraps a compilation error.
fn compile_code(error: &cloudknot::Error) -> u8 {
    let compile = error.get_ref().and_then(|error| error.downcast_ref::<CompileError>());
    compile.map_or(exit::OTHER, |compile| code_of(compile.kind()))
}

/// Converts an error of the standard output, or of a question at the terminal. Other errors need [`Failure::of_io`].
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::of(exit::OTHER, Box::new(error), None);
        }
        Self::of_io("write the output", &error)
    }
}
