//! Programs that have cloudknot under another name, or from another crate: each runs on this machine and compiles as a
//! worker.

use std::path::PathBuf;
use std::sync::LazyLock;

use cloudknot::compile::{CargoTarget, Compile, Profile, Selection};
use cloudknot_tests::walk::cargo;
use cloudknot_tests::workspaces::workspace;

const FILES: &[(&str, &str)] = &[
    (
        "Cargo.toml",
        r#"
[workspace]
resolver = "3"
members = ["by_workspace", "by_target", "lab", "in_scope", "by_path"]

[workspace.package]
version = "1.0.0"
edition = "2024"

[workspace.dependencies]
ck = { package = "cloudknot", path = CLOUDKNOT, default-features = false }

[workspace.lints.rust]
warnings = "deny"
unexpected_cfgs = { level = "deny", check-cfg = ["cfg(cloudknot_worker)"] }

[profile.cloudknot-fast]
inherits = "release"
[profile.cloudknot-fast.package."*"]
opt-level = 0
"#,
    ),
    (
        "by_workspace/Cargo.toml",
        r#"
[package]
name = "by_workspace"
version.workspace = true
edition.workspace = true

[dependencies]
ck.workspace = true

[lints]
workspace = true
"#,
    ),
    (
        "by_workspace/src/main.rs",
        r#"
// Nothing of cloudknot.
mod cloudknot {}

static FACTOR: std::sync::OnceLock<u32> = std::sync::OnceLock::new();

#[ck::init]
fn prepare() {
    FACTOR.set(2).expect("this runs once");
}

#[ck::remote]
async fn double(text: &str) -> Result<u32, std::num::ParseIntError> {
    Ok(FACTOR.get().unwrap_or(&0) * text.parse::<u32>()?)
}

#[ck::main]
async fn main() -> ck::Result<()> {
    println!("{:?}", double.map(["1".to_owned(), "2".to_owned()]).await?);
    Ok(())
}
"#,
    ),
    (
        "by_target/Cargo.toml",
        r#"
[package]
name = "by_target"
version.workspace = true
edition.workspace = true

[target.'cfg(unix)'.dev-dependencies]
knots = { package = "cloudknot", path = CLOUDKNOT, default-features = false }

[lints]
workspace = true
"#,
    ),
    ("by_target/src/lib.rs", "//! Has an example with remote functions.\n"),
    (
        "by_target/examples/sample.rs",
        r#"
#[knots::remote]
fn double(x: u32) -> u32 {
    2 * x
}

#[knots::main]
fn main() -> knots::Result<()> {
    println!("{:?}", double.map([1, 2]).wait()?);
    Ok(())
}
"#,
    ),
    (
        "lab/Cargo.toml",
        r#"
[package]
name = "lab"
version.workspace = true
edition.workspace = true

[dependencies]
cloudknot = { path = CLOUDKNOT, default-features = false }

[lints]
workspace = true
"#,
    ),
    ("lab/src/lib.rs", "//! Provides cloudknot.\n\npub use cloudknot;\n"),
    (
        "in_scope/Cargo.toml",
        r#"
[package]
name = "in_scope"
version.workspace = true
edition.workspace = true

[dependencies]
lab.path = "../lab"

[lints]
workspace = true
"#,
    ),
    (
        "in_scope/src/main.rs",
        r#"
use lab::cloudknot;

#[cloudknot::init]
fn prepare() {}

#[cloudknot::remote]
fn double(x: u32) -> u32 {
    2 * x
}

#[cloudknot::main]
fn main() -> cloudknot::Result<()> {
    println!("{:?}", double.map([1, 2]).wait()?);
    Ok(())
}
"#,
    ),
    (
        "by_path/Cargo.toml",
        r#"
[package]
name = "by_path"
version.workspace = true
edition.workspace = true

[dependencies]
lab.path = "../lab"

[lints]
workspace = true
"#,
    ),
    (
        "by_path/src/main.rs",
        r#"
mod inner {
    // Nothing of cloudknot.
    mod cloudknot {}

    #[lab::cloudknot::remote(crate = "lab::cloudknot")]
    pub fn double(numbers: &[u32], by: u32) -> Vec<u32> {
        numbers.iter().map(|number| by * number).collect()
    }
}

#[lab::cloudknot::init(crate = "lab::cloudknot")]
fn prepare() -> Result<(), String> {
    Ok(())
}

#[lab::cloudknot::main(crate = "lab::cloudknot")]
async fn main() -> lab::cloudknot::Result<()> {
    println!("{:?}", inner::double.map([(vec![1, 2], 2)]).await?.concat());
    Ok(())
}
"#,
    ),
];

static WORKSPACE: LazyLock<PathBuf> = LazyLock::new(|| workspace("renamed", FILES));

fn check(package: &str, target: &[&str], cargo_target: Option<CargoTarget>) {
    let output = cargo(&WORKSPACE).args(["run", "--quiet", "--offline", "-p", package]).args(target).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((String::from_utf8_lossy(&output.stdout).as_ref(), stderr.as_ref()), ("[2, 4]\n", ""), "{package}");
    let selection = Selection { package: Some(package.into()), target: cargo_target, ..Selection::default() };
    let compile = Compile::new(selection).in_folder(&*WORKSPACE).cargo_option("--offline").profile(Profile::Fast);
    let worker = compile.run().unwrap_or_else(|error| panic!("{package}: {error}"));
    let names: Vec<_> = worker.functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(names, ["double"], "{package}");
}

#[test]
fn renamed_dependency_is_found() {
    check("by_workspace", &[], None);
    check("by_target", &["--example", "sample"], Some(CargoTarget::Example("sample".into())));
}

#[test]
fn facade_is_found_in_scope_or_by_its_path() {
    check("in_scope", &[], None);
    check("by_path", &[], None);
}
