//! Tests of `DockerImage` from code, and of operations that require a Docker engine: loading, the user's base image,
//! clobber.

use std::error::Error as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use cloudknot::docker::{Base, Engine};
use cloudknot::image::{Image, ImageOptions};
use cloudknot::registry::{RegistryErrorKind, Repository};
use cloudknot::{DockerImage, ErrorKind, Login};
use cloudknot_tests::counterparts::{Docker, Registry, run};
use cloudknot_tests::debian;
use cloudknot_tests::worker::worker;
use tempfile::TempDir;

use crate::native::PACKAGES;

fn login() -> Login {
    Login::password(Registry::USER, Registry::PASSWORD)
}

/// Returns a folder with the worker, as after a build.
fn built() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("worker"), worker()).unwrap();
    folder
}

async fn engine(docker: &Docker) -> Engine {
    Engine::connect_to(docker.host()).await.unwrap()
}

#[tokio::test]
async fn image_is_built_pushed_and_deleted() {
    let Some(registry) = Registry::start() else { return };
    let folder = built();
    let builder = DockerImage::builder("lab/probe", folder.path().join("worker"));
    let mut image = builder.of_crate("probe", "1.2.3").functions(["probe::f"]).tag("one").build().await.unwrap();
    image.tag("two").unwrap();
    image.tag("two").unwrap();
    assert_eq!(image.tags(), ["one", "two"]);
    assert_eq!(image.worker_bytes(), worker().len() as u64);

    let expected = Image::assemble(worker(), &ImageOptions::new("probe", "1.2.3").functions(["probe::f"])).unwrap();
    assert_eq!(image.digest(), expected.digest());
    assert_eq!(image.compressed_bytes(), expected.compressed_bytes());
    let layers: Vec<_> = expected.layers().map(|(digest, bytes)| (digest.to_owned(), bytes.len() as u64)).collect();
    assert_eq!(image.layers(), layers);

    let tar = folder.path().join("image.tar");
    image.save(&tar).unwrap();
    assert!(fs::metadata(&tar).unwrap().len() > image.compressed_bytes());

    let name = format!("{}/lab/probe", registry.host());
    let pushed = image.push(&name, &login()).await.unwrap();
    assert_eq!(pushed, format!("{name}@{}", image.digest()));
    assert_eq!(registry.requests("PUT /v2/lab/probe/manifests").len(), 2);
    image.clobber().await.unwrap();
    assert_eq!(registry.requests("DELETE ").len(), 1);
    // A second clobber deletes nothing.
    image.clobber().await.unwrap();
    assert_eq!(registry.requests("DELETE ").len(), 1);
}

#[tokio::test]
async fn errors_have_the_kind_of_their_module() {
    let folder = built();
    let worker = folder.path().join("worker");
    let error = DockerImage::builder("Probe", &worker).build().await.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Image, "invalid image name `Probe`".to_owned()));

    let absent = folder.path().join("absent");
    let error = DockerImage::builder("probe", &absent).build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Image);
    assert_eq!(error.to_string(), format!("cannot read the worker `{}`", absent.display()));
    assert!(error.source().unwrap().to_string().contains("No such file"));

    let mut image = DockerImage::builder("probe", &worker).build().await.unwrap();
    assert_eq!(image.tag("no spaces").unwrap_err().kind(), ErrorKind::Image);
    let error = image.push("not/A/name", &Login::anonymous()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Registry);
    assert!(error.hint().unwrap().contains("lower case"));
}

#[test]
fn docker_loads_the_saved_image() {
    let Some(docker) = Docker::get() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.tar");
    let image = Image::assemble(worker(), &ImageOptions::new("probe", "1.2.3")).unwrap();
    let names = ["cloudknot-tests/loaded:one".to_owned(), "cloudknot-tests/loaded:two".to_owned()];
    image.save_tar(&path, &names).unwrap();
    run(docker.command().arg("load").arg("-i").arg(&path));
    for name in &names {
        let id = run(docker.command().args(["image", "inspect", "--format", "{{.Id}}", name]));
        assert_eq!(id.trim(), image.id());
    }
    run(docker.command().arg("rmi").args(&names));
}

