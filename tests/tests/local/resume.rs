//! Tests that a map with `.resume()` goes on with the last run of equal inputs if it has not ended, and computes nothing twice.

use std::path::PathBuf;

use cloudknot_tests::trial::{
    Behavior, Fact, Running, Spec, Trial, counted, facts, failures, json, run_of, values, wait_for,
};

fn trial() -> Trial {
    Trial::new(crate::PROGRAM)
}

const ITEMS: u64 = 60;

/// A map of items of which the last third waits for a file, and the program that computes it.
struct Interrupted {
    trial: Trial,
    ran: PathBuf,
    go_on: PathBuf,
    spec: Spec,
}

impl Interrupted {
    fn new() -> Self {
        let trial = trial();
        let (ran, go_on) = (trial.file("ran"), trial.file("go on"));
        let inputs = (0..ITEMS).map(|number| match number {
            0..40 => Behavior::Count(ran.clone(), number, 0),
            _ => Behavior::Wait(ran.clone(), number, go_on.clone()),
        });
        let spec = Spec { chunk: Some(1), parallel: Some(2), resume: true, ..Spec::of(inputs) };
        Self { trial, ran, go_on, spec }
    }

    /// Starts the program, and kills it once two thirds of the items have values. Returns the ID of the run.
    fn kill(&self) -> String {
        let running = self.start(&self.spec);
        let run = running.wait_for_run_id();
        let failing = self.spec.inputs.iter().filter(|input| matches!(input, Behavior::Fail(_))).count();
        wait_for("two thirds of the outcomes", || {
            let failures = self.trial.stored(&run, "failures").len();
            (self.trial.items_with_values(&run).len() == 40 && failures == failing).then_some(())
        });
        running.kill();
        self.trial.wait_until_exited();
        run
    }

    fn start(&self, spec: &Spec) -> Running {
        self.trial.start(&["map", &json(spec)])
    }

    fn go_on(&self) {
        std::fs::write(&self.go_on, "").unwrap();
    }

    /// Runs the same command again, with this change of the map, and its output. Returns its facts and its stderr.
    fn again(&self, change: impl FnOnce(&mut Spec)) -> (Vec<Fact>, String) {
        let mut spec = self.spec.clone();
        change(&mut spec);
        let mut command = self.trial.command(&["map", &json(&spec)]);
        let output = command.env("CLOUDKNOT_PROGRESS", "plain").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        (facts(&output.stdout), String::from_utf8(output.stderr).unwrap())
    }

    /// Returns the IDs of all runs with a manifest, and the number of folders of runs.
    fn runs(&self) -> (usize, usize) {
        let folder = self.trial.run("x");
        let runs: Vec<_> = std::fs::read_dir(folder.parent().unwrap()).unwrap().flatten().collect();
        (runs.iter().filter(|run| run.path().join("manifest.json").exists()).count(), runs.len())
    }

    /// Checks that the command, with this change, submits a new run.
    #[track_caller]
    fn check_new(&self, run: &str, change: impl FnOnce(&mut Spec)) {
        let (facts, stderr) = self.again(change);
        assert_ne!(run_of(&facts).unwrap(), run, "{stderr}");
        assert!(!stderr.contains("resuming run"), "{stderr}");
    }
}

fn numbers(items: std::ops::Range<usize>) -> std::collections::BTreeMap<usize, u64> {
    items.map(|item| (item, item as u64)).collect()
}

#[test]
fn killed_run_goes_on_by_the_same_command() {
    let map = Interrupted::new();
    let run = map.kill();
    map.go_on();
    let before = counted(&map.ran);
    let (facts, stderr) = map.again(|_| {});
    assert_eq!(run_of(&facts).unwrap(), run);
    assert_eq!(values(&facts), numbers(0..60));
    let word = run.rsplit('-').next().unwrap();
    assert!(stderr.contains(&format!("cloudknot: resuming run {word}: 40 of 60 items have an outcome\n")), "{stderr}");
    assert!(!stderr.contains("was begun with"), "the program is the same: {stderr}");
    let after = counted(&map.ran);
    assert!(after[before.len()..].iter().all(|item| *item >= 40), "no item with a value ran again: {after:?}");
    assert_eq!(map.runs(), (1, 1), "what was written of the second submission is gone");
    // The run is done now, so that the same command submits a new one.
    map.check_new(&run, |_| {});
}

#[test]
fn run_that_another_program_computes_is_followed() {
    let map = Interrupted::new();
    let running = map.start(&map.spec);
    let run = running.wait_for_run_id();
    wait_for("two thirds of the values", || (map.trial.items_with_values(&run).len() == 40).then_some(()));
    let follower = map.start(&map.spec);
    assert_eq!(follower.wait_for_run_id(), run);
    map.go_on();
    for program in [running, follower] {
        assert_eq!(values(&facts(&program.wait_with_output().stdout)), numbers(0..60));
    }
    let mut ran = counted(&map.ran);
    ran.sort_unstable();
    assert_eq!(ran, (0..ITEMS).collect::<Vec<_>>(), "each item ran once");
}

#[test]
fn other_maps_are_new_runs() {
    let map = Interrupted::new();
    let run = map.kill();
    map.go_on();
    map.check_new(&run, |spec| spec.inputs[59] = Behavior::Double(1));
    map.check_new(&run, |spec| drop(spec.inputs.pop()));
    map.check_new(&run, |spec| spec.inputs.swap(0, 1));
    map.check_new(&run, |spec| spec.name = Some("sweep 3".into()));
    map.check_new(&run, |spec| spec.fresh = true);
    map.check_new(&run, |spec| spec.resume = false);
    // The last one has ended, so it does not matter that an earlier run of these inputs has not.
    map.check_new(&run, |_| {});
}

