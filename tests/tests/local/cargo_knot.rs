//! Tests of the command `cargo knot` as used in a script: exit codes, and the output on each stream.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use cloudknot_tests::counterparts::{self, Registry};
use cloudknot_tests::skip::skipped;
use cloudknot_tests::workspaces::{LONE, STANDING_IN, cargo_knot, workspace, write};
use serde_json::Value;

use crate::terminal::Terminal;

static STAND_IN: LazyLock<PathBuf> = LazyLock::new(|| workspace("of the command", STANDING_IN));

fn knot(arguments: &[&str]) -> Command {
    let mut command = Command::new(cargo_knot());
    command.arg("knot").args(arguments).current_dir(&*STAND_IN).env_remove("CLOUDKNOT_HOME");
    command
}

#[track_caller]
fn check(command: &mut Command, code: i32, expected: &[&str]) -> Output {
    let output = counterparts::check(command, code, expected);
    if code != 0 {
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    }
    output
}

#[test]
fn build_prints_facts_to_stdout_and_progress_to_stderr() {
    let mut command = knot(&["build", "--offline", "--fast", "-p", "lone", "--json"]);
    let output =
        check(command.env("RUSTFLAGS", "--cfg of_the_user"), 0, &["compiling the worker of `lone` (--bin lone)"]);
    let facts: Value = serde_json::from_slice(&output.stdout).expect("one JSON object and nothing else");
    let size = std::fs::metadata(facts["worker"].as_str().unwrap()).unwrap().len();
    assert_eq!(facts["worker_bytes"], size);
    assert_eq!(facts["package"], "lone");
    let functions = facts["functions"].as_array().unwrap();
    let names: Vec<_> = functions.iter().map(|function| &function["name"]).collect();
    assert_eq!(names, ["in_a_worker", "of_the_user"], "the rustflags of the environment are kept");

    let output = check(&mut knot(&["build", "--offline", "--fast", "-p", "lone"]), 0, &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("program    lone 0.1.0 (--bin lone)"), "{text}");
    assert!(text.contains("functions  fn()  (in some)"), "{text}");

    let again: Value =
        serde_json::from_slice(&check(&mut knot(&["image", "-p", "lone", "--json"]), 0, &[]).stdout).unwrap();
    assert!(text.contains(again["digest"].as_str().unwrap()), "{again}\n{text}");
    assert_eq!(again["layers"].as_array().map(Vec::len), Some(1));
    let layer = again["layers"][0]["bytes"].as_u64().unwrap();
    assert!(
        again["compressed_bytes"].as_u64().is_some_and(|bytes| (layer..layer + 10_000).contains(&bytes)),
        "{again}"
    );
    let shown = String::from_utf8(check(&mut knot(&["image", "-p", "lone"]), 0, &[]).stdout).unwrap();
    assert_eq!(shown, text, "`image` shows the last build");
}

#[test]
fn exit_code_depends_on_the_kind_of_failure() {
    let build = |arguments: &[&str]| knot(&[&["build", "--offline", "--fast"], arguments].concat());
    check(&mut build(&["-p", "many"]), 2, &["error: cannot choose", "hint: choose one:\n      -p many --bin one"]);
    check(&mut build(&["--bin", "a", "--lib"]), 2, &["cannot be used with"]);
    check(&mut build(&["-p", "lone", "--target", "wasm32-wasip1"]), 2, &["invalid target `wasm32-wasip1`"]);
    check(&mut build(&["-p", "odd"]), 4, &["error: cannot find a remote function in `odd` (--lib)"]);
    check(&mut build(&["-p", "odd", "--example", "broken"]), 101, &["this_does_not_exist", "caused by: cargo ended"]);
}

