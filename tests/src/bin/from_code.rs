//! Creates a Pars and a Knot from code, finds them, and deletes them, in a program whose own executor is not tokio.
//! Its arguments are the `Cargo.toml` of the Knot's program, and the service role.

use std::time::Duration;

use cloudknot::compile::{Compile, Profile, Selection};
use cloudknot::doctor::{self, Examination, State};
use cloudknot::policy::Scope;
use cloudknot::prune::Prune;
use cloudknot::{Knot, KnotBuilder, Pars, Pipeline};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [manifest, role] = &arguments[..] else { panic!("expected a manifest and a role, not {arguments:?}") };
    pollster::block_on(lifecycle(manifest, role)).unwrap_or_else(|error| panic!("{error:?}"));
}

async fn lifecycle(manifest: &str, role: &str) -> cloudknot::Result<()> {
    let pars = Pars::builder("lab").tag("Owner", "Ada").create().await?;
    assert_eq!(Pars::get("lab").await?, pars);
    assert_eq!(Pars::list().await?, std::slice::from_ref(&pars));
    assert!(Pars::builder("lab").tag("Owner", "Ada").plan().await?.steps.is_empty(), "the Pars is not up to date");
    assert!(Pars::builder("other").template().await?.contains("AWS::S3::Bucket"));

    let knot = deployable(manifest, role, &pars).deploy().await?;
    let found = Knot::get("sweep").await?;
    assert_eq!((found.image(), found.queue()), (knot.image(), knot.queue()));
    assert_eq!(found.job_definitions(), knot.job_definitions());
    assert_eq!(Knot::list().await?, std::slice::from_ref(&found));
    assert_eq!(found.pars().await?.bucket(), pars.bucket());
    assert!(deployable(manifest, role, &pars).plan().await?.steps.is_empty(), "the Knot is not up to date");
    assert!(deployable(manifest, role, &pars).template().await?.contains("AWS::Batch::JobQueue"));
    let built = Pipeline::new(compile(manifest).resolve()?).run(|digest| digest[..12].to_owned()).await?;
    assert!(built.image.compressed_bytes() > 0, "the built image is empty");
    // Only created: this program has no maps, and the worker of the stand-in has no types.
    found.backend().await?;

    assert_eq!(Scope::of_caller(None, None, "lab", "sweep").await?.account, "123456789012");
    let mut examination = Examination::default();
    examination.knot = Some("sweep".to_owned());
    let findings = doctor::examine(&examination).await;
    let state_of = |name: &str| findings.iter().find(|one| one.subject == name).map(|one| one.state);
    assert_eq!([state_of("Knot `sweep`"), state_of("Pars `lab`")], [Some(State::Good); 2], "{findings:?}");
    let orphans = Prune::new().min_age(Duration::ZERO).find().await?;
    assert!(orphans.is_empty(), "{orphans:?}");

    knot.clobber().beside(folder(manifest)).image().await?;
    assert_eq!(Knot::list().await?, []);
    pars.clobber().await?;
    assert_eq!(Pars::list().await?, []);
    Ok(())
}

fn deployable(manifest: &str, role: &str, pars: &Pars) -> KnotBuilder {
    Knot::builder("sweep").pars(pars).service_role(role).memory("2 GiB").compile(compile(manifest))
}

fn compile(manifest: &str) -> Compile {
    let selection = Selection { manifest_path: Some(manifest.into()), ..Selection::default() };
    Compile::new(selection).profile(Profile::Fast).cargo_option("--offline")
}

fn folder(manifest: &str) -> &std::path::Path {
    std::path::Path::new(manifest).parent().expect("a manifest path has a parent")
}
