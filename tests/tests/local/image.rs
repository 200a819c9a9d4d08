//! Tests of images: their content, that they are reproducible, and that Docker and skopeo accept them.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use cloudknot::image::{Architecture, Image, ImageError, ImageOptions};
use cloudknot_tests::counterparts::{has, run};
use cloudknot_tests::skip::skipped;
use cloudknot_tests::worker::worker;
use serde_json::Value;
use tempfile::TempDir;

const CA_CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

fn options() -> ImageOptions {
    ImageOptions::new("probe", "1.2.3").functions(["probe::b", "probe::a"])
}

fn image() -> Image {
    Image::assemble(worker(), &options()).unwrap()
}

fn config(image: &Image) -> Value {
    serde_json::from_slice(image.config()).unwrap()
}

/// Returns a layer's tar, decompressed by another implementation of gzip than the one that compressed it.
fn layer_tar(image: &Image, layer: usize) -> Vec<u8> {
    let (_, layer) = image.layers().nth(layer).unwrap();
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(layer).read_to_end(&mut tar).unwrap();
    tar
}

/// Returns the paths, modes and contents of a layer's files, whose other metadata must be fixed.
fn files_of(image: &Image, layer: usize) -> Vec<(String, u32, Vec<u8>)> {
    let tar = layer_tar(image, layer);
    let mut archive = tar::Archive::new(tar.as_slice());
    let files = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
        assert_eq!(header.username().unwrap().unwrap_or_default(), "");
        let (path, mode) = (String::from_utf8(entry.path_bytes().into_owned()).unwrap(), header.mode().unwrap());
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (path, mode, content)
    });
    files.collect()
}

/// Returns the content of a file in the worker's layer, which is the last one.
fn file(image: &Image, path: &str) -> String {
    let files = files_of(image, image.layers().count() - 1);
    let (.., content) = files.into_iter().find(|(each, ..)| each == path).unwrap();
    String::from_utf8(content).unwrap()
}

#[test]
fn same_worker_has_the_same_digest() {
    let digests: Vec<String> = (0..5).map(|_| image().digest().to_owned()).collect();
    assert!(digests.iter().all(|digest| digest == &digests[0]), "{digests:?}");

    let mut other = worker().to_vec();
    *other.last_mut().unwrap() ^= 1;
    assert_ne!(Image::assemble(&other, &options()).unwrap().digest(), digests[0]);
    assert_ne!(Image::assemble(worker(), &options().label("a", "b")).unwrap().digest(), digests[0]);
}

#[test]
fn order_of_labels_and_functions_does_not_matter() {
    let one = options().label("x", "1").label("y", "2").functions(["f", "g"]);
    let two = options().label("y", "2").label("x", "1").functions(["g", "f"]);
    let [one, two] = [one, two].map(|options| Image::assemble(worker(), &options).unwrap());
    assert_eq!(one.digest(), two.digest());
}

#[test]
fn layer_files_have_fixed_metadata() {
    let files = files_of(&image(), 0).into_iter().map(|(path, mode, content)| (path, mode, content.len()));
    let files: Vec<_> = files.collect();
    let ca_certificates = files[5].2;
    assert!(ca_certificates > 100_000, "{ca_certificates}");
    let expected: [(&str, u32, usize); 8] = [
        ("etc/", 0o755, 0),
        ("etc/group", 0o644, file(&image(), "etc/group").len()),
        ("etc/passwd", 0o644, file(&image(), "etc/passwd").len()),
        ("etc/ssl/", 0o755, 0),
        ("etc/ssl/certs/", 0o755, 0),
        (CA_CERTIFICATES, 0o644, ca_certificates),
        ("tmp/", 0o1777, 0),
        ("worker", 0o755, worker().len()),
    ];
    assert_eq!(files, expected.map(|(path, mode, size)| (path.to_owned(), mode, size)));
}

