//! Tests of `cargo knot logs` on the runs of a folder.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use cloudknot_runtime::contract::{LogLine, unix_ms};
use cloudknot_tests::schema;
use cloudknot_tests::trial::{Behavior, Spec, Trial, json, run_of};
use serde_json::{Value, json};

use crate::operate::{check, record, trial, verb, word};

/// Returns an input that prints these lines, and then behaves so.
fn printing(lines: &str, next: Behavior) -> Behavior {
    Behavior::Print(lines.to_owned(), String::new(), Box::new(next))
}

/// Returns a run of three items: the first one prints, the second one prints and fails twice, the third one is silent.
fn printed(trial: &Trial) -> String {
    let fails = printing("reading 1\nwarning: empty\n", Behavior::Fail(vec!["no star".into()]));
    let inputs = [printing("reading 0\n\nmore", Behavior::Double(1)), fails, Behavior::Double(3)];
    run_of(&trial.map(&Spec { parallel: Some(1), retries: Some(1), ..Spec::of(inputs) })).unwrap()
}

/// Returns what a verb prints to stdout.
#[track_caller]
fn stdout(trial: &Trial, arguments: &[&str], notes: &[&str]) -> String {
    String::from_utf8(check(trial, arguments, 0, notes).stdout).unwrap()
}

/// Returns the lines of a log, sorted by their items.
#[track_caller]
fn lines(trial: &Trial, arguments: &[&str], notes: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> =
        stdout(trial, &[&["logs"], arguments].concat(), notes).lines().map(str::to_owned).collect();
    lines.sort_by(|a, b| a[..18].cmp(&b[..18]));
    lines
}

const FIRST: [&str; 3] = ["[item 0, attempt 1] reading 0", "[item 0, attempt 1] ", "[item 0, attempt 1] more"];
const SECOND: [&str; 4] = [
    "[item 1, attempt 1] reading 1",
    "[item 1, attempt 1] warning: empty",
    "[item 1, attempt 2] reading 1",
    "[item 1, attempt 2] warning: empty",
];

#[test]
fn lines_are_selected_by_item_attempt_and_text() {
    let trial = trial();
    let run = printed(&trial);
    let before = record(&trial);
    let next = format!("next     cargo knot status {}", word(&run));
    assert_eq!(lines(&trial, &[], &[&next]), [&FIRST[..], &SECOND].concat());
    assert_eq!(lines(&trial, &["last", "0"], &[]), FIRST);
    assert_eq!(lines(&trial, &[&word(&run)[..3], "1-2"], &[]), SECOND);
    assert_eq!(lines(&trial, &["--failed"], &[]), SECOND);
    assert_eq!(lines(&trial, &["--kind", "returned", "--attempt", "2"], &[]), SECOND[2..]);
    assert_eq!(lines(&trial, &["--grep", "warning"], &[]), [SECOND[1], SECOND[3]]);
    assert_eq!(lines(&trial, &["last", "0", "--tail", "1"], &[]), [FIRST[2]]);
    assert_eq!(lines(&trial, &["--grep", "warning", "--tail", "1"], &[]), [SECOND[3]]);
    assert_eq!(lines(&trial, &["--since", "10h"], &[]).len(), 7);
    assert_eq!(lines(&trial, &["--follow"], &[]), [&FIRST[..], &SECOND].concat(), "the run has ended");
    let stamped = stdout(&trial, &["logs", "last", "0", "--timestamps", "--tail", "1"], &[]);
    let (time, line) = stamped.trim_end().split_once(' ').unwrap();
    assert!(time.ends_with('Z') && time.len() == 24 && line == FIRST[2], "{stamped}");
    assert_eq!(record(&trial), before, "looking at a log changes nothing");
}

