//! Tests from a program to its worker, with real builds of small programs.

use std::error::Error as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};

use cloudknot::compile::{CargoTarget, Compile, CompileError, CompileErrorKind, Profile, Selection, Worker};
use cloudknot_tests::recorded::types_of;
use cloudknot_tests::workspaces::{LONE, REAL, STANDING_IN, cargo_knot, no_warnings, workspace, write};
use object::{Object as _, ObjectSection as _};

static REAL_WORKSPACE: LazyLock<PathBuf> = LazyLock::new(|| workspace("real", REAL));
static STAND_IN: LazyLock<PathBuf> = LazyLock::new(|| workspace("stand-in", STANDING_IN));

fn package(name: &str) -> Selection {
    Selection { package: Some(name.into()), ..Selection::default() }
}

fn example(package_name: &str, name: &str) -> Selection {
    Selection { target: Some(CargoTarget::Example(name.into())), ..package(package_name) }
}

fn compile(folder: &Path, selection: Selection) -> Compile {
    Compile::new(selection).in_folder(folder).cargo_option("--offline")
}

/// Returns a build for tests that do not depend on the profile, because link-time optimization is slow.
fn quick(folder: &Path, selection: Selection) -> Compile {
    compile(folder, selection).profile(Profile::Fast)
}

#[track_caller]
fn check(compile: &Compile, functions: &[&str]) -> Worker {
    let worker = compile.run().unwrap_or_else(|error| panic!("{error}: {:?} {:?}", error.source(), error.hint()));
    let names: Vec<_> = worker.functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(names, functions);
    assert_eq!(worker.bytes, fs::read(&worker.path).unwrap());
    worker
}