#[test]
fn configuration_has_entrypoint_user_and_labels() {
    let image = image();
    let config = config(&image);
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/worker"]));
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["Env"], serde_json::json!(["HOME=/tmp"]));
    assert_eq!(config["config"]["WorkingDir"], "/tmp");
    assert_eq!(config["os"], "linux");
    assert_eq!(config.get("created"), None);
    let expected_labels = [
        ("cloudknot.functions", "probe::a,probe::b"),
        ("cloudknot.version", env!("CARGO_PKG_VERSION")),
        ("org.opencontainers.image.title", "probe"),
        ("org.opencontainers.image.version", "1.2.3"),
    ];
    let expected_labels: BTreeMap<_, _> = expected_labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert_eq!(image.labels(), &expected_labels);
    assert_eq!(image.worker_bytes(), worker().len() as u64);

    let manifest: Value = serde_json::from_slice(image.manifest()).unwrap();
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    let sizes = [&manifest["config"]["size"], &manifest["layers"][0]["size"]];
    let sizes: u64 = sizes.iter().map(|size| size.as_u64().unwrap()).sum();
    assert_eq!(image.compressed_bytes(), sizes + image.manifest().len() as u64);
}

#[test]
fn image_has_the_architecture_of_its_worker() {
    let check = |machine, architecture: Architecture, name: &str| {
        // The first bytes of an executable. The library inspects no others.
        let mut executable = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
        executable.resize(64, 0);
        executable[18] = machine;
        let image = Image::assemble(&executable, &options()).unwrap();
        assert_eq!(image.architecture(), architecture);
        let config = config(&image);
        assert_eq!(config["architecture"], name);
    };
    check(0x3e, Architecture::Amd64, "amd64");
    check(0xb7, Architecture::Arm64, "arm64");
}

#[test]
fn files_other_than_workers_are_refused() {
    let check = |bytes: &[u8], message: &str| {
        let error = Image::assemble(bytes, &options()).unwrap_err();
        assert!(matches!(error, ImageError::NotAWorker { .. }));
        assert_eq!(error.to_string(), format!("cannot put the worker into an image: it is {message}"));
        assert!(error.hint().unwrap().contains("x86_64-unknown-linux-musl"));
    };
    check(b"", "empty");
    check(b"#!/bin/sh\n", "not a 64-bit executable for Linux");
    check(b"\xcf\xfa\xed\xfe\x07\x00\x00\x01", "not a 64-bit executable for Linux");
    check(b"\x7fELF\x02\x01", "not an executable for x86_64 or aarch64");
    let riscv = b"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\xf3\x00";
    check(riscv, "not an executable for x86_64 or aarch64");
}

/// Creates a CA certificate and its key.
fn private_authority() -> Option<(String, String)> {
    if !has("openssl") {
        skipped("tests that need openssl", "openssl is not installed");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ours -keyout key.pem -out ca.pem".split(' '));
    run(openssl.current_dir(&folder));
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    Some((read("ca.pem"), read("key.pem")))
}

#[test]
fn user_ca_certificates_are_appended_without_keys() {
    let Some((certificate, key)) = private_authority() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("with spaces.pem");
    fs::write(&path, format!("our own\n{key}{certificate}")).unwrap();
    let with_bundle = Image::assemble(worker(), &options().ca_bundle(&path)).unwrap();
    assert_eq!(file(&with_bundle, CA_CERTIFICATES), format!("{}{certificate}", file(&image(), CA_CERTIFICATES)));
}

#[test]
fn unusable_ca_bundles_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let check = |cause: &str| {
        let error = Image::assemble(worker(), &options().ca_bundle(&path)).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read certificates from `{}`", path.display()));
        let source = error.source().unwrap().to_string();
        assert!(source.contains(cause), "{source}");
        assert!(error.hint().unwrap().contains("ca-bundle"));
    };
    check("No such file");
    fs::write(&path, "nothing").unwrap();
    check("no certificate");
    fs::write(&path, "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n").unwrap();
    check("base64");
}

/// Returns a package with these files, whose content is their name.
fn package(files: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    folder
}

/// Assembles an image that includes these paths of a package.
fn including(package: &Path, include: &[&str]) -> Result<Image, ImageError> {
    let options = include.iter().fold(options().package_folder(package), ImageOptions::include);
    Image::assemble(worker(), &options)
}

/// Returns the paths of the included files and folders in the image.
fn included(package: &Path, include: &[&str]) -> Vec<String> {
    let image = including(package, include).unwrap();
    assert_eq!(image.layers().count(), 2);
    files_of(&image, 0).into_iter().map(|(path, ..)| path).collect()
}