#[tokio::test]
async fn engine_loads_tags_and_removes_an_image() {
    let Some(docker) = Docker::get() else { return };
    let engine = engine(&docker).await;
    let image = Image::assemble(worker(), &ImageOptions::new("probe", "1.2.3")).unwrap();
    let names = ["cloudknot-tests/taken:one".to_owned(), "cloudknot-tests/taken:two".to_owned()];
    engine.load(&image, &names).await.unwrap();
    engine.load(&image, &names).await.unwrap();
    for name in &names {
        assert_eq!(engine.id_of(name).await.unwrap().as_deref(), Some(image.id()));
    }
    engine.tag(&names[0], "cloudknot-tests/taken:three").await.unwrap();
    let stdout = run(docker.command().args(["run", "--rm", "--network", "none", "cloudknot-tests/taken:three"]));
    assert!(stdout.contains("uid 65532"), "{stdout}");
    for name in names.iter().map(String::as_str).chain(["cloudknot-tests/taken:three"]) {
        assert!(engine.remove(name).await.unwrap());
        assert!(!engine.remove(name).await.unwrap());
        assert_eq!(engine.id_of(name).await.unwrap(), None);
    }
    let error = engine.tag("cloudknot-tests/taken:one", "cloudknot-tests/taken:four").await.unwrap_err();
    assert_eq!(error.to_string(), "cannot tag `cloudknot-tests/taken:one` in Docker");
    assert!(error.source().unwrap().to_string().contains("No such image"), "{error:?}");
}

#[tokio::test]
async fn image_is_loaded_into_the_default_engine_and_clobbered() {
    let Some(docker) = Docker::get() else { return };
    // The environment determines the engine, and the environment of a process is set when the process starts.
    if let Some(host) = docker.host().filter(|host| std::env::var("DOCKER_HOST").ok().as_deref() != Some(*host)) {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "docker_image::image_is_loaded_into_the_default_engine_and_clobbered"]);
        assert!(run(again.env("DOCKER_HOST", host)).contains("1 passed"));
        return;
    }
    let folder = built();
    let builder = || DockerImage::builder("cloudknot-tests/loaded", folder.path().join("worker"));
    let mut image = builder().tag("one").tag("two").build().await.unwrap();
    assert_eq!(image.load().await.unwrap(), "cloudknot-tests/loaded:one");
    let stdout = run(docker.command().args(["run", "--rm", "--network", "none", "cloudknot-tests/loaded:two"]));
    assert!(stdout.contains("uid 65532"), "{stdout}");

    // Since then, another image has one of the names.
    let mut other = builder().tag("two").label("another", "one").build().await.unwrap();
    other.load().await.unwrap();
    image.clobber().await.unwrap();
    let engine = engine(&docker).await;
    assert_eq!(engine.id_of("cloudknot-tests/loaded:one").await.unwrap(), None);
    assert!(engine.id_of("cloudknot-tests/loaded:two").await.unwrap().is_some());
    other.clobber().await.unwrap();
    assert_eq!(engine.id_of("cloudknot-tests/loaded:two").await.unwrap(), None);
    other.clobber().await.unwrap();

    let untagged = builder().build().await.unwrap();
    assert_eq!(untagged.load().await.unwrap(), "cloudknot-tests/loaded:latest");
    assert!(engine.remove("cloudknot-tests/loaded:latest").await.unwrap());
}

/// Returns a folder with a Dockerfile that needs no network, one file to include and one to ignore.
fn context() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("Dockerfile", "FROM scratch\nCOPY data/ /\nENV GREETING=hello\nLABEL from=base\nCMD [\"of the base\"]\n");
    write("data/base.txt", "from the base");
    write("data/secret.key", "secret");
    write("data/kept/secret.key", "not so secret");
    write(".dockerignore", "# not sent to the engine\n**/*.key\n!data/kept/*.key\n");
    folder
}