#[track_caller]
fn refused(compile: &Compile, kind: CompileErrorKind, expected: &[&str]) -> CompileError {
    let error = compile.run().expect_err("the build is refused");
    assert_eq!(error.kind(), kind, "{error}");
    let source = error.source().map(ToString::to_string).unwrap_or_default();
    let text = format!("{error}\n{source}\n{}", error.hint().unwrap_or_default());
    for part in expected {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    error
}

#[test]
fn worker_has_functions_of_program_and_crates() {
    let worker = check(&compile(&REAL_WORKSPACE, package("prog")), &["triple", "double"]);
    assert_eq!((worker.package.as_str(), worker.version.as_str()), ("prog", "1.2.3"));
    assert_eq!(worker.cargo_target, CargoTarget::Bin("prog".into()));
    assert_eq!(worker.package_folder, REAL_WORKSPACE.join("prog"));
    let double = &worker.functions[1];
    assert_eq!(double.id(), "prog:prog::double");
    assert_eq!(double.signature, "fn double(x: u64) -> u64");
    assert_eq!((double.memory_mib, double.retries, double.timeout_seconds), (Some(2048), 2, Some(900.0)));
}

#[test]
fn worker_without_s3_compiles_without_warnings() {
    let home = tempfile::tempdir().unwrap();
    let mut build = Command::new(cargo_knot());
    build.args(["knot", "build", "--offline", "--fast", "-p", "prog"]).env("CLOUDKNOT_HOME", home.path());
    no_warnings(&build.current_dir(&*REAL_WORKSPACE).output().unwrap());
}

#[test]
fn library_gets_a_generated_main() {
    let worker = check(&compile(&REAL_WORKSPACE, package("kit")), &["triple"]);
    assert_eq!(worker.cargo_target, CargoTarget::Lib);
    assert_eq!(worker.package, "kit");
}

#[test]
fn selected_features_are_enabled() {
    let with = |package_name, feature: &str| Selection { features: vec![feature.into()], ..package(package_name) };
    check(&quick(&REAL_WORKSPACE, with("prog", "more")), &["triple", "double", "more"]);
    check(&quick(&REAL_WORKSPACE, with("kit", "extra")), &["quadruple", "triple"]);
    check(&quick(&REAL_WORKSPACE, Selection { all_features: true, ..package("kit") }), &["quadruple", "triple"]);
    let expected = ["cannot enable `cloudknot/progress`"];
    refused(&quick(&REAL_WORKSPACE, with("kit", "cloudknot/progress")), CompileErrorKind::Selection, &expected);
    refused(&quick(&REAL_WORKSPACE, with("prog", "absent")), CompileErrorKind::Selection, &["absent"]);
}

#[test]
fn example_can_be_the_program() {
    let worker = check(&quick(&REAL_WORKSPACE, example("prog", "sample")), &["of_the_example"]);
    assert_eq!(worker.cargo_target, CargoTarget::Example("sample".into()));
}

#[test]
fn manifest_path_overrides_current_member() {
    check(&quick(&REAL_WORKSPACE.join("kit"), Selection::default()), &["triple"]);
    let path = Some("../prog/Cargo.toml".into());
    check(
        &quick(&REAL_WORKSPACE.join("kit"), Selection { manifest_path: path, ..Selection::default() }),
        &["triple", "double"],
    );
}

#[test]
fn unchanged_program_is_not_recompiled() {
    for name in ["prog", "kit"] {
        compile(&REAL_WORKSPACE, package(name)).run().unwrap();
        let lock = fs::read(REAL_WORKSPACE.join("Cargo.lock")).unwrap();
        let worker = compile(&REAL_WORKSPACE, package(name)).cargo_option("--locked").run().unwrap();
        assert!(worker.up_to_date, "{name} was compiled again");
        assert!(fs::read(REAL_WORKSPACE.join("Cargo.lock")).unwrap() == lock, "the lock file changed");
    }
}

#[test]
fn workers_of_two_folders_are_identical() {
    let other = workspace("further/down/the same", REAL);
    for name in ["prog", "kit"] {
        let (one, two) =
            (compile(&REAL_WORKSPACE, package(name)).run().unwrap(), compile(&other, package(name)).run().unwrap());
        // The executables may have the same path, because the target folder may be shared.
        assert_ne!(one.package_folder, two.package_folder);
        assert!(one.bytes == two.bytes, "the workers of {name} differ");
    }
}

#[test]
fn worker_contains_no_path_of_this_machine() {
    let worker = compile(&REAL_WORKSPACE, package("kit")).run().unwrap();
    let text = String::from_utf8_lossy(&worker.bytes);
    assert!(text.contains("kit/src/lib.rs"), "the worker lacks the location of the panic");
    let root = REAL_WORKSPACE.to_str().unwrap();
    assert!(!text.contains(root), "the worker contains `{root}`");
    let own = std::env::home_dir().unwrap().join(".cargo");
    for home in std::env::var_os("CARGO_HOME").map(PathBuf::from).into_iter().chain([own]) {
        assert!(!text.contains(home.to_str().unwrap()), "the worker contains `{}`", home.display());
    }
}

#[test]
fn worker_builds_while_cargo_holds_the_target_lock() {
    check(&quick(&STAND_IN, package("lone")), &["in_a_worker"]);
    // cargo holds the lock of its target folder while a build script runs, here until a file exists.
    let folder = workspace(
        "busy",
        &[
            (
                "Cargo.toml",
                "[package]\nname = \"busy\"\nversion = \"0.1.0\"\nedition = \"2024\"\nbuild = \"build.rs\"\n\n[workspace]\n",
            ),
            ("src/lib.rs", ""),
            (
                "build.rs",
                "fn main() {\n    println!(\"cargo::rerun-if-changed=never\");\n    std::fs::write(\"started\", \"\").unwrap();\n    for _ in 0..15_000 {\n        if std::fs::exists(\"go on\").is_ok_and(|there| there) {\n            break;\n        }\n        std::thread::sleep(std::time::Duration::from_millis(20));\n    }\n}\n",
            ),
        ],
    );
    let _ = fs::remove_file(folder.join("go on"));
    let _ = fs::remove_file(folder.join("started"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| STAND_IN.join("target"), PathBuf::from);
    let mut busy = std::process::Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline", "--target-dir"])
        .arg(&target)
        .current_dir(&folder)
        .spawn()
        .unwrap();
    while !folder.join("started").exists() {
        assert!(busy.try_wait().unwrap().is_none(), "the other build ended before it began");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    check(&quick(&STAND_IN, package("lone")), &["in_a_worker"]);
    assert!(busy.try_wait().unwrap().is_none(), "the compilation waited for the other build");
    write(&folder.join("go on"), "");
    assert!(busy.wait().unwrap().success());
}

#[test]
fn several_candidates_are_listed() {
    let expected = ["2 candidates", "-p many --bin one", "-p many --bin two"];
    refused(&quick(&STAND_IN, package("many")), CompileErrorKind::Selection, &expected);
    let expected = ["candidates", "-p lone --bin lone", "-p odd --lib"];
    let error = refused(&quick(&STAND_IN, Selection::default()), CompileErrorKind::Selection, &expected);
    assert!(!error.hint().unwrap().contains("without"), "a program without cloudknot is a candidate");
}

#[test]
fn unknown_target_lists_candidates() {
    let expected = ["package `absent`", "`lone`, `many`"];
    refused(&quick(&STAND_IN, package("absent")), CompileErrorKind::Selection, &expected);
    let bin = Selection { target: Some(CargoTarget::Bin("absent".into())), ..package("odd") };
    refused(&quick(&STAND_IN, bin), CompileErrorKind::Selection, &["--bin absent", "-p odd --lib", "--example twice"]);
    let expected = ["`without` does not use cloudknot", "cargo add cloudknot"];
    refused(&quick(&STAND_IN, package("without")), CompileErrorKind::Selection, &expected);
}

#[test]
fn unsuitable_programs_are_refused() {
    let kind = CompileErrorKind::Worker;
    let expected = ["cannot find a remote function in `odd` (--lib)", "--example nothing"];
    refused(&quick(&STAND_IN, package("odd")), kind, &expected);
    let expected = ["cannot find a remote function in `odd` (--example nothing)"];
    refused(&quick(&STAND_IN, example("odd", "nothing")), kind, &expected);
    let expected = ["its `main` lacks #[cloudknot::main]", "#[cloudknot::main]", "--lib"];
    refused(&quick(&STAND_IN, example("odd", "own_main")), kind, &expected);
    let expected = ["duplicate remote function `stand-in:some::f`"];
    refused(&quick(&STAND_IN, example("odd", "twice")), kind, &expected);
    refused(&quick(&STAND_IN, example("odd", "broken")), CompileErrorKind::Cargo, &["exit status: 101"]);
}

#[test]
fn user_rustflags_are_kept() {
    for (folder, config) in [
        ("build", "[build]\nrustflags = [\"--cfg\", \"of_the_user\"]\n"),
        ("target", "[target.'cfg(target_os = \"linux\")']\nrustflags = [\"--cfg\", \"of_the_user\"]\n"),
    ] {
        let folder = STAND_IN.join("configured").join(folder);
        write(&folder.join(".cargo/config.toml"), config);
        let selection = Selection { manifest_path: Some("../../lone/Cargo.toml".into()), ..Selection::default() };
        check(&quick(&folder, selection), &["in_a_worker", "of_the_user"]);
    }
}

#[test]
fn dynamically_linked_worker_is_refused() {
    let folder = STAND_IN.join("configured/dynamic");
    // rustc links statically as requested, so this linker ignores the request.
    let linker = folder.join("linker");
    write(&linker, "#!/bin/bash\nexec cc \"${@/#-static-pie/-pie}\"\n");
    fs::set_permissions(&linker, fs::Permissions::from_mode(0o755)).unwrap();
    write(&folder.join(".cargo/config.toml"), &format!("[target.'cfg(unix)']\nlinker = '{}'\n", linker.display()));
    let selection = Selection { manifest_path: Some("../../lone/Cargo.toml".into()), ..Selection::default() };
    let expected = ["cannot link `lone` (--bin lone) statically", "ld-linux", "base image"];
    refused(&quick(&folder, selection), CompileErrorKind::Worker, &expected);
}

#[test]
fn native_cpu_in_rustflags_gets_a_warning() {
    let folder = STAND_IN.join("configured/native");
    write(&folder.join(".cargo/config.toml"), "[build]\nrustflags = [\"-Ctarget-cpu=native\"]\n");
    let selection = Selection { manifest_path: Some("../../lone/Cargo.toml".into()), ..Selection::default() };
    let lines = Arc::new(Mutex::new(Vec::new()));
    let reported = Arc::clone(&lines);
    let compile = quick(&folder, selection).report(move |line| reported.lock().unwrap().push(line.to_string()));
    compile.run().unwrap();
    let lines = lines.lock().unwrap();
    assert!(lines.iter().any(|line| line.contains("target-cpu=native")), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("compiling the worker of `lone` (--bin lone)")), "{lines:?}");
}

/// Creates a copy of the workspace whose package `lone` has these settings.
fn with_settings(name: &str, settings: &str) -> PathBuf {
    let folder = workspace(&format!("settings/{name}"), STANDING_IN);
    write(&folder.join("lone/Cargo.toml"), &format!("{LONE}\n[package.metadata.cloudknot]\n{settings}\n"));
    folder
}

#[test]
fn settings_reach_the_compiler() {
    // The section is read, not executed, so this machine may have another CPU.
    let folder = with_settings("cpu", "target-cpu = \"haswell\"");
    check(&compile(&folder, package("lone")), &["in_a_worker", "with_avx2"]);

    let (small, fast) = (with_settings("small", "opt-level = \"z\""), with_settings("fast", "opt-level = 3"));
    let bytes = |folder: &Path| compile(folder, package("lone")).run().unwrap().bytes;
    assert!(bytes(&small) != bytes(&fast), "two opt-levels give the same worker");
}

#[test]
fn invalid_settings_are_refused() {
    let kind = CompileErrorKind::Settings;
    for (name, settings, expected) in [
        ("unknown", "targt-cpu = \"haswell\"", ["unknown field `targt-cpu`", "`target-cpu`, `opt-level`, `lto`"]),
        ("native", "target-cpu = \"native\"", ["other machines than this one", "\"x86-64-v3\"; correct it in `"]),
        ("level", "opt-level = 4", ["invalid `opt-level`: must be", "[package.metadata.cloudknot] of `lone`"]),
        ("letter", "opt-level = \"q\"", ["`opt-level` must be", "\"z\""]),
        ("include", "include = [\"../x\"]", ["invalid `include`: `../x` must be a relative path", "correct it in `"]),
        ("allocator", "allocator = \"best\"", ["unknown variant `best`", "`mimalloc`"]),
    ] {
        refused(&compile(&with_settings(name, settings), package("lone")), kind, &expected);
    }
}

#[test]
fn profile_is_built_in_or_named() {
    let fast = compile(&STAND_IN, package("lone")).profile(Profile::Fast);
    let worker = check(&fast, &["in_a_worker"]);
    assert!(worker.path.to_str().unwrap().contains("/cloudknot-fast/"));
    check(
        &compile(&STAND_IN, package("lone")).profile(Profile::Named("dev".into())),
        &["debug_assertions", "in_a_worker"],
    );

    let folder = workspace("settings/profile", STANDING_IN);
    let manifest = fs::read_to_string(STAND_IN.join("Cargo.toml")).unwrap();
    write(&folder.join("Cargo.toml"), &format!("{manifest}\n[profile.cloudknot]\ndebug-assertions = true\n"));
    check(&compile(&folder, package("lone")), &["debug_assertions", "in_a_worker"]);
}

/// Returns the sections of a worker that only a debugger reads.
fn symbols(worker: &Worker) -> Vec<String> {
    let file = object::File::parse(&*worker.bytes).unwrap();
    let names = file.sections().filter_map(|section| section.name().ok().map(str::to_owned));
    names.filter(|name| name == ".symtab" || name.starts_with(".debug_")).collect()
}

#[test]
fn worker_is_stripped() {
    for profile in [Profile::Deploy, Profile::Fast] {
        let worker = compile(&STAND_IN, package("lone")).profile(profile).run().unwrap();
        assert_eq!(symbols(&worker), [""; 0], "{}", worker.path.display());
    }
    // The user's own profile is not changed.
    let worker = compile(&STAND_IN, package("lone")).profile(Profile::Named("dev".into())).run().unwrap();
    assert!(symbols(&worker).contains(&".symtab".to_owned()), "{:?}", symbols(&worker));
}

#[test]
fn configured_allocator_is_in_the_worker() {
    let folder = workspace("allocator", REAL);
    let (_, manifest) = REAL.iter().find(|(path, _)| *path == "kit/Cargo.toml").unwrap();
    write(
        &folder.join("kit/Cargo.toml"),
        &format!("{manifest}\n[package.metadata.cloudknot]\nallocator = \"mimalloc\"\n"),
    );
    let worker = check(&quick(&folder, package("kit")), &["triple"]);
    assert!(worker.bytes.windows(10).any(|bytes| bytes == b"mimalloc: "));
    // It also works: the worker allocates much of its memory when it describes its types.
    assert_eq!(types_of(&mut std::process::Command::new(&worker.path), "triple").function, "kit:kit::triple");
}

#[test]
fn unsupported_target_is_refused() {
    for triple in ["wasm32-unknown-unknown", "aarch64-apple-darwin", "riscv64gc-unknown-linux-gnu"] {
        let compile = quick(&STAND_IN, package("lone")).target(triple);
        refused(&compile, CompileErrorKind::Settings, &[triple, "-unknown-linux-musl"]);
    }
}
