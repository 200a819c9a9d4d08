//! A worker for 64-bit ARM, built on a machine of another kind and run there by an emulator.
//!
//! It takes a standard library for aarch64: the toolchain's own (`rustup target add aarch64-unknown-linux-musl`), or the
//! one that `tests/arm64.sh` unpacks into the target folder. Where there is none, the test says so.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use cloudknot_runtime::contract::{StoreAt, exit};
use cloudknot_runtime::store::DirStore;
use cloudknot_tests::counterparts::has;
use cloudknot_tests::recorded::{Recorded, types_of};
use cloudknot_tests::skip::skipped;
use cloudknot_tests::workspaces::{REAL, cargo_knot, workspace};

const EMULATOR: &str = "qemu-aarch64-static";
/// Has the kernel start programs for aarch64 with the emulator: a worker starts itself again, and the emulator alone does
/// not follow it there. Only for what is started here: not for the machine.
const EMULATED: &str = r#"
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc || exit 125
printf '%s' ":cloudknot:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:$1:F" \
    > /proc/sys/fs/binfmt_misc/register || exit 125
exec "$2"
"#;

/// The compiler to use, where it is not the usual one; none where no compiler has the library.
fn compiler() -> Option<Option<PathBuf>> {
    let has_std = |rustc: &PathBuf| {
        let target = ["--print", "target-libdir", "--target"];
        ["aarch64-unknown-linux-musl", "aarch64-unknown-linux-gnu"].iter().any(|triple| {
            let output = Command::new(rustc).args(target).arg(triple).output();
            output.is_ok_and(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
        })
    };
    if has_std(&"rustc".into()) {
        return Some(None);
    }
    let unpacked = cargo_knot().parent()?.parent()?.join("arm64/rustc");
    has_std(&unpacked).then_some(Some(unpacked))
}

fn path_of(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file()).expect("it is there")
}

#[tokio::test]
async fn a_worker_for_arm64_runs_under_emulation() {
    let what = "a worker for 64-bit ARM";
    let Some(compiler) = compiler() else {
        return skipped(what, "no standard library for aarch64; tests/arm64.sh unpacks one on Debian");
    };
    let mut build = Command::new(cargo_knot());
    build.args(["knot", "build", "-p", "prog", "--arm64", "--fast", "--json"]).current_dir(workspace("arm64", REAL));
    if let Some(compiler) = compiler {
        build.env("RUSTC", compiler);
    }
    let output = build.output().expect("the command starts");
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(3) {
        return skipped(what, &format!("there is no linker: {said}"));
    }
    assert!(output.status.success(), "{said}");
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert!(facts["target"].as_str().is_some_and(|target| target.starts_with("aarch64-")), "{facts}");
    let worker = facts["worker"].as_str().expect("the worker is named");
    if !has(EMULATOR) {
        return skipped("running a worker for 64-bit ARM", &format!("it was built, and there is no {EMULATOR}"));
    }

    let types = types_of(Command::new(EMULATOR).arg(worker), "double");
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).expect("the folder is ours");
    let store = DirStore::new(folder.path());
    let at = StoreAt::Folder(folder.path().to_str().expect("the path is text").to_owned());
    let inputs: Vec<u64> = (0..10).collect();
    let recorded = Recorded::new(&store, at, &types, "a-run", &inputs).await;
    let mut run = Command::new("unshare");
    run.args(["--user", "--map-root-user", "--mount", "sh", "-c", EMULATED, "sh"]).arg(path_of(EMULATOR)).arg(worker);
    let (name, task) = recorded.env();
    let output = run.env(name, task).output().expect("unshare starts");
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(125) || said.contains("unshare failed") {
        return skipped("a run of a worker for 64-bit ARM", &format!("it was built and told its types; {said}"));
    }
    assert_eq!(output.status.code(), Some(exit::DONE), "{said}");
    assert_eq!(recorded.values::<u64>(&store).await, inputs.iter().map(|number| 2 * number).collect::<Vec<_>>());
}
