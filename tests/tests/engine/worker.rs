//! Worker in its image as a scheduler starts it: `FROM scratch`, with as few privileges as a container can have, over a
//! folder and over S3. No host is involved: these tests create the run's record from the contract.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;

use cloudknot::{DockerImage, DockerImageBuilder};
use cloudknot_runtime::contract::{StoreAt, exit};
use cloudknot_runtime::store::{DirStore, Store};
use cloudknot_tests::authority::Authority;
use cloudknot_tests::counterparts::{Docker, run};
use cloudknot_tests::recorded::{Recorded, types_of};
use cloudknot_tests::s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
use cloudknot_tests::trial::Behavior;
use cloudknot_tests::workspaces::{build_trial_image, no_warnings, trial_image};
use serde_json::json;

/// Path of the worker.
pub(crate) static WORKER: LazyLock<String> = LazyLock::new(|| {
    let note = std::fs::read(trial_image()).expect("the note of the trial's image exists");
    let note: serde_json::Value = serde_json::from_slice(&note).expect("the note is JSON");
    note["worker"].as_str().expect("the note has the path of the worker").to_owned()
});

async fn recorded(store: &dyn Store, at: StoreAt, inputs: &[Behavior]) -> Recorded {
    let types = types_of(&mut Command::new(&*WORKER), "work");
    Recorded::new(store, at, &types, "a-run", inputs).await
}

/// Returns the environment variable that passes the task to a container.
pub(crate) fn env_of(recorded: &Recorded) -> String {
    let (name, value) = recorded.env();
    format!("{name}={value}")
}

/// Runs a container without privileges: its root is read-only, it has no capabilities, and its user is unprivileged.
pub(crate) fn container(docker: &Docker, options: &[&str], image: &str) -> Output {
    let mut command = docker.command();
    command.args(["run", "--rm", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]);
    command.args(["--user", "65532:65532"]).args(options).arg(image);
    command.output().expect("docker starts")
}

/// Like [`container`], with access to this S3 server.
fn container_on(docker: &Docker, url: &str, recorded: &Recorded, image: &str) -> Output {
    let keys = [format!("AWS_ACCESS_KEY_ID={ACCESS_KEY}"), format!("AWS_SECRET_ACCESS_KEY={SECRET_KEY}")];
    container_as(&keys, docker, url, recorded, image)
}

/// Like [`container`], with access to this S3 server, and the credentials in these variables.
fn container_as(credentials: &[String], docker: &Docker, url: &str, recorded: &Recorded, image: &str) -> Output {
    let at = [env_of(recorded), format!("AWS_ENDPOINT_URL={url}"), "AWS_REGION=eu-central-1".into()];
    let env = [&at, credentials].concat();
    let env = env.iter().flat_map(|env| ["--env", env]);
    container(docker, &["--network", "host"].into_iter().chain(env).collect::<Vec<_>>(), image)
}

pub(crate) fn check_done(output: &Output) {
    assert_eq!(output.status.code(), Some(exit::DONE), "{output:?}");
}

pub(crate) fn image(name: &str) -> DockerImageBuilder {
    DockerImage::builder(format!("cloudknot-tests/{name}"), &*WORKER)
}

/// Image that the engine has until this value is dropped.
pub(crate) struct LoadedImage {
    pub(crate) name: String,
    docker: Arc<Docker>,
}

impl LoadedImage {
    pub(crate) async fn new(docker: &Arc<Docker>, image: DockerImageBuilder) -> Self {
        let image = image.build().await.expect("the image can be assembled");
        let tar = tempfile::NamedTempFile::new().expect("a temporary file");
        image.save(tar.path()).expect("the image can be saved");
        run(docker.command().arg("load").arg("--input").arg(tar.path()));
        Self { name: format!("{}:latest", image.name()), docker: Arc::clone(docker) }
    }
}

impl Drop for LoadedImage {
    fn drop(&mut self) {
        // No container uses the image any more.
        let _ = self.docker.command().args(["image", "rm", "--force", &self.name]).output();
    }
}

fn doubles() -> Vec<Behavior> {
    (0..20).map(Behavior::Double).collect()
}

fn doubled() -> Vec<u64> {
    (0..20).map(|number| 2 * number).collect()
}