/// Programs whose cloudknot lacks the feature `aws`, next to one whose cloudknot has it.
const WITHOUT_AWS: &[(&str, &str)] = &[
    (
        "Cargo.toml",
        "[workspace]\nresolver = \"3\"\nmembers = [\"cloudknot\", \"plain\", \"cloudy\", \"renamed\", \"with\"]\n",
    ),
    (
        "cloudknot/Cargo.toml",
        "[package]\nname = \"cloudknot\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[features]\naws = []\ndeploy = [\"aws\"]\n",
    ),
    ("cloudknot/src/lib.rs", ""),
    ("plain/Cargo.toml", PLAIN),
    ("plain/src/main.rs", "fn main() { this_is_not_compiled() }\n"),
    (
        "cloudy/Cargo.toml",
        "[package]\nname = \"cloudy\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[features]\nheaven = [\"cloud\"]\n\
         cloud = [\"cloudknot/deploy\"]\n\n[dependencies]\ncloudknot.path = \"../cloudknot\"\n",
    ),
    ("cloudy/src/main.rs", "fn main() { this_is_not_compiled() }\n"),
    (
        "renamed/Cargo.toml",
        "[package]\nname = \"renamed\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n\
         ck = { package = \"cloudknot\", path = \"../cloudknot\" }\n",
    ),
    ("renamed/src/main.rs", "fn main() { this_is_not_compiled() }\n"),
    (
        "with/Cargo.toml",
        "[package]\nname = \"with\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n\
         cloudknot = { path = \"../cloudknot\", features = [\"aws\"] }\n",
    ),
    ("with/src/main.rs", "fn main() { this_is_not_compiled() }\n"),
];

const PLAIN: &str = "[package]\nname = \"plain\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\ncloudknot = { path = \"../cloudknot\" }\n";

/// Returns the command of a deploy by a user without any settings, in this workspace.
fn deploy(folder: &Path, arguments: &[&str]) -> Command {
    let mut deploy = knot(&[&["deploy", "--offline"], arguments].concat());
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        deploy.env_remove(name);
    }
    // A request to AWS would receive no response.
    deploy.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1").env("AWS_EC2_METADATA_DISABLED", "true");
    for name in ["CLOUDKNOT_CONFIG", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
        deploy.env(name, folder.join("none.toml"));
    }
    deploy.current_dir(folder).env_remove("CARGO_TARGET_DIR");
    deploy
}

#[test]
fn early_refusals_compile_nothing() {
    let folder = workspace("without aws", WITHOUT_AWS);
    let check =
        |arguments: &[&str], code: i32, expected: &[&str]| check(&mut deploy(&folder, arguments), code, expected);
    check(&["-p", "plain", "--attempts", "11"], 2, &["invalid `attempts`: 11"]);
    check(&["-p", "plain", "--ca-bundle", "none.pem"], 5, &["none.pem"]);
    check(&["-p", "plain", "--dockerfile", "nowhere"], 5, &["error: cannot find the Dockerfile `nowhere`"]);
    check(
        &["-p", "plain"],
        2,
        &[
            "error: cannot deploy `plain` without the feature `aws` of cloudknot",
            "hint: run `cargo add -p plain cloudknot --features aws`, then deploy again; `--add-feature` does both",
        ],
    );
    check(&["-p", "cloudy"], 2, &["hint: deploy with `--features cloud`, and run the program with it, too"]);
    check(&["-p", "renamed"], 2, &["`cargo add -p renamed cloudknot --rename ck --features aws`"]);
    let no_region = ["error: no AWS region is set"];
    check(&["-p", "with"], 2, &no_region);
    check(&["-p", "cloudy", "--features", "heaven"], 2, &no_region);
    check(&["-p", "cloudy", "--add-feature"], 2, &["selecting the feature `cloud` of the package", no_region[0]]);
    check(&["-p", "plain", "--add-feature"], 2, &["running `cargo add -p plain cloudknot", no_region[0]]);
    check(&["-p", "renamed", "--add-feature"], 2, &["running `cargo add -p renamed", no_region[0]]);
    for (path, added) in
        [("plain", "path = \"../cloudknot\", features = [\"aws\"]"), ("renamed", "features = [\"aws\"]")]
    {
        let manifest = std::fs::read_to_string(folder.join(path).join("Cargo.toml")).unwrap();
        assert!(manifest.contains(added), "{manifest}");
    }
    let mut without_login = deploy(&folder, &["-p", "with", "--region", "eu-central-1"]);
    self::check(&mut without_login, 7, &["hint: log in to AWS"]);
    // Only cargo's configuration was read.
    let in_target: Vec<_> =
        folder.join("target/cloudknot").read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(in_target, ["configuration"], "something was compiled");
}