#[test]
fn each_line_is_a_json_object() {
    let trial = trial();
    printed(&trial);
    let printed = stdout(&trial, &["logs", "last", "1", "--attempt", "2", "--json"], &[]);
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        schema::check("logs", line);
    }
    let [first, second] = &lines[..] else { panic!("{printed}") };
    assert_eq!((&first["text"], &second["text"]), (&json!("reading 1"), &json!("warning: empty")));
    assert_eq!((&first["item"], &first["attempt"], &first["round"]), (&json!(1), &json!(2), &json!(1)));
    assert!(first["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{first}");
    check(&trial, &["logs", "last", "7", "--json"], 2, &["{\"v\":1,\"error\":{", "cannot select item 7"]);
    check(&trial, &["logs", "last", "2", "--json"], 0, &["{\"v\":1,\"note\":\"none of the 7 lines"]);
}

#[test]
fn items_in_place_of_a_run_are_explained() {
    let trial = trial();
    printed(&trial);
    check(&trial, &["logs", "3,5"], 8, &["cannot find the run `3,5`", "hint: items follow the run: `last 3,5`"]);
    // The ID of a run begins with the year.
    check(&trial, &["logs", "2"], 2, &["invalid run `2`: must have more digits", "`last 2`"]);
    check(&trial, &["logs", "last", "5-3"], 2, &["must begin with the smaller number"]);
    check(&trial, &["logs", "last", "a"], 2, &["must be numbers and ranges"]);
}

#[test]
fn log_without_lines_is_explained() {
    let trial = trial();
    run_of(&trial.map(&Spec::of([Behavior::Double(1)]))).unwrap();
    check(&trial, &["logs"], 0, &["no line is stored: the items have printed nothing"]);
    check(&trial, &["logs", "--tail", "3"], 0, &["no line is stored"]);
    check(&trial, &["logs", "--failed"], 0, &["no line is stored"]);
}

/// The item goes on only after its line was seen.
#[test]
fn running_run_is_followed_to_its_end() {
    let trial = trial();
    let go_on = trial.file("go-on");
    let released = Behavior::After(go_on.clone(), Box::new(printing("released\n", Behavior::Double(1))));
    let program = trial.start(&["map", &json(&Spec::of([printing("begun\n", released)]))]);
    program.wait_for_run_id();
    let mut follower = verb(&trial, &["logs", "-f"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut printed = BufReader::new(follower.stdout.take().unwrap());
    let mut line = String::new();
    printed.read_line(&mut line).unwrap();
    assert_eq!(line, "[item 0, attempt 1] begun\n");
    fs::write(&go_on, "").unwrap();
    let mut rest = String::new();
    printed.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "[item 0, attempt 1] released\n");
    let ended = follower.wait_with_output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    assert!(program.wait_with_output().status.success());
}

/// Of a log that has grown beyond its limit, the oldest segments are gone; and its last line may have been cut.
#[test]
fn missing_segments_are_noted_once() {
    let trial = trial();
    let run = printed(&trial);
    let first = trial.run(&run).join("log/000001");
    let segment = |number: u32| first.with_file_name(format!("{number:06}"));
    fs::rename(&first, segment(7)).unwrap();
    let line = |text: &str, is_gap: bool| {
        let time_ms = unix_ms(std::time::SystemTime::now());
        let source = (!is_gap).then_some(2);
        LogLine { time_ms, item: source, attempt: source.map(|_| 1), round: 1, text: text.into(), is_gap }.to_bytes()
    };
    let next = [line("", true), line("later", false), b"{\"time_ms\":1,".to_vec()].concat();
    fs::write(segment(8), next).unwrap();
    let later = "[item 2, attempt 1] later";
    let note = "lines are missing here: a run on this machine keeps the last 64 MiB";
    let output = check(&trial, &["logs"], 0, &[note]);
    assert_eq!(String::from_utf8(output.stderr).unwrap().matches("missing").count(), 1);
    assert_eq!(lines(&trial, &[], &[]), [&FIRST[..], &SECOND, &[later]].concat());
    assert_eq!(lines(&trial, &["--tail", "100"], &[note]).len(), 8);
    let enough = check(&trial, &["logs", "--tail", "2"], 0, &[]);
    assert!(!String::from_utf8(enough.stderr).unwrap().contains("missing"));
    assert_eq!(lines(&trial, &["--tail", "2"], &[]), [SECOND[3], later]);
}
