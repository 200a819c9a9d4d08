//! The options that say which runs a verb is about.

use std::path::PathBuf;

use cargo_knot::exit;
use clap::Args;
use cloudknot::Knot;
use cloudknot::compile::{Compile, Selection};
use cloudknot::look::{Look, Runs};

use crate::aws::AwsArgs;
use crate::failure::Failure;

/// Name of the folder of runs beside a crate.
const HOME: &str = ".cloudknot";
/// Variable with the path of another one.
const ENV_HOME: &str = "CLOUDKNOT_HOME";

/// The run that a verb is about.
#[derive(Args)]
pub(crate) struct RunArgs {
    /// The run: `last`, `last-1`, the start of its ID or of the word at its end, or its name
    #[arg(default_value = "last")]
    run: String,
    #[command(flatten)]
    scope: ScopeArgs,
}

impl RunArgs {
    pub(crate) async fn look(&self) -> Result<Look, Failure> {
        Ok(self.scope.runs().await?.find(&self.run).await?)
    }
}

/// Where runs are looked for: by default, those of the program in this folder, on this machine and on its Knot.
#[derive(Args)]
pub(crate) struct ScopeArgs {
    /// Only the runs on this machine; no request to AWS
    #[arg(long, conflicts_with = "knot")]
    local: bool,
    /// Only the runs of the Knot with this name
    #[arg(long, value_name = "NAME")]
    knot: Option<String>,
    #[command(flatten)]
    aws: AwsArgs,
}

impl ScopeArgs {
    pub(crate) async fn runs(&self) -> Result<Runs, Failure> {
        if let Some(name) = &self.knot {
            let knot = self.aws.knot(Knot::builder(name)).get().await?;
            return Ok(Runs::on(knot.backend().await?));
        }
        if self.aws.profile().is_some() || self.aws.region().is_some() {
            let message = "invalid options: `--aws-profile` and `--region` require `--knot`";
            let hint = "the runs of the program in this folder are on the Knot that its deploy has recorded";
            return Err(Failure::new(exit::USAGE, message).with_hint(hint));
        }
        match folder()? {
            Folder::Package(folder) if self.local => Ok(Runs::in_folder(folder.join(HOME))),
            Folder::Package(folder) => Ok(Runs::beside(folder)?),
            Folder::Home(home) if self.local => Ok(Runs::in_folder(home)),
            Folder::Home(_) => Ok(Runs::beside("")?),
            // The folder in which a program is started may be anyone's, so no Knot that is recorded there is asked.
            Folder::Start => Ok(Runs::in_folder(HOME)),
        }
    }
}

enum Folder {
    /// Folder of the package here.
    Package(PathBuf),
    /// Folder that `CLOUDKNOT_HOME` names.
    Home(PathBuf),
    /// The current folder, which has no package, but the runs of an installed program.
    Start,
}

fn folder() -> Result<Folder, Failure> {
    if let Some(home) = std::env::var_os(ENV_HOME).filter(|home| !home.is_empty()) {
        return Ok(Folder::Home(home.into()));
    }
    match Compile::new(Selection::default()).package_folder() {
        Ok(folder) => Ok(Folder::Package(folder)),
        Err(_) if std::path::Path::new(HOME).is_dir() => Ok(Folder::Start),
        // These commands have no option for another package.
        Err(error) => {
            let hint =
                "run the command in the folder of a package with remote functions, or name a Knot with `--knot NAME`";
            Err(Failure::from(error).with_hint(hint))
        }
    }
}
