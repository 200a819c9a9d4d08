//! Tests that the record of a run, which anyone may have written, is checked as a whole before use (finding M5), and that no
//! link or special file in its place is opened (L2).

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use cloudknot_runtime::contract::Manifest;
use cloudknot_runtime::fingerprint::Part;
use cloudknot_runtime::fingerprint::json::StoredValue;
use cloudknot_runtime::frame;
use cloudknot_tests::trial::{Behavior, Fact, Spec, Trial, failures, json, run_of, values};
use serde_json::{Value, json};

/// Finished run of five items that return twice their number.
struct Recorded {
    trial: Trial,
    run: String,
}

impl Recorded {
    /// Records a run whose inputs have equal lengths.
    fn uniform() -> Self {
        Self::new((0..5).map(Behavior::Double).collect())
    }

    /// Records a run whose inputs have different lengths.
    fn with_offsets() -> Self {
        let print = Behavior::Print("out".into(), "err".into(), Box::new(Behavior::Double(0)));
        Self::new(std::iter::once(print).chain((1..5).map(Behavior::Double)).collect())
    }

    fn new(inputs: Vec<Behavior>) -> Self {
        let trial = Trial::new(crate::PROGRAM);
        let facts = trial.map(&Spec { chunk: Some(1), ..Spec::of(inputs) });
        Self { run: run_of(&facts).unwrap(), trial }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.trial.run(&self.run).join(name)
    }

    /// Attaches to the run after these changes to its manifest, and checks that the manifest is refused.
    #[track_caller]
    fn check_manifest(&self, changes: Value, reason: &str) {
        let original = fs::read_to_string(self.file("manifest.json")).unwrap();
        let mut manifest: Value = serde_json::from_str(&original).unwrap();
        let Value::Object(changes) = changes else { panic!("the changes are fields") };
        manifest.as_object_mut().unwrap().extend(changes);
        fs::write(self.file("manifest.json"), manifest.to_string()).unwrap();
        self.check_refused(&["manifest.json", "damaged", reason]);
        fs::write(self.file("manifest.json"), original).unwrap();
    }

    /// Attaches to the run with this second round, and checks that the round is refused.
    #[track_caller]
    fn check_round(&self, round: &str) {
        fs::create_dir_all(self.file("rounds")).unwrap();
        fs::write(self.file("rounds/0002"), round).unwrap();
        self.check_refused(&["rounds/0002", "damaged"]);
    }

    #[track_caller]
    fn check_refused(&self, words: &[&str]) {
        let facts = self.trial.attach(&self.run);
        let [Fact::Error(kind, text)] = &facts[..] else { panic!("not exactly one error: {facts:?}") };
        assert_eq!(kind, "Store", "{text}");
        for word in words.iter().chain(&["cannot read", &self.run, "hint: "]) {
            assert!(text.contains(word), "`{word}` is not in:\n{text}");
        }
    }

    #[track_caller]
    fn check_readable(&self) {
        let facts = self.trial.attach(&self.run);
        assert_eq!(values(&facts), (0..5).map(|item| (item, 2 * item as u64)).collect(), "{facts:?}");
    }
}

/// The number of items decides how much memory is needed.
#[test]
fn m5_items_that_the_inputs_do_not_contain_are_refused() {
    for recorded in [Recorded::uniform(), Recorded::with_offsets()] {
        for items in [0, 4, 6, 1 << 36, 1 << 40, u64::MAX] {
            recorded.check_manifest(json!({ "items": items }), "items");
        }
        recorded.check_readable();
    }
}

#[test]
fn layouts_that_the_inputs_do_not_have_are_refused() {
    let recorded = Recorded::uniform();
    for layout in
        [json!({"uniform": 0}), json!({"uniform": 1_u64 << 63}), json!({"offsets": 160}), json!({"offsets": u64::MAX})]
    {
        recorded.check_manifest(json!({ "inputs": layout }), "inputs");
    }
    recorded.check_manifest(json!({ "inputs": {"uniform": 0}, "items": 1 << 30 }), "inputs");
    recorded.check_readable();
}

