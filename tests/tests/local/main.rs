//! Tests on this machine: the suite of the runs in item processes, tests of item processes alone, and everything up to
//! the image.

mod architecture;
mod attach;
mod cargo_knot;
mod compile;
mod image;
mod in_process;
mod logs;
mod macros;
mod operate;
mod orders;
mod origin;
mod programs;
mod promises;
mod records;
mod renamed;
mod results;
mod resume;
mod seam;
mod store_dir;
mod stress;
mod targets;
mod terminal;
mod traced;
mod unwritable;
mod values;
mod walk;

#[path = "../suite/failures.rs"]
mod failures;
#[path = "../suite/init.rs"]
mod init;
#[path = "../suite/maps.rs"]
mod maps;
#[path = "../suite/misdeeds.rs"]
mod misdeeds;

use cloudknot_tests::trial::Trial;

const PROGRAM: &str = env!("CARGO_BIN_EXE_trial");

#[expect(clippy::unnecessary_wraps, reason = "another backend may not be available")]
fn trial() -> Option<Trial> {
    Some(Trial::new(PROGRAM))
}
