//! Checks that every store must pass. The store must be empty, and is left empty.

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use cloudknot_runtime::store::{Result, Store, StoreError, StoreErrorKind};
use tokio::task::JoinSet;

/// Number of objects that exceeds one page of an S3 listing.
const MANY: usize = 1_100;
const MIB: usize = 1024 * 1024;

/// Runs every check on this store, each with its own prefix of keys.
///
/// # Panics
/// If the store fails a check.
pub async fn all(store: Arc<dyn Store>) {
    let store_ref = &*store;
    missing(store_ref).await;
    overwrite(store_ref).await;
    ranges(store_ref).await;
    short(store_ref).await;
    empty(store_ref).await;
    create_once(store_ref).await;
    racing_creates(&store).await;
    list_order(store_ref).await;
    list_prefix_and_after(store_ref).await;
    list_shows_size_and_time(store_ref).await;
    folders(store_ref).await;
    many(&store).await;
    delete(store_ref).await;
    writer(store_ref).await;
    dropped_writer(store_ref).await;
    big_writer(store_ref).await;
    bad_keys(store_ref).await;
    concurrent_use(&store).await;
    assert_eq!(keys(store_ref, "", None).await, [""; 0], "the suite leaves no object");
}

async fn missing(store: &dyn Store) {
    assert_eq!(store.get("missing/object").await.expect("get"), None);
    assert_eq!(store.size("missing/object").await.expect("size"), None);
    let error = store.get_range("missing/object", 0..1).await.expect_err("no object");
    assert_error(&error, StoreErrorKind::Missing, &["missing/object", &store.describe()]);
    let error = store.get_range("missing/object", 0..0).await.expect_err("no object, even for an empty range");
    assert_error(&error, StoreErrorKind::Missing, &["missing/object"]);
    assert_eq!(keys(store, "missing/", None).await, [""; 0]);
}

async fn overwrite(store: &dyn Store) {
    for value in ["first", "second, and longer", "3"] {
        store.put("overwrite/o", value.into()).await.expect("put");
        assert_eq!(text(store, "overwrite/o").await, value);
    }
    clear(store, "overwrite/").await;
}

async fn ranges(store: &dyn Store) {
    let whole = pattern(100_000, 7);
    store.put("ranges/o", whole.clone()).await.expect("put");
    assert_eq!(store.size("ranges/o").await.expect("size"), Some(100_000));
    for range in [0..1, 0..100_000, 99_999..100_000, 12_345..54_321, 5..5, 0..0, 100_000..100_000] {
        let Range { start, end } = range;
        let got = store.get_range("ranges/o", start as u64..end as u64).await.expect("range");
        assert_eq!(got, whole.slice(range), "bytes {start} to {end}");
    }
    clear(store, "ranges/").await;
}

async fn short(store: &dyn Store) {
    store.put("short/o", "0123456789".into()).await.expect("put");
    for range in [0..11, 9..11, 10..11, 11..11, 50..60, 0..u64::MAX] {
        let error = store.get_range("short/o", range.clone()).await.expect_err("past the end");
        assert_error(&error, StoreErrorKind::Short, &["short/o"]);
    }
    clear(store, "short/").await;
}

async fn empty(store: &dyn Store) {
    store.put("empty/put", Bytes::new()).await.expect("put");
    assert!(store.create("empty/create", Bytes::new()).await.expect("create"));
    let writer = store.writer("empty/writer").await.expect("writer");
    writer.finish().await.expect("finish");
    for key in ["empty/put", "empty/create", "empty/writer"] {
        assert_eq!(store.get(key).await.expect("get"), Some(Bytes::new()), "{key}");
        assert_eq!(store.size(key).await.expect("size"), Some(0), "{key}");
        assert_eq!(store.get_range(key, 0..0).await.expect("range"), Bytes::new(), "{key}");
        assert_error(&store.get_range(key, 0..1).await.expect_err("past the end"), StoreErrorKind::Short, &[key]);
    }
    clear(store, "empty/").await;
}

