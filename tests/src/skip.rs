//! Notes of tests, or parts of them, that this machine cannot run. The table at the end of a run shows them.

use std::io::Write as _;

/// Name of the variable with the path of the file in which skips are noted.
pub const ENV_FILE: &str = "CLOUDKNOT_TESTS_SKIPPED";

/// Notes that something is not tested although `tests/run.sh` can install its requirements.
///
/// # Panics
/// If `CLOUDKNOT_TESTS_REQUIRE=1` is set.
pub fn skipped(what: &str, reason: &str) {
    let required = std::env::var_os("CLOUDKNOT_TESTS_REQUIRE").is_some_and(|value| value == "1");
    assert!(!required, "{what} cannot be skipped: {reason}");
    optional(what, reason);
}

/// Notes that something is not tested because it was not requested, or because no installation would enable it.
pub fn optional(what: &str, reason: &str) {
    // The output of `eprintln!` is discarded with that of a test that passes.
    let _ = writeln!(std::io::stderr(), "skipped: {what}: {reason}");
    if let Some(file) = std::env::var_os(ENV_FILE) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(file);
        // In one write, so that the lines of several processes do not mix.
        file.and_then(|mut file| file.write_all(format!("{what}: {reason}\n").as_bytes()))
            .expect("the file for skips can be written");
    }
}