#[test]
fn incompatible_cloudknot_version_is_refused() {
    let with = |name: &str, path: &str, from: &str, to: &str| {
        let files: Vec<_> = STANDING_IN
            .iter()
            .map(|(file, text)| (*file, if *file == path { text.replace(from, to) } else { (*text).to_owned() }))
            .collect();
        workspace(name, &files.iter().map(|(file, text)| (*file, text.as_str())).collect::<Vec<_>>())
    };
    let newer = with("of a newer cloudknot", "cloudknot/Cargo.toml", "version = \"0.1.0\"", "version = \"0.2.3\"");
    let mut build = knot(&["build", "--offline", "--fast", "-p", "lone"]);
    check(
        build.current_dir(&newer),
        3,
        &[
            "error: cannot build `lone`: its cloudknot 0.2.3 is incompatible with cargo-knot 0.1.0",
            &format!("hint: run `cargo install --force --path {}`", newer.join("cargo-knot").display()),
        ],
    );
    assert!(!newer.join("target").exists(), "something was compiled");
    let old = with("of an older worker", "cloudknot/src/lib.rs", ",\\\"contract\\\":1", "");
    let mut build = knot(&["build", "--offline", "--fast", "-p", "lone"]);
    let expected = [
        "error: cannot use the worker of `lone`: its contract with the host has version 0, and cargo-knot has version 1",
        &format!("hint: run `cargo install --force --path {}`", old.join("cargo-knot").display()),
    ];
    check(build.current_dir(&old), 3, &expected);
}

#[test]
fn invalid_selection_sends_no_aws_request() {
    let check =
        |arguments: &[&str], code: i32, expected: &[&str]| check(&mut deploy(&STAND_IN, arguments), code, expected);
    check(&["-p", "many"], 2, &["error: cannot choose", "hint: choose one:\n      -p many --bin one"]);
    check(&["-p", "lone", "--target", "wasm32-wasip1"], 2, &["invalid target `wasm32-wasip1`"]);
    let mut deploy = knot(&["deploy", "--offline", "-p", "lone"]);
    self::check(deploy.env("RUSTC", "/no/such/rustc"), 3, &["cannot read the package", "`/no/such/rustc -vV`"]);
}

#[test]
fn terminal_user_is_asked_to_add_the_feature() {
    let folder = workspace("without aws at a terminal", WITHOUT_AWS);
    let scratch = tempfile::tempdir().unwrap();
    let command = format!("cd '{}' && '{}' knot deploy --offline -p plain", folder.display(), cargo_knot().display());
    let environment =
        "export CLOUDKNOT_CONFIG=/nowhere AWS_CONFIG_FILE=/nowhere; unset AWS_REGION AWS_DEFAULT_REGION AWS_PROFILE";
    let started = Terminal::start(
        &scratch.path().join("tmux"),
        &scratch.path().join("script"),
        &format!("{environment}; {command}"),
    );
    let Some(terminal) = started else { return skipped("a question on a terminal", "tmux is not installed") };
    terminal.wait_for("run `cargo add -p plain cloudknot --features aws`, then deploy? [Y/n]:");
    assert_eq!(std::fs::read_to_string(folder.join("plain/Cargo.toml")).unwrap(), PLAIN);
    terminal.tmux(&["send-keys", "Enter"]);
    terminal.wait_for("exited with 2");
    assert!(terminal.screen().contains("error: no AWS region is set"), "{}", terminal.screen());
    let manifest = std::fs::read_to_string(folder.join("plain/Cargo.toml")).unwrap();
    assert!(manifest.contains("features = [\"aws\"]"), "{manifest}");
}

#[test]
fn missing_target_names_the_rustup_command() {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).current_dir(&*STAND_IN).output().unwrap();
    let sysroot = PathBuf::from(String::from_utf8(sysroot.stdout).unwrap().trim());
    // The installed toolchain, without added targets.
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("lib/rustlib");
    std::fs::create_dir_all(&own).unwrap();
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    std::os::unix::fs::symlink(sysroot.join("lib/rustlib").join(&host), own.join(&host)).unwrap();
    let rustc = folder.path().join("rustc");
    let real = sysroot.join("bin/rustc");
    let script = format!("#!/bin/sh\nexec '{}' --sysroot '{}' \"$@\"\n", real.display(), folder.path().display());
    std::fs::write(&rustc, script).unwrap();
    std::fs::set_permissions(&rustc, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = knot(&["build", "--offline", "-p", "lone", "--arm64"]);
    check(command.env("RUSTC", rustc), 3, &["aarch64 Linux", "rustup target add aarch64-unknown-linux-musl"]);
}

