//! Tests of the S3 store against a real S3 server: the shared suite, and injected faults.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future;
use aws_sdk_s3::config::{Credentials, ProvideCredentials};
use bytes::Bytes;
use cloudknot_runtime::store::{Store, StoreError, StoreErrorKind};
use cloudknot_tests::s3_server::Fault::{Refused, ResponseLost, Truncated};
use cloudknot_tests::s3_server::{ACCESS_KEY, BUCKET, Fault, S3Server, SECRET_KEY, store_at};
use cloudknot_tests::store_suite::{self, assert_error};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn suite() {
    let server = S3Server::start().await;
    store_suite::all(Arc::new(server.store("").await)).await;
    let aside = server.store("other/place").await;
    aside.put("a", "x".into()).await.expect("put");
    // One prefix can be the beginning of another.
    store_suite::all(Arc::new(server.store("other/pl").await)).await;
    assert_eq!(aside.list("", None).await.expect("list").len(), 1);
}

#[tokio::test]
async fn prefix_is_below_the_bucket() {
    let server = S3Server::start().await;
    for prefix in ["some/prefix", "/some/prefix/"] {
        let store = server.store(prefix).await;
        assert_eq!(store.describe(), format!("s3://{BUCKET}/some/prefix"));
        store.put("a", "x".into()).await.expect("put");
        assert!(server.folder().join(BUCKET).join("some/prefix/a").is_file());
    }
    assert_eq!(server.store("").await.list("", None).await.expect("list")[0].key, "some/prefix/a");
}

/// A folder that was created in the console is an object, but not an object of the store.
#[tokio::test]
async fn foreign_objects_are_not_listed() {
    let server = S3Server::start().await;
    let store = server.store("").await;
    store.put("a/b", "x".into()).await.expect("put");
    std::fs::write(server.folder().join(BUCKET).join("a/some notes.txt"), "mine").expect("write");
    let listed = store.list("", None).await.expect("list");
    assert_eq!(listed.iter().map(|object| &object.key).collect::<Vec<_>>(), ["a/b"]);
}

#[tokio::test]
async fn transient_fault_is_retried() {
    let server = S3Server::start().await;
    let store = server.store("").await;
    let errors = [Refused(503, "SlowDown"), Refused(500, "InternalError")];
    server.inject(errors);
    store.put("a", "x".into()).await.expect("put");
    server.inject(errors);
    assert!(store.create("b", "y".into()).await.expect("create"));
    server.inject(errors);
    assert_eq!(store.get("a").await.expect("get"), Some("x".into()));
    server.inject(errors);
    assert_eq!(store.list("", None).await.expect("list").len(), 2);
    server.inject(errors);
    store.delete(&["a".to_owned()]).await.expect("delete");
    assert_eq!(server.take_requests().len(), 5 * 3);
}

#[tokio::test]
async fn persistent_fault_is_an_error() {
    let server = S3Server::start().await;
    let store = server.store("").await;
    server.inject([Refused(503, "ServiceUnavailable"); 4]);
    let error = store.get("a").await.expect_err("four times 503");
    check(
        &error,
        StoreErrorKind::Unavailable,
        "ServiceUnavailable: Injected ServiceUnavailable (status 503, request REQUEST)",
    );
}

/// A write whose response was lost is repeated; a create then finds the object that it wrote.
#[tokio::test]
async fn lost_responses_are_retried() {
    let server = S3Server::start().await;
    let store = server.store("").await;
    server.inject([ResponseLost]);
    store.put("put", "x".into()).await.expect("put");
    server.inject([ResponseLost]);
    assert!(!store.create("create", "y".into()).await.expect("create"));
    assert_eq!(store.get("create").await.expect("get"), Some("y".into()));
    server.inject([ResponseLost]);
    store.delete(&["put".to_owned()]).await.expect("delete");
}

#[tokio::test]
async fn lost_responses_of_a_multipart_upload_are_retried() {
    let server = S3Server::start().await;
    let store = server.store("").await;
    let whole = Bytes::from(vec![7; 9 * 1024 * 1024]);
    let mut writer = store.writer("big").await.expect("writer");
    writer.write(whole.clone()).await.expect("write");
    // The first part is on its way or has arrived; the fault affects the second part, or the completion.
    while server.take_requests().iter().filter(|request| request.contains("partNumber=1")).count() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.inject([ResponseLost, ResponseLost]);
    // s3s-fs denies access to an upload that no longer exists, where S3 returns NoSuchUpload, so the part's response has
    // to be lost twice.
    writer.finish().await.expect("finish");
    assert_eq!(store.get("big").await.expect("get"), Some(whole));
}

