//! Walkthrough of a user on AWS: `cargo new`, a function, `cargo run` on this machine, `cargo knot deploy`, and
//! `cargo run` again. The image is pushed to a real registry and its containers run in a real engine; moto simulates
//! the other AWS services.

use std::process::{Command, Output};

use cloudknot_tests::counterparts::{Docker, Registry, check, run};
use cloudknot_tests::moto::{Moto, environment, python};
use cloudknot_tests::recorder::Recorder;
use cloudknot_tests::walk::{UserCrate, cargo, succeed, target};
use cloudknot_tests::workspaces::cargo_knot;

use crate::account::SERVICE_ROLE;

const PROGRAM: &str = r#"
/// The root of a number; none of a negative one.
#[cloudknot::remote(memory = "256 MiB", timeout = "1m")]
fn root(x: f64) -> Result<f64, String> {
    if x < 0.0 { Err(format!("{x} has no root")) } else { Ok(x.sqrt()) }
}

#[cloudknot::main]
async fn main() -> cloudknot::Result<()> {
    let run = match std::env::args().nth(1) {
        None => root.map([1.0, 4.0, -1.0, 9.0]).submit().await?,
        Some(id) => root.attach(&id).await?,
    };
    for outcome in run.outcomes().await? {
        match outcome {
            Ok(value) => println!("{value}"),
            Err(error) => println!("{error}"),
        }
    }
    eprintln!("id {}", run.id());
    Ok(())
}
"#;

#[test]
fn new_user_gets_results_from_aws_batch() {
    let Some(docker) = Docker::get() else { return };
    let Some(registry) = Registry::start() else { return };
    let logins = tempfile::tempdir().unwrap();
    let login =
        r#"{"auths": {"HOST": {"auth": "QVdTOjEyMzQ1Njc4OTAxMi1hdXRoLXRva2Vu"}}}"#.replace("HOST", &registry.host());
    std::fs::write(logins.path().join("config.json"), login).unwrap();
    let Some(moto) = Moto::start_with_docker(&docker, logins.path()) else { return };
    let recorder = Recorder::before(&moto.url());
    let machine = tempfile::tempdir().unwrap();
    let user_crate = UserCrate::new("roots");
    user_crate.write("src/main.rs", PROGRAM);
    let aws = |command: &mut Command| {
        command.envs(environment(&recorder.url())).env("CLOUDKNOT_CONFIG", machine.path().join("config.toml"));
        command.env("CLOUDKNOT_REGISTRY", registry.host()).env("USER", "ada").env_remove("CLOUDKNOT_HOME");
    };
    let program = |arguments: &[&str]| -> Output {
        let mut command = cargo(&user_crate.folder());
        aws(command.args(["run", "--quiet", "--offline", "--"]).args(arguments));
        succeed(&mut command)
    };
    let expected = "1\n2\nreturned an error: -1 has no root\n3\n";
    let local = program(&[]);
    assert_eq!(String::from_utf8_lossy(&local.stdout), expected);
    assert!(String::from_utf8_lossy(&local.stderr).contains("root over 4 inputs on this machine"), "{local:?}");

    let mut role = Command::new(python().expect("moto is installed"));
    let role = run(role.args(["-c", SERVICE_ROLE]).envs(environment(&moto.url())));
    let mut deploying = Command::new(cargo_knot());
    let deploy = &mut deploying;
    deploy.args(["knot", "deploy", "--knot", "roots", "--offline", "--add-feature", "--service-role", role.trim()]);
    // Without optimization the AWS SDK compiles in half the time, and without debug information the image is small.
    deploy.args(["--profile", "dev"]).env("CARGO_PROFILE_DEV_DEBUG", "0");
    // Separate from the workers of this repository, whose dependencies are compiled with the names of other folders.
    deploy.env("CARGO_TARGET_DIR", target().join("walks"));
    for (name, value) in
        environment(&moto.url()).into_iter().filter(|(name, _)| !name.contains("REGION") && name.starts_with("AWS_"))
    {
        deploy.args(["--env", &format!("{name}={value}")]);
    }
    aws(deploy.current_dir(user_crate.folder()));
    succeed(deploy);

    let remote = program(&[]);
    let stderr = String::from_utf8_lossy(&remote.stderr).into_owned();
    assert_eq!(String::from_utf8_lossy(&remote.stdout), expected, "{stderr}");
    assert!(stderr.contains("root over 4 inputs on AWS Batch, 4 jobs of the Knot `roots`"), "{stderr}");
    let id = stderr
        .lines()
        .find_map(|line| line.strip_prefix("id "))
        .expect("the program prints the ID of the run")
        .to_owned();
    // In a folder without a note of the Knot.
    std::fs::remove_dir_all(user_crate.folder().join(".cloudknot")).unwrap();
    let mut use_it = Command::new(cargo_knot());
    aws(use_it.args(["knot", "use", "roots"]).current_dir(user_crate.folder()));
    succeed(&mut use_it);
    let note = std::fs::read_to_string(user_crate.folder().join(".cloudknot/knot.json")).unwrap();
    assert!(note.contains("fingerprint"), "the note has the types, which are compared before anything is sent: {note}");
    let again = program(&[&id]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), expected);

    // The failed item is retried with the code of before, and with the mended code once that is deployed.
    let empty = tempfile::tempdir().unwrap();
    let knot = |arguments: &[&str], code: i32, expected: &[&str]| {
        let mut command = Command::new(cargo_knot());
        aws(command.arg("knot").args(arguments).args(["--knot", "roots"]).current_dir(empty.path()));
        check(command.env("PATH", empty.path()), code, expected).stdout
    };
    knot(&["retry", "--old-code", "--wait"], 10, &[]);
    assert!(String::from_utf8(knot(&["results"], 10, &[])).unwrap().contains("-1 has no root"));
    user_crate
        .write("src/main.rs", &PROGRAM.replace("if x < 0.0 {", "if x < -1.0 {").replace("x.sqrt()", "x.abs().sqrt()"));
    succeed(deploy);
    knot(&["retry", "--wait"], 0, &["next     cargo knot results"]);
    let results = String::from_utf8(knot(&["results"], 0, &[])).unwrap();
    assert_eq!(results, "0  1.0\n1  2.0\n2  1.0\n3  3.0\n");
    recorder.validate();

    let mut clobber = Command::new(cargo_knot());
    aws(clobber.args(["knot", "clobber", "--pars"]).current_dir(user_crate.folder()));
    succeed(&mut clobber);
    let local = program(&[]);
    assert!(
        String::from_utf8_lossy(&local.stderr).contains("on this machine"),
        "the note is deleted as well: {local:?}"
    );
}