async fn create_once(store: &dyn Store) {
    assert!(store.create("create/o", "first".into()).await.expect("create"));
    assert!(!store.create("create/o", "second".into()).await.expect("create again"));
    assert_eq!(text(store, "create/o").await, "first");
    clear(store, "create/").await;
    assert!(store.create("create/o", "third".into()).await.expect("create after delete"));
    assert_eq!(text(store, "create/o").await, "third");
    clear(store, "create/").await;
}

/// Creates the same object several times at once, many times over: exactly one create reports success, and its value is
/// stored.
async fn racing_creates(store: &Arc<dyn Store>) {
    for round in 0..50 {
        let key = format!("racing/{round}");
        let mut racers = JoinSet::new();
        for racer in 0..4 {
            let (store, key) = (Arc::clone(store), key.clone());
            racers.spawn(async move { (racer, store.create(&key, format!("racer {racer}").into()).await) });
        }
        let mut winners = Vec::new();
        while let Some(raced) = racers.join_next().await {
            let (racer, created) = raced.expect("a racer ends");
            if created.expect("create") {
                winners.push(racer);
            }
        }
        assert_eq!(winners.len(), 1, "winners of round {round}: {winners:?}");
        assert_eq!(text(&**store, &key).await, format!("racer {}", winners[0]));
    }
    clear(&**store, "racing/").await;
}

async fn list_order(store: &dyn Store) {
    // In the order of bytes, `-` and `.` come before `/`, digits after it, and upper case before lower case.
    let ordered = [
        "list/A",
        "list/a",
        "list/a-b",
        "list/a.b/c",
        "list/a0",
        "list/b-a",
        "list/b/a",
        "list/b/b/c",
        "list/b0",
        "list/b_",
    ];
    for key in ordered.iter().rev() {
        store.put(key, "x".into()).await.expect("put");
    }
    assert_eq!(keys(store, "list/", None).await, ordered);
    clear(store, "list/").await;
}

async fn list_prefix_and_after(store: &dyn Store) {
    for key in ["p/a/1", "p/a/2", "p/a0/1", "p/ab/1", "p/b", "q/a"] {
        store.put(key, "x".into()).await.expect("put");
    }
    check_list(store, "p/a", None, &["p/a/1", "p/a/2", "p/a0/1", "p/ab/1"]).await;
    check_list(store, "p/a/", None, &["p/a/1", "p/a/2"]).await;
    check_list(store, "p/a/1", None, &["p/a/1"]).await;
    check_list(store, "p/c", None, &[]).await;
    check_list(store, "p", None, &["p/a/1", "p/a/2", "p/a0/1", "p/ab/1", "p/b"]).await;
    check_list(store, "p/", Some("p/a/1"), &["p/a/2", "p/a0/1", "p/ab/1", "p/b"]).await;
    // The key to list after need not exist, nor lie below the prefix.
    check_list(store, "p/", Some("p/a/15"), &["p/a/2", "p/a0/1", "p/ab/1", "p/b"]).await;
    check_list(store, "p/", Some("p/a"), &["p/a/1", "p/a/2", "p/a0/1", "p/ab/1", "p/b"]).await;
    check_list(store, "p/a/", Some("a"), &["p/a/1", "p/a/2"]).await;
    check_list(store, "p/", Some("p/b"), &[]).await;
    check_list(store, "", Some("p/ab/1"), &["p/b", "q/a"]).await;
    clear(store, "").await;
}

async fn folders(store: &dyn Store) {
    for key in ["f/a/1", "f/a-b/x/y/1", "f/a0/1", "f/file", "f.b/1", "g/f/1"] {
        store.put(key, "1".into()).await.expect("put");
    }
    check_folders(store, "f/", &["a", "a-b", "a0"]).await;
    check_folders(store, "f/a-b/", &["x"]).await;
    check_folders(store, "f/a/", &[]).await;
    check_folders(store, "missing/", &[]).await;
    check_folders(store, "", &["f", "f.b", "g"]).await;
    store.delete(&["f/a-b/x/y/1".into(), "f/a/1".into()]).await.expect("delete");
    check_folders(store, "f/", &["a0"]).await;
    for prefix in ["f/", "f.b/", "g/"] {
        clear(store, prefix).await;
    }
    check_folders(store, "", &[]).await;
    for bad in ["f", "/", "f//", "../"] {
        assert_error(&store.folders(bad).await.expect_err(bad), StoreErrorKind::BadKey, &[bad]);
    }
}

