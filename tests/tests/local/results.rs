//! Tests of `cargo knot results`, on the runs of a folder.

use std::process::{Command, Output};

use cloudknot_tests::trial::{Behavior, Spec, Trial, counted, json, run_of, wait_for};
use cloudknot_tests::workspaces::cargo_knot;
use cloudknot_tests::{counterparts, schema};
use serde_json::{Value, json};

fn trial() -> Trial {
    Trial::new(crate::PROGRAM)
}

#[track_caller]
fn results(trial: &Trial, arguments: &[&str], code: i32, expected: &[&str]) -> Output {
    let mut command: Command = trial.command_of(cargo_knot(), &[&["knot", "results"], arguments].concat());
    counterparts::check(&mut command, code, expected)
}

#[track_caller]
fn printed(trial: &Trial, arguments: &[&str], code: i32) -> String {
    String::from_utf8(results(trial, arguments, code, &[]).stdout).unwrap()
}

/// Runs items 0 to 3, of which 1 returns an error and 3 panics.
fn mixed(trial: &Trial, chunk: u64) -> String {
    let inputs = [
        Behavior::Double(1),
        Behavior::Fail(vec!["no star 17".into(), "the sky is\ncloudy".into()]),
        Behavior::Double(2),
        Behavior::Panic("out of range".into()),
    ];
    run_of(&trial.map(&Spec { chunk: Some(chunk), ..Spec::of(inputs) })).unwrap()
}

