//! Tests of the folder store: the shared suite, and checks that are specific to folders.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cloudknot_runtime::store::{DirStore, Store, StoreErrorKind};
use cloudknot_tests::skip::skipped;
use cloudknot_tests::store_suite::{self, assert_error};
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn suite() {
    let folder = folder();
    store_suite::all(Arc::new(DirStore::new(folder.path().join("store")))).await;
}

/// The supervisor polls stores on plain threads.
#[test]
fn needs_no_runtime() {
    let folder = folder();
    let store = DirStore::new(folder.path());
    assert!(now(store.create("a/b", "x".into())).expect("create"));
    let mut writer = now(store.writer("a/c")).expect("writer");
    now(writer.write("y".into())).expect("write");
    now(writer.finish()).expect("finish");
    assert_eq!(now(store.list("", None)).expect("list").len(), 2);
}

#[test]
fn folder_is_created_by_the_first_write() {
    let folder = folder();
    let root = folder.path().join("some/where");
    let store = DirStore::new(&root);
    assert_eq!(now(store.get("a")).expect("get"), None);
    assert_eq!(now(store.list("", None)).expect("list"), []);
    now(store.delete(&["a".to_owned()])).expect("delete");
    assert!(!root.exists(), "a read created a folder");
    now(store.put("a", Bytes::new())).expect("put");
    assert_eq!(fs::read_to_string(root.join(".gitignore")).expect("read"), "*\n");
}

#[test]
fn existing_folder_gets_no_gitignore() {
    let folder = folder();
    fs::write(folder.path().join("README"), "mine").expect("write");
    let store = DirStore::new(folder.path());
    now(store.put("a", Bytes::new())).expect("put");
    assert!(!folder.path().join(".gitignore").exists());
}

/// A change of the current folder must not move the store.
#[test]
fn root_is_absolute() {
    assert!(DirStore::new("relative").root().is_absolute());
}

#[test]
fn removed_folder_is_recreated() {
    let folder = folder();
    let store = DirStore::new(folder.path().join("store"));
    assert!(now(store.create("runs/1/a", "x".into())).expect("create"));
    fs::remove_dir_all(store.root().join("runs")).expect("remove");
    assert!(now(store.create("runs/1/a", "y".into())).expect("create"));
    fs::remove_dir_all(store.root()).expect("remove");
    assert!(now(store.create("runs/1/a", "z".into())).expect("create"));
    assert_eq!(now(store.get("runs/1/a")).expect("get"), Some("z".into()));
}

#[test]
fn temporary_files_are_removed() {
    let folder = folder();
    let store = DirStore::new(folder.path());
    now(store.put("a", "x".into())).expect("put");
    now(store.create("a", "x".into())).expect("create an existing object");
    now(store.create("b", "x".into())).expect("create");
    let mut writer = now(store.writer("c")).expect("writer");
    now(writer.write("x".into())).expect("write");
    assert_eq!(temps(&store), 1);
    drop(writer);
    assert_eq!(temps(&store), 0);
}

/// Leftovers of killed programs are never listed, never interfere, and are removed after a week.
#[test]
fn old_temporary_files_are_removed() {
    let folder = folder();
    let first = DirStore::new(folder.path());
    now(first.put("a", "x".into())).expect("put");
    let old = folder.path().join(".tmp/1-0-0");
    fs::write(&old, "half of an obj").expect("write");
    fs::write(folder.path().join(".tmp/1-0-1"), "of today").expect("write");
    let week_ago = SystemTime::now() - Duration::from_hours(8 * 24);
    fs::File::options().write(true).open(&old).expect("open").set_modified(week_ago).expect("set time");

    let second = DirStore::new(folder.path());
    now(second.put("b", "x".into())).expect("put");
    let listed: Vec<_> = now(second.list("", None)).expect("list").into_iter().map(|object| object.key).collect();
    assert_eq!(listed, ["a", "b"]);
    assert!(!old.exists() && temps(&second) == 1);
}