#[tokio::test]
async fn dockerfile_is_the_base_of_the_worker() {
    let (Some(docker), Some(registry)) = (Docker::get(), Registry::start()) else { return };
    let engine = engine(&docker).await;
    let folder = context();
    let base = Base::Dockerfile(folder.path().join("Dockerfile"));
    let options = ImageOptions::new("probe", "1.2.3").functions(["probe::f"]);
    let image = engine.assemble(&base, worker(), &options).await.unwrap();

    assert_eq!(image.layers().count(), 2);
    assert_eq!(image.worker_bytes(), worker().len() as u64);
    assert_eq!(image.labels()["from"], "base");
    assert_eq!(image.labels()["cloudknot.functions"], "probe::f");
    // The worker's layer is identical to that of an image without a base.
    let alone = Image::assemble(worker(), &options).unwrap();
    assert_eq!(image.layers().last(), alone.layers().last());
    // A second build from the engine's cache gives the same image.
    assert_eq!(engine.assemble(&base, worker(), &options).await.unwrap().digest(), image.digest());

    let name = "cloudknot-tests/based:latest".to_owned();
    engine.load(&image, std::slice::from_ref(&name)).await.unwrap();
    let stdout = run(docker.command().args(["run", "--rm", "--read-only", "--network", "none", &name]));
    for line in ["uid 65532", "arguments []", "base from the base", "greeting hello"] {
        assert!(stdout.lines().any(|each| each == line), "{line}: {stdout}");
    }
    let copied = folder.path().join("copied");
    run(docker.command().args(["create", "--name", "cloudknot-tests-based", &name]));
    run(docker.command().args(["cp", "cloudknot-tests-based:/"]).arg(&copied));
    run(docker.command().args(["rm", "cloudknot-tests-based"]));
    assert!(Path::exists(&copied.join("kept/secret.key")));
    assert!(!Path::exists(&copied.join("secret.key")));
    engine.remove(&name).await.unwrap();

    // The registry, which checks every digest, accepts the image. The second time, nothing is sent.
    let repository = Repository::new(&format!("{}/lab/based", registry.host())).unwrap().login(login());
    assert!(repository.push(&image, &["one"]).await.unwrap().sent_bytes > 0);
    assert_eq!(repository.push(&image, &["one", "two"]).await.unwrap().sent_bytes, 0);
}

/// Returns the paths in a layer.
fn paths(layer: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(layer));
    let entries = archive.entries().unwrap().map(Result::unwrap);
    entries.map(|entry| String::from_utf8(entry.path_bytes().into_owned()).unwrap()).collect()
}

#[tokio::test]
async fn base_keeps_its_users_and_time_zones() {
    let Some(docker) = Docker::get() else { return };
    let engine = engine(&docker).await;
    let folder = context();
    for path in ["data/etc/passwd", "data/usr/share/zoneinfo/Etc/UTC"] {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "of the base").unwrap();
    }
    let base = Base::Dockerfile(folder.path().join("Dockerfile"));
    let options = ImageOptions::new("probe", "1.2.3").package_folder(folder.path()).include("data/kept").timezones();
    let image = engine.assemble(&base, worker(), &options).await.unwrap();
    let layers: Vec<_> = image.layers().map(|(_, layer)| paths(layer)).collect();
    assert_eq!(layers.len(), 3);
    let included = ["", "data/", "data/kept/", "data/kept/secret.key"].map(|path| format!("cloudknot/{path}"));
    assert_eq!(layers[1], included);
    assert!(!layers[2].contains(&"etc/passwd".to_owned()), "{layers:?}");
    let config: serde_json::Value = serde_json::from_slice(image.config()).unwrap();
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["Env"].as_array().and_then(|env| env.last()).unwrap(), "HOME=/tmp");
    assert_eq!(config["rootfs"]["diff_ids"].as_array().map(Vec::len), Some(3));
}

// M13.
#[tokio::test]
async fn m13_context_has_no_secrets_and_nothing_compiled() {
    let Some(docker) = Docker::get() else { return };
    let engine = engine(&docker).await;
    let folder = tempfile::tempdir().unwrap();
    for name in ["src/main.rs", "target/debug/x", ".git/config", ".cloudknot/runs", ".env", "sub/target/kept"] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    fs::write(folder.path().join("Dockerfile"), "FROM scratch\nCOPY . /\nCMD [\"none\"]\n").unwrap();
    let sent = async |ignore: &str| {
        fs::write(folder.path().join(".dockerignore"), ignore).unwrap();
        let options = ImageOptions::new("probe", "1.2.3");
        let base = Base::Dockerfile(folder.path().join("Dockerfile"));
        let image = engine.assemble(&base, worker(), &options).await.unwrap();
        let name = "cloudknot-tests/context:latest";
        engine.load(&image, &[name.to_owned()]).await.unwrap();
        let container = run(docker.command().args(["create", name]));
        let files = run(docker.command().args(["export", container.trim()]).stdout(std::process::Stdio::piped()));
        run(docker.command().args(["rm", container.trim()]));
        engine.remove(name).await.unwrap();
        ["src/main.rs", "sub/target/kept", "target/debug/x", ".git/config", ".cloudknot/runs", ".env"]
            .map(|name| files.contains(&format!("{name}\0")))
    };
    assert_eq!(sent("").await, [true, true, false, false, false, false]);
    assert_eq!(sent("!target/debug\n").await, [true, true, true, false, false, false]);
}