#[test]
fn results_are_in_the_order_of_items() {
    for chunk in [1, 4] {
        let trial = trial();
        let run = mixed(&trial, chunk);
        let text = printed(&trial, &[], 10);
        let expected =
            "0  2\n1  error: returned an error: no star 17: the sky is\n2  4\n3  error: panicked: out of range, at ";
        assert!(text.starts_with(expected) && text.lines().count() == 4, "{text}");
        let error = |kind: &str, message: &str, causes: &[&str]| json!({"kind": kind, "message": message, "causes": causes, "attempt": 1});
        let expected = [
            json!({"item": 0, "value": 2}),
            json!({"item": 1, "error": error("returned", "no star 17", &["the sky is\ncloudy"])}),
            json!({"item": 2, "value": 4}),
            json!({"item": 3, "error": error("panicked", "out of range", &[])}),
        ];
        let without_place = |mut result: Value| {
            if let Some(error) = result.get_mut("error").and_then(Value::as_object_mut) {
                let place = error.remove("place").expect("each error has a place, which may be null");
                assert_eq!(place.is_string(), error["kind"] == "panicked");
            }
            result
        };
        let lines = printed(&trial, &["--jsonl"], 10);
        let lines: Vec<Value> = lines.lines().map(|line| without_place(serde_json::from_str(line).unwrap())).collect();
        assert_eq!(lines, expected);
        let output = results(&trial, &["last", "--json"], 10, &[]);
        let note: Value = serde_json::from_slice(&output.stderr).expect("one JSON object and nothing else");
        schema::check("note", &note);
        assert_eq!(note["note"], "2 of 4 items have no value");
        let whole = String::from_utf8(output.stdout).unwrap();
        assert!(
            whole.starts_with(&format!("{{\"v\":1,\"run\":\"{run}\",\"results\":[{{\"item\":0,\"value\":2}},")),
            "{whole}"
        );
        let mut whole: Value = serde_json::from_str(&whole).unwrap();
        schema::check("results", &whole);
        let found: Vec<Value> = whole["results"].as_array_mut().unwrap().drain(..).map(without_place).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn items_are_selected() {
    let trial = trial();
    mixed(&trial, 4);
    assert_eq!(printed(&trial, &["last", "2,0"], 0), "0  2\n2  4\n");
    let failed = printed(&trial, &["last", "1-2", "--failed", "--csv"], 10);
    assert_eq!(failed, "item,value,error\n1,,\"returned an error: no star 17: the sky is\ncloudy\"\n");
    let panicked = printed(&trial, &["--kind", "panicked"], 10);
    assert!(panicked.starts_with("3  error: panicked") && panicked.lines().count() == 1, "{panicked}");
    results(&trial, &["--kind", "out-of-memory"], 0, &["there are no results: no such item has failed"]);
    results(&trial, &["last", "2-4"], 2, &["cannot select item 4", "has 4 items"]);
    results(&trial, &["--json", "--csv"], 2, &["cannot be used with"]);
}

#[test]
fn retried_items_have_their_new_outcome() {
    let trial = trial();
    let count = trial.file("count");
    let inputs = [Behavior::Double(1), Behavior::Until(count, 7, 2), Behavior::Double(2)];
    let run = run_of(&trial.map(&Spec::of(inputs))).unwrap();
    assert!(printed(&trial, &[], 10).contains("\n1  error:"));
    trial.facts(&["retry", &run]);
    assert_eq!(printed(&trial, &[], 0), "0  2\n1  7\n2  4\n");
}

#[test]
fn fields_of_values_are_columns() {
    let trial = trial();
    trial.facts(&["surroundings", "data/greeting.txt"]);
    let lines = printed(&trial, &["--jsonl"], 0);
    let result: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let fields: Vec<&String> = result["value"].as_object().expect("the value is a struct").keys().collect();
    let table = printed(&trial, &["--csv"], 0);
    let heading: Vec<&str> = table.lines().next().unwrap().split(',').collect();
    assert_eq!((heading[0], *heading.last().unwrap()), ("item", "error"));
    let mut columns = heading[1..heading.len() - 1].to_vec();
    columns.sort_unstable();
    assert_eq!(columns, fields, "{table}");
}

#[test]
fn values_are_written_into_files() {
    let trial = trial();
    mixed(&trial, 1);
    let folder = trial.file("out");
    let folder = folder.to_str().unwrap();
    results(&trial, &["--out", folder], 10, &["2 values were written to `"]);
    let read = |name: &str| std::fs::read_to_string(trial.file("out").join(name)).unwrap();
    assert_eq!((read("0.json"), read("2.json")), ("2".into(), "4".into()));
    let error: Value = serde_json::from_str(&read("1.error.json")).unwrap();
    assert_eq!((&error["item"], &error["error"]["kind"]), (&json!(1), &json!("returned")));
    results(&trial, &["--out", folder], 2, &["the folder is not empty", "name a new folder"]);
    results(&trial, &["--raw"], 2, &["they are neither strings nor bytes"]);
}

#[test]
fn text_and_bytes_are_written_as_they_are() {
    let trial = trial();
    trial.facts(&["fill", "2", "5"]);
    let texts = results(&trial, &["--raw"], 0, &[]).stdout;
    let texts = String::from_utf8(texts).unwrap();
    assert!(texts.lines().count() == 2 && texts.lines().all(|line| line.len() == 5 && !line.contains('"')), "{texts}");
    trial.facts(&["huge", "bytes", "5"]);
    assert_eq!(results(&trial, &["--raw"], 0, &[]).stdout, [7; 5]);
}

/// A damaged part costs its items, and no others.
#[test]
fn damaged_values_are_errors_of_their_items() {
    let trial = trial();
    let run = mixed(&trial, 1);
    let part = cloudknot_tests::trial::files(&trial.run(&run).join("results")).into_iter().min().unwrap();
    std::fs::write(&part, "damaged").unwrap();
    let lines = printed(&trial, &["--jsonl"], 10);
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["error"]["kind"], "infrastructure");
    assert!(first["error"]["message"].as_str().unwrap().contains("cannot read `knots/"), "{first}");
    assert!(lines.contains("{\"item\":2,\"value\":4}"), "{lines}");
}

#[test]
fn results_of_a_running_run_are_those_that_it_has() {
    let trial = trial();
    let (began, go_on) = (trial.file("began"), trial.file("go-on"));
    let inputs = [Behavior::Double(1), Behavior::Wait(began.clone(), 5, go_on.clone())];
    let program = trial.start(&["map", &json(&Spec { parallel: Some(1), ..Spec::of(inputs) })]);
    wait_for("the second item to begin", || (counted(&began).len() == 1).then_some(()));
    let part = || printed(&trial, &["--csv"], 11) == "item,value,error\n0,2,\n";
    wait_for("the first item to be stored", || part().then_some(()));
    results(
        &trial,
        &[],
        11,
        &["the run has not ended: items without an outcome are left out", "next     cargo knot wait"],
    );
    std::fs::write(&go_on, "").unwrap();
    assert!(program.wait_with_output().status.success());
    assert_eq!(printed(&trial, &["--csv"], 0), "item,value,error\n0,2,\n1,5,\n");
}

/// The reader of the output may want only its beginning.
#[test]
fn closed_pipe_is_no_error() {
    let trial = trial();
    trial.facts(&["fill", "2", "100000"]);
    let mut command = trial.command_of(cargo_knot(), &["knot", "results"]);
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