#[test]
fn included_files_are_a_layer_below_the_worker() {
    let package = package(&["data/b.csv", "data/a/x", "data/a-b", "params.toml", "run.sh", "src/main.rs"]);
    fs::set_permissions(package.path().join("run.sh"), fs::Permissions::from_mode(0o710)).unwrap();
    fs::set_permissions(package.path().join("params.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(package.path().join("data/empty")).unwrap();
    let image = including(package.path(), &["run.sh", "data/", "./params.toml", "data/b.csv"]).unwrap();
    let expected = [
        ("cloudknot/", 0o755, ""),
        ("cloudknot/data/", 0o755, ""),
        ("cloudknot/data/a/", 0o755, ""),
        ("cloudknot/data/a-b", 0o644, "data/a-b"),
        ("cloudknot/data/a/x", 0o644, "data/a/x"),
        ("cloudknot/data/b.csv", 0o644, "data/b.csv"),
        ("cloudknot/data/empty/", 0o755, ""),
        ("cloudknot/params.toml", 0o644, "params.toml"),
        ("cloudknot/run.sh", 0o755, "run.sh"),
    ];
    assert_eq!(files_of(&image, 0), expected.map(|(path, mode, text)| (path.to_owned(), mode, text.into())));
    // Their layer does not change with the worker, nor the worker's with them.
    assert_eq!(image.layers().nth(1), self::image().layers().next());
    let (config, alone) = (config(&image), config(&self::image()));
    assert_eq!(config["rootfs"]["diff_ids"][1], alone["rootfs"]["diff_ids"][0]);
    assert_eq!(config["history"].as_array().map(Vec::len), Some(2));
}

#[test]
fn same_included_files_have_the_same_digest() {
    let names = ["data/x", "data/y", "data/z"];
    let (one, two) = (package(&names), package(&[names[2], names[0], names[1]]));
    let digest = |package: &TempDir, include: &[&str]| including(package.path(), include).unwrap().digest().to_owned();
    let expected = digest(&one, &["data"]);
    assert_eq!(digest(&two, &["data/", "data/x"]), expected);
    fs::write(one.path().join("data/x"), "changed").unwrap();
    assert_ne!(digest(&one, &["data"]), expected);
    assert_eq!(including(one.path(), &[]).unwrap().digest(), image().digest());
}

#[test]
fn included_folders_have_no_secrets_and_nothing_compiled() {
    let package = package(&[
        "data/x",
        "data/.env",
        "data/.env.local",
        "data/.git/config",
        "data/target/kept",
        ".cloudknot/runs",
        ".env",
        "target/CACHEDIR.TAG",
        "target/debug/x",
        "data/out/CACHEDIR.TAG",
        "data/out/debug/x",
    ]);
    let whole =
        ["cloudknot/", "cloudknot/data/", "cloudknot/data/target/", "cloudknot/data/target/kept", "cloudknot/data/x"];
    assert_eq!(included(package.path(), &["."]), whole);
    // What is named is included.
    assert_eq!(included(package.path(), &["data/.env"]), ["cloudknot/", "cloudknot/data/", "cloudknot/data/.env"]);
}

#[test]
fn time_zones_are_the_lowest_layer() {
    let package = package(&["x"]);
    let options = options().package_folder(package.path()).include("x").timezones();
    let image = Image::assemble(worker(), &options).unwrap();
    assert_eq!(image.layers().count(), 3);
    let zones = files_of(&image, 0);
    let folders = ["usr/", "usr/share/", "usr/share/zoneinfo/"];
    assert_eq!(zones.iter().map(|(path, ..)| path.as_str()).take(3).collect::<Vec<_>>(), folders);
    for name in ["Europe/Berlin", "America/Argentina/Buenos_Aires", "UTC", "Asia/Calcutta"] {
        let is_zone = |(path, mode, content): &(String, u32, Vec<u8>)| {
            path == &format!("{}{name}", folders[2]) && *mode == 0o644 && content.starts_with(b"TZif")
        };
        assert!(zones.iter().any(is_zone), "{name}");
    }
    assert!(zones.is_sorted(), "the order is that of the paths");
    assert_eq!(files_of(&image, 1)[1].0, "cloudknot/x");
    assert!(image.layers().next().unwrap().1.len() < 200_000);
    assert_eq!(Image::assemble(worker(), &options).unwrap().digest(), image.digest());
}

#[test]
fn links_are_followed_within_the_package() {
    let package = package(&["real/x", "data/y"]);
    symlink("../real", package.path().join("data/folder")).unwrap();
    symlink(package.path().join("real/x"), package.path().join("data/file")).unwrap();
    symlink("data", package.path().join("link")).unwrap();
    let files = ["file", "folder/", "folder/x", "y"].map(|name| format!("cloudknot/link/{name}"));
    assert_eq!(
        included(package.path(), &["link"]),
        [&["cloudknot/".into(), "cloudknot/link/".into()], &files[..]].concat()
    );
    let image = including(package.path(), &["data"]).unwrap();
    assert_eq!(files_of(&image, 0)[2], ("cloudknot/data/file".to_owned(), 0o644, b"real/x".to_vec()));
}

#[test]
fn files_that_cannot_be_included_are_refused() {
    let (outside, package) = (package(&["secret"]), package(&["data/x", "a file"]));
    let data = package.path().join("data");
    let check = |include: &str, path: &str, cause: &str| {
        let error = including(package.path(), &[include]).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot include `{path}` in the image"));
        let source = error.source().unwrap().to_string();
        assert!(source.contains(cause), "{source}");
        assert!(error.hint().unwrap().contains("`include`"));
    };
    check("absent", "absent", "No such file");
    check("a file/x", "a file/x", "Not a directory");
    for path in ["../data", "/etc/hostname", "data/../data/x", ""] {
        check(path, path, "must be a relative path without `..`");
    }
    let refused = |make: &dyn Fn(&Path), path: &str, cause: &str| {
        make(&data.join("it"));
        check("data", path, cause);
        fs::remove_file(data.join("it")).unwrap();
    };
    fs::create_dir_all(package.path().join(".cloudknot/runs")).unwrap();
    for secret in [".env", ".cloudknot/runs/x"] {
        fs::write(package.path().join(secret), "secret").unwrap();
        let leads_to = |it: &Path| symlink(package.path().join(secret), it).unwrap();
        refused(&leads_to, "data/it", "which is left out of images");
    }
    let leads_out = "which is not in the package's folder";
    refused(&|it| symlink(outside.path(), it).unwrap(), "data/it", leads_out);
    refused(&|it| symlink(outside.path().join("secret"), it).unwrap(), "data/it", leads_out);
    refused(&|it| symlink("nowhere", it).unwrap(), "data", "No such file");
    refused(&|it| symlink("..", it).unwrap(), "data", "loop");
    refused(&|it| drop(std::os::unix::net::UnixListener::bind(it).unwrap()), "data/it", "neither a file nor a folder");
    symlink(outside.path(), package.path().join("out")).unwrap();
    check("out", "out", leads_out);
    check("out/secret", "out/secret", leads_out);
    fs::write(data.join(std::ffi::OsStr::from_bytes(b"caf\xe9")), "").unwrap();
    check("data", "data/caf\u{fffd}", "its name is not UTF-8");
}

#[test]
fn skopeo_reads_both_archive_formats() {
    if !has("skopeo") {
        return skipped("tests that need skopeo", "skopeo is not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.tar");
    let image = image();
    let skopeo = |verb: &[&str], kind: &str| {
        let mut skopeo = Command::new("skopeo");
        skopeo.arg("--insecure-policy").args(verb).arg(format!("{kind}:{}", path.display()));
        skopeo
    };
    for names in [&[][..], &["probe:latest".to_owned()]] {
        image.save_tar(&path, names).unwrap();
        for kind in ["oci-archive", "docker-archive"] {
            let manifest: Value = serde_json::from_str(&run(&mut skopeo(&["inspect", "--raw"], kind))).unwrap();
            assert_eq!(manifest["config"]["digest"], image.id(), "{kind}");
            let inspected: Value = serde_json::from_str(&run(&mut skopeo(&["inspect"], kind))).unwrap();
            assert_eq!(inspected["Labels"]["cloudknot.functions"], "probe::a,probe::b", "{kind}");
            // Copying reads every byte and compares the digests.
            let copy = tempfile::tempdir().unwrap();
            run(skopeo(&["copy"], kind).arg(format!("oci:{}:copy", copy.path().display())));
            if kind == "oci-archive" {
                let blob = copy.path().join("blobs").join(image.digest().replace(':', "/"));
                assert_eq!(fs::read(blob).unwrap(), image.manifest());
            }
        }
    }
}

#[test]
fn unwritable_tar_names_the_file() {
    let error = image().save_tar("/no/such/folder/image.tar".as_ref(), &[]).unwrap_err();
    assert_eq!(error.to_string(), "cannot save the image as `/no/such/folder/image.tar`");
    assert!(error.source().unwrap().to_string().contains("No such file"));
}