async fn check_folders(store: &dyn Store, prefix: &str, expected: &[&str]) {
    assert_eq!(store.folders(prefix).await.expect("folders"), expected, "the folders in `{prefix}`");
}

async fn list_shows_size_and_time(store: &dyn Store) {
    store.put("shown/a", pattern(12_345, 1)).await.expect("put");
    // On some stores a time has a resolution of one second. Readers rely on the order of two times.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    store.put("shown/b", Bytes::new()).await.expect("put");
    let listed = store.list("shown/", None).await.expect("list");
    assert_eq!(listed.iter().map(|object| object.size).collect::<Vec<_>>(), [12_345, 0]);
    assert!(listed[0].stored < listed[1].stored, "{listed:?}");
    clear(store, "shown/").await;
}

async fn many(store: &Arc<dyn Store>) {
    let expected: Vec<_> = (0..MANY).map(|number| format!("many/{number:05}/o")).collect();
    in_parallel(store, &expected, |store, key| async move { store.put(&key, key.clone().into()).await }).await;
    assert_eq!(keys(&**store, "many/", None).await, expected);
    assert_eq!(keys(&**store, "many/", Some(&expected[49])).await, expected[50..]);
    let folders: Vec<_> = (0..MANY).map(|number| format!("{number:05}")).collect();
    assert_eq!(store.folders("many/").await.expect("folders"), folders);
    store.delete(&expected).await.expect("delete more than one request can");
    assert_eq!(keys(&**store, "many/", None).await, [""; 0]);
}

async fn delete(store: &dyn Store) {
    for key in ["delete/a", "delete/b", "delete/c/d"] {
        store.put(key, "x".into()).await.expect("put");
    }
    let deleted = ["delete/a", "delete/never-there", "delete/c/d"].map(str::to_owned);
    store.delete(&deleted).await.expect("delete");
    assert_eq!(keys(store, "delete/", None).await, ["delete/b"]);
    store.delete(&deleted).await.expect("delete again");
    store.delete(&[]).await.expect("delete nothing");
    clear(store, "delete/").await;
}

async fn writer(store: &dyn Store) {
    store.put("writer/o", "old".into()).await.expect("put");
    let mut writer = store.writer("writer/o").await.expect("writer");
    for piece in ["new, ", "", "in ", "pieces"] {
        writer.write(piece.into()).await.expect("write");
        assert_eq!(text(store, "writer/o").await, "old", "visible only when finished");
    }
    assert_eq!(keys(store, "writer/", None).await, ["writer/o"]);
    writer.finish().await.expect("finish");
    assert_eq!(text(store, "writer/o").await, "new, in pieces");
    clear(store, "writer/").await;
}

async fn dropped_writer(store: &dyn Store) {
    for size in [10, 20 * MIB] {
        let mut writer = store.writer("dropped/o").await.expect("writer");
        writer.write(pattern(size, 3)).await.expect("write");
        drop(writer);
        assert_eq!(store.get("dropped/o").await.expect("get"), None);
        assert_eq!(keys(store, "", None).await, [""; 0]);
    }
}

async fn big_writer(store: &dyn Store) {
    let whole = pattern(20 * MIB + 12_345, 11);
    let mut writer = store.writer("big/o").await.expect("writer");
    // Pieces that are aligned with neither a page nor a part.
    for start in (0..whole.len()).step_by(777_777) {
        writer.write(whole.slice(start..whole.len().min(start + 777_777))).await.expect("write");
    }
    assert_eq!(store.get("big/o").await.expect("get"), None, "visible only when finished");
    writer.finish().await.expect("finish");
    assert!(store.get("big/o").await.expect("get").is_some_and(|got| got == whole), "the whole object differs");
    let across = 8 * MIB - 3..16 * MIB + 5;
    let got = store.get_range("big/o", across.start as u64..across.end as u64).await.expect("range");
    assert!(got == whole.slice(across), "a range across parts differs");
    assert_eq!(store.list("big/", None).await.expect("list")[0].size, whole.len() as u64);
    clear(store, "big/").await;
}

