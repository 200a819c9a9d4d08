//! Tests of the folder store: the shared suite, and checks that are specific to folders.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cloudknot_runtime::store::{DirStore, Store, StoreError, StoreErrorKind};
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

/// L3: inputs, results and logs are for the user who has submitted the run.
#[test]
fn l3_files_and_folders_are_for_their_user_alone() {
    let folder = folder();
    let root = folder.path().join("some/where");
    let store = DirStore::new(&root);
    now(store.put("runs/1/a", "x".into())).expect("put");
    assert!(now(store.create("runs/1/b", "x".into())).expect("create"));
    now(now(store.writer("runs/1/c")).expect("writer").finish()).expect("finish");
    store.open_lock("runs/1/lock").expect("lock");
    for path in
        ["../../some", "", ".gitignore", ".tmp", "runs", "runs/1", "runs/1/a", "runs/1/b", "runs/1/c", "runs/1/lock"]
    {
        let metadata = fs::symlink_metadata(root.join(path)).expect(path);
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.permissions().mode() & 0o777, expected, "{path}");
    }
}

/// L2: the folder may be shared, or come with a clone. The path of the store is the user's own word.
#[test]
fn only_links_in_the_path_of_the_store_are_followed() {
    let folder = folder();
    fs::create_dir(folder.path().join("real")).expect("create a folder");
    symlink(folder.path().join("real"), folder.path().join("store")).expect("link");
    let store = DirStore::new(folder.path().join("store"));
    now(store.put("runs/1/a", "x".into())).expect("put");
    assert_eq!(now(store.get("runs/1/a")).expect("get"), Some("x".into()));
    assert!(folder.path().join("real/runs/1/a").exists());
}

/// Folder that is not the store's, with one file.
fn outside() -> TempDir {
    let outside = folder();
    fs::write(outside.path().join("a"), "precious").expect("write");
    outside
}

#[track_caller]
fn check_outside(outside: &TempDir) {
    let names: Vec<_> =
        fs::read_dir(outside.path()).expect("list").map(|entry| entry.expect("list").file_name()).collect();
    assert_eq!(names, ["a"]);
    assert_eq!(fs::read_to_string(outside.path().join("a")).expect("read"), "precious");
}

/// L2: as above.
#[test]
fn linked_file_is_neither_read_nor_written() {
    let (folder, outside) = (folder(), outside());
    let store = DirStore::new(folder.path());
    now(store.put("runs/1/b", "x".into())).expect("put");
    let link = folder.path().join("runs/1/a");
    symlink(outside.path().join("a"), &link).expect("link");
    for error in [
        now(store.get("runs/1/a")).map(drop).expect_err("get"),
        now(store.size("runs/1/a")).map(drop).expect_err("size"),
        now(store.get_range("runs/1/a", 0..1)).map(drop).expect_err("get a range"),
        store.open_lock("runs/1/a").map(drop).expect_err("lock"),
    ] {
        check_wrong_kind(&error, "runs/1/a", "`a` is a symbolic link");
    }
    assert_eq!(now(store.list("runs/", None)).expect("list").len(), 1);
    assert!(!now(store.create("runs/1/a", "y".into())).expect("create"));
    // Objects take the place of the link.
    now(store.put("runs/1/a", "z".into())).expect("put");
    assert_eq!(now(store.get("runs/1/a")).expect("get"), Some("z".into()));
    check_outside(&outside);
}

/// L2: as above.
#[test]
fn linked_folder_is_not_entered() {
    for link in ["runs", "runs/1", "runs/1/results"] {
        let (folder, outside) = (folder(), outside());
        let path = folder.path().join(link);
        fs::create_dir_all(path.parent().expect("the link is in a folder")).expect("create a folder");
        symlink(outside.path(), &path).expect("link");
        let store = DirStore::new(folder.path());
        let key = format!("{link}/a");
        let name = path.file_name().expect("the link has a name").to_string_lossy().into_owned();
        for error in [
            now(store.get(&key)).map(drop).expect_err("get"),
            now(store.size(&key)).map(drop).expect_err("size"),
            now(store.get_range(&key, 0..1)).map(drop).expect_err("get a range"),
            now(store.put(&key, "x".into())).expect_err("put"),
            now(store.create(&key, "x".into())).map(drop).expect_err("create"),
            now(store.list(&format!("{link}/"), None)).map(drop).expect_err("list"),
            now(store.delete(std::slice::from_ref(&key))).expect_err("delete"),
            store.open_lock(&key).map(drop).expect_err("lock"),
        ] {
            check_wrong_kind(&error, link, &format!("`{name}` is a symbolic link"));
        }
        assert_eq!(now(store.list("", None)).expect("list"), []);
        check_outside(&outside);
    }
}

