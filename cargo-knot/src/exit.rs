//! The exit codes of the command, for scripts that distinguish failures.

/// The command has done what it was asked to do.
pub const DONE: u8 = 0;
/// The command failed for a reason without a code of its own.
pub const OTHER: u8 = 1;
/// The options do not select exactly one target, or a setting is invalid.
pub const USAGE: u8 = 2;
/// This machine lacks a tool for the worker's platform, or cargo-knot and the program have incompatible versions.
pub const SETUP: u8 = 3;
/// The compiled executable cannot be a worker: it has no remote function, or is not static.
pub const WORKER: u8 = 4;
/// The image cannot be assembled, or does not exist.
pub const IMAGE: u8 = 5;
/// The registry or the Docker engine cannot be reached, or rejects a request.
pub const REGISTRY: u8 = 6;
/// AWS cannot be reached, or rejects a request. Created resources are kept, and the same command continues from there.
pub const AWS: u8 = 7;
/// There is no such Knot, Pars or run, or there are several such runs; or an existing resource prevents the operation.
pub const NOT_FOUND: u8 = 8;
/// The doctor found an error.
pub const DOCTOR_ERROR: u8 = 9;
/// The run has ended, and some items have no value.
pub const ITEMS_FAILED: u8 = 10;
/// The run has not ended.
pub const NOT_ENDED: u8 = 11;
/// Something is cancelled or deleted only with `--yes`, or not while it is in use.
pub const REFUSED: u8 = 12;
/// The program does not compile (the same code as cargo).
pub const COMPILATION: u8 = 101;

/// Each code and its meaning, in ascending order.
pub const ALL: [(u8, &str); 14] = [
    (DONE, "done"),
    (OTHER, "failed for a reason without a code of its own"),
    (USAGE, "the options do not select exactly one target, or a setting is invalid"),
    (
        SETUP,
        "this machine lacks a tool for the worker's platform, or cargo-knot and the program have incompatible versions",
    ),
    (WORKER, "the compiled executable cannot be a worker: no remote function, or not static"),
    (IMAGE, "the image cannot be assembled, or does not exist"),
    (REGISTRY, "the registry or the Docker engine cannot be reached, or rejects a request"),
    (
        AWS,
        "AWS cannot be reached, or rejects a request; created resources are kept, and the same command continues from there",
    ),
    (
        NOT_FOUND,
        "there is no such Knot, Pars or run, or there are several such runs; or an existing resource prevents the operation",
    ),
    (DOCTOR_ERROR, "the doctor found an error"),
    (ITEMS_FAILED, "the run has ended, and some items have no value"),
    (NOT_ENDED, "the run has not ended"),
    (REFUSED, "something is cancelled or deleted only with `--yes`, or not while it is in use"),
    (COMPILATION, "the program does not compile (the same code as cargo)"),
];

/// Returns the section of `--help` that lists all codes.
///
/// ```
/// assert!(cargo_knot::exit::help().contains("101  the program does not compile"));
/// ```
pub fn help() -> String {
    let lines = ALL.iter().map(|(code, meaning)| format!("\n  {code:>3}  {meaning}"));
    format!("Exit codes:{}", lines.collect::<Vec<_>>().concat())
}