async fn bad_keys(store: &dyn Store) {
    for key in ["", "/etc/passwd", "../outside", "a/../../b", "a//b", "a/", ".hidden", "a/.tmp", "a b", "a\0b", "ü"] {
        assert_bad(store.get(key).await, key);
        assert_bad(store.size(key).await, key);
        assert_bad(store.get_range(key, 0..1).await, key);
        assert_bad(store.put(key, Bytes::new()).await, key);
        assert_bad(store.create(key, Bytes::new()).await, key);
        assert_bad(store.writer(key).await.map(drop), key);
        assert_bad(store.delete(&[key.to_owned()]).await, key);
    }
    assert_bad(store.list("../", None).await, "../");
}

/// Reads and writes the same keys concurrently: each read returns one whole value.
async fn concurrent_use(store: &Arc<dyn Store>) {
    let tasks: Vec<_> = (0..64).map(|task| format!("concurrent/{}", task % 4)).collect();
    in_parallel(store, &tasks, |store, key| async move {
        let (one, other) = (pattern(50_000, 1), pattern(70_000, 2));
        store.put(&key, one.clone()).await?;
        store.put(&key, other.clone()).await?;
        let got = store.get(&key).await?.expect("the object exists once it was written");
        assert!(got == one || got == other, "a read returned a part of an object");
        store.list("concurrent/", None).await.map(|_| ())
    })
    .await;
    clear(&**store, "concurrent/").await;
}

/// Calls `work` for every key, with up to 16 calls at a time.
async fn in_parallel<F>(store: &Arc<dyn Store>, keys: &[String], work: impl Fn(Arc<dyn Store>, String) -> F)
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut running: JoinSet<Result<()>> = JoinSet::new();
    for key in keys {
        if running.len() == 16 {
            running.join_next().await.expect("a task runs").expect("the task does not panic").expect("the store works");
        }
        running.spawn(work(Arc::clone(store), key.clone()));
    }
    while let Some(done) = running.join_next().await {
        done.expect("the task does not panic").expect("the store works");
    }
}

async fn check_list(store: &dyn Store, prefix: &str, after: Option<&str>, expected: &[&str]) {
    assert_eq!(keys(store, prefix, after).await, expected, "`{prefix}` after {after:?}");
}

async fn keys(store: &dyn Store, prefix: &str, after: Option<&str>) -> Vec<String> {
    store.list(prefix, after).await.expect("list").into_iter().map(|object| object.key).collect()
}

async fn clear(store: &dyn Store, prefix: &str) {
    let keys = keys(store, prefix, None).await;
    store.delete(&keys).await.expect("clear");
}

async fn text(store: &dyn Store, key: &str) -> String {
    let bytes = store.get(key).await.expect("get").expect("the object exists");
    String::from_utf8(bytes.into()).expect("the object is UTF-8")
}

/// Returns bytes that differ between positions, so that no part of them equals another.
fn pattern(length: usize, seed: u32) -> Bytes {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn assert_bad<T>(result: Result<T>, key: &str) {
    match result {
        Ok(_) => panic!("{key:?} is accepted as a key"),
        Err(error) => assert_error(&error, StoreErrorKind::BadKey, &[]),
    }
}

/// Checks the kind of an error, and that its message has the common form and contains these names.
///
/// # Panics
/// If the error is another one.
pub fn assert_error(error: &StoreError, kind: StoreErrorKind, names: &[&str]) {
    let message = error.to_string();
    assert_eq!(error.kind(), kind, "{message}: {:?}", error.source());
    assert!(message.starts_with("cannot ") && !message.ends_with('.'), "{message}");
    for name in names {
        assert!(message.contains(name), "`{message}` names `{name}`");
    }
}
