//! The walk of a new user, as README.md describes it: `cargo new`, a path to cloudknot, a function, `cargo run`. The
//! crates are made outside the workspace, so that nothing of its settings helps them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const README: &str = include_str!("../../README.md");

#[test]
fn the_walk_of_the_readme() {
    let walk = Walk::new("squares");
    let (program, output) = (after("Write `src/main.rs`:\n\n```rust\n"), after("```console\n$ cargo run\n"));
    walk.write("src/main.rs", program);
    assert_eq!(walk.run(), output);
    assert!(walk.folder().join(".cloudknot/knots/squares/runs").is_dir(), "the run is kept beside the crate");
}

#[test]
fn a_function_in_a_library_and_a_program_that_maps_it() {
    let walk = Walk::new("lengths");
    walk.write(
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
    walk.write(
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
    assert_eq!(walk.run(), "[4, 8, 12]\nReturned: no text\n4\nOk(6)\n");
}

/// What stands in README.md after this, to the end of the code block.
fn after(start: &str) -> &'static str {
    let (_, rest) = README.split_once(start).expect("README.md still has this passage of the walk");
    let (block, _) = rest.split_once("```\n").expect("a code block ends");
    block
}

/// A new crate with a path to cloudknot.
struct Walk {
    parent: TempDir,
    name: &'static str,
}

impl Walk {
    fn new(name: &'static str) -> Self {
        let walk = Self { parent: tempfile::tempdir().expect("a temporary folder"), name };
        succeed(cargo(walk.parent.path()).args(["new", "--quiet", "--vcs", "none", name]));
        // With the workspace's versions nothing has to be asked of a registry.
        fs::copy(workspace().join("Cargo.lock"), walk.folder().join("Cargo.lock")).expect("the lockfile is copied");
        let path = workspace().join("cloudknot");
        succeed(cargo(&walk.folder()).args(["add", "--quiet", "--offline", "--path"]).arg(path));
        walk
    }

    fn folder(&self) -> PathBuf {
        self.parent.path().join(self.name)
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.folder().join(path), text).expect("the file is written");
    }

    /// What the program prints to stdout.
    fn run(&self) -> String {
        let output = succeed(cargo(&self.folder()).args(["run", "--quiet", "--offline"]));
        String::from_utf8(output.stdout).expect("the program prints text")
    }
}

fn cargo(folder: &Path) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    // What is compiled is kept from one test to the next. The user's settings are those of a new user: none.
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", workspace().join(target));
    cargo.env_remove("CLOUDKNOT_HOME").env_remove("CLOUDKNOT_BACKEND").env_remove("CARGO_MANIFEST_DIR");
    cargo
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().expect("cargo starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the workspace")
}
