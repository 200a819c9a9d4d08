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
    // cloudknot is outside of that workspace.
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for folder in [&REAL_WORKSPACE, repository] {
        assert!(!text.contains(folder.to_str().unwrap()), "the worker contains `{}`", folder.display());
    }
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

/// Returns the build of the package `lone`, started in a folder with this configuration of cargo.
fn configured(name: &str, config: &str) -> Compile {
    let folder = STAND_IN.join("configured").join(name);
    write(&folder.join(".cargo/config.toml"), config);
    let selection = Selection { manifest_path: Some("../../lone/Cargo.toml".into()), ..Selection::default() };
    quick(&folder, selection)
}

#[test]
fn user_rustflags_are_kept() {
    const OF_BUILD: &str = "[build]\nrustflags = \"--cfg of_the_user\"\n";
    write(&STAND_IN.join("configured/including/.cargo/lab.toml"), OF_BUILD);
    for (name, config) in [
        ("build", "[build]\nrustflags = [\"--cfg\", \"of_the_user\"]\n"),
        ("text", OF_BUILD),
        ("target", "[target.'cfg(target_os = \"linux\")']\nrustflags = [\"--cfg\", \"of_the_user\"]\n"),
        ("including", "include = [\"lab.toml\"]\n"),
    ] {
        check(&configured(name, config), &["in_a_worker", "of_the_user"]);
    }
}

#[test]
fn configuration_that_cargo_accepts_is_accepted() {
    // As in the files of users, with keys of cargo and of other tools.
    const OTHERS: &str = "[env]\nLAB = { value = \"data\", relative = true, force = true }\n\
        [target.x86_64-unknown-linux-gnu]\nrunner = [\"env\", \"LAB=1\"]\nobjcopy = { path = \"some-objcopy\" }\n\
        [profile.release.package.\"*\"]\nopt-level = 2\n[term]\nprogress = { when = \"never\" }\n\
        [registries.lab]\nindex = \"sparse+file:///nowhere/\"\n";
    for (name, build) in [
        ("jobs", "jobs = \"default\""),
        ("wrapper", "rustc-wrapper = \"\""),
        ("targets", "target = [\"x86_64-unknown-linux-gnu\", \"wasm32-unknown-unknown\"]"),
    ] {
        let config = format!("[build]\n{build}\nrustflags = \"--cfg of_the_user\"\n{OTHERS}");
        check(&configured(name, &config), &["in_a_worker", "of_the_user"]);
    }
}

#[test]
fn profile_in_cargo_configuration_takes_precedence() {
    let config = "[profile.cloudknot-fast]\ninherits = \"release\"\ndebug-assertions = true\nstrip = \"none\"\n";
    let worker = check(&configured("profile", config), &["debug_assertions", "in_a_worker"]);
    assert!(symbols(&worker).contains(&".symtab".to_owned()), "{:?}", symbols(&worker));
}

#[test]
fn invalid_configuration_is_reported_only_by_builds() {
    let compile = configured("invalid", "[build]\njobs = \"many\"\n");
    let expected = ["cannot read cargo's configuration", "many"];
    refused(&compile, CompileErrorKind::Toolchain, &expected);
    assert_eq!(compile.knot_name().unwrap(), "lone");
    assert_eq!(compile.package_folder().unwrap(), STAND_IN.join("lone"));
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
    let lines = reported(&configured("native", "[build]\nrustflags = [\"-Ctarget-cpu=native\"]\n"));
    assert!(lines.iter().any(|line| line.contains("target-cpu=native")), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("compiling the worker of `lone` (--bin lone)")), "{lines:?}");
}

/// Runs a build, and returns the lines that it reports.
#[track_caller]
fn reported(compile: &Compile) -> Vec<String> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    compile.clone().report(move |line| sink.lock().unwrap().push(line.to_string())).run().unwrap();
    let lines = lines.lock().unwrap();
    lines.clone()
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

