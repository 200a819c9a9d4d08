//! How a test says that this machine cannot run it. With `CLOUDKNOT_TESTS_REQUIRE=1` that is a failure.

use std::io::Write as _;

/// Says on stderr that something is not tested, and why. `eprintln!` would be swallowed with the output of a test that
/// passes.
///
/// # Panics
/// If every test has to be made.
pub fn skipped(what: &str, why: &str) {
    let required = std::env::var_os("CLOUDKNOT_TESTS_REQUIRE").is_some_and(|value| value == "1");
    assert!(!required, "{what} cannot be skipped: {why}");
    let _ = writeln!(std::io::stderr(), "skipped: {what}: {why}");
}
