//! Tests that require a Docker engine or a registry: the suite of the runs in containers of the trial's image, and
//! images, pushes, bases and workers in use.

mod docker;
mod docker_image;
mod image;
mod native;
mod registry;
mod worker;

#[path = "../suite/failures.rs"]
mod failures;
#[path = "../suite/init.rs"]
mod init;
#[path = "../suite/maps.rs"]
mod maps;
#[path = "../suite/misdeeds.rs"]
mod misdeeds;

use cloudknot_tests::counterparts::Docker;
use cloudknot_tests::trial::{Jobs, RemoteEnv, Trial};
use cloudknot_tests::workspaces::trial_image;

const PROGRAM: &str = env!("CARGO_BIN_EXE_trial");

fn trial() -> Option<Trial> {
    let docker = Docker::get()?;
    let mut env = vec![("CLOUDKNOT_BACKEND".to_owned(), "docker".to_owned())];
    env.extend(docker.host().map(|host| ("DOCKER_HOST".to_owned(), host.to_owned())));
    let trial = Trial::new(PROGRAM).on(RemoteEnv {
        env,
        home: "/cloudknot-runs".into(),
        jobs: Jobs::Containers(docker, "label=cloudknot.run={run}".into()),
        record: None,
        is_batch: false,
        end: None,
    });
    std::fs::create_dir_all(trial.home()).expect("the folder of the test can be written");
    std::fs::copy(trial_image(), trial.home().join("image.json")).expect("the note of the trial's image exists");
    Some(trial)
}