#[test]
fn included_files_are_checked_before_compilation_and_kept_in_the_image() {
    let folder = workspace("of included files", STANDING_IN);
    let settings = format!("{LONE}\n[package.metadata.cloudknot]\ninclude = [\"data/\"]\n");
    write(&folder.join("lone/Cargo.toml"), &settings);
    let _ = std::fs::remove_dir_all(folder.join("lone/data"));
    let build = || {
        let mut build = knot(&["build", "--offline", "--fast", "-p", "lone", "--json"]);
        build.current_dir(&folder);
        build
    };
    let refused = check(
        &mut build(),
        5,
        &[
            "error: cannot include `data/` in the image",
            "No such file",
            "hint: `include` in [package.metadata.cloudknot]",
        ],
    );
    assert!(!String::from_utf8_lossy(&refused.stderr).contains("compiling"), "{refused:?}");

    let layers = |text: &str| {
        write(&folder.join("lone/data/x"), text);
        let facts: Value = serde_json::from_slice(&check(&mut build(), 0, &[]).stdout).unwrap();
        facts["layers"].as_array().unwrap().clone()
    };
    let (one, two) = (layers("one"), layers("two"));
    assert_eq!((one.len(), two.len()), (2, 2));
    assert_ne!(one[0], two[0]);
    assert_eq!(one[1], two[1], "the worker's layer does not depend on the included files");
}

/// Returns a command that finds no C compiler for musl, and the folder of the programs that it finds.
fn without_c_compilers(arguments: &[&str]) -> (Command, tempfile::TempDir) {
    let programs = tempfile::tempdir().unwrap();
    let path = std::env::var_os("PATH").unwrap();
    for name in ["cargo", "rustc", "cc"] {
        let program = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file()).unwrap();
        std::os::unix::fs::symlink(program, programs.path().join(name)).unwrap();
    }
    let mut command = knot(arguments);
    command.env("PATH", programs.path()).env_remove("TARGET_CC");
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    for name in [&target, &target.replace('-', "_")] {
        command.env_remove(format!("CC_{name}"));
    }
    (command, programs)
}

#[test]
fn missing_c_compiler_is_named() {
    let folder = workspace("of a target", STANDING_IN);
    let settings = format!("{LONE}\n[package.metadata.cloudknot]\nallocator = \"mimalloc\"\n");
    write(&folder.join("lone/Cargo.toml"), &settings);
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let (mut command, _programs) = without_c_compilers(&["build", "--offline", "-p", "lone", "--target", &target]);
    command.current_dir(folder);
    let has_apt = Path::new("/usr/bin/apt-get").exists();
    let remedy = if has_apt { "sudo apt-get install musl-tools" } else { "cargo install cargo-zigbuild" };
    check(
        &mut command,
        3,
        &[&format!("that compile a worker for `{target}`"), "a C compiler is needed as well", remedy],
    );
}

/// A package with C in a feature, and two programs, one of which enables it.
const OPTIONAL_C: &[(&str, &str)] = &[
    (
        "Cargo.toml",
        "[workspace]\nresolver = \"3\"\nmembers = [\"cloudknot\", \"cc\", \"native\", \"plain\", \"with\"]\n",
    ),
    ("cloudknot/Cargo.toml", "[package]\nname = \"cloudknot\"\nversion = \"0.1.0\"\nedition = \"2024\"\n"),
    ("cloudknot/src/lib.rs", ""),
    ("cc/Cargo.toml", "[package]\nname = \"cc\"\nversion = \"1.0.0\"\nedition = \"2024\"\n"),
    ("cc/src/lib.rs", ""),
    (
        "native/Cargo.toml",
        "[package]\nname = \"native\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[features]\nc = [\"dep:cc\"]\n\n\
         [build-dependencies]\ncc = { path = \"../cc\", optional = true }\n",
    ),
    ("native/build.rs", "fn main() {}\n"),
    ("native/src/lib.rs", ""),
    (
        "plain/Cargo.toml",
        "[package]\nname = \"plain\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n\
         cloudknot.path = \"../cloudknot\"\nnative.path = \"../native\"\n",
    ),
    ("plain/src/main.rs", "fn main() {}\n"),
    (
        "with/Cargo.toml",
        "[package]\nname = \"with\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n\
         cloudknot.path = \"../cloudknot\"\nnative = { path = \"../native\", features = [\"c\"] }\n",
    ),
    ("with/src/main.rs", "fn main() {}\n"),
];