#[test]
fn s3_worker_compiles_without_warnings() {
    let home = tempfile::tempdir().unwrap();
    no_warnings(&build_trial_image(home.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn folder_store_without_network_or_privileges() {
    let Some(docker) = Docker::get() else { return };
    let image = LoadedImage::new(&docker, image("folder")).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be created");
    let store = DirStore::new(folder.path());
    let recorded = recorded(&store, StoreAt::Folder("/runs".into()), &doubles()).await;
    let user = owner(folder.path());
    let volume = format!("{}:/runs", folder.path().display());
    let env = env_of(&recorded);
    let options = ["--network", "none", "--volume", &volume, "--env", &env, "--user", &user];
    check_done(&container(&docker, &options, &image.name));
    assert_eq!(recorded.values::<u64>(&store).await, doubled());
}

/// Returns the user who may access the folder: this one, as the Docker backend does; if it is root, the folder is given to a user
/// without privileges.
pub(crate) fn owner(folder: &Path) -> String {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    if !user.is_root() {
        return format!("{}:{}", user.as_raw(), group.as_raw());
    }
    run(Command::new("chown").args(["-R", "65532:65532"]).arg(folder));
    "65532:65532".to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_store_uses_one_get_and_one_put() {
    let Some(docker) = Docker::get() else { return };
    let image = LoadedImage::new(&docker, image("s3")).await;
    let server = S3Server::start().await;
    let url = format!("http://{}", server.address());
    let mut two_sizes = doubles();
    two_sizes[3] = Behavior::Sleep(1, 6);
    for (prefix, inputs, requests) in
        [("one", doubles(), ["GET", "PUT"].as_slice()), ("two", two_sizes, &["GET", "GET", "PUT"])]
    {
        let store = server.store(prefix).await;
        let at = StoreAt::S3 { bucket: BUCKET.into(), prefix: prefix.into() };
        let recorded = recorded(&store, at, &inputs).await;
        server.take_requests();
        check_done(&container_on(&docker, &url, &recorded, &image.name));
        let sent = server.take_requests();
        let methods: Vec<_> = sent.iter().filter_map(|request| request.split(' ').next()).collect();
        assert_eq!(methods, requests, "{sent:?}");
        assert_eq!(recorded.values::<u64>(&store).await, doubled());
    }
}

/// Serves the credentials of a task's role, as ECS does for the containers of the task.
fn serve_task_role() -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}/role", listener.local_addr().expect("a listener has an address"));
    let serve = move || {
        let (mut client, _) = listener.accept().expect("the worker connects");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).expect("the request has an end");
            request.extend(byte);
        }
        let keys = json!({
            "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "Token": "of-the-session",
            "Expiration": "2099-01-01T00:00:00Z", "RoleArn": "arn:aws:iam::123456789012:role/cloudknot",
        });
        let keys = keys.to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", keys.len());
        write!(client, "{head}connection: close\r\n\r\n{keys}").expect("the worker reads the response");
        String::from_utf8(request).expect("a request is UTF-8")
    };
    (url, std::thread::spawn(serve))
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_store_with_task_role_credentials() {
    let Some(docker) = Docker::get() else { return };
    let image = LoadedImage::new(&docker, image("role")).await;
    let server = S3Server::start().await;
    let url = format!("http://{}", server.address());
    let store = server.store("role").await;
    let at = StoreAt::S3 { bucket: BUCKET.into(), prefix: "role".into() };
    let recorded = recorded(&store, at, &doubles()).await;

    let (role, request) = serve_task_role();
    let credentials =
        [format!("AWS_CONTAINER_CREDENTIALS_FULL_URI={role}"), "AWS_CONTAINER_AUTHORIZATION_TOKEN=a-token".to_owned()];
    check_done(&container_as(&credentials, &docker, &url, &recorded, &image.name));
    let request = request.join().expect("the role was requested").to_lowercase();
    assert!(request.starts_with("get /role ") && request.contains("authorization: a-token"), "{request}");
    assert_eq!(recorded.values::<u64>(&store).await, doubled());

    let refused = container_as(&[], &docker, &url, &recorded, &image.name);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(exit::INFRASTRUCTURE), "{stderr}");
    assert!(stderr.contains("no credentials") || stderr.contains("credential"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_over_tls_requires_the_ca_in_the_image() {
    let (Some(docker), Some(authority)) = (Docker::get(), Authority::new(Ipv4Addr::LOCALHOST.into())) else { return };
    let server = S3Server::start_tls(&authority).await;
    let url = format!("https://{}", server.address());
    // The test writes to the same folder without this server, whose certificate the test does not trust.
    let store = DirStore::new(server.folder().join(BUCKET));
    let at = StoreAt::S3 { bucket: BUCKET.into(), prefix: String::new() };
    let recorded = recorded(&store, at, &doubles()).await;

    let without = LoadedImage::new(&docker, image("tls-without")).await;
    let refused = container_on(&docker, &url, &recorded, &without.name);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(exit::INFRASTRUCTURE), "{stderr}");
    assert!(stderr.contains("invalid peer certificate: UnknownIssuer"), "{stderr}");
    assert!(
        stderr.contains("hint: give the certificate authority of the S3 endpoint to workers with `ca-bundle`"),
        "{stderr}"
    );

    assert_eq!(server.connections(), 1, "permanent errors are not retried");

    let with = LoadedImage::new(&docker, image("tls-with").ca_bundle(authority.ca())).await;
    check_done(&container_on(&docker, &url, &recorded, &with.name));
    assert_eq!(recorded.values::<u64>(&store).await, doubled());
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_of_other_types_has_a_hint() {
    let Some(docker) = Docker::get() else { return };
    let image = LoadedImage::new(&docker, image("types")).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be created");
    let store = DirStore::new(folder.path());
    let mut recorded = recorded(&store, StoreAt::Folder("/runs".into()), &doubles()).await;
    recorded.task.fingerprint.0 ^= 1;
    let refused = container(&docker, &["--network", "none", "--env", &env_of(&recorded)], &image.name);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(exit::WRONG_WORKER), "{stderr}");
    assert!(stderr.contains("hint: deploy again"), "{stderr}");
}
