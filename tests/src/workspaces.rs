//! Small cargo workspaces for the tests of compilation, outside of this one: cargo confuses workspaces within
//! workspaces. They persist from run to run, in a path with a space, so that only the first run compiles their
//! dependencies.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use crate::shared::{lock, shared};

/// Writes the files (path and content) of a workspace, and returns its folder. In the content of a file, `CLOUDKNOT` is
/// replaced by the path of this repository's `cloudknot`.
///
/// # Panics
/// If a file cannot be written.
pub fn workspace(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let repository = repository();
    let root = parent().join(name);
    // Another test may be about to write the same files.
    let _lock = lock("workspaces");
    let cloudknot = format!("'{}'", repository.join("cloudknot").display());
    for (path, content) in files {
        write(&root.join(path), &content.replace("CLOUDKNOT", &cloudknot));
    }
    // With the versions of this repository no network is needed. cargo drops the unused ones.
    if !root.join("Cargo.lock").exists() {
        fs::copy(repository.join("Cargo.lock"), root.join("Cargo.lock")).expect("the repository has a lock file");
    }
    root
}

/// Returns the folder of all such workspaces, which differs between checkouts.
pub(crate) fn parent() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    repository().hash(&mut hasher);
    std::env::temp_dir().join(format!("cloudknot tests {:016x}", hasher.finish()))
}

/// Writes a file, unless it already has this content, so that cargo finds it unchanged.
///
/// # Panics
/// If the file cannot be written.
pub fn write(path: &Path, content: &str) {
    if fs::read_to_string(path).is_ok_and(|present| present == content) {
        return;
    }
    fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("the folder can be created");
    fs::write(path, content).expect("the file can be written");
}

/// Workspace with the real `cloudknot`: functions in a program, in its library, in another crate and in an example.
pub const REAL: &[(&str, &str)] = &[
    (
        "Cargo.toml",
        r#"
[workspace]
resolver = "3"
members = ["prog", "kit"]

[workspace.package]
version = "1.2.3"
edition = "2024"

[workspace.dependencies]
cloudknot = { path = CLOUDKNOT, default-features = false }

# As in the repository: optimized, what a worker depends on takes twice as long to compile.
[profile.cloudknot-fast]
inherits = "release"
[profile.cloudknot-fast.package."*"]
opt-level = 0
"#,
    ),
    (
        "prog/Cargo.toml",
        r#"
[package]
name = "prog"
version.workspace = true
edition.workspace = true

[features]
more = []

[dependencies]
cloudknot.workspace = true
kit.path = "../kit"
"#,
    ),
    (
        "prog/src/main.rs",
        r#"
use kit as _;

/// Doubles.
#[cloudknot::remote(memory = "2 GiB", retries = 2, timeout = "15m")]
fn double(x: u64) -> u64 {
    2 * x
}

#[cfg(feature = "more")]
#[cloudknot::remote]
fn more(x: u64) -> u64 {
    x + 1
}

#[cloudknot::main]
fn main() {}
"#,
    ),
    (
        "prog/examples/sample.rs",
        r"
#[cloudknot::remote]
fn of_the_example(x: u64) -> u64 {
    x
}

#[cloudknot::main]
fn main() {}
",
    ),
    (
        "kit/Cargo.toml",
        r#"
[package]
name = "kit"
version.workspace = true
edition.workspace = true

[features]
extra = []

[dependencies]
cloudknot.workspace = true
"#,
    ),
    (
        "kit/src/lib.rs",
        r#"
#[cloudknot::remote]
fn triple(x: u64) -> u64 {
    assert!(x > 0, "a panic names a file, whose path is in the worker");
    3 * x
}

#[cfg(feature = "extra")]
mod inner {
    #[cloudknot::remote]
    fn quadruple(x: u64) -> u64 {
        4 * x
    }
}
"#,
    ),
];

