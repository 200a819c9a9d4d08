//! How a test says that this machine cannot run it.

use std::io::Write as _;

/// Says on stderr that something is not tested, and why. `eprintln!` would be swallowed with the output of a test that
/// passes.
pub fn skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {what}: {why}");
}