/// Libraries that depend on a folder outside of their workspace, `beside`, which belongs to another workspace.
const LIBRARIES: &[(&str, &str)] = &[
    (
        "other/Cargo.toml",
        "[workspace]\nresolver = \"3\"\nmembers = [\"beside\", \"third\"]\n[workspace.package]\nversion = \"0.1.0\"\n",
    ),
    (
        "other/beside/Cargo.toml",
        "[package]\nname = \"beside\"\nversion.workspace = true\nedition = \"2024\"\n[dependencies]\nthird.path = \"../third\"\n",
    ),
    ("other/beside/src/lib.rs", "pub use third::one;\n"),
    ("other/third/Cargo.toml", "[package]\nname = \"third\"\nversion.workspace = true\nedition = \"2024\"\n"),
    ("other/third/src/lib.rs", "pub fn one() -> u32 { 1 }\n"),
    ("ws/data/seven.txt", "7\n"),
    (
        "ws/fit/src/lib.rs",
        "const _: &str = include_str!(\"../../data/seven.txt\");\ncloudknot::function!(\"seven\");\n",
    ),
];

/// Returns the build of the library `fit` in a workspace of this name, with these dependencies besides cloudknot, and this at the
/// end of the workspace's manifest.
fn library(name: &str, dependencies: &str, manifest: &str) -> Compile {
    let in_workspace: Vec<_> = STANDING_IN.iter().filter(|(path, _)| path.starts_with("cloudknot/")).collect();
    let folder = workspace(&format!("libraries of Müller & co/{name}"), LIBRARIES);
    let root = format!("[workspace]\nresolver = \"3\"\nmembers = [\"fit\", \"cloudknot\"]\n{manifest}");
    write(&folder.join("ws/Cargo.toml"), &root);
    for (path, content) in in_workspace {
        write(&folder.join("ws").join(path), content);
    }
    let dependencies = dependencies.replace("FOLDER", folder.to_str().unwrap());
    let fit = "[package]\nname = \"fit\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
               [lib]\nname = \"fitting\"\ncrate-type = [\"cdylib\", \"rlib\"]\n";
    write(&folder.join("ws/fit/Cargo.toml"), &format!("{fit}[dependencies]\n{dependencies}\n"));
    quick(&folder.join("ws"), package("fit"))
}

#[test]
fn library_is_built_wherever_its_dependencies_are() {
    const INSIDE: &str = "cloudknot.path = \"../cloudknot\"";
    let beside = format!("{INSIDE}\nbeside.path = \"../../other/beside\"");
    for (name, dependencies, manifest) in [
        ("plain", INSIDE, ""),
        ("beside", beside.as_str(), ""),
        ("absolute", "cloudknot.path = \"FOLDER/ws/cloudknot\"", ""),
        ("renamed", "knots = { package = \"cloudknot\", path = \"../cloudknot\" }", ""),
        ("inherited", "cloudknot.workspace = true", "[workspace.dependencies]\ncloudknot.path = \"cloudknot\"\n"),
        ("patched", "cloudknot = \"0.1\"", "[patch.crates-io]\ncloudknot.path = \"cloudknot\"\n"),
        (
            "patched beside",
            "cloudknot = \"0.1\"\nbeside = \"0.1\"",
            "[patch.crates-io]\ncloudknot.path = \"cloudknot\"\nbeside.path = \"../other/beside\"\n",
        ),
    ] {
        let compile = library(name, dependencies, manifest);
        if name == "renamed" {
            let source = LIBRARIES.iter().find(|(path, _)| *path == "ws/fit/src/lib.rs").unwrap().1;
            let folder = compile.package_folder().unwrap();
            write(&folder.join("src/lib.rs"), &source.replace("cloudknot::", "knots::"));
        }
        check(&compile, &["seven"]);
    }
}

