//! `cargo knot deploy`: turns the source of a program into a Knot that is ready for maps.

use clap::Args;
use cloudknot::compile::{AwsFeature, Compile, CompileError, CompileErrorKind};
use cloudknot::{ImageSettings, KnotBuilder, KnotSettings};

use crate::aws::AwsArgs;
use crate::build::CompileArgs;
use crate::failure::Failure;
use crate::knots::show;
use crate::output;
use crate::pars::plan;
use crate::settings::SettingsArgs;

#[derive(Args)]
pub(crate) struct Deploy {
    /// Settings of a Knot. They take precedence over `[package.metadata.cloudknot]` and the attributes of the functions.
    #[command(flatten)]
    settings: SettingsArgs<KnotSettings>,
    /// Compile only, and show what would be created or changed and what it costs while idle
    #[arg(long)]
    dry_run: bool,
    /// Enable the feature `aws` of cloudknot if the program lacks it: select a feature of the package, or run `cargo add`
    #[arg(long, conflicts_with = "dry_run")]
    add_feature: bool,
    #[command(flatten)]
    aws: AwsArgs,
    #[command(flatten)]
    compile: CompileArgs,
    #[command(flatten)]
    image: SettingsArgs<ImageSettings>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Deploy {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let compile = self.compile.compile(self.image.0.has_base());
        let builder = KnotBuilder::of(self.settings.0).image(self.image.0).compile(compile.clone());
        let builder = self.aws.knot(builder);
        if self.dry_run {
            return plan(&builder.plan().await?, self.json);
        }
        let builder = if self.add_feature { builder.add_feature() } else { builder };
        let deployed = match builder.clone().deploy().await {
            Err(error) if lacks_feature(&error) && !self.json && may_add_feature(&error, &compile)? => {
                builder.add_feature().deploy().await?
            }
            deployed => deployed?,
        };
        show(&deployed, self.json)
    }
}

/// Returns whether the deploy failed because the program lacks the feature `aws`.
fn lacks_feature(error: &cloudknot::Error) -> bool {
    let compile = error.get_ref().and_then(|error| error.downcast_ref::<CompileError>());
    compile.is_some_and(|error| error.kind() == CompileErrorKind::Feature)
}

/// Asks the user at the terminal, if there is one, whether to enable the feature `aws`.
fn may_add_feature(error: &cloudknot::Error, compile: &Compile) -> Result<bool, Failure> {
    if !output::can_ask() {
        return Ok(false);
    }
    let program = compile.resolve()?;
    let Some(feature) = program.missing_aws_feature()? else { return Ok(false) };
    output::note(&error.to_string());
    let question = match feature {
        AwsFeature::OfPackage { .. } => format!("deploy with `{feature}`"),
        _ => format!("run `{feature}`, then deploy"),
    };
    let answer = output::ask(&format!("{question}? [Y/n]"))?;
    Ok(answer.is_some_and(|answer| matches!(answer.to_lowercase().as_str(), "" | "y" | "yes")))
}