#[tokio::test]
async fn engine_image_is_the_base_of_the_worker() {
    let Some(docker) = Docker::get() else { return };
    let engine = engine(&docker).await;
    let folder = context();
    let dockerfile = folder.path().join("Dockerfile");
    fs::write(&dockerfile, "FROM scratch\nCOPY data/ /\nUSER 1000:1000\nWORKDIR /kept\n").unwrap();
    let name = "cloudknot-tests/base:latest";
    let mut build = docker.command();
    build.env("DOCKER_BUILDKIT", "0").args(["build", "-q", "-t", name]).arg(folder.path());
    run(&mut build);
    let options = ImageOptions::new("probe", "1.2.3");
    let image = engine.assemble(&Base::Image(name.to_owned()), worker(), &options).await.unwrap();
    let derived = "cloudknot-tests/on-base:latest".to_owned();
    engine.load(&image, std::slice::from_ref(&derived)).await.unwrap();
    let stdout = run(docker.command().args(["run", "--rm", "--network", "none", &derived]));
    // The base has its own unprivileged user and its own folder.
    assert!(stdout.contains("uid 1000") && stdout.contains("folder /kept"), "{stdout}");
    engine.remove(&derived).await.unwrap();
    engine.remove(name).await.unwrap();
}

#[tokio::test]
async fn missing_base_image_is_reported() {
    let Some(docker) = Docker::get() else { return };
    let engine = engine(&docker).await;
    let options = ImageOptions::new("probe", "1.2.3");

    let base = Base::Image("registry.invalid/no/base:1".to_owned());
    let error = engine.assemble(&base, worker(), &options).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot pull the base image `registry.invalid/no/base:1`");
    assert!(error.hint().unwrap().contains("docker pull registry.invalid/no/base:1"));

    let folder = tempfile::tempdir().unwrap();
    let dockerfile = folder.path().join("Dockerfile");
    fs::write(&dockerfile, "FROM scratch\nCOPY absent.txt /\n").unwrap();
    let error = engine.assemble(&Base::Dockerfile(dockerfile.clone()), worker(), &options).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot build `{}`", dockerfile.display()));
    let cause = error.source().unwrap().to_string();
    assert!(cause.contains("absent.txt") && cause.contains("Step 2/2"), "{cause}");
}

