//! Walkthrough of a new user, as README.md describes it: `cargo new`, a path to cloudknot, a function, `cargo run`. The
//! crates are created outside the workspace, so that none of the workspace's settings apply.

use cloudknot_tests::counterparts;
use cloudknot_tests::walk::UserCrate;

const README: &str = include_str!("../../../README.md");

#[test]
fn readme_walkthrough_works() {
    let user_crate = UserCrate::new("squares");
    let (program, output) = (after("Write `src/main.rs`:\n\n```rust\n"), after("```console\n$ cargo run\n"));
    user_crate.write("src/main.rs", program);
    assert_eq!(user_crate.run(), output);
    assert!(
        user_crate.folder().join(".cloudknot/knots/squares/runs").is_dir(),
        "the run is stored in the folder of the crate"
    );
    refuses_a_knot_without_aws(&user_crate);
}

/// Checks that a program without the feature `aws` that finds a Knot does not run its maps on this machine instead.
fn refuses_a_knot_without_aws(user_crate: &UserCrate) {
    let check = |cargo_options: &[&str], hint: &str| {
        let note = serde_json::json!({
            "knot": "sweep", "profile": null, "region": "eu-west-1", "bucket": "b", "prefix": "", "log-group": "l", "queue": "q",
            "job-definitions": {}, "image": "i", "types": null, "features": cargo_options,
        });
        user_crate.write(".cloudknot/knot.json", &note.to_string());
        let output = user_crate.cargo_run().output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty(), "{stderr}");
        assert!(
            stderr.contains("the maps of this program run on the Knot `sweep`, but the program was built without"),
            "{stderr}"
        );
        assert!(stderr.contains(hint), "{stderr}");
    };
    check(&[], "hint: run `cargo add cloudknot --features aws`");
    check(&["--features", "cloud"], "`cargo run --features cloud`");
    assert_eq!(
        String::from_utf8_lossy(&user_crate.cargo_run().env("CLOUDKNOT_BACKEND", "local").output().unwrap().stdout),
        "[1.0, 4.0, 9.0]\n"
    );
}

#[test]
fn program_maps_a_function_of_its_library() {
    let user_crate = UserCrate::new("lengths");
    user_crate.write(
        "src/lib.rs",
        r#"#![forbid(unsafe_code)]
#![deny(warnings)]

/// Counts the characters of a text, a given number of times.
#[cloudknot::remote]
pub fn length(text: &str, times: u32) -> Result<usize, String> {
    if text.is_empty() { Err(String::from("no text")) } else { Ok(text.chars().count() * times as usize) }
}
"#,
    );
    user_crate.write(
        "src/main.rs",
        r#"use lengths::length;

#[cloudknot::main]
fn main() -> cloudknot::Result<()> {
    let inputs = (1..=3).map(|times| ("knöt".to_owned(), times));
    println!("{:?}", length.map(inputs).wait()?);

    let run = length.map([(String::new(), 1), ("knot".to_owned(), 1)]).submit().wait()?;
    for outcome in run.outcomes().wait()? {
        match outcome {
            Ok(characters) => println!("{characters}"),
            Err(error) => println!("{:?}: {}", error.kind(), error.message()),
        }
    }
    println!("{:?}", length("abc", 2));
    Ok(())
}
"#,
    );
    assert_eq!(user_crate.run(), "[4, 8, 12]\nReturned: no text\n4\nOk(6)\n");
}

const STARS: &str = r#"
/// Returns the brightness of a star.
#[cloudknot::remote]
fn brightness(star: u32) -> Star {
    println!("looking at star {star}");
    let names = ["Vega", "Deneb", "Altair"];
    Star { name: names[star as usize % BOUND].to_owned(), brightness: f64::from(star) / 2.0 }
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Star {
    name: String,
    brightness: f64,
}

#[cloudknot::main]
fn main() -> cloudknot::Result<()> {
    let stars = brightness.map(0..8).name("stars").wait()?;
    println!("{} stars", stars.len());
    Ok(())
}
"#;

/// A run with failures is understood, mended and finished from the terminal.
#[test]
fn failed_items_are_mended_and_retried() {
    let user_crate = UserCrate::new("stars");
    user_crate.add(&["serde", "--features", "derive"]);
    user_crate.write("src/main.rs", &STARS.replace("BOUND", "4"));
    let failed = user_crate.cargo_run().output().unwrap();
    let stderr = String::from_utf8_lossy(&failed.stderr);
    assert!(!failed.status.success(), "items 3 and 7 panic: {stderr}");
    assert!(stderr.contains("items 3, 7"), "the failures are grouped: {stderr}");

    let knot = |arguments: &[&str], code: i32, expected: &[&str]| {
        let mut command = user_crate.cargo_knot(arguments);
        let output = counterparts::check(&mut command, code, &[]);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        for part in expected {
            assert!(
                stdout.contains(part) || stderr.contains(part),
                "{arguments:?}: `{part}` is not in\n{stdout}{stderr}"
            );
        }
        stdout.into_owned()
    };
    knot(&["runs"], 0, &["stars", "failed", "next     cargo knot status"]);
    knot(
        &["status"],
        0,
        &["6 done, 2 failed", "panicked", "items 3, 7: index out of bounds: the len is N", "logs", "retry"],
    );
    let printed = knot(&["logs", "--failed"], 0, &[]);
    let (third, seventh) = ("[item 3, attempt 1] looking at star 3", "[item 7, attempt 1] looking at star 7");
    assert!(printed.contains(third) && printed.contains(seventh) && !printed.contains("item 2"), "{printed}");
    knot(&["replay", "last", "3"], 10, &["looking at star 3", "index out of bounds: the len is 3 but the index is 3"]);

    user_crate.write("src/main.rs", &STARS.replace("BOUND", "3"));
    knot(&["replay", "last", "3"], 0, &["{\"name\":\"Vega\",\"brightness\":1.5}"]);
    knot(&["retry"], 0, &["cargo knot results"]);
    let table = knot(&["results", "--csv"], 0, &[]);
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!((rows.len(), rows[0], rows[1]), (9, "item,name,brightness,error", "0,Vega,0.0,"));
    assert_eq!((rows[4], rows[8]), ("3,Vega,1.5,", "7,Deneb,3.5,"));
    assert_eq!(knot(&["call", "brightness", "4"], 0, &[]), "{\"name\":\"Deneb\",\"brightness\":2.0}\n");

    knot(&["clean", "--keep", "0"], 0, &["--yes deletes"]);
    knot(&["clean", "--keep", "0", "--yes"], 0, &["deleted"]);
    knot(&["runs"], 0, &["there are no runs"]);
}

/// Returns the text of README.md after `start`, to the end of the code block.
fn after(start: &str) -> &'static str {
    let (_, rest) = README.split_once(start).expect("README.md contains this passage");
    let (block, _) = rest.split_once("```\n").expect("the code block ends");
    block
}
