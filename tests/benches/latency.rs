//! Time from when the last child of a map has stored its value until the program has it. Batch is moto with real
//! containers.
//!
//! `cargo bench -p cloudknot-tests --features counterparts --bench latency`; `--profile dev` avoids building the AWS
//! SDKs again.

use std::time::{Duration, SystemTime};

use cloudknot_tests::cloud::{Cloud, JobKind};
use cloudknot_tests::trial::{Behavior, Spec, files, json, run_of, values};

const RUNS: u32 = 8;
const ITEMS: u64 = 8;

fn main() {
    let cloud = Cloud::get().expect("moto and a Docker engine are available");
    let mut sum = Duration::ZERO;
    println!("{:<12}{:>26}{:>32}", "run", "from map to results", "after the last value was stored");
    for run in 0..RUNS {
        let trial = cloud.trial(env!("CARGO_BIN_EXE_trial"), JobKind::Container).expect("a Docker engine is available");
        // From 2 to 16 seconds, with a job for each item.
        let inputs = (0..ITEMS).map(|item| Behavior::Sleep(u64::from(run + 1) * 2_000 + item * 37, item));
        let began = SystemTime::now();
        let facts = trial.facts(&["map", &json(&Spec::of(inputs))]);
        let ended = SystemTime::now();
        assert_eq!(values(&facts).len() as u64, ITEMS);
        let id = run_of(&facts).expect("a run has an id");
        let parts = files(&trial.run(&id).join("results"));
        let stored =
            parts.iter().filter_map(|path| path.metadata().ok()?.modified().ok()).max().expect("values are stored");
        let after = ended.duration_since(stored).unwrap_or_default();
        sum += after;
        let whole = ended.duration_since(began).unwrap_or_default();
        println!("{:<12}{:>24.2} s{:>30.2} s", run + 1, whole.as_secs_f64(), after.as_secs_f64());
    }
    println!(
        "on average {:.2} s (expected: at most 1 s; Python cloudknot 0.6.1: 2.3 to 3.6 s)",
        (sum / RUNS).as_secs_f64()
    );
}