/// Stores a package in the folder of vendored packages.
fn vendor(folder: &Path, name: &str, version: &str, library: &str) {
    let package = folder.join(format!("vendor/{name}-{version}"));
    let manifest = format!("[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2024\"\n");
    write(&package.join("Cargo.toml"), &manifest);
    write(&package.join("src/lib.rs"), library);
    write(&package.join(".cargo-checksum.json"), &format!("{{\"files\": {{}}, \"package\": \"{CHECKSUM}\"}}"));
}

const VENDORED: &str = "[source.crates-io]\nreplace-with = \"vendored\"\n[source.vendored]\ndirectory = \"vendor\"\n";

const CHECKSUM: &str = "0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn library_with_vendored_dependencies_has_the_locked_versions() {
    let compile = library("vendored", "cloudknot = \"0.1\"\nchosen = { version = \"0.1\", optional = true }", "");
    let folder = workspace("libraries of Müller & co/vendored", &[]).join("ws");
    let stand_in = STANDING_IN.iter().find(|(path, _)| *path == "cloudknot/src/lib.rs").unwrap().1;
    vendor(&folder, "cloudknot", "0.1.0", stand_in);
    let locked = ["chosen", "cloudknot"].map(|name| {
        let source = "registry+https://github.com/rust-lang/crates.io-index";
        format!(
            "[[package]]\nname = \"{name}\"\nversion = \"0.1.0\"\nsource = \"{source}\"\nchecksum = \"{CHECKSUM}\"\n\n"
        )
    });
    let fit = "[[package]]\nname = \"fit\"\nversion = \"0.1.0\"\ndependencies = [\"chosen\", \"cloudknot\"]\n";
    let lock = format!("version = 3\n\n{}{fit}", locked.concat());
    for version in ["0.1.0", "0.1.1"] {
        let library = format!("#[macro_export]\nmacro_rules! version {{ () => {{ \"{version}\" }} }}\n");
        vendor(&folder, "chosen", version, &library);
    }
    write(&folder.join("Cargo.toml"), "[workspace]\nresolver = \"3\"\nmembers = [\"fit\"]\n");
    write(&folder.join("Cargo.lock"), &lock);
    write(&folder.join(".cargo/config.toml"), VENDORED);
    write(
        &folder.join("fit/src/lib.rs"),
        "#[cfg(not(feature = \"chosen\"))]\ncloudknot::function!(\"none\");\n\
         #[cfg(feature = \"chosen\")]\ncloudknot::function!(chosen::version!());\n",
    );
    check(&compile, &["none"]);
    let with = Selection { features: vec!["chosen".into()], ..package("fit") };
    check(&quick(&folder, with), &["0.1.0"]);
}

#[test]
fn library_for_other_languages_only_is_refused() {
    let compile = library("of other languages", "cloudknot.path = \"../cloudknot\"", "");
    let manifest = compile.package_folder().unwrap().join("Cargo.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    write(&manifest, &text.replace(", \"rlib\"", ""));
    let expected = ["cannot find a program or a library in `fit`", "add \"rlib\" to `crate-type`"];
    refused(&compile, CompileErrorKind::Selection, &expected);
}

const ALLOCATOR: &str = "#[global_allocator]\nstatic OWN: std::alloc::System = std::alloc::System;\n";

#[test]
fn own_allocator_beside_mimalloc_is_refused() {
    let folder = with_settings("own allocator", "allocator = \"mimalloc\"");
    let source = fs::read_to_string(folder.join("lone/src/main.rs")).unwrap();
    let expected = ["`lone` with mimalloc", "in `", "lone/src/main.rs`", "`allocator = \"system\"`"];
    write(&folder.join("lone/src/main.rs"), &format!("{source}\n{ALLOCATOR}"));
    refused(&compile(&folder, package("lone")), CompileErrorKind::Settings, &expected);
    write(&folder.join("lone/src/main.rs"), &format!("mod memory;\n{source}"));
    write(&folder.join("lone/src/memory.rs"), ALLOCATOR);
    let expected = ["lone/src/memory.rs`", "`allocator = \"system\"`"];
    refused(&compile(&folder, package("lone")), CompileErrorKind::Settings, &expected);
}