/// A sparse file takes no space.
#[test]
fn items_beyond_the_maximum_are_refused() {
    let recorded = Recorded::uniform();
    let items = (1_u64 << 32) + 1;
    let inputs = fs::File::options().write(true).open(recorded.file("inputs")).unwrap();
    inputs.set_len(items * 32).unwrap();
    recorded.check_manifest(json!({ "items": items, "inputs": {"uniform": 32} }), "at most 4294967296");
}

/// Without the inputs, a run can be read but not continued, and nothing bounds its number of items.
#[test]
fn many_items_without_inputs_are_refused() {
    let recorded = Recorded::uniform();
    fs::remove_file(recorded.file("inputs")).unwrap();
    recorded.check_manifest(json!({ "items": 1 << 30, "inputs": {"uniform": 32} }), "is missing");
    recorded.check_readable();
}

#[test]
fn settings_that_no_map_has_are_refused() {
    let recorded = Recorded::uniform();
    recorded.check_manifest(json!({ "chunk": 0 }), "`chunk` must be at least 1");
    recorded.check_manifest(json!({ "parallel": 0 }), "`parallel` must be at least 1");
    recorded.check_manifest(json!({ "timeout_ms": 0 }), "`timeout_ms` must be at least 1");
    recorded.check_manifest(json!({ "max_failures": 0 }), "`max_failures` must be at least 1");
    recorded.check_manifest(json!({ "resources": {"vcpus": -1.0} }), "`vcpus` must be positive");
    recorded.check_manifest(json!({ "env": {"CLOUDKNOT_TASK": "{}"} }), "`CLOUDKNOT_TASK` cannot be set");
    recorded.check_manifest(json!({ "env": {"A=B": ""} }), "`A=B` cannot be set");
    recorded
        .check_manifest(json!({ "types": {"nodes": ["unit"], "input": 0, "output": 1} }), "`types` refers to node 1");
    recorded.check_manifest(json!({ "knot": "another" }), "of `another`");
    recorded.check_manifest(json!({ "run": "20260101-000000000-000000" }), "of run `20260101-000000000-000000`");
    recorded.check_readable();
}

/// Converts the frames at the start of an object to JSON, without the types of the program.
fn stored_json(manifest: &Manifest, part: Part, mut bytes: &[u8], count: usize) -> Vec<String> {
    let structure = manifest.types.as_ref().expect("the types are in the manifest");
    let next = |_| {
        let (frame, rest) = bytes.split_at(usize::try_from(frame::frame_length(bytes).unwrap()).unwrap());
        bytes = rest;
        let value = StoredValue::new(structure, part, manifest.codec, manifest.fingerprint, frame).unwrap();
        value.to_json().unwrap()
    };
    (0..count).map(next).collect()
}

