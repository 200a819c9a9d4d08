//! Tests of the verbs that build a program and start it with an order: `call`, `map`, `retry` and `replay`, with a package as a
//! user has it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cloudknot_runtime::contract::{ENV_ORDER, Order, OrderedDecode, OrderedTask, Report, Request};
use cloudknot_runtime::fingerprint::Fingerprint;
use cloudknot_tests::trial::files;
use cloudknot_tests::workspaces::{cargo_knot, workspace, write};
use cloudknot_tests::{counterparts, schema};
use serde_json::{Value, json};
use tempfile::TempDir;

const WORKSPACE: &[(&str, &str)] = &[
    (
        "Cargo.toml",
        r#"
[workspace]
resolver = "3"
members = ["lab", "mended"]

[workspace.dependencies]
cloudknot = { path = CLOUDKNOT }
serde = { version = "1", features = ["derive"] }
"#,
    ),
    (
        "lab/Cargo.toml",
        r#"
[package]
name = "orders-lab"
version = "0.1.0"
edition = "2024"

[dependencies]
cloudknot.workspace = true
serde.workspace = true
"#,
    ),
    ("lab/src/main.rs", include_str!("orders/lab.rs")),
    (
        "lab/examples/plain.rs",
        "#[cloudknot::remote]\nfn one() -> u8 {\n    1\n}\n\nfn main() {\n    println!(\"own work\");\n}\n",
    ),
    (
        "mended/Cargo.toml",
        r#"
[package]
name = "orders-mended"
version = "0.1.0"
edition = "2024"

[dependencies]
cloudknot.workspace = true
"#,
    ),
    ("mended/src/main.rs", include_str!("orders/mended.rs")),
];

/// A package of the workspace, with a folder of runs of its own.
struct Package {
    folder: PathBuf,
    home: TempDir,
}

impl Package {
    fn new(name: &str) -> Self {
        Self { folder: workspace("orders", WORKSPACE).join(name), home: tempfile::tempdir().unwrap() }
    }

