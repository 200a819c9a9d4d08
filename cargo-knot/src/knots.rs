//! `cargo knot list`, `show`, `use` and `clobber`: existing Knots.

use std::path::PathBuf;

use clap::Args;
use cloudknot::compile::{Compile, Selection};
use cloudknot::{Knot, KnotBuilder};
use serde_json::{Value, json};

use crate::aws::AwsArgs;
use crate::failure::Failure;
use crate::output::{self, age, table};

/// Options of `cargo knot list`.
#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    aws: AwsArgs,
    /// Print one JSON array instead of text
    #[arg(long)]
    json: bool,
}

/// Options of `cargo knot show`.
#[derive(Args)]
pub(crate) struct Show {
    #[command(flatten)]
    knot: KnotArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Options of `cargo knot use`.
#[derive(Args)]
pub(crate) struct Use {
    #[command(flatten)]
    knot: KnotArgs,
}

/// Options of `cargo knot clobber`.
#[derive(Args)]
pub(crate) struct Clobber {
    #[command(flatten)]
    knot: KnotArgs,
    /// Keep the runs of the Knot
    #[arg(long)]
    keep_data: bool,
    /// Delete the Pars as well, if no other Knot uses it
    #[arg(long)]
    pars: bool,
    /// Delete the image that was built on this machine as well
    #[arg(long)]
    image: bool,
}

/// Name, profile and region of a Knot.
#[derive(Args)]
struct KnotArgs {
    /// Name of the Knot; the Knot of the program in this folder if not given
    name: Option<String>,
    #[command(flatten)]
    aws: AwsArgs,
}

impl List {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let all = self.aws.knot(Knot::builder("any")).list().await?;
        if self.json {
            let all: Vec<_> = all.iter().map(as_json).collect();
            return Ok(output::json(&Value::from(all))?);
        }
        let row = |knot: &Knot| {
            let image = knot.image();
            let digest = image.rsplit_once("sha256:").map_or("", |(_, digest)| &digest[..digest.len().min(12)]);
            let age = age(knot.changed());
            [knot.name(), knot.region(), knot.pars_name(), digest, &age].map(str::to_owned).to_vec()
        };
        Ok(table(&["KNOT", "REGION", "PARS", "IMAGE", "AGE"], &all.iter().map(row).collect::<Vec<_>>())?)
    }
}

impl Show {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        show(&self.knot.builder()?.get().await?, self.json)
    }
}

impl Use {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let (_, folder) = self.knot.name_and_folder()?;
        let knot = self.knot.builder()?.get().await?;
        knot.use_beside(folder.unwrap_or_default()).await?;
        output::note(&format!(
            "maps of this program run on the Knot `{}` in {} from now on",
            knot.name(),
            knot.region()
        ));
        Ok(())
    }
}

impl Clobber {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let (name, folder) = self.knot.name_and_folder()?;
        let mut clobber = self.knot.aws.knot(Knot::builder(&name)).clobber();
        if let Some(folder) = folder {
            clobber = clobber.beside(folder);
        }
        if self.keep_data {
            clobber = clobber.keep_data();
        }
        if self.pars {
            clobber = clobber.pars();
        }
        if self.image {
            clobber = clobber.image();
        }
        clobber.await?;
        output::note(&format!("deleted the Knot `{name}`"));
        Ok(())
    }
}

impl KnotArgs {
    fn builder(self) -> Result<KnotBuilder, Failure> {
        let (name, _) = self.name_and_folder()?;
        Ok(self.aws.knot(Knot::builder(name)))
    }

    /// Returns the Knot's name, and the folder of the program if the current folder has one.
    fn name_and_folder(&self) -> Result<(String, Option<PathBuf>), Failure> {
        let compile = Compile::new(Selection::default());
        match &self.name {
            Some(name) => Ok((name.clone(), compile.package_folder().ok())),
            None => Ok((compile.knot_name()?, Some(compile.package_folder()?))),
        }
    }
}

pub(crate) fn show(knot: &Knot, json: bool) -> Result<(), Failure> {
    let mut lines = vec![
        ("knot", knot.name().to_owned()),
        ("pars", knot.pars_name().to_owned()),
        ("region", knot.region().to_owned()),
        (
            "program",
            format!("{} {} ({})", knot.deployed().package, knot.deployed().version, knot.deployed().cargo_target),
        ),
        ("image", knot.image()),
        ("queue", knot.queue().to_owned()),
        ("environment", knot.compute_environment().unwrap_or_default().to_owned()),
        ("job role", knot.job_role().to_owned()),
        ("age", age(knot.changed())),
        ("stack", knot.stack_id().to_owned()),
    ];
    for (index, (function, definition)) in knot.job_definitions().into_iter().enumerate() {
        lines.push((if index == 0 { "functions" } else { " " }, format!("{function}  {definition}")));
    }
    Ok(output::fields(json.then(|| as_json(knot)).as_ref(), &lines)?)
}

fn as_json(knot: &Knot) -> Value {
    let deployed =
        knot.changed().duration_since(std::time::UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default();
    json!({
        "knot": knot.name(),
        "pars": knot.pars_name(),
        "region": knot.region(),
        "stack": knot.stack_id(),
        "package": knot.deployed().package,
        "version": knot.deployed().version,
        "cargo_target": knot.deployed().cargo_target,
        "image": knot.image(),
        "queue": knot.queue(),
        "compute_environment": knot.compute_environment(),
        "job_role": knot.job_role(),
        "job_definitions": knot.job_definitions(),
        "deployed": deployed,
        "settings": knot.deployed().settings,
    })
}
