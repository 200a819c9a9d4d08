//! Tests of folders that cannot be written: each causes a clear error, and stored objects are kept.

use std::path::{Path, PathBuf};
use std::process::Command;

use cloudknot_tests::skip::skipped;
use cloudknot_tests::trial::{Behavior, Fact, Spec, Trial, failures, files, json, run_of, values};

fn trial() -> Trial {
    Trial::new(crate::PROGRAM)
}

#[track_caller]
fn check_error(facts: &[Fact], kind: &str, words: &[&str]) {
    let errors: Vec<_> = facts.iter().filter(|fact| matches!(fact, Fact::Error(..))).collect();
    let [Fact::Error(found, text)] = errors[..] else { panic!("not one error: {facts:?}") };
    assert_eq!(found, kind, "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in:\n{text}");
    }
}

/// Separate file system for the runs, if this user may mount one.
struct Mounted(PathBuf);

impl Mounted {
    fn at(folder: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir_all(&folder).unwrap();
        let mounted = mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], &folder);
        mounted.then_some(Self(folder))
    }

    #[track_caller]
    fn remount(&self, options: &str) {
        assert!(mount(&["-o", &format!("remount,{options}")], &self.0));
    }
}

fn mount(arguments: &[&str], folder: &Path) -> bool {
    let output = Command::new("mount").args(arguments).arg(folder).output();
    output.is_ok_and(|output| output.status.success())
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A failed test may leave the mount in use.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

const NO_MOUNT: &str = "this user may not mount a file system";

#[test]
fn file_in_place_of_the_folder_is_an_error() {
    let trial = trial();
    std::fs::write(trial.home(), "a file").unwrap();
    let facts = trial.facts(&["values", &json(&Spec::of([Behavior::Double(1)]))]);
    check_error(&facts, "Store", &["cannot write", trial.home().to_str().unwrap(), "hint: set CLOUDKNOT_HOME"]);
    check_error(&trial.attach("20260101-000000000-000000"), "NotFound", &["CLOUDKNOT_HOME"]);
}

#[test]
fn read_only_folder_can_be_read() {
    let trial = trial();
    let Some(mounted) = Mounted::at(trial.home(), "10m") else { return skipped("a read-only folder", NO_MOUNT) };
    let inputs = [Behavior::Double(1), Behavior::Double(2), Behavior::Fail(vec!["no".into()])];
    let complete = run_of(&trial.map(&Spec { chunk: Some(1), ..Spec::of(inputs.clone()) })).unwrap();
    let incomplete = run_of(&trial.map(&Spec { chunk: Some(1), ..Spec::of(inputs) })).unwrap();
    std::fs::remove_file(&trial.stored(&incomplete, "results")[0]).unwrap();
    mounted.remount("ro");
    // Stored results are read.
    let facts = trial.attach(&complete);
    assert_eq!(values(&facts), [(0, 2), (1, 4)].into());
    assert_eq!(failures(&facts)[&2].message, "no");
    // Missing results cannot be computed.
    let facts = trial.attach(&incomplete);
    assert_eq!(values(&facts), [(1, 4)].into());
    let failed = &failures(&facts)[&0];
    assert_eq!(failed.kind, "Infrastructure");
    assert!(failed.message.contains("Read-only file system"), "{failed:?}");
    let facts = trial.facts(&["values", &json(&Spec::of([Behavior::Double(1)]))]);
    check_error(&facts, "Store", &["cannot write", "Read-only file system", "write access", "CLOUDKNOT_HOME"]);
    mounted.remount("rw");
    assert_eq!(values(&trial.attach(&incomplete)), [(0, 2), (1, 4)].into());
}

#[test]
fn full_disk_stores_no_inputs() {
    let trial = trial();
    let Some(_mounted) = Mounted::at(trial.home(), "1m") else { return skipped("a full disk", NO_MOUNT) };
    let facts = trial.map(&Spec::of([Behavior::Double(1)]));
    assert_eq!(values(&facts), [(0, 2)].into(), "a small input fits");
    let before = files(&trial.home());
    let facts = trial.facts(&["fill-inputs", "2000000"]);
    check_error(&facts, "Store", &["cannot write", "/inputs`", "No space left", "hint: free space"]);
    assert_eq!(files(&trial.home()), before, "no file remains");
}

#[test]
fn full_disk_keeps_stored_results() {
    let trial = trial();
    let Some(mounted) = Mounted::at(trial.home(), "2m") else { return skipped("a full disk", NO_MOUNT) };
    let facts = trial.facts(&["fill", "10", "400000"]);
    let run = run_of(&facts).unwrap();
    check_error(
        &facts,
        "Infrastructure",
        &[&run, "cannot continue run", "No space left", "free space", "stretch.attach("],
    );
    let kept = values(&facts);
    assert!(!kept.is_empty() && kept.len() < 10, "{} are kept", kept.len());
    assert!(kept.values().all(|&length| length == 400_000));
    mounted.remount("size=20m");
    let parts = trial.stored(&run, "results");
    let times =
        |parts: &[PathBuf]| parts.iter().map(|part| part.metadata().unwrap().modified().unwrap()).collect::<Vec<_>>();
    let before = times(&parts);
    assert_eq!(values(&trial.facts(&["fill-on", &run])).len(), 10);
    assert_eq!(times(&parts), before, "stored parts are unchanged");
}
