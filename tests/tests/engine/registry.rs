//! Tests of pushes to a real registry: the blobs that are sent, the blobs that are not, and the effect of faults.

use std::error::Error;
use std::fs;
use std::process::Command;
use std::sync::{Arc, Mutex};

use cloudknot::image::{Image, ImageOptions};
use cloudknot::registry::{Deleted, Login, Progress, RegistryErrorKind, Repository};
use cloudknot_tests::authority::Authority;
use cloudknot_tests::counterparts::{CLOSED_PORT, Docker, Registry, has, own_address, run};
use cloudknot_tests::proxy::{Fault, Proxy};
use cloudknot_tests::skip::skipped;
use cloudknot_tests::worker::worker;

fn image() -> Image {
    Image::assemble(worker(), &ImageOptions::new("probe", "1.2.3")).unwrap()
}

fn login() -> Login {
    Login::password(Registry::USER, Registry::PASSWORD)
}

/// Returns a repository on this host with a login, and the events that its operations report.
fn repository(host: &str) -> (Repository, Arc<Mutex<Vec<String>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = events.clone();
    let repository = Repository::new(&format!("{host}/lab/probe")).unwrap().login(login());
    let repository = repository.on_progress(move |progress| {
        let event = match progress {
            Progress::Present { .. } => "present".to_owned(),
            Progress::Sending { sent, bytes, .. } if sent == bytes => "sending all".to_owned(),
            Progress::Sending { .. } => "sending".to_owned(),
            Progress::Sent { .. } => "sent".to_owned(),
            Progress::Retrying { reason, .. } => format!("retrying: {reason}"),
            Progress::Tagged { tag } => format!("tagged {tag}"),
            other => format!("{other:?}"),
        };
        log.lock().unwrap().push(event);
    });
    (repository, events)
}

/// Returns the events without those that report the progress of a blob.
fn outline(events: &Mutex<Vec<String>>) -> Vec<String> {
    events.lock().unwrap().iter().filter(|event| !event.starts_with("sending")).cloned().collect()
}

#[tokio::test]
async fn only_missing_blobs_are_sent() {
    let Some(registry) = Registry::start() else { return };
    let image = image();
    let blobs: u64 = image.compressed_bytes() - image.manifest().len() as u64;
    let (repository, events) = repository(&registry.host());

    let pushed = repository.push(&image, &["one"]).await.unwrap();
    assert_eq!(pushed.reference, format!("{}/lab/probe@{}", registry.host(), image.digest()));
    assert_eq!((pushed.sent_bytes, pushed.tags), (blobs, vec!["one".to_owned()]));
    assert_eq!(outline(&events), ["sent", "sent", "tagged one"]);
    assert_eq!(events.lock().unwrap().iter().filter(|event| *event == "sending all").count(), 2);
    assert_eq!(registry.requests("POST ").len(), 2);

    // The same image again: one query, and not a byte is sent.
    let writes = || ["POST ", "PUT ", "PATCH "].map(|verb| registry.requests(verb).len());
    let before = writes();
    let again = repository.push(&image, &["one"]).await.unwrap();
    assert_eq!(again.sent_bytes, 0);
    assert_eq!(writes(), before);

    // Another tag: only the manifest is sent, because a tag names a manifest.
    let tagged = repository.push(&image, &["one", "two"]).await.unwrap();
    assert_eq!(tagged.sent_bytes, 0);
    assert_eq!(writes(), [before[0], before[1] + 1, before[2]]);

    // Another label: another configuration over the same layer.
    let other = Image::assemble(worker(), &ImageOptions::new("probe", "1.2.4")).unwrap();
    let other_pushed = repository.push(&other, &["one"]).await.unwrap();
    assert_eq!(other_pushed.sent_bytes, other.config().len() as u64);
}

