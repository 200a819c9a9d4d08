//! Three hundred jobs, some of which fail in every possible way, with injected faults of the network.

use std::collections::BTreeMap;

use cloudknot_tests::cloud::{Cloud, JobKind};
use cloudknot_tests::now;
use cloudknot_tests::recorder::Recorder;
use cloudknot_tests::trial::{Behavior, Spec, facts, failures, json, values};
use rustix::process::Signal;

const ITEMS: usize = 300;

#[test]
fn three_hundred_jobs_with_faults_keep_every_result() {
    let Some(cloud) = Cloud::with_worker_recorder(&format!("faults-{:x}", now())) else { return };
    cloud.worker_recorder.as_ref().unwrap().inject_faults(17, 10);
    let (aws, s3) = (Recorder::before(&cloud.moto.url()), Recorder::before(&cloud.s3.url()));
    aws.inject_faults(3, 10);
    s3.inject_faults(5, 10);
    let trial = cloud.trial_at(crate::PROGRAM, JobKind::of_suite(), &aws.url(), &s3.url());
    let Some((trial, _)) = trial else { return };
    let mut inputs: Vec<Behavior> = (0..ITEMS).map(|item| Behavior::Double(item as u64)).collect();
    let bad: BTreeMap<usize, (Behavior, &str)> = [
        (7, (Behavior::Sleep(3_600_000, 1), "Infrastructure")),
        (50, (Behavior::Panic("such is life".into()), "Panicked")),
        (99, (Behavior::Abort, "Crashed")),
        (120, (Behavior::Kill, "Crashed")),
        (180, (Behavior::Exit(0), "Crashed")),
        (200, (Behavior::Fail(vec!["no".into()]), "Returned")),
        (240, (Behavior::Allocate, "OutOfMemory")),
        (270, (Behavior::Sleep(3_600_000, 1), "TimedOut")),
    ]
    .into();
    for (item, (input, _)) in &bad {
        inputs[*item] = input.clone();
    }
    let running = trial.start(&["map", &json(&Spec { timeout_ms: Some(20_000), ..Spec::of(inputs) })]);
    let run_id = running.wait_for_run_id();
    // One job is killed from outside, as soon as it runs.
    trial.signal(&run_id, "-7-1", Signal::KILL);
    let facts = facts(&running.wait_with_output_within(std::time::Duration::from_mins(20)).stdout);
    let failures = failures(&facts);
    let kinds: BTreeMap<usize, &str> = failures.iter().map(|(item, failed)| (*item, failed.kind.as_str())).collect();
    assert_eq!(kinds, bad.iter().map(|(item, (_, kind))| (*item, *kind)).collect(), "{failures:?}");
    let expected = (0..ITEMS).filter(|item| !bad.contains_key(item)).map(|item| (item, 2 * item as u64)).collect();
    assert_eq!(values(&facts), expected);
    for recorder in [&s3, cloud.worker_recorder.as_ref().unwrap()] {
        assert!(recorder.requests().iter().any(|request| request.fault.is_some()), "no fault was injected");
    }
    aws.validate();
}
