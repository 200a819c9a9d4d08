//! The suite of the runs on AWS Batch, where moto and a real engine stand in for it; and what only Batch does.

use cloudknot_tests::cloud::Cloud;
use cloudknot_tests::trial::Trial;

#[path = "runs/failures.rs"]
mod failures;
#[path = "runs/maps.rs"]
mod maps;

fn trial() -> Option<Trial> {
    Some(Cloud::get()?.trial(env!("CARGO_BIN_EXE_trial")))
}
