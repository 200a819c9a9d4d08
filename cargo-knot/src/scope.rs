//! The options that say which runs a verb is about.

use std::path::{Path, PathBuf};

use cargo_knot::exit;
use clap::Args;
use cloudknot::compile::{Compile, CompileErrorKind, Selection};
use cloudknot::look::{Look, Runs};
use cloudknot::{ErrorKind, Knot};

use crate::aws::AwsArgs;
use crate::failure::Failure;
use crate::output;

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
        self.scope.find(&self.run).await
    }

    pub(crate) fn scope(&self) -> &ScopeArgs {
        &self.scope
    }
}

/// Where runs are looked for: by default, those of the program in this folder, on this machine and on its Knot.
#[derive(Args, Default)]
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
    /// Finds the run that `run` names.
    pub(crate) async fn find(&self, run: &str) -> Result<Look, Failure> {
        self.runs().await?.find(run).await.map_err(|error| self.failure(error))
    }

    /// Returns the command line of a verb with its arguments, such as `status k5v`, and the options that select the same runs.
    pub(crate) fn command(&self, verb: &str) -> String {
        let options =
            [("--knot", self.knot.as_deref()), ("--region", self.aws.region()), ("--aws-profile", self.aws.profile())];
        let given = options.iter().filter_map(|(option, value)| Some(format!(" {option} {}", quoted((*value)?))));
        let local = if self.local { " --local" } else { "" };
        format!("cargo knot {verb}{local}{}", given.collect::<String>())
    }

    /// Returns the failure of a search for runs.
    pub(crate) fn failure(&self, error: cloudknot::Error) -> Failure {
        let is_of_aws = matches!(error.kind(), ErrorKind::Aws | ErrorKind::Denied | ErrorKind::Credentials);
        // The Knot that is recorded here was asked, although the run may be on this machine.
        let local = "`--local` looks only at the runs on this machine";
        let hint = match error.hint() {
            _ if !is_of_aws || self.knot.is_some() => return error.into(),
            Some(hint) => format!("{hint}; {local}"),
            None => local.to_owned(),
        };
        Failure::from(error).with_hint(hint)
    }

    /// Prints the commands that help next.
    pub(crate) fn suggest(&self, verbs: &[String]) {
        let commands: Vec<_> = verbs.iter().map(|verb| self.command(verb)).collect();
        output::note(&format!("next     {}", commands.join("     ")));
    }

    pub(crate) async fn runs(&self) -> Result<Runs, Failure> {
        if let Some(name) = &self.knot {
            let knot = self.aws.knot(Knot::builder(name)).get().await?;
            return Ok(Runs::on(knot.backend().await?));
        }
        if self.aws.profile().is_some() || self.aws.region().is_some() {
            let message = "invalid options: `--aws-profile` and `--region` require `--knot`";
            let hint = "add `--knot NAME`; or leave them out: the Knot that is recorded in this folder has its own region and profile";
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

/// Returns an argument as a shell reads it.
fn quoted(argument: &str) -> String {
    let is_plain = argument.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_./@".contains(letter));
    if is_plain { argument.to_owned() } else { format!("'{}'", argument.replace('\'', "'\\''")) }
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
    // As cargo does. If a manifest cannot be read, the runs of an installed program are not those that are meant.
    let current = std::env::current_dir().map_err(|error| Failure::of_io("find the current folder", &error))?;
    let has_package = current.ancestors().any(|folder| folder.join("Cargo.toml").exists());
    if !has_package && Path::new(HOME).is_dir() {
        return Ok(Folder::Start);
    }
    match Compile::new(Selection::default()).package_folder() {
        Ok(folder) => Ok(Folder::Package(folder)),
        // The hint names options of other commands, for another package.
        Err(error) if error.kind() == CompileErrorKind::Selection && error.hint().is_some() => {
            let hint =
                "run the command in the folder of a package with remote functions, or name a Knot with `--knot NAME`";
            Err(Failure::from(error).with_hint(hint))
        }
        Err(error) => Err(error.into()),
    }
}