/// Workspace with a stand-in for `cloudknot` that compiles quickly. The data that a target reports about itself is
/// written by hand, so that it can also be wrong.
pub const STANDING_IN: &[(&str, &str)] = &[
    (
        "Cargo.toml",
        "[workspace]\nresolver = \"3\"\nmembers = [\"cloudknot\", \"lone\", \"many\", \"odd\", \"without\"]\n",
    ),
    (
        "cloudknot/Cargo.toml",
        "[package]\nname = \"cloudknot\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[features]\ndefault = [\"aws\"]\naws = []\n",
    ),
    (
        "cloudknot/src/lib.rs",
        r##"
#[macro_export]
macro_rules! line {
    ($line:expr) => {
        const _: () = {
            const LINE: &str = $line;
            #[used]
            #[unsafe(link_section = ".cloudknot")]
            static SECTION: [u8; LINE.len()] = $crate::bytes(LINE);
        };
    };
}

#[macro_export]
macro_rules! function {
    ($name:expr) => {
        $crate::line!(concat!(
            r#"{"package":"stand-in","module":"some","name":""#, $name, r#"","signature":"fn()","codec":"bincode"}"#, "\n"
        ));
    };
}

#[macro_export]
macro_rules! __start {
    () => {
        $crate::line!("{\"start\":true,\"contract\":1}\n");
        if std::env::var_os(concat!("CLOUD", "KNOT_DESCRIBE")).is_some() {
            println!("\ncloudknot-types: []");
        }
    };
}

pub const fn bytes<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    while at < N {
        bytes[at] = text.as_bytes()[at];
        at += 1;
    }
    bytes
}
"##,
    ),
    ("lone/Cargo.toml", LONE),
    (
        "lone/src/main.rs",
        r#"
#[cfg(cloudknot_worker)]
cloudknot::function!("in_a_worker");
#[cfg(of_the_user)]
cloudknot::function!("of_the_user");
#[cfg(target_feature = "avx2")]
cloudknot::function!("with_avx2");
#[cfg(debug_assertions)]
cloudknot::function!("debug_assertions");

fn main() {
    cloudknot::__start!();
}
"#,
    ),
    (
        "many/Cargo.toml",
        "[package]\nname = \"many\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\ncloudknot.path = \"../cloudknot\"\n",
    ),
    ("many/src/bin/one.rs", "fn main() {}\n"),
    ("many/src/bin/two.rs", "fn main() {}\n"),
    (
        "odd/Cargo.toml",
        "[package]\nname = \"odd\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\ncloudknot.path = \"../cloudknot\"\n",
    ),
    ("odd/src/lib.rs", "//! Uses cloudknot, and has no remote function.\n"),
    ("odd/examples/broken.rs", "fn main() { this_does_not_exist() }\n"),
    // Refused by a deploy: the first one before it is compiled, which it could not be.
    ("odd/examples/gpu.rs", "#[cloudknot::remote(gpus = 1)]\nfn train() {}\nfn main() {}\n"),
    (
        "odd/examples/gpu_of_a_macro.rs",
        r##"
cloudknot::line!(concat!(
    r#"{"package":"odd","module":"gpu_of_a_macro","name":"train","signature":"fn()","codec":"bincode","gpus":1}"#, "\n"
));
fn main() { cloudknot::__start!(); }
"##,
    ),
    ("odd/examples/nothing.rs", "fn main() { cloudknot::__start!(); }\n"),
    ("odd/examples/own_main.rs", "cloudknot::function!(\"f\");\nfn main() {}\n"),
    (
        "odd/examples/twice.rs",
        "cloudknot::function!(\"f\");\ncloudknot::function!(\"f\");\nfn main() { cloudknot::__start!(); }\n",
    ),
    ("without/Cargo.toml", "[package]\nname = \"without\"\nversion = \"0.1.0\"\nedition = \"2024\"\n"),
    ("without/src/main.rs", "fn main() {}\n"),
];

/// Manifest of the package `lone` in [`STANDING_IN`]. Appended text becomes part of its last table.
pub const LONE: &str = r#"
[package]
name = "lone"
version = "0.1.0"
edition = "2024"