/// L2: old files in a folder that `.tmp` was a link to were deleted.
#[test]
fn linked_folder_of_temporary_files_is_refused() {
    let (folder, outside) = (folder(), outside());
    let week_ago = SystemTime::now() - Duration::from_hours(8 * 24);
    let old = fs::File::options().write(true).open(outside.path().join("a")).expect("open");
    old.set_modified(week_ago).expect("set time");
    symlink(outside.path(), folder.path().join(".tmp")).expect("link");
    let store = DirStore::new(folder.path());
    for error in [
        now(store.put("b", "x".into())).expect_err("put"),
        now(store.create("b", "x".into())).map(drop).expect_err("create"),
        now(store.writer("b")).map(drop).expect_err("writer"),
    ] {
        check_wrong_kind(&error, "b", "`.tmp` is a symbolic link");
    }
    check_outside(&outside);
}

/// L2: opening a FIFO waits for its other end.
#[test]
fn special_files_are_refused_at_once() {
    let folder = folder();
    let store = DirStore::new(folder.path());
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs").success());
    fs::create_dir(folder.path().join("folder")).expect("create a folder");
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).expect("bind");
    for key in ["fifo", "folder", "socket"] {
        for error in [
            now(store.get(key)).map(drop).expect_err("get"),
            now(store.get_range(key, 0..1)).map(drop).expect_err("get a range"),
        ] {
            check_wrong_kind(&error, key, "not a regular file");
        }
    }
    check_wrong_kind(&store.open_lock("fifo").map(drop).expect_err("lock"), "fifo", "not a regular file");
    assert_eq!(now(store.list("", None)).expect("list"), []);
}

#[track_caller]
fn check_wrong_kind(error: &StoreError, key: &str, reason: &str) {
    assert_error(error, StoreErrorKind::Other, &[key]);
    let source = std::error::Error::source(error).expect("the error has a cause").to_string();
    assert!(source.contains(reason), "{source}");
    assert!(error.hint().is_some_and(|hint| hint.contains("CLOUDKNOT_HOME")), "{:?}", error.hint());
}

/// L2: the lock was truncated.
#[test]
fn lock_keeps_its_contents() {
    let folder = folder();
    let store = DirStore::new(folder.path());
    now(store.put("runs/1/lock", "a note".into())).expect("put");
    store.open_lock("runs/1/lock").expect("open").try_lock().expect("lock");
    assert_eq!(now(store.get("runs/1/lock")).expect("get"), Some("a note".into()));
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
        assert_error(&error, StoreErrorKind::NoAccess, &[&store.describe()]);
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

/// A look at a lock creates nothing, keeps nothing, and sees the locks of all programs.
#[test]
fn lock_is_seen_without_being_taken() {
    let folder = folder();
    let store = DirStore::new(folder.path());
    assert!(!store.is_locked("a/lock").expect("no such file"));
    assert!(folder.path().read_dir().expect("list").next().is_none(), "a look created a file");
    let file = store.open_lock("a/lock").expect("open");
    assert!(!store.is_locked("a/lock").expect("not locked"));
    file.try_lock().expect("a look leaves the lock free");
    assert!(store.is_locked("a/lock").expect("locked"));
    drop(file);
    assert!(!store.is_locked("a/lock").expect("released"));
}

#[test]
fn empty_folders_are_removed() {
    let folder = folder();
    let store = DirStore::new(folder.path());
    for key in ["k/runs/r/results/0", "k/runs/r/failures/1/2", "k/runs/s/0"] {
        now(store.put(key, "x".into())).expect("put");
    }
    now(store.delete(&["k/runs/r/results/0".to_owned()])).expect("delete");
    store.remove_empty_folders("k/runs/r/").expect("remove");
    assert!(!folder.path().join("k/runs/r/results").exists());
    assert_eq!(now(store.list("k/", None)).expect("list").len(), 2, "objects stay");
    now(store.delete(&["k/runs/r/failures/1/2".to_owned()])).expect("delete");
    store.remove_empty_folders("k/runs/r/").expect("remove");
    assert!(!folder.path().join("k/runs/r").exists() && folder.path().join("k/runs").exists());
    store.remove_empty_folders("k/runs/r/").expect("nothing is left");
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
