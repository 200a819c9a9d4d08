//! How the command fails: what a person reads, and the exit code that a script reads.

use std::error::Error;
use std::process::ExitCode;

use cloudknot::compile::{CompileError, CompileErrorKind};

use crate::output;

pub(crate) const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  failed for a reason that has no code of its own
    2  the options do not say which target is meant, or a setting cannot be
    3  this machine lacks what is needed to compile for the worker's platform, or has another version of cargo-knot
    4  what was compiled cannot be a worker: no remote function, or not static
    5  the image cannot be assembled, or is not there
    6  the registry or the Docker engine cannot be reached, or refuses
    7  AWS cannot be reached, or refuses; what was made by then stays, and the same command goes on from there
    8  there is no such Knot or Pars, or there is another one of that name
    9  the doctor has found what stands in the way
  101  the program does not compile (as with cargo)";

/// What the doctor ends with where something stands in the way.
pub(crate) const UNFIT: u8 = 9;

/// A failed command.
pub(crate) struct Failure {
    code: u8,
    error: Box<dyn Error>,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, error: message.into().into(), hint: None }
    }

    /// Prints it; returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        output::error(&*self.error, self.hint.as_deref());
        ExitCode::from(self.code)
    }
}

fn code_of(compile: CompileErrorKind) -> u8 {
    match compile {
        CompileErrorKind::Selection | CompileErrorKind::Settings | CompileErrorKind::Feature => 2,
        CompileErrorKind::Toolchain | CompileErrorKind::Version => 3,
        CompileErrorKind::Worker => 4,
        CompileErrorKind::Cargo => 101,
        _ => 1,
    }
}

impl From<CompileError> for Failure {
    fn from(error: CompileError) -> Self {
        Self { code: code_of(error.kind()), hint: error.hint().map(ToString::to_string), error: Box::new(error) }
    }
}

impl From<cloudknot::Error> for Failure {
    fn from(error: cloudknot::Error) -> Self {
        let code = match error.kind() {
            cloudknot::ErrorKind::Compile => compile_code(&error),
            cloudknot::ErrorKind::Image => 5,
            cloudknot::ErrorKind::Registry | cloudknot::ErrorKind::Docker => 6,
            cloudknot::ErrorKind::Config => 2,
            cloudknot::ErrorKind::Aws | cloudknot::ErrorKind::Denied | cloudknot::ErrorKind::Credentials => 7,
            cloudknot::ErrorKind::NotFound | cloudknot::ErrorKind::Exists => 8,
            _ => 1,
        };
        Self { code, hint: error.hint().map(ToString::to_string), error: Box::new(error) }
    }
}

/// The exit code of an error that wraps one of the compilation.
fn compile_code(error: &cloudknot::Error) -> u8 {
    let compile = error.get_ref().and_then(|error| error.downcast_ref::<CompileError>());
    compile.map_or(1, |compile| code_of(compile.kind()))
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self { code: 1, error: Box::new(error), hint: None }
    }
}