[dependencies]
cloudknot.path = "../cloudknot"

[lints.rust]
unexpected_cfgs = "allow"
"#;

/// Returns the path of the command `cargo knot`.
///
/// # Panics
/// If it does not compile.
pub fn cargo_knot() -> &'static Path {
    static CARGO_KNOT: LazyLock<PathBuf> = LazyLock::new(|| program("cargo-knot"));
    &CARGO_KNOT
}

/// Returns the path of a program of this workspace: the one that was handed over, or else one that is built with the
/// settings of the tests, so that its dependencies are already compiled.
///
/// # Panics
/// If it does not compile.
pub fn program(name: &str) -> PathBuf {
    if let Some(shared) = shared() {
        return shared.programs.join(name);
    }
    let mut build = Command::new(env!("CARGO"));
    // Otherwise, cargo would recompile ring and its dependents: their build script depends on these variables of the
    // test.
    let is_of_test = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_of_test)) {
        build.env_remove(name);
    }
    build.args([
        "build",
        "--workspace",
        "--features",
        "cloudknot-tests/counterparts",
        "--bin",
        name,
        "--test",
        "macros_ui",
    ]);
    built(build, name)
}

/// Returns the path of the command `cargo knot` as users have it, optimized. Built on first use, which takes minutes.
///
/// # Panics
/// If it does not compile.
pub fn cargo_knot_released() -> &'static Path {
    static CARGO_KNOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--release", "-p", "cargo-knot"]);
        built(build, "cargo-knot")
    });
    &CARGO_KNOT
}

/// Builds the program of this name, and returns its path.
fn built(mut build: Command, name: &str) -> PathBuf {
    let output = build.args(["--message-format", "json"]).current_dir(repository()).output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    let mut executables = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let executable = message["executable"].as_str()?;
        (message["target"]["name"] == name).then(|| PathBuf::from(executable))
    });
    executables.next().expect("cargo reports the executable that it built")
}

/// Fails unless a build has succeeded without a warning. cargo repeats the warnings of packages that it does not
/// recompile.
///
/// # Panics
/// If the build has failed or emitted a warning.
#[track_caller]
pub fn no_warnings(build: &Output) {
    let stderr = String::from_utf8_lossy(&build.stderr);
    // Without the colon, which has another color in colored output.
    assert!(build.status.success() && !stderr.contains("warning"), "{stderr}");
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the repository")
}

/// Returns the worker of a program of this package, compiled as for a deploy.
///
/// # Panics
/// If it cannot be compiled.
pub fn worker_of_this_package(program: &str, features: &str) -> PathBuf {
    let output = build_of_this_package(program, features).arg("--json").output().expect("the command starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    facts["worker"].as_str().expect("the output has the path of the worker").into()
}

/// Returns the note of the trial's image, as `cargo knot build` writes it, for a worker that supports folders and S3.
/// Built once, from the command line.
///
/// # Panics
/// If it cannot be built.
pub fn trial_image() -> &'static Path {
    static NOTE: LazyLock<PathBuf> = LazyLock::new(|| {
        if let Some(note) = shared().and_then(|shared| shared.trial_image.clone()) {
            return note;
        }
        // Next to the command, in the target folder.
        let home = cargo_knot().parent().expect("a program is in a folder").join("trial-image");
        let output = build_trial_image(&home);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        home.join("image.json")
    });
    &NOTE
}

/// Builds the trial's image, and stores it in this folder.
///
/// # Panics
/// If `cargo knot` cannot be started.
pub fn build_trial_image(home: &Path) -> Output {
    let mut build = build_of_this_package("trial", "aws");
    build.arg("--fast").env("CLOUDKNOT_HOME", home).output().expect("the command starts")
}

fn build_of_this_package(program: &str, features: &str) -> Command {
    let mut build = Command::new(cargo_knot());
    build.args(["knot", "build", "-p", "cloudknot-tests", "--bin", program, "--features", features]);
    build.current_dir(repository());
    build
}
