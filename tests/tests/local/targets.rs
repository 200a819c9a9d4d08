//! Tests of workers for targets other than this machine's own: built, and run, with an emulator if necessary.
//!
//! A target requires its standard library: the toolchain's own (`rustup target add aarch64-unknown-linux-musl`), or,
//! for 64-bit ARM, the one that `tests/arm64.sh` unpacks into the target folder. Without a library, the test is
//! skipped.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use cloudknot_runtime::contract::{StoreAt, exit};
use cloudknot_runtime::store::DirStore;
use cloudknot_tests::counterparts::has;
use cloudknot_tests::recorded::{Recorded, types_of};
use cloudknot_tests::skip::{optional, skipped};
use cloudknot_tests::workspaces::{REAL, cargo_knot, workspace};

const EMULATOR: &str = "qemu-aarch64-static";
/// Script that makes the kernel start programs for aarch64 with the emulator: a worker starts itself again, which the
/// emulator alone does not emulate. Applies only to the started program, not to the machine.
const EMULATED: &str = r#"
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc || exit 125
printf '%s' ":cloudknot:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:$1:F" \
    > /proc/sys/fs/binfmt_misc/register || exit 125
exec "$2"
"#;

/// Returns the compiler to use; `None` if no compiler has the target's library.
fn compiler(target: &str) -> Option<PathBuf> {
    let has_std = |rustc: &PathBuf| {
        let output = Command::new(rustc).args(["--print", "target-libdir", "--target", target]).output();
        output.is_ok_and(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
    };
    let unpacked = cargo_knot().parent()?.parent()?.join("arm64/rustc");
    [PathBuf::from("rustc"), unpacked].into_iter().find(has_std)
}

fn path_of(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .expect("the program is in the path")
}

/// Returns the function that reports a missing library: the library is optional if the other one for the architecture
/// is installed.
fn optional_with(other: &str) -> fn(&str, &str) {
    if compiler(other).is_some() { optional } else { skipped }
}

#[tokio::test]
async fn aarch64_musl() {
    // `--arm64` chooses this target if it is installed.
    check("aarch64-unknown-linux-musl", &["--arm64"], optional_with("aarch64-unknown-linux-gnu")).await;
}

#[tokio::test]
async fn aarch64_gnu() {
    check(
        "aarch64-unknown-linux-gnu",
        &["--target", "aarch64-unknown-linux-gnu"],
        optional_with("aarch64-unknown-linux-musl"),
    )
    .await;
}

#[tokio::test]
async fn x86_64_musl() {
    check("x86_64-unknown-linux-musl", &["--target", "x86_64-unknown-linux-musl"], optional).await;
}

/// Builds a worker for the target, reads its types, and lets it run ten items. `lacks` reports a missing library.
async fn check(target: &str, options: &[&str], lacks: fn(&str, &str)) {
    let what = format!("a worker for {target}");
    let Some(compiler) = compiler(target) else {
        return lacks(
            &what,
            "its standard library is not installed; CLOUDKNOT_TESTS_ALSO=arm64 tests/run.sh installs it",
        );
    };
    let mut build = Command::new(cargo_knot());
    build.args(["knot", "build", "-p", "prog", "--fast", "--json"]).args(options);
    build.current_dir(workspace("targets", REAL)).env("RUSTC", compiler).env_remove("CLOUDKNOT_HOME");
    let output = build.output().expect("the command starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(3) {
        return skipped(&what, &format!("no linker is available: {stderr}"));
    }
    assert!(output.status.success(), "{stderr}");
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(facts["target"], target);
    let worker = facts["worker"].as_str().expect("the output has the path of the worker");
    let emulated = !target.starts_with(std::env::consts::ARCH);
    if emulated && !has(EMULATOR) {
        return skipped(&format!("running {what}"), &format!("the worker was built, and {EMULATOR} is not installed"));
    }

    let start = || {
        let mut command = Command::new(if emulated { "unshare" } else { worker });
        if emulated {
            command.args(["--user", "--map-root-user", "--mount", "sh", "-c", EMULATED, "sh"]);
            command.arg(path_of(EMULATOR)).arg(worker);
        }
        command
    };
    let types = types_of(&mut start(), "double");
    let folder = tempfile::tempdir().expect("a temporary folder can be created");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).expect("the test owns the folder");
    let store = DirStore::new(folder.path());
    let at = StoreAt::Folder(folder.path().to_str().expect("the path is UTF-8").to_owned());
    let inputs: Vec<u64> = (0..10).collect();
    let recorded = Recorded::new(&store, at, &types, "a-run", &inputs).await;
    let (name, task) = recorded.env();
    let output = start().env(name, task).output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(125) || stderr.starts_with("unshare: ") {
        return skipped(&format!("a run of {what}"), &format!("the worker was built and reported its types; {stderr}"));
    }
    assert_eq!(output.status.code(), Some(exit::DONE), "{stderr}");
    assert_eq!(recorded.values::<u64>(&store).await, inputs.iter().map(|number| 2 * number).collect::<Vec<_>>());
}