/// A second completion of an upload fails because the upload no longer exists. It has succeeded if the object exists.
#[tokio::test]
async fn repeated_completion_succeeds_if_the_object_exists() {
    let server = S3Server::start().await;
    let store = server.store("").await;
    let whole = Bytes::from(vec![7; 8 * 1024 * 1024]);
    for (size, done) in [(whole.len(), true), (5, false)] {
        store.put("big", whole.slice(..size)).await.expect("an earlier attempt has stored the object");
        let mut writer = store.writer("big").await.expect("writer");
        writer.write(whole.clone()).await.expect("write");
        while !server.take_requests().iter().any(|request| request.contains("partNumber=1")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.inject([Refused(404, "NoSuchUpload")]);
        assert_eq!(writer.finish().await.is_ok(), done);
    }
}

#[tokio::test]
async fn truncated_response_is_retried() {
    let server = S3Server::start().await;
    let store = server.store("").await;
    store.put("a", "some bytes".into()).await.expect("put");
    server.inject([Truncated, Truncated]);
    assert_eq!(store.get("a").await.expect("get"), Some("some bytes".into()));
    server.inject([Truncated]);
    assert_eq!(store.get_range("a", 5..10).await.expect("range"), "bytes");
    server.inject([Truncated; 5]);
    let error = store.get("a").await.expect_err("five times");
    assert_error(&error, StoreErrorKind::Unavailable, &["`a`"]);
}

#[tokio::test]
async fn conflicts_are_retried() {
    let server = S3Server::start().await;
    let store = server.store("").await;
    server.inject([Refused(409, "ConditionalRequestConflict"); 2]);
    assert!(store.create("a", "x".into()).await.expect("create"));
    server.inject([Refused(409, "ConditionalRequestConflict")]);
    assert!(!store.create("a", "y".into()).await.expect("create"));
}

#[tokio::test]
async fn refusals_have_kind_and_hint() {
    let server = S3Server::start().await;
    let store = server.store("").await;
    let refused = async |fault: Fault| {
        server.inject([fault]);
        store.get("some/key").await.expect_err("refused")
    };
    let denied = refused(Refused(403, "AccessDenied")).await;
    check(&denied, StoreErrorKind::Denied, "AccessDenied");
    assert!(denied.hint().is_some_and(|hint| hint.contains("without s3:ListBucket")), "{:?}", denied.hint());
    let expired = refused(Refused(400, "ExpiredToken")).await;
    check(&expired, StoreErrorKind::Credentials, "ExpiredToken");
    assert!(expired.hint().is_some_and(|hint| hint.contains("log in")));
    let bucket = refused(Refused(404, "NoSuchBucket")).await;
    check(&bucket, StoreErrorKind::NoStore, "NoSuchBucket");
    let region = refused(Refused(301, "PermanentRedirect")).await;
    check(&region, StoreErrorKind::Other, "PermanentRedirect");
    assert!(region.hint().is_some_and(|hint| hint.contains("AWS_REGION")));
}

#[tokio::test]
async fn missing_bucket_is_reported() {
    let server = S3Server::start().await;
    let store = server.store_as("no-bucket", "", Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test")).await;
    let error = store.list("", None).await.expect_err("no bucket");
    check(&error, StoreErrorKind::NoStore, "NoSuchBucket");
    assert!(error.to_string().contains("s3://no-bucket/"), "{error}");
}

#[tokio::test]
async fn wrong_secret_is_a_credentials_error() {
    let server = S3Server::start().await;
    for (key, code) in [(ACCESS_KEY, "SignatureDoesNotMatch"), ("AKIANOBODY", "NotSignedUp")] {
        let store = server.store_as(BUCKET, "", Credentials::new(key, "wrong", None, None, "test")).await;
        let errors = [
            store.put("a", "x".into()).await.expect_err("put"),
            store.get("a").await.expect_err("get"),
            store.list("", None).await.expect_err("list"),
        ];
        for error in errors {
            check(&error, StoreErrorKind::Credentials, code);
        }
    }
    assert_eq!(server.store("").await.list("", None).await.expect("list"), []);
}

#[derive(Debug)]
struct NoCredentials;

impl ProvideCredentials for NoCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("not logged in")))
    }
}

#[tokio::test]
async fn missing_credentials_send_no_request() {
    let server = S3Server::start().await;
    let store = server.store_as(BUCKET, "", NoCredentials).await;
    let error = store.get("a").await.expect_err("no credentials");
    check(&error, StoreErrorKind::Credentials, "not logged in");
    assert_eq!(server.take_requests(), [""; 0]);
}

#[tokio::test]
async fn closed_port_is_unavailable() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let address = listener.local_addr().expect("a listener has an address");
    drop(listener);
    let store = store_at(address, BUCKET, "", Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test")).await;
    let error = store.get("a").await.expect_err("closed port");
    check(&error, StoreErrorKind::Unavailable, "refused");
    assert!(error.hint().is_some_and(|hint| hint.contains("network")));
}

#[tokio::test]
async fn dropped_upload_is_aborted() {
    let server = S3Server::start().await;
    let store = server.store("").await;
    let mut writer = store.writer("big").await.expect("writer");
    writer.write(vec![1; 20 * 1024 * 1024].into()).await.expect("write");
    assert!(uploads(&server) > 0, "no upload has begun");
    drop(writer);
    let aborted = tokio::time::timeout(Duration::from_secs(30), async {
        while uploads(&server) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    aborted.await.expect("the upload is aborted");
    assert_eq!(store.list("", None).await.expect("list"), []);
}

/// Returns the number of files that the server holds for incomplete uploads.
fn uploads(server: &S3Server) -> usize {
    let entries = std::fs::read_dir(server.folder()).expect("list");
    entries
        .filter(|entry| entry.as_ref().expect("an entry").file_name().to_string_lossy().starts_with(".upload"))
        .count()
}

/// Checks the kind of an error, and that one of its causes contains this.
fn check(error: &StoreError, kind: StoreErrorKind, cause: &str) {
    assert_error(error, kind, &[BUCKET.trim_start_matches("a-")]);
    let causes: Vec<_> =
        std::iter::successors(error.source(), |&cause| cause.source()).map(ToString::to_string).collect();
    assert!(causes.iter().any(|text| text.contains(cause)), "`{cause}` is not in {causes:?}");
}