#[test]
fn allocator_of_a_library_or_another_target_is_told_apart() {
    let folder = with_settings("other allocators", "allocator = \"mimalloc\"");
    // Neither is a part of the program.
    write(&folder.join("lone/benches/speed.rs"), ALLOCATOR);
    write(&folder.join("lone/src/bin/other.rs"), &format!("{ALLOCATOR}fn main() {{}}\n"));
    let lone = Selection { target: Some(CargoTarget::Bin("lone".into())), ..package("lone") };
    check(&quick(&folder, lone.clone()), &["in_a_worker"]);
    // A library that the program is linked with.
    write(&folder.join("memory/Cargo.toml"), "[package]\nname = \"memory\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
    write(&folder.join("memory/src/lib.rs"), ALLOCATOR);
    let manifest = fs::read_to_string(folder.join("lone/Cargo.toml")).unwrap();
    let dependencies = "[dependencies]\nmemory.path = \"../memory\"\n";
    write(&folder.join("lone/Cargo.toml"), &manifest.replace("[dependencies]\n", dependencies));
    let expected = ["memory/src/lib.rs`", "`allocator = \"system\"`"];
    refused(&quick(&folder, lone), CompileErrorKind::Settings, &expected);
}

#[test]
fn path_of_this_machine_in_the_code_gets_a_warning() {
    let check = |name: &str, text: &str, expected: Option<&str>| {
        let folder = workspace(&format!("paths/{name}"), STANDING_IN);
        write(&folder.join("lone/build.rs"), "fn main() {}\n");
        let program = "fn main() {\n    cloudknot::__start!();\n    cloudknot::function!(\"f\");\n    println!(\"{}\", TEXT);\n}\n";
        write(&folder.join("lone/src/main.rs"), &program.replace("TEXT", text));
        let lines = reported(&quick(&folder, package("lone")));
        let warning = lines.iter().find(|line| line.starts_with("warning: the worker contains the path"));
        assert_eq!(warning.is_some(), expected.is_some(), "{name}: {lines:?}");
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| folder.join("target"), PathBuf::from);
        for (line, path) in warning.into_iter().zip(expected) {
            let path = path.replace("TARGET", target.to_str().unwrap());
            assert!(line.contains(&format!("`{}`", folder.join(path).display())), "{name}: {line}");
            assert!(line.contains("`include_bytes!`") && line.contains("`cloudknot::data`"), "{line}");
        }
    };
    check("none", "std::env::args().nth(1).expect(\"a panic has a location\")", None);
    check("folder", "env!(\"CARGO_MANIFEST_DIR\")", Some("lone"));
    check("file", "concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/data/table.csv\")", Some("lone"));
    check("output", "concat!(env!(\"OUT_DIR\"), \"/table.csv\")", Some("TARGET/cloudknot"));
}