#[tokio::test]
async fn private_ca_must_be_configured() {
    let Some(address) = own_address() else {
        return skipped("a registry over TLS", "this machine has only a loopback address");
    };
    let Some(authority) = Authority::new(address) else { return };
    let Some(registry) = Registry::start_tls(address, &authority) else { return };
    let (repository, events) = repository(&registry.host());

    let refused = repository.push(&image(), &["one"]).await.unwrap_err();
    assert_eq!(refused.kind(), RegistryErrorKind::Untrusted, "{refused:?}");
    assert!(refused.hint().unwrap().contains("`ca-bundle`"), "{refused:?}");
    assert_eq!(outline(&events), [""; 0], "permanent errors are not retried");

    let trusting = repository.ca_bundle(authority.ca());
    let pushed = trusting.push(&image(), &["one"]).await.unwrap();
    assert_eq!(trusting.delete(image().digest()).await.unwrap(), Deleted::Yes);
    assert!(pushed.reference.starts_with(&format!("{address}:")), "{pushed:?}");
}

#[tokio::test]
async fn default_tag_is_derived_from_the_digest() {
    let Some(registry) = Registry::start() else { return };
    let image = image();
    let (repository, _) = repository(&registry.host());
    let pushed = repository.push(&image, &[]).await.unwrap();
    assert_eq!(pushed.tags, [&image.digest()[7..19]]);
}

#[tokio::test]
async fn skopeo_reads_the_pushed_image() {
    let Some(registry) = Registry::start() else { return };
    if !has("skopeo") {
        return skipped("tests that need skopeo", "skopeo is not installed");
    }
    let image = image();
    let pushed = repository(&registry.host()).0.push(&image, &["one"]).await.unwrap();
    let credentials = format!("{}:{}", Registry::USER, Registry::PASSWORD);
    let mut skopeo = Command::new("skopeo");
    skopeo.args([
        "inspect",
        "--tls-verify=false",
        "--creds",
        &credentials,
        "--format",
        "{{.Digest}} {{.Architecture}}",
    ]);
    let seen = run(skopeo.arg(format!("docker://{}", pushed.reference)));
    assert_eq!(seen.split(' ').next().unwrap(), image.digest());
}