#[test]
fn record_can_be_read_without_the_program() {
    let recorded = Recorded::with_offsets();
    let manifest = Manifest::parse(&fs::read(recorded.file("manifest.json")).unwrap()).unwrap();
    let inputs = stored_json(&manifest, Part::Input, &fs::read(recorded.file("inputs")).unwrap(), 2);
    let [argument] = manifest.types.as_ref().unwrap().arguments().collect::<Vec<_>>()[..] else {
        panic!("one argument")
    };
    let printed = r#"{"Print":["out","err",{"Double":0}]}"#;
    assert_eq!(inputs, [format!(r#"{{"{argument}":{printed}}}"#), format!(r#"{{"{argument}":{{"Double":1}}}}"#)]);
    for item in 0..5 {
        let part = fs::read(recorded.file(&format!("results/{item:012}-{item:012}"))).unwrap();
        assert_eq!(stored_json(&manifest, Part::Output, &part, 1), [(2 * item).to_string()]);
    }
}

#[test]
fn m5_rounds_that_are_not_ranges_of_items_are_refused() {
    let recorded = Recorded::uniform();
    for ranges in
        ["[[]]", "7", r#"[{"start": 3, "end": 1}]"#, r#"[{"start": 3, "end": 3}]"#, r#"[{"start": 0, "end": 6}]"#]
    {
        recorded.check_round(&format!(r#"{{"items": {ranges}, "retries": 0}}"#));
    }
    for ranges in
        [r#"[{"start": 2, "end": 3}, {"start": 0, "end": 1}]"#, r#"[{"start": 0, "end": 3}, {"start": 1, "end": 4}]"#]
    {
        recorded.check_round(&format!(r#"{{"items": {ranges}, "retries": 0}}"#));
    }
    recorded.check_round(r#"{"items": [], "retries": 0, "timeout_ms": 0}"#);
    recorded.check_round(r#"{"items": [], "retries": 0, "resources": {"vcpus": -1.0}}"#);
    recorded.check_round("");
    recorded.check_round(&" ".repeat(1 << 20));
    fs::remove_file(recorded.file("rounds/0002")).unwrap();
    recorded.check_readable();
}

/// The last of all rounds has no next one.
#[test]
fn run_with_the_last_round_cannot_be_retried() {
    let recorded = Recorded::uniform();
    fs::create_dir_all(recorded.file("rounds")).unwrap();
    fs::write(recorded.file("rounds/4294967295"), r#"{"items": [], "retries": 0}"#).unwrap();
    recorded.check_readable();
    let output = recorded.trial.command(&["retry", &recorded.run]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("cannot retry run ") && !stderr.contains("panicked"), "{stderr}");
}

#[test]
fn large_manifest_is_not_read() {
    let recorded = Recorded::uniform();
    let manifest = fs::File::options().write(true).open(recorded.file("manifest.json")).unwrap();
    manifest.set_len(1 << 40).unwrap();
    recorded.check_refused(&["manifest.json", "1099511627776 bytes"]);
}

/// A sparse file takes no space.
#[test]
fn part_that_does_not_fit_into_memory_fails_its_item() {
    let recorded = Recorded::uniform();
    let part = recorded.file("results/000000000001-000000000001");
    fs::File::options().write(true).open(part).unwrap().set_len(1 << 43).unwrap();
    let facts = recorded.trial.attach(&recorded.run);
    assert_eq!(values(&facts).keys().copied().collect::<Vec<_>>(), [0, 2, 3, 4]);
    let failed = &failures(&facts)[&1];
    assert_eq!(failed.kind, "Infrastructure", "{failed:?}");
    assert!(failed.message.contains("results/000000000001-000000000001"), "{failed:?}");
}

/// L2: opening a FIFO waited for its other end.
#[test]
fn special_file_in_place_of_a_note_is_refused() {
    let trial = Trial::new(crate::PROGRAM);
    fs::create_dir(trial.home()).unwrap();
    assert!(Command::new("mkfifo").arg(trial.home().join("knot.json")).status().unwrap().success());
    let facts = trial.facts(&["values", &json(&Spec::of([Behavior::Double(1)]))]);
    let [Fact::Error(kind, text)] = &facts[..] else { panic!("not exactly one error: {facts:?}") };
    assert_eq!(kind, "Config", "{text}");
    assert!(text.contains("cannot read `") && text.contains("not a regular file"), "{text}");
}

/// An object with a name that cloudknot does not give is not part of the record.
#[test]
fn objects_with_other_names_are_passed_over() {
    let recorded = Recorded::uniform();
    for (folder, names) in [
        ("results", &["1-2", "000000000001-2", "+00000000001-000000000002", "000000000004-18446744073709551615"][..]),
        ("rounds", &["2", "00002", "0000", "4294967296"]),
        ("failures/000000000000", &["1.1", "0001.0000", "0000.0001", "99999999999.0001"]),
        ("failures/1", &["0001.0001"]),
    ] {
        fs::create_dir_all(recorded.file(folder)).unwrap();
        for name in names {
            fs::write(recorded.file(folder).join(name), "?").unwrap();
        }
    }
    recorded.check_readable();
}

/// L2: opening a FIFO waited for its other end.
#[test]
fn l2_special_file_in_place_of_the_manifest_is_refused() {
    let recorded = Recorded::uniform();
    let manifest = recorded.file("manifest.json");
    fs::remove_file(&manifest).unwrap();
    assert!(Command::new("mkfifo").arg(&manifest).status().unwrap().success());
    recorded.check_refused(&["manifest.json", "not a regular file"]);
    fs::remove_file(&manifest).unwrap();
    fs::create_dir(&manifest).unwrap();
    recorded.check_refused(&["manifest.json", "not a regular file"]);
}

/// L2: the folder may be shared, or come with a clone.
#[test]
fn l2_links_in_place_of_the_record_are_refused() {
    let recorded = Recorded::uniform();
    let (folder, moved) = (recorded.file(""), recorded.trial.file("moved"));
    fs::rename(&folder, &moved).unwrap();
    symlink(&moved, folder.to_str().unwrap().trim_end_matches('/')).unwrap();
    recorded.check_refused(&[&format!("`{}` is a symbolic link", recorded.run)]);
    fs::remove_file(folder.to_str().unwrap().trim_end_matches('/')).unwrap();
    fs::rename(&moved, &folder).unwrap();
    recorded.check_readable();
    let (manifest, moved) = (recorded.file("manifest.json"), recorded.trial.file("moved"));
    fs::rename(&manifest, &moved).unwrap();
    symlink(&moved, &manifest).unwrap();
    recorded.check_refused(&["`manifest.json` is a symbolic link"]);
}

/// L2: the lock was opened through a link, and truncated.
#[test]
fn l2_linked_lock_is_refused() {
    let recorded = Recorded::uniform();
    let other = recorded.trial.file("other");
    fs::write(&other, "precious").unwrap();
    fs::remove_file(recorded.file("lock")).unwrap();
    symlink(&other, recorded.file("lock")).unwrap();
    fs::remove_file(recorded.file("results/000000000000-000000000000")).unwrap();
    let facts = recorded.trial.attach(&recorded.run);
    assert_eq!(values(&facts).len(), 4);
    let failed = &failures(&facts)[&0];
    assert!(
        failed.message.contains("cannot lock") && failed.message.contains("`lock` is a symbolic link"),
        "{failed:?}"
    );
    assert_eq!(fs::read_to_string(other).unwrap(), "precious");
}

/// L3: inputs, results and logs are for the user who has submitted the run, also in a folder of an earlier version.
#[test]
fn runs_are_private_in_a_folder_that_is_not() {
    let trial = Trial::new(crate::PROGRAM);
    fs::create_dir(trial.home()).unwrap();
    fs::set_permissions(trial.home(), fs::Permissions::from_mode(0o755)).unwrap();
    let facts = trial.map(&Spec::of([Behavior::Double(1), Behavior::Fail(vec!["no".into()])]));
    let run = trial.run(&run_of(&facts).unwrap());
    assert_eq!(run.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    for file in trial.stored_files() {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
}

/// L4: `.retries(u32::MAX)` means "until it succeeds".
#[test]
fn item_with_any_number_of_retries_is_retried() {
    let trial = Trial::new(crate::PROGRAM);
    let inputs = [Behavior::Until(trial.file("attempts"), 7, 4)];
    let facts = trial.map(&Spec { retries: Some(u32::MAX), ..Spec::of(inputs) });
    assert_eq!(values(&facts), [(0, 7)].into());
    assert_eq!(values(&trial.attach(&run_of(&facts).unwrap())), [(0, 7)].into());
}

/// L5: the program may change its current folder.
#[test]
fn relative_home_is_in_the_folder_of_the_start() {
    let trial = Trial::new(crate::PROGRAM);
    let elsewhere = trial.file("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let spec = json(&Spec::of([Behavior::Double(1)]));
    let mut command = trial.command(&["values-elsewhere", elsewhere.to_str().unwrap(), &spec]);
    let output = command.env("CLOUDKNOT_HOME", "home").current_dir(trial.file("")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    assert!(!trial.stored_files().is_empty());
}