#[test]
fn c_of_another_member_requires_no_compiler() {
    let folder = workspace("with optional C", OPTIONAL_C);
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let build = |package: &str| {
        let arguments = ["build", "--offline", "--fast", "-p", package, "--target", &target];
        let (mut command, _programs) = without_c_compilers(&arguments);
        command.current_dir(&folder).output().unwrap()
    };
    let (plain, with) = (build("plain"), build("with"));
    let text = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text(&with).contains("a C compiler is needed as well"), "{}", text(&with));
    // The build begins. It fails later: the target may not be installed, and the program has no remote function.
    assert!(text(&plain).contains("compiling the worker of `plain`"), "{}", text(&plain));
}

#[test]
fn cloudknot_from_a_branch_is_found_by_the_worker_of_a_library() {
    let upstream = tempfile::tempdir().unwrap();
    let upstream = upstream.path();
    for (path, content) in STANDING_IN.iter().filter(|(path, _)| path.starts_with("cloudknot/")) {
        write(&upstream.join(path.trim_start_matches("cloudknot/")), content);
    }
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=x", "-c", "user.email=x@example.org"]).args(arguments).current_dir(upstream);
        assert!(git.env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap().status.success(), "{arguments:?}");
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "x"]);
    // cargo's own folder would need no network, but be left with the repository.
    let cargo_home = tempfile::tempdir().unwrap();
    for branch in ["next/0.2", "fix-#7", "100%"] {
        git(&["branch", "--force", branch]);
        let folder = workspace("from git", &[("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"fit\"]\n")]);
        let dependency = format!("cloudknot = {{ git = 'file://{}', branch = '{branch}' }}", upstream.display());
        let manifest = format!(
            "[package]\nname = \"fit\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[dependencies]\n{dependency}\n"
        );
        write(&folder.join("fit/Cargo.toml"), &manifest);
        write(&folder.join("fit/src/lib.rs"), "cloudknot::function!(\"seven\");\n");
        let mut build = knot(&["build", "--fast", "-p", "fit", "--json"]);
        build.current_dir(&folder).env("CARGO_HOME", cargo_home.path()).env("CARGO_NET_OFFLINE", "false");
        let output = check(&mut build, 0, &[]);
        assert!(String::from_utf8_lossy(&output.stdout).contains("\"name\":\"seven\""), "{branch}");
    }
}

#[test]
fn push_reports_progress_and_skips_existing_layers() {
    let Some(registry) = Registry::start() else { return };
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), format!("{}\n", Registry::PASSWORD)).unwrap();
    let repository = format!("{}/lab/lone", registry.host());
    // The test of a build has the same package: in one folder, each test would find the worker of the other.
    let folder = workspace("of the push", STANDING_IN);
    let push = || {
        let mut command = knot(&["push", &repository, "--username", Registry::USER, "--password-stdin"]);
        command.args(["--offline", "--fast", "-p", "lone"]).current_dir(&folder);
        command.env("CARGO_TARGET_DIR", folder.join("target"));
        command.stdin(std::fs::File::open(password.path()).unwrap());
        command
    };
    let first = check(&mut push(), 0, &["cloudknot: pushing ", &format!("cloudknot: pushed to {repository}: ")]);
    let reference = String::from_utf8(first.stdout).unwrap();
    assert!(reference.starts_with(&format!("{repository}@sha256:")), "{reference}");
    let second =
        check(&mut push(), 0, &[&format!("cloudknot: all layers already exist in {repository}: nothing was sent")]);
    assert_eq!(String::from_utf8(second.stdout).unwrap(), reference);
    assert_eq!(registry.requests("POST ").len(), 2, "a layer and a configuration, once each");

    std::fs::write(password.path(), "wrong").unwrap();
    check(&mut push(), 6, &["error: cannot look up", "rejects the login", "hint: check the user and the password"]);
}

#[test]
fn help_lists_exit_codes() {
    for arguments in [&["--help"][..], &["build", "--help"]] {
        let output = check(&mut knot(arguments), 0, &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("101  the program does not compile"), "{text}");
    }
}