#[test]
fn failed_and_cancelled_runs_have_ended() {
    let trial = trial();
    let failing = Spec { resume: true, ..Spec::of([Behavior::Fail(vec!["no".into()]), Behavior::Double(1)]) };
    let first = trial.map(&failing);
    let second = trial.map(&failing);
    assert_eq!((failures(&first).len(), failures(&second).len()), (1, 1));
    assert_ne!(run_of(&first), run_of(&second));
    let map = Interrupted::new();
    let run = map.kill();
    map.trial.facts(&["cancel", &run]);
    map.go_on();
    map.check_new(&run, |_| {});
}

#[test]
fn run_with_a_failure_that_was_killed_goes_on() {
    let mut map = Interrupted::new();
    map.spec.inputs.insert(0, Behavior::Fail(vec!["no".into()]));
    let run = map.kill();
    map.go_on();
    let (facts, stderr) = map.again(|_| {});
    assert_eq!(run_of(&facts).unwrap(), run);
    assert!(stderr.contains(": 41 of 61 items have an outcome\n"), "{stderr}");
    assert_eq!((values(&facts).len(), failures(&facts).len()), (60, 1));
    assert_eq!(map.trial.stored(&run, "failures").len(), 1, "the failed item did not run again");
}

/// A program that has changed goes on, and says so.
#[test]
fn differences_of_the_program_are_shown() {
    let map = Interrupted::new();
    let run = map.kill();
    map.go_on();
    let manifest = map.trial.run(&run).join("manifest.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    json["provenance"]["program"]["version"] = "0.0.9".into();
    json["provenance"]["cloudknot"] = "0.0.8".into();
    json["provenance"]["program"]["revision"] = "0123456789abcdef".into();
    std::fs::write(&manifest, serde_json::to_vec(&json).unwrap()).unwrap();
    let (facts, stderr) = map.again(|spec| drop(spec.env.insert("MODE".into(), "fast".into())));
    assert_eq!(values(&facts), numbers(0..60));
    let version = env!("CARGO_PKG_VERSION");
    let begun = format!(
        "was begun with version 0.0.9 instead of {version}, cloudknot 0.0.8 instead of {version}, other variables of \
         `.env(..)`; its stored values are kept, and `.fresh()` submits a new run\n"
    );
    assert!(stderr.contains(&begun), "{stderr}");
    // Git knows the source of the tests, unless they were copied without it.
    let word = run.rsplit('-').next().unwrap();
    let sources = [
        format!("the source has changed since run {word}: revision 0123456789 then, "),
        format!("the source may have changed since run {word}: its git revision then, or the one now, is not known"),
    ];
    assert!(sources.iter().any(|source| stderr.contains(source)), "{stderr}");
}

/// A deleted run is passed over, although the index has it.
#[test]
fn deleted_run_is_not_resumed() {
    let map = Interrupted::new();
    let run = map.kill();
    map.go_on();
    std::fs::remove_dir_all(map.trial.run(&run)).unwrap();
    map.check_new(&run, |_| {});
}

/// A record that cannot be read is no reason to compute everything again without a word.
#[test]
fn damaged_run_is_an_error_that_names_the_way_out() {
    let map = Interrupted::new();
    let run = map.kill();
    map.go_on();
    std::fs::write(map.trial.run(&run).join("manifest.json"), "{").unwrap();
    let facts = map.trial.facts(&["values", &json(&map.spec)]);
    let [Fact::Error(kind, message)] = &facts[..] else { panic!("{facts:?}") };
    assert_eq!(kind, "Store");
    assert!(message.contains("is damaged") && message.contains("`.fresh()` submits a new run"), "{message}");
}

#[track_caller]
fn check_refused(kind: &str, words: &[&str]) {
    let trial = trial();
    let facts = trial.facts(&["unordered", kind]);
    let [Fact::Error(kind, message)] = &facts[..] else { panic!("{facts:?}") };
    assert_eq!(kind, "Input", "{message}");
    for word in words.iter().chain(&["cannot resume", "hint: use BTreeMap or BTreeSet, or `.name(..)`"]) {
        assert!(message.contains(word), "`{word}` is not in:\n{message}");
    }
    assert!(trial.stored_files().is_empty(), "nothing is submitted");
}

#[test]
fn inputs_without_an_order_are_refused() {
    check_refused("plain", &["they contain `HashMap<u32, u32>`, whose entries have no fixed order"]);
    check_refused("nested", &["they contain `HashMap<u32, u32>`"]);
    check_refused("hidden", &["input 1 has entries without a fixed order"]);
}

#[test]
fn ordered_inputs_are_accepted() {
    let trial = trial();
    assert!(run_of(&trial.facts(&["unordered", "ordered"])).is_some());
}

/// The items never end, so that the runs are open.
#[test]
fn inputs_without_an_order_are_found_by_name() {
    let trial = trial();
    let run = |kind: &str, name: &str| run_of(&trial.facts(&["unordered", kind, name])).unwrap();
    for kind in ["plain", "nested", "hidden", "ordered"] {
        let first = run(kind, "sweep 3");
        assert_eq!(run(kind, "sweep 3"), first, "{kind}");
        assert_ne!(run(kind, "sweep 4"), first, "{kind}");
    }
}
