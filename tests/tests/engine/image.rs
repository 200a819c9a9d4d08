//! Tests that a function finds in the image, and on this machine, what docs/image.md says.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use cloudknot::DockerImageBuilder;
use cloudknot_runtime::contract::StoreAt;
use cloudknot_runtime::store::DirStore;
use cloudknot_tests::counterparts::Docker;
use cloudknot_tests::recorded::{Recorded, types_of};
use cloudknot_tests::trial::{Fact, Surroundings, Trial};

use crate::worker::{LoadedImage, WORKER, check_done, container, env_of, image, owner};

/// Included file, relative to the folder of this package.
const FILE: &str = "data/greeting.txt";
/// Content of the file.
const GREETING: &str = "Grüß Gott\n";

/// Paths that the image has.
const PRESENT: [&str; 8] = [
    "/worker",
    "/tmp",
    "/etc/passwd",
    "/etc/group",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/proc/self",
];
/// Paths that it lacks.
const ABSENT: [&str; 12] = [
    "/bin",
    "/usr/bin",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/share/fonts",
    "/usr/share/locale",
    "/usr/share/i18n",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/home",
    "/root",
];
const ZONES: &str = "/usr/share/zoneinfo/Europe/Berlin";

/// Runs the function in a container that is read-only except for `/tmp`, and returns what it finds.
async fn surroundings(docker: &Arc<Docker>, image: DockerImageBuilder, options: &[&str]) -> Surroundings {
    let image = LoadedImage::new(docker, image).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be created");
    let store = DirStore::new(folder.path());
    let types = types_of(&mut Command::new(&*WORKER), "surroundings");
    let paths: Vec<&str> = PRESENT.into_iter().chain(ABSENT).chain([ZONES, "/cloudknot"]).collect();
    let recorded = Recorded::new(&store, StoreAt::Folder("/runs".into()), &types, "a-run", &[(FILE, paths)]).await;
    let (volume, env, user) = (format!("{}:/runs", folder.path().display()), env_of(&recorded), owner(folder.path()));
    let fixed = ["--network", "none", "--tmpfs", "/tmp:mode=1777", "--volume", &volume, "--env", &env, "--user", &user];
    check_done(&container(docker, &[&fixed, options].concat(), &image.name));
    recorded.values(&store).await.remove(0)
}

fn including(name: &str) -> DockerImageBuilder {
    image(name).package_folder(env!("CARGO_MANIFEST_DIR")).include("data/")
}

#[tokio::test(flavor = "multi_thread")]
async fn function_finds_what_the_documentation_says() {
    let Some(docker) = Docker::get() else { return };
    let found = surroundings(&docker, including("surroundings"), &["--env", "TZ=Europe/Berlin"]).await;
    assert_eq!((found.data.as_str(), found.data_is_writable), (GREETING, false));
    assert_eq!((found.home.as_str(), found.home_is_writable), ("/tmp", true));
    assert_eq!(found.folder.to_str(), Some("/tmp"));
    assert_eq!(found.found, [&PRESENT[..], &["/cloudknot"]].concat());
    assert_eq!(found.offset, 0, "without its database, the time zone is UTC");
    let of_items = ["OMP_NUM_THREADS", "RAYON_NUM_THREADS"];
    let variables = ["HOME", "HOSTNAME", "PATH", "TZ"].into_iter().chain(of_items).map(str::to_owned);
    assert_eq!(found.variables, variables.collect::<BTreeSet<_>>());
    // Another user has no name.
    let is_of_image = rustix::process::geteuid().is_root();
    let expected = is_of_image.then(|| ("nonroot".to_owned(), "/tmp".to_owned()));
    assert_eq!(found.user.zip(found.home_of_user), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn time_zones_are_found_by_the_c_library() {
    let Some(docker) = Docker::get() else { return };
    let found = surroundings(&docker, including("zones").timezones(), &["--env", "TZ=Europe/Berlin"]).await;
    assert!(found.found.contains(&ZONES.to_owned()), "{found:?}");
    assert_eq!(found.offset, 7200);
}

#[test]
fn included_file_is_the_same_on_this_machine() {
    let trial = Trial::new(crate::PROGRAM);
    let found = |folder: Option<&str>, file: &str| {
        let mut command = trial.command(&["surroundings", file]);
        // The folder of the package is known without cargo.
        command.env_remove("CARGO_MANIFEST_DIR").envs(folder.map(|folder| ("CLOUDKNOT_DATA", folder)));
        let output = command.current_dir("/").output().expect("the trial starts");
        cloudknot_tests::trial::facts(&output.stdout).remove(0)
    };
    let data = |fact: Fact| match fact {
        Fact::Found(found) => {
            serde_json::from_str::<Surroundings>(&found).expect("the trial prints what it found").data
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(data(found(None, FILE)), GREETING);
    assert_eq!(data(found(Some(concat!(env!("CARGO_MANIFEST_DIR"), "/data")), "greeting.txt")), GREETING);

    let error = |fact: Fact| match fact {
        Fact::Error(_, message) => message,
        other => panic!("{other:?}"),
    };
    let missing = error(found(None, "greeting.txt"));
    let expected =
        concat!("cannot find the data file `greeting.txt` in the package's folder `", env!("CARGO_MANIFEST_DIR"));
    assert!(missing.contains(expected), "{missing}");
    let outside = error(found(None, "../Cargo.toml"));
    assert!(outside.contains("invalid path of a data file `../Cargo.toml`: must be as in `include`"), "{outside}");
}