#[tokio::test]
async fn docker_runs_the_pushed_image_without_privileges() {
    let (Some(registry), Some(docker)) = (Registry::start(), Docker::get()) else { return };
    let pushed = repository(&registry.host()).0.push(&image(), &["one"]).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let command = || {
        let mut command = docker.command();
        command.arg("--config").arg(folder.path());
        command
    };
    let password = Registry::PASSWORD;
    run(command().args(["login", &registry.host(), "-u", Registry::USER, "-p", password]));
    run(command().args(["pull", "-q", &pushed.reference]));
    let run_with = |options: &[&str]| {
        run(command().args(["run", "--rm", "--network", "none"]).args(options).args([&pushed.reference, "an argument"]))
    };
    let line = |text: &str, name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        found.trim().to_owned()
    };

    let stdout = run_with(&["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]);
    assert_eq!(line(&stdout, "uid"), "65532");
    assert_eq!(line(&stdout, "capabilities"), "0000000000000000");
    assert_eq!(line(&stdout, "network"), "false");
    assert_eq!(line(&stdout, "root writable"), "false");
    assert_eq!(line(&stdout, "tmp writable"), "false");
    assert_eq!(line(&stdout, "arguments"), r#"["an argument"]"#);
    assert!(line(&stdout, "certificates").parse::<u32>().unwrap() > 100);

    let stdout = run_with(&[]);
    assert_eq!(line(&stdout, "tmp writable"), "true");
    assert_eq!(line(&stdout, "folder"), "/tmp");
    run(command().args(["rmi", &pushed.reference]));
}

#[tokio::test]
async fn stored_login_is_used() {
    let Some(registry) = Registry::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let repository = || {
        let repository = Repository::new(&format!("{}/lab/probe", registry.host())).unwrap();
        repository.login(Login::stored_in(folder.path()))
    };
    let config = |text: String| fs::write(folder.path().join("config.json"), text).unwrap();
    let image = image();

    // `QVdTOjEyMzQ1Njc4OTAxMi1hdXRoLXRva2Vu` is `AWS:123456789012-auth-token` in Base64.
    let host = registry.host();
    config(format!(r#"{{"auths": {{"{host}": {{"auth": "QVdTOjEyMzQ1Njc4OTAxMi1hdXRoLXRva2Vu"}}}}}}"#));
    repository().push(&image, &["one"]).await.unwrap();

    config(r#"{"auths": {"elsewhere.example": {"auth": "QVdTOjEyMzQ1Njc4OTAxMi1hdXRoLXRva2Vu"}}}"#.to_owned());
    let error = repository().push(&image, &["two"]).await.unwrap_err();
    assert_eq!(error.kind(), RegistryErrorKind::Login);
    assert_eq!(error.hint().unwrap(), format!("run `docker login {host}`, or give a user and a password"));

    config("not json".to_owned());
    let error = repository().push(&image, &["two"]).await.unwrap_err();
    assert_eq!(error.kind(), RegistryErrorKind::Configuration);
    let path = folder.path().join("config.json");
    assert_eq!(error.to_string(), format!("cannot read the login for `{host}` from `{}`", path.display()));

    let refused = async |registry: &str| {
        let config = format!(r#"{{"auths": {{"{registry}": {{"identitytoken": "secret"}}}}}}"#);
        fs::write(folder.path().join("config.json"), config).unwrap();
        let repository = Repository::new(&format!("{registry}/lab/probe")).unwrap();
        repository.login(Login::stored_in(folder.path())).push(&image, &["two"]).await.unwrap_err()
    };
    let error = refused(&host).await;
    assert_eq!(error.kind(), RegistryErrorKind::Configuration);
    assert_eq!(error.source().unwrap().to_string(), "it holds an identity token, which only Docker can use");
    let hint = error.hint().unwrap();
    assert!(
        hint.ends_with("`cargo knot push --username NAME --password-stdin`") && !hint.contains("docker login"),
        "{hint}"
    );
    let error = refused("lab.azurecr.io").await;
    assert!(error.hint().unwrap().contains("`az acr login --expose-token`"), "{error:?}");

    let path = path.display();
    for (text, key) in [
        (format!(r#"{{"credHelpers": {{"{host}": "absent"}}}}"#), format!("the entry `{host}` of `credHelpers`")),
        (r#"{"auths": {}, "credsStore": "absent"}"#.to_owned(), "`credsStore`".to_owned()),
    ] {
        config(text);
        let error = repository().push(&image, &["two"]).await.unwrap_err();
        assert_eq!(error.kind(), RegistryErrorKind::Login);
        let hint = format!(
            "`docker-credential-absent`, which {key} in `{path}` names, is not installed: install it, or remove"
        );
        assert!(error.hint().unwrap().starts_with(&hint), "{error:?}");
    }
}

#[tokio::test]
async fn missing_credential_helper_does_not_prevent_an_anonymous_push() {
    let Some(registry) = Registry::start_open() else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), r#"{"auths": {}, "credsStore": "desktop.exe"}"#).unwrap();
    let repository = Repository::new(&format!("{}/lab/probe", registry.host())).unwrap();
    let pushed = repository.login(Login::stored_in(folder.path())).push(&image(), &["one"]).await.unwrap();
    assert!(pushed.reference.starts_with(&registry.host()), "{pushed:?}");
}

#[tokio::test]
async fn refusals_have_distinct_kinds() {
    let Some(registry) = Registry::start() else { return };
    let image = image();
    let host = registry.host();
    let push = async |login: Login, tag: &str| {
        let repository = Repository::new(&format!("{host}/lab/probe")).unwrap().login(login);
        repository.push(&image, &[tag]).await.unwrap_err()
    };

    let wrong = push(Login::password(Registry::USER, "a bad guess"), "one").await;
    assert_eq!(wrong.kind(), RegistryErrorKind::Login);
    assert_eq!(wrong.to_string(), format!("cannot look up `{host}/lab/probe:one`"));
    assert_eq!(wrong.source().unwrap().to_string(), "the registry rejects the login, or requires one (status 401)");
    assert_eq!(wrong.hint().unwrap(), "check the user and the password or token; tokens expire");
    assert!(!format!("{wrong:?}").contains("guess"), "{wrong:?}");

    let anonymous = push(Login::anonymous(), "one").await;
    assert_eq!(anonymous.kind(), RegistryErrorKind::Login);
    assert!(anonymous.hint().unwrap().contains("docker login"));

    let tag = push(login(), "no spaces").await;
    assert_eq!(tag.kind(), RegistryErrorKind::Name);
}

#[tokio::test]
async fn unreachable_registry_is_reported() {
    let image = image();
    let push = async |name: &str| {
        let repository = Repository::new(name).unwrap().login(Login::anonymous()).attempts(2);
        repository.push(&image, &[]).await.unwrap_err()
    };

    let unknown = push("registry.invalid/lab/probe").await;
    assert_eq!(unknown.kind(), RegistryErrorKind::UnknownHost, "{unknown:?}");
    assert_eq!(unknown.to_string(), "cannot log in to `registry.invalid`");

    let closed = push(&format!("127.0.0.1:{CLOSED_PORT}/lab/probe")).await;
    assert_eq!(closed.kind(), RegistryErrorKind::Connection);
    assert!(closed.source().unwrap().to_string().contains("refused"), "{closed:?}");
}

#[test]
fn invalid_names_are_refused() {
    let check = |name: &str, cause: &str| {
        let error = Repository::new(name).unwrap_err();
        assert_eq!(error.kind(), RegistryErrorKind::Name);
        assert_eq!(error.to_string(), format!("invalid repository name `{name}`"));
        assert!(error.source().unwrap().to_string().contains(cause), "{name}: {error:?}");
        assert!(error.hint().unwrap().contains("lower case"));
    };
    check("registry.example/Lab/probe", "");
    check("registry.example/lab probe", "");
    check("", "");
    check("registry.example/lab/probe:tag", "must not have a tag");
    check(&format!("registry.example/lab/probe@sha256:{}", "0".repeat(64)), "must not have a tag");
}

#[tokio::test]
async fn connection_lost_in_a_layer_is_retried() {
    let Some(registry) = Registry::start() else { return };
    let image = image();
    let proxy = Proxy::before(registry.host(), Fault::Cut { after: 200_000, times: 1 });
    let (repository, events) = repository(&proxy.host());
    let pushed = repository.push(&image, &["one"]).await.unwrap();
    assert_eq!(proxy.remaining_faults(), 0);
    let outline = outline(&events);
    assert!(outline[0].starts_with("retrying: the connection failed"), "{outline:?}");
    assert_eq!(outline[1..], ["sent", "sent", "tagged one"]);
    // The repository itself has everything, not only according to the proxy.
    let direct = Repository::new(&format!("{}/lab/probe", registry.host())).unwrap().login(login());
    assert_eq!(direct.push(&image, &["one"]).await.unwrap().sent_bytes, 0);
    assert_eq!(pushed.sent_bytes, image.compressed_bytes() - image.manifest().len() as u64);
}

#[tokio::test]
async fn retries_end_when_every_connection_is_lost() {
    let Some(registry) = Registry::start() else { return };
    let proxy = Proxy::before(registry.host(), Fault::Cut { after: 200_000, times: 100 });
    let (repository, events) = repository(&proxy.host());
    let image = image();
    let error = repository.attempts(3).push(&image, &["one"]).await.unwrap_err();
    assert_eq!(error.kind(), RegistryErrorKind::Connection);
    let (layer, _) = image.layers().next().unwrap();
    assert_eq!(error.to_string(), format!("cannot send `{layer}` to `{}/lab/probe`", proxy.host()));
    assert_eq!(proxy.remaining_faults(), 97);
    assert_eq!(outline(&events).len(), 2, "{:?}", outline(&events));
}

#[tokio::test]
async fn busy_registry_is_retried() {
    let Some(registry) = Registry::start() else { return };
    let check = async |to: &'static str, status: &'static str, reason: &str| {
        let proxy = Proxy::before(registry.host(), Fault::Respond { to, status, times: 2 });
        let (repository, events) = repository(&proxy.host());
        // A different worker each time, so that there is something to send.
        let version = format!("{to}{status}");
        let image = Image::assemble(worker(), &ImageOptions::new("probe", version)).unwrap();
        let tag = &status[..3];
        repository.push(&image, &[tag]).await.unwrap();
        assert_eq!(proxy.remaining_faults(), 0, "{to}{status}");
        let retries: Vec<String> = outline(&events).into_iter().filter(|event| event.starts_with("retrying")).collect();
        assert_eq!(retries, vec![format!("retrying: {reason}"); 2], "{to}{status}");
    };
    let too_many = "the registry received too many requests (status 429)";
    let unavailable = "the registry is temporarily unavailable (status 503)";
    check("POST ", "429 Too Many Requests", too_many).await;
    check("POST ", "503 Service Unavailable", unavailable).await;
    check("HEAD /v2/lab/probe/blobs", "429 Too Many Requests", too_many).await;
    check("PUT /v2/lab/probe/manifests", "503 Service Unavailable", unavailable).await;
}

#[tokio::test]
async fn retries_end_when_the_registry_stays_busy() {
    let Some(registry) = Registry::start() else { return };
    let fault = Fault::Respond { to: "POST ", status: "503 Service Unavailable", times: 100 };
    let proxy = Proxy::before(registry.host(), fault);
    let (repository, _) = repository(&proxy.host());
    let error = repository.attempts(2).push(&image(), &["one"]).await.unwrap_err();
    assert_eq!(error.kind(), RegistryErrorKind::Busy);
    assert_eq!(proxy.remaining_faults(), 98);
    assert_eq!(error.hint().unwrap(), "try again later; uploaded layers are kept");
}

#[tokio::test]
async fn refusal_is_not_retried() {
    let Some(registry) = Registry::start() else { return };
    let proxy = Proxy::before(registry.host(), Fault::Respond { to: "POST ", status: "403 Forbidden", times: 100 });
    let (repository, _) = repository(&proxy.host());
    let error = repository.push(&image(), &["one"]).await.unwrap_err();
    assert_eq!(error.kind(), RegistryErrorKind::NotPermitted);
    assert_eq!(proxy.remaining_faults(), 99);
}

#[tokio::test]
async fn pushed_image_can_be_deleted() {
    let Some(registry) = Registry::start() else { return };
    let image = image();
    let (repository, _) = repository(&registry.host());
    repository.push(&image, &["one", "two"]).await.unwrap();
    assert_eq!(repository.delete(image.digest()).await.unwrap(), Deleted::Yes);
    assert_eq!(repository.delete(image.digest()).await.unwrap(), Deleted::Absent);
    // Both tags were deleted with it, so the manifest is put again.
    let manifests = || registry.requests("PUT /v2/lab/probe/manifests").len();
    let before = manifests();
    repository.push(&image, &["one", "two"]).await.unwrap();
    assert_eq!(manifests(), before + 2);

    let proxy =
        Proxy::before(registry.host(), Fault::Respond { to: "DELETE ", status: "405 Method Not Allowed", times: 1 });
    let (repository, _) = self::repository(&proxy.host());
    assert_eq!(repository.delete(image.digest()).await.unwrap(), Deleted::NotAllowed);
}