    fn in_folder(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder).env("CLOUDKNOT_HOME", self.home.path()).env("TZ", "UTC");
        command.env_remove("CLOUDKNOT_BACKEND").stdin(Stdio::null());
        command
    }

    fn verb(&self, arguments: &[&str]) -> Command {
        let mut command = self.in_folder(cargo_knot());
        command.arg("knot").args(arguments);
        command
    }

    #[track_caller]
    fn check(&self, arguments: &[&str], code: i32, errors: &[&str]) -> String {
        stdout(&counterparts::check(&mut self.verb(arguments), code, errors))
    }

    /// Runs the program itself with cargo, and returns what it prints.
    fn run(&self, arguments: &[&str]) -> String {
        let mut cargo = self.in_folder(Path::new(env!("CARGO")));
        let output = cargo.args(["run", "--quiet", "--"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        stdout(&output)
    }

    fn json(&self, arguments: &[&str], code: i32) -> Value {
        let printed = serde_json::from_str(&self.check(&[arguments, &["--json"]].concat(), code, &[])).unwrap();
        schema::check(arguments[0], &printed);
        printed
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.home.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn stored(&self) -> Vec<PathBuf> {
        files(&self.home.path().join("knots"))
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn call_prints_the_value_as_json() {
    let lab = Package::new("lab");
    assert_eq!(lab.check(&["call", "scale", "2.5", "2"], 0, &["building orders-lab, bin orders-lab, dev"]), "5.0\n");
    assert_eq!(lab.check(&["call", "orders_lab::scale", "--arg", "by=-2", "1.5"], 0, &[]), "-3.0\n");
    // The fields are in the order of the type, and not in that of the alphabet.
    assert_eq!(lab.check(&["call", "sized", "2"], 0, &[]), "{\"weights\":[0.5,0.5],\"name\":null}\n");
    assert_eq!(lab.check(&["call", "first::same", "--local"], 0, &[]), "1\n");
    lab.check(
        &["call", "surroundings", "14"],
        10,
        &["the call of `surroundings` in run ", " returned an error: item 14 fails", "cargo knot replay "],
    );
    assert_eq!(lab.json(&["runs"], 0)["runs"].as_array().map(Vec::len), Some(5), "each call is a run");
}

#[test]
fn call_that_cannot_be_made_submits_nothing() {
    let lab = Package::new("lab");
    let check = |arguments: &[&str], code: i32, errors: &[&str]| {
        lab.check(&[&["call"], arguments].concat(), code, errors);
        assert_eq!(lab.stored(), Vec::<PathBuf>::new(), "{arguments:?}");
    };
    check(
        &["same"],
        8,
        &["`same` names 2 functions", "`orders-lab:orders_lab::first::same`", "`orders-lab:orders_lab::second::same`"],
    );
    check(&["sam"], 8, &["cannot find the remote function `sam`", "`orders-lab:orders_lab::scale`"]);
    check(&["scale", "1"], 2, &["must have 2 values and not 1: `x`, `by`"]);
    check(
        &["scale", "1", "\"a\""],
        2,
        &["argument `by`: invalid type: string \"a\", expected f64", "fn scale(x: f64, by: f64)"],
    );
    check(&["greet", "ada"], 2, &["argument `name`: must be JSON, and `ada` is not", "text has quotes"]);
    check(&["scale", "1", "--arg", "bye=2"], 2, &["must not have `bye`", "`x`, `by`"]);
    check(
        &["label", "\"a\"", "1", r#"{"weights":[1,"b"]}"#],
        2,
        &["argument `model`, at `model.weights[1]`: invalid type"],
    );
    check(&["one", "--example", "plain"], 4, &["cannot start `plain` of `orders-lab`", "#[cloudknot::main]"]);
}

#[test]
fn map_reads_lines_and_prints_results_in_order() {
    let lab = Package::new("lab");
    let lines = "{\"by\": 2, \"x\": 1}\n\n[3, 1e1]\n{\"x\":0.5,\"by\":4}\n";
    let inputs = lab.write("inputs.jsonl", lines);
    let results = "{\"item\":0,\"value\":2.0}\n{\"item\":1,\"value\":30.0}\n{\"item\":2,\"value\":2.0}\n";
    let inputs = inputs.to_str().unwrap();
    assert_eq!(
        lab.check(&["map", "scale", "--inputs", inputs, "--name", "sweep 3"], 0, &["next     cargo knot"]),
        results
    );
    assert_eq!(lab.json(&["status", "sweep 3"], 0)["items"]["succeeded"], 3);

    let mut piped = lab.verb(&["map", "scale", "--inputs", "-", "--arg", "by=10"]);
    let mut program = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    program.stdin.take().unwrap().write_all(b"1\n{\"x\":2}\n[3]\n").unwrap();
    let values = stdout(&program.wait_with_output().unwrap());
    assert_eq!(values, "{\"item\":0,\"value\":10.0}\n{\"item\":1,\"value\":20.0}\n{\"item\":2,\"value\":30.0}\n");

    // Each float that was printed is read as the same one.
    let float = |item: u64| f64::from_bits(0x3FE0_0000_0000_0000 | item.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 12);
    let floats: Vec<String> = (0..500).map(|item| float(item).to_string()).collect();
    let inputs = lab.write("floats.jsonl", &floats.join("\n"));
    let scaled = lab.check(&["map", "scale", "--inputs", inputs.to_str().unwrap(), "--arg", "by=1"], 0, &[]);
    let expected: Vec<_> =
        floats.iter().enumerate().map(|(item, float)| format!("{{\"item\":{item},\"value\":{float}}}")).collect();
    assert_eq!(scaled.lines().collect::<Vec<_>>(), expected);

    // The only argument is a list: what its type accepts is the value.
    let lists = lab.write("lists.jsonl", "[1,2]\n[[3]]\n{\"xs\":[4]}\n[]\n");
    let sums = lab.check(&["map", "sum", "--inputs", lists.to_str().unwrap()], 0, &[]);
    let values: Vec<Value> =
        sums.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["value"].clone()).collect();
    assert_eq!(values, [3, 3, 4, 0]);
}

#[test]
fn map_with_failed_items_exits_with_10() {
    let lab = Package::new("lab");
    let inputs = lab.write("inputs.jsonl", "12\n13\n14\n");
    let out = lab.home.path().join("results.jsonl");
    let arguments = ["map", "surroundings", "--inputs", inputs.to_str().unwrap(), "--out", out.to_str().unwrap()];
    assert_eq!(lab.check(&arguments, 10, &["2 items have no value", "cargo knot retry"]), "");
    let results = fs::read_to_string(out).unwrap();
    let results: Vec<Value> = results.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(results[0], json!({"item": 0, "value": " Some(7)"}));
    assert_eq!((&results[1]["item"], &results[1]["error"]["kind"]), (&json!(1), &json!("panicked")));
    assert_eq!(results[2]["error"]["message"], "item 14 fails");
}

#[test]
fn map_keeps_files_until_it_begins() {
    let lab = Package::new("lab");
    let inputs = lab.write("inputs.jsonl", "12\n");
    let earlier = lab.write("earlier.jsonl", "[\n");
    let link = lab.home.path().join("link.jsonl");
    std::os::unix::fs::symlink(&inputs, &link).unwrap();
    let [inputs, earlier, link] = [&inputs, &earlier, &link].map(|path| path.to_str().unwrap());
    let map = |inputs: &str, out: &str, code: i32, errors: &[&str]| {
        lab.check(&["map", "surroundings", "--inputs", inputs, "--out", out], code, errors)
    };
    map(inputs, link, 2, &["the inputs are read from it", "give `--out` the name of another file"]);
    assert_eq!(fs::read_to_string(inputs).unwrap(), "12\n");
    let missing = format!("{inputs}.missing");
    map(&missing, earlier, 2, &["cannot read the inputs", "one JSON value a line"]);
    let folder = lab.home.path().to_str().unwrap();
    map(folder, earlier, 2, &["cannot read the inputs", "is a directory"]);
    map(earlier, inputs, 2, &["invalid input in line 1: must be JSON"]);
    assert_eq!(fs::read_to_string(inputs).unwrap(), "12\n", "no run began");
    map(inputs, earlier, 0, &[]);
    assert_eq!(fs::read_to_string(earlier).unwrap(), "{\"item\":0,\"value\":\" Some(7)\"}\n");
}

#[test]
fn map_of_a_table_has_text_and_numbers() {
    let lab = Package::new("lab");
    let table = "name,number\n007,1.5\n1,\n\"a \"\"b\"\"\nc\",2\ntrue,3\n\"\"\"q\"\"\",4\n,5\n";
    let table = lab.write("inputs.csv", table);
    let arguments = ["map", "label", "--inputs", table.to_str().unwrap(), "--arg", "model={\"weights\":[]}"];
    let results = lab.check(&arguments, 0, &[]);
    let values: Vec<String> = results
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["value"].as_str().unwrap().to_owned())
        .collect();
    let expected =
        ["007|Some(1.5)", "1|None", "a \"b\"\nc|Some(2.0)", "true|Some(3.0)", "\"q\"|Some(4.0)", "|Some(5.0)"];
    assert_eq!(values, expected.map(|beginning| format!("{beginning}|[]|None")));

    let stored = lab.stored();
    let check = |table: &str, errors: &[&str]| {
        let path = lab.write("wrong.csv", table);
        lab.check(&["map", "scale", "--inputs", path.to_str().unwrap()], 2, errors);
        assert_eq!(lab.stored(), stored, "nothing is submitted");
    };
    check("x,by\n\"\n1\",2\nb,3\n", &["input in line 4, argument `x`: invalid type: string \"b\", expected f64"]);
    check("x,by\n1,2\n3,a\n", &["input in line 3, argument `by`: invalid type: string \"a\", expected f64"]);
    check("x\n1\n", &["invalid header: must have the argument `by`"]);
    check("x,by,z\n1,2,3\n", &["invalid header: must not have `z`"]);
    check("x,by\n1,2\n3\n", &["cannot read the inputs", "line: 3"]);
}

#[test]
fn wrong_lines_are_named_and_nothing_is_submitted() {
    let lab = Package::new("lab");
    let check = |function: &str, lines: &str, errors: &[&str]| {
        let path = lab.write("inputs.jsonl", lines);
        lab.check(&["map", function, "--inputs", path.to_str().unwrap()], 2, errors);
        assert_eq!(lab.stored(), Vec::<PathBuf>::new(), "{lines}");
    };
    check("scale", "[1,2]\n\n{\"x\":1,\"by\":null}\n", &["invalid input in line 3, argument `by`: invalid type: null"]);
    check("scale", "[1,2]\n{\"x\":1\n", &["invalid input in line 2: must be JSON"]);
    check("scale", "{\"x\":1,\"y\":2}\n", &["line 1: must not have `y`"]);
    check("scale", "{\"x\":1,\"x\":2}\n", &["line 1: must have `x` only once"]);
    check("scale", "{\"x\":1}\n", &["line 1: must have the argument `by`"]);
    check("scale", "7\n", &["line 1: must be an object or an array"]);
    check("sum", "[1,-2]\n", &["argument `xs`, at `xs[1]`: invalid value: integer `-2`"]);
    lab.check(&["map", "scale", "--inputs", "none.jsonl"], 2, &["cannot read the inputs `none.jsonl`"]);
}

/// The source of `mended` decides whether its function fails.
fn mend(mended: &Package, accepts: bool) {
    write(&mended.folder.join("src/rule.rs"), &format!("pub const ACCEPTS_NEGATIVE: bool = {accepts};\n"));
}

#[test]
fn retry_builds_the_program_as_it_is_now() {
    let mended = Package::new("mended");
    // Of several runs of this test at the same time, only one may change the source.
    let _lock = cloudknot_tests::shared::lock("orders-mended");
    mend(&mended, false);
    mended.run(&["4", "-1", "-2", "-3"]);
    assert_eq!(mended.json(&["status"], 0)["items"]["failed"], 3);
    mended.check(&["retry", "last", "0,1"], 2, &["item 0 has a value"]);
    mended.check(&["retry", "last", "9"], 2, &["the run", "has 4 items"]);
    mended.check(&["retry", "--old-code"], 2, &["does not keep the program", "without --old-code"]);
    mended.check(&["retry", "--kind", "panicked"], 0, &[]);
    assert_eq!(mended.json(&["runs"], 0)["runs"][0]["rounds"].as_array().map(Vec::len), Some(1));

    let text = mended.check(&["retry", "last", "1"], 10, &["building orders-mended, bin orders-mended, dev"]);
    assert!(text.contains("1 item is retried"), "{text}");
    mend(&mended, true);
    let again = mended.json(&["retry", "last", "1-2"], 10);
    assert_eq!(
        (&again["retried"], &again["items"]["succeeded"], &again["items"]["failed"]),
        (&json!(2), &json!(3), &json!(1))
    );
    assert_eq!(again["items"]["unfinished"], 0, "the item that was left out has its failure: {again}");
    mended.check(&["retry"], 0, &[]);
    let status = mended.json(&["status", "--check"], 0);
    let rounds: Vec<_> = status["rounds"].as_array().unwrap().iter().map(|round| round["items"].clone()).collect();
    assert_eq!(rounds, [4, 1, 2, 1]);

    // Without anything to retry, no round is recorded.
    let stored = mended.stored();
    assert!(mended.check(&["retry"], 0, &[]).contains("nothing to retry: every item"));
    assert_eq!(mended.stored(), stored);
    mend(&mended, false);
}

#[test]
fn retry_on_a_backend_that_the_program_lacks_is_refused() {
    let lab = Package::new("lab");
    lab.run(&[]);
    let stored = lab.stored();
    lab.check(&["retry", "--on", "local"], 2, &["the run is on this backend already"]);
    lab.check(&["retry", "--on", "docker"], 2, &["`docker` is not a backend", "built without the feature `deploy`"]);
    lab.check(&["retry", "--on", "moon"], 2, &["invalid value 'moon'"]);
    assert_eq!(lab.stored(), stored, "nothing is submitted");
}

#[test]
fn program_that_does_not_compile_is_cargos_error() {
    let mended = Package::new("mended");
    let _lock = cloudknot_tests::shared::lock("orders-mended");
    write(&mended.folder.join("src/rule.rs"), "pub const ACCEPTS_NEGATIVE: bool = 1;\n");
    mended.check(&["call", "root", "4"], 101, &["mismatched types", "cannot compile `orders-mended`"]);
    mend(&mended, false);
}

#[test]
fn replay_runs_a_stored_item_in_one_process() {
    let lab = Package::new("lab");
    assert_eq!(lab.run(&[]), "the program's own work\n3\n");
    let stored = lab.stored();
    let value = lab.check(&["replay", "0"], 0, &["building orders-lab", "item 12 prints"]);
    assert_eq!(value, "\"of the run Some(7)\"\n", "it has the environment of the run, and init functions");
    lab.check(&["replay", "last", "1"], 10, &["panicked: item 13 is unlucky", "lab/src/main.rs:", "surroundings"]);
    lab.check(&["replay", "last", "2"], 10, &["item 2 returned an error: item 14 fails"]);
    lab.check(&["replay", "3"], 2, &["cannot select item 3", "has 3 items"]);
    lab.check(&["replay", "one"], 2, &["invalid item `one`"]);
    assert_eq!(lab.stored(), stored, "nothing is stored");

    // A debugger gets the program, its order and the terminal.
    let debugger =
        lab.write("debugger", "#!/bin/sh\n[ \"$1\" = --args ] || exit 1\nshift\necho debugging >&2\nexec \"$@\"\n");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&debugger, executable).unwrap();
    let value = lab.check(&["replay", "last", "0", "--debugger", debugger.to_str().unwrap()], 0, &["debugging"]);
    assert_eq!(value, "\"of the run Some(7)\"\n");
    assert_eq!(lab.stored().len(), stored.len());
}

/// Values that are opaque in the record are decoded by the program, with its types.
#[test]
fn program_decodes_values_by_its_types() {
    let lab = Package::new("lab");
    lab.check(&["call", "address", "7"], 0, &[]);
    let notes = [
        "can be converted to JSON only by its program: `core::net::ip_addr::IpAddr` has another form",
        "building orders-lab",
    ];
    assert_eq!(lab.check(&["results", "--jsonl"], 0, &notes), "{\"item\":0,\"value\":\"127.0.0.7\"}\n");
    let run = lab.stored().into_iter().find(|path| path.ends_with("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&fs::read(&run).unwrap()).unwrap();
    let part =
        lab.stored().into_iter().find(|path| path.parent().is_some_and(|folder| folder.ends_with("results"))).unwrap();
    let part = fs::read(part).unwrap();
    let length = usize::try_from(cloudknot_runtime::frame::frame_length(&part).unwrap()).unwrap();
    let decode = |fingerprint: u64| {
        let function = "orders-lab:orders_lab::address".to_owned();
        let task = OrderedTask::Decode(OrderedDecode { function, fingerprint: Fingerprint(fingerprint) });
        let order = serde_json::to_string(&Order { reports: None, task }).unwrap();
        let mut cargo = lab.in_folder(Path::new(env!("CARGO")));
        cargo.args(["run", "--quiet"]).env(ENV_ORDER, order).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut program = cargo.spawn().unwrap();
        let mut requests = Vec::new();
        Request::append(17, &part[..length], &mut requests);
        // A program that refuses reads nothing.
        let _ = program.stdin.take().unwrap().write_all(&requests);
        stdout(&program.wait_with_output().unwrap())
    };
    let lines = decode(manifest["fingerprint"].as_u64().unwrap());
    assert_eq!(
        lines.lines().next().and_then(Report::parse),
        Some(Report::Value { item: 17, json: "\"127.0.0.7\"" }),
        "{lines}"
    );
    let refused = decode(1);
    assert!(refused.contains("have changed since it was submitted"), "{refused}");
}

/// An order is for the program that was started with it, and not for those that it starts.
#[test]
fn order_is_removed_from_the_environment() {
    let lab = Package::new("lab");
    assert_eq!(lab.run(&[]), "the program's own work\n3\n");
    let mut cargo = lab.in_folder(Path::new(env!("CARGO")));
    let output = cargo.args(["run", "--quiet"]).env(ENV_ORDER, "not an order").output().unwrap();
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "the program's own work is not done");
}