/// One program lists while another one deletes.
#[test]
fn listing_tolerates_concurrent_deletes() {
    let folder = folder();
    let store = DirStore::new(folder.path());
    std::thread::scope(|scope| {
        let churn = scope.spawn(|| {
            for round in 0..2_000 {
                let key = format!("churn/{}/{round}", round % 10);
                now(store.put(&key, "x".into())).expect("put");
                now(store.delete(&[key])).expect("delete");
                let _ = fs::remove_dir(folder.path().join(format!("churn/{}", round % 10)));
            }
        });
        while !churn.is_finished() {
            now(store.list("churn/", None)).expect("list");
        }
    });
}

#[test]
fn read_only_folder_can_be_read() {
    let folder = folder();
    let root = folder.path().join("store");
    now(DirStore::new(&root).put("a", "x".into())).expect("put");
    let Some(_mounted) = read_only(&root) else { return };
    let store = DirStore::new(&root);
    assert_eq!(now(store.get("a")).expect("get"), Some("x".into()), "a read needs no write access");
    assert_eq!(now(store.list("", None)).expect("list").len(), 1);
    let errors = [
        now(store.put("b", Bytes::new())).expect_err("put"),
        now(store.create("b", Bytes::new())).expect_err("create"),
        now(store.writer("b")).map(drop).expect_err("writer"),
        now(store.delete(&["a".to_owned()])).expect_err("delete"),
    ];
    for error in errors {
        assert_error(&error, StoreErrorKind::Denied, &[&store.describe()]);
        assert!(error.hint().is_some_and(|hint| hint.contains("CLOUDKNOT_HOME")));
    }
}

#[test]
fn full_disk_keeps_stored_objects() {
    let folder = folder();
    let root = folder.path().join("store");
    fs::create_dir(&root).expect("create a folder");
    let Some(_mounted) = mount(&root, "a full disk", &["-t", "tmpfs", "-o", "size=256k", "tmpfs"]) else { return };
    let store = DirStore::new(&root);
    assert!(now(store.create("kept", "x".into())).expect("create"));
    let big = Bytes::from(vec![1; 1024 * 1024]);
    let errors = [
        now(store.put("kept", big.clone())).expect_err("put"),
        now(store.create("b", big.clone())).expect_err("create"),
        now(now(store.writer("b")).expect("writer").write(big)).expect_err("write"),
    ];
    for error in errors {
        assert_error(&error, StoreErrorKind::Full, &[&store.describe()]);
        assert!(error.hint().is_some_and(|hint| hint.contains("free space")));
    }
    assert_eq!(temps(&store), 0, "failed writes leave no temporary files");
    assert_eq!(now(store.get("kept")).expect("get"), Some("x".into()), "a stored object is kept");
    assert!(now(store.create("small", "y".into())).expect("create"));
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be created")
}

/// Returns the result of a future that is ready when it is created, as are all futures of this store.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("a future of the folder store is not ready"),
    }
}

fn temps(store: &DirStore) -> usize {
    fs::read_dir(store.root().join(".tmp")).expect("list").count()
}

/// Mount that is unmounted when dropped.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

/// Mounts a folder read-only: file permissions do not stop root, but such a mount does.
fn read_only(root: &Path) -> Option<Mounted<'_>> {
    let mounted = mount(root, "a read-only folder", &["--bind", root.to_str().expect("the path is UTF-8")])?;
    let remounted = Command::new("mount").args(["-o", "remount,bind,ro"]).arg(root).status().expect("mount runs");
    assert!(remounted.success(), "a bind mount cannot be made read-only");
    Some(mounted)
}

fn mount<'a>(root: &'a Path, test: &str, args: &[&str]) -> Option<Mounted<'a>> {
    let done = Command::new("mount").args(args).arg(root).output();
    if done.is_ok_and(|done| done.status.success()) {
        return Some(Mounted(root));
    }
    skipped(test, "this user may not mount a file system");
    None
}
