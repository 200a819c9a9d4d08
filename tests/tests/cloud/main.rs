//! Tests against AWS, which moto simulates: the suite of the runs on AWS Batch, tests of Batch alone, Pars and Knots,
//! and the S3 store. Jobs are child processes of moto; with `CLOUDKNOT_TEST=full` they are containers.

mod account;
mod batch;
mod compute;
mod doctor;
mod dropped;
mod jobs;
mod knot;
mod many;
mod moto;
mod network;
mod operate;
mod pars;
mod policies;
mod refusals;
mod rehearse;
mod store_s3;
mod walk;

#[path = "../suite/failures.rs"]
mod failures;
#[path = "../suite/init.rs"]
mod init;
#[path = "../suite/maps.rs"]
mod maps;

use cloudknot_tests::cloud::{Cloud, JobKind};
use cloudknot_tests::trial::Trial;

const PROGRAM: &str = env!("CARGO_BIN_EXE_trial");

fn trial() -> Option<Trial> {
    Cloud::get()?.trial(PROGRAM, JobKind::of_suite())
}