/// Packages that use cloudknot in unusual ways.
const UNUSUAL: &[(&str, &str)] = &[
    (
        "Cargo.toml",
        "[workspace]\nresolver = \"3\"\nmembers = [\"cloudknot\", \"optional\", \"dev\", \"derive\", \"größe\", \"gnu\"]\n\
         [package]\nname = \"root\"\nversion = \"0.1.0\"\nedition = \"2024\"\n",
    ),
    ("src/lib.rs", ""),
    (
        "optional/Cargo.toml",
        "[package]\nname = \"optional\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[features]\nremote = [\"dep:cloudknot\"]\n\
         [dependencies]\ncloudknot = { path = \"../cloudknot\", optional = true }\n",
    ),
    ("optional/src/lib.rs", "#[cfg(feature = \"remote\")]\ncloudknot::function!(\"f\");\n"),
    (
        "dev/Cargo.toml",
        "[package]\nname = \"dev\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[dev-dependencies]\ncloudknot.path = \"../cloudknot\"\n",
    ),
    ("dev/src/lib.rs", ""),
    ("dev/examples/sample.rs", "cloudknot::function!(\"sample\");\nfn main() { cloudknot::__start!(); }\n"),
    (
        "derive/Cargo.toml",
        "[package]\nname = \"derive\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[lib]\nproc-macro = true\n\
         [dependencies]\ncloudknot.path = \"../cloudknot\"\n",
    ),
    ("derive/src/lib.rs", ""),
    (
        "größe/Cargo.toml",
        "[package]\nname = \"größe\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[dependencies]\ncloudknot.path = \"../cloudknot\"\n",
    ),
    ("größe/src/main.rs", "cloudknot::function!(\"f\");\nfn main() { cloudknot::__start!(); }\n"),
    (
        "gnu/Cargo.toml",
        "[package]\nname = \"gnu\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
         [target.'cfg(target_env = \"gnu\")'.dependencies]\ncloudknot.path = \"../cloudknot\"\n",
    ),
    ("gnu/src/main.rs", "cloudknot::function!(\"f\");\nfn main() { cloudknot::__start!(); }\n"),
];

#[test]
fn unusual_packages_are_built_or_refused_with_advice() {
    let stand_in: Vec<_> = STANDING_IN.iter().filter(|(path, _)| path.starts_with("cloudknot/")).copied().collect();
    let folder = workspace("unusual", &[&stand_in[..], UNUSUAL].concat());
    let kind = CompileErrorKind::Selection;
    let expected = ["`root` does not use cloudknot", "`-p derive`, `-p dev`", "`-p größe`"];
    refused(&quick(&folder, Selection::default()), kind, &expected);
    let expected = ["`optional` does not use cloudknot", "select it with `--features remote`"];
    refused(&quick(&folder, package("optional")), kind, &expected);
    let expected = ["cannot find a program or a library in `derive`", "put them into another crate"];
    refused(&quick(&folder, package("derive")), kind, &expected);

    let remote = Selection { features: vec!["remote".into()], ..package("optional") };
    check(&quick(&folder, remote), &["f"]);
    let example = check(&quick(&folder, package("dev")), &["sample"]);
    assert_eq!(example.cargo_target, CargoTarget::Example("sample".into()));
    check(&quick(&folder, package("größe")), &["f"]);
    check(&quick(&folder, package("gnu")).target(format!("{}-unknown-linux-gnu", std::env::consts::ARCH)), &["f"]);
    assert_eq!(quick(&folder, package("gnu")).knot_name().unwrap(), "gnu");
}

#[test]
fn library_whose_build_script_looks_outside_of_the_workspace_is_built() {
    let compile = library("climbing", "cloudknot.path = \"../cloudknot\"", "");
    let script = "fn main() {\n    let folder = std::env::var(\"CARGO_MANIFEST_DIR\").unwrap();\n    \
                  let folder = std::path::Path::new(&folder).parent().unwrap().parent().unwrap();\n    \
                  std::fs::read(folder.join(\"other/Cargo.toml\")).unwrap();\n}\n";
    write(&compile.package_folder().unwrap().join("build.rs"), script);
    check(&compile, &["seven"]);
}

#[test]
fn library_has_the_replaced_packages_of_its_workspace() {
    let manifest = "[replace]\n\"cloudknot:0.1.0\" = { path = \"cloudknot\" }\n";
    let compile = library("replaced", "cloudknot = \"0.1\"", manifest);
    let folder = workspace("libraries of Müller & co/replaced", &[]).join("ws");
    vendor(&folder, "cloudknot", "0.1.0", "// It has nothing that the library needs.\n");
    write(&folder.join(".cargo/config.toml"), VENDORED);
    check(&compile, &["seven"]);
}
