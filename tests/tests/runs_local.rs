//! The suite of the runs, in item processes of this machine.

#[path = "runs/failures.rs"]
mod failures;
#[path = "runs/maps.rs"]
mod maps;

use cloudknot_tests::trial::Trial;

#[expect(clippy::unnecessary_wraps, reason = "another backend may not be there")]
fn trial() -> Option<Trial> {
    Some(Trial::new(env!("CARGO_BIN_EXE_trial")))
}