#[tokio::test]
async fn private_base_image_uses_stored_login() {
    let (Some(docker), Some(registry)) = (Docker::get(), Registry::start()) else { return };
    let options = ImageOptions::new("probe", "1.2.3");
    let host = registry.host();
    let repository = Repository::new(&format!("{host}/lab/behind")).unwrap().login(login());
    repository
        .push(&Image::assemble(worker(), &options.clone().label("from", "base")).unwrap(), &["one"])
        .await
        .unwrap();

    let (folder, logins) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dockerfile = folder.path().join("Dockerfile");
    fs::write(&dockerfile, format!("ARG WHERE={host}\nFROM ${{WHERE}}/lab/behind:one\nLABEL more=yes\n")).unwrap();
    let engine = engine(&docker).await.logins_in(logins.path());
    let (built, pulled) = (Base::Dockerfile(dockerfile), Base::Image(format!("{host}/lab/behind:one")));
    let error = engine.assemble(&built, worker(), &options).await.unwrap_err();
    assert!(error.source().unwrap().to_string().contains("no basic auth credentials"), "{error:?}");
    assert!(error.hint().unwrap().contains("run `docker login`"), "{error:?}");
    assert!(engine.assemble(&pulled, worker(), &options).await.is_err());

    // `QVdTOjEyMzQ1Njc4OTAxMi1hdXRoLXRva2Vu` is `AWS:123456789012-auth-token` in Base64.
    let config = format!(r#"{{"auths": {{"{host}": {{"auth": "QVdTOjEyMzQ1Njc4OTAxMi1hdXRoLXRva2Vu"}}}}}}"#);
    fs::write(logins.path().join("config.json"), config).unwrap();
    let image = engine.assemble(&built, worker(), &options).await.unwrap();
    assert_eq!((image.labels()["from"].as_str(), image.labels()["more"].as_str()), ("base", "yes"));
    // Removed, so that the image has to be pulled again.
    assert!(engine.remove(&format!("{host}/lab/behind:one")).await.unwrap());
    assert_eq!(engine.assemble(&pulled, worker(), &options).await.unwrap().labels()["from"], "base");
    engine.remove(&format!("{host}/lab/behind:one")).await.unwrap();
}

#[tokio::test]
async fn buildkit_dockerfile_has_a_hint() {
    let Some(docker) = Docker::get() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dockerfile = folder.path().join("Dockerfile");
    fs::write(&dockerfile, "FROM scratch\nRUN --mount=type=cache,target=/cache true\n").unwrap();
    let base = Base::Dockerfile(dockerfile);
    let options = ImageOptions::new("probe", "1.2.3");
    let error = engine(&docker).await.assemble(&base, worker(), &options).await.unwrap_err();
    let hint = error.hint().unwrap();
    assert!(hint.contains(&format!("`docker build -t my-base {}`", folder.path().display())), "{hint}");
}

/// Program that loads the library of a GPU's driver, and prints why it cannot, and what the driver is to be used for.
const LOADER: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
int main(void) {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    printf("driver: %s\n", driver ? "found" : dlerror());
    printf("devices %s, capabilities %s\n", getenv("NVIDIA_VISIBLE_DEVICES"), getenv("NVIDIA_DRIVER_CAPABILITIES"));
    return 0;
}
"#;

/// A base image as NVIDIA's is, as far as a worker without a GPU can tell: glibc, and the variables by which NVIDIA's container
/// runtime decides what it mounts. The machine has no GPU, so the driver is absent.
#[tokio::test]
async fn worker_for_gpus_starts_on_its_base_image() {
    let Some(docker) = Docker::get() else { return };
    let folder = tempfile::tempdir().unwrap();
    if !debian::provide(&docker, PACKAGES, Path::new(env!("CARGO_TARGET_TMPDIR"))) {
        return;
    }
    let (source, worker) = (folder.path().join("loader.c"), folder.path().join("loader"));
    fs::write(&source, LOADER).unwrap();
    run(Command::new("cc").arg(&source).arg("-o").arg(&worker).arg("-ldl"));
    let dockerfile = folder.path().join("Dockerfile");
    let variables = "ENV NVIDIA_VISIBLE_DEVICES=all\nENV NVIDIA_DRIVER_CAPABILITIES=compute,utility\n";
    fs::write(&dockerfile, format!("FROM {}\n{variables}", debian::IMAGE)).unwrap();
    let engine = engine(&docker).await;
    let options = ImageOptions::new("probe", "1.2.3");
    let image = engine.assemble(&Base::Dockerfile(dockerfile), &fs::read(worker).unwrap(), &options).await.unwrap();
    let name = "cloudknot-tests/gpu:latest".to_owned();
    engine.load(&image, std::slice::from_ref(&name)).await.unwrap();
    let stdout = run(docker.command().args(["run", "--rm", "--network", "none", &name]));
    let expected = "driver: libcuda.so.1: cannot open shared object file: No such file or directory\n\
                    devices all, capabilities compute,utility\n";
    assert_eq!(stdout, expected);
    engine.remove(&name).await.unwrap();
}

#[tokio::test]
async fn base_without_the_c_library_is_refused() {
    let Some(docker) = Docker::get() else { return };
    let engine = engine(&docker).await;
    let folder = context();
    // Program of this machine that is linked dynamically, as nearly all are.
    let dynamic = fs::read("/bin/true").unwrap();
    let base = Base::Dockerfile(folder.path().join("Dockerfile"));
    let error = engine.assemble(&base, &dynamic, &ImageOptions::new("probe", "1.2.3")).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot add the worker to its base image");
    let cause = error.source().unwrap().to_string();
    assert!(cause.contains("`libc.so.6`") && cause.contains("in the base image: the worker needs it"), "{cause}");
    assert!(error.hint().unwrap().contains("linked with glibc"));
}

#[tokio::test]
async fn missing_engine_has_a_hint() {
    let error = Engine::connect_to(Some("unix:///no/such/socket")).await.unwrap_err();
    assert!(error.is_no_engine());
    assert_eq!(error.to_string(), "cannot reach a Docker engine");
    assert_eq!(error.hint().unwrap(), "start Docker, or set DOCKER_HOST to its address");
}

#[test]
fn debug_output_hides_login_secrets() {
    let shown = format!("{:?} {:?}", Login::password("AWS", "s3cret"), Login::token("t0ken"));
    assert_eq!(shown, "Login(password of `AWS`) Login(token)");
    assert_eq!(Repository::new("a/B").unwrap_err().kind(), RegistryErrorKind::Name);
}
