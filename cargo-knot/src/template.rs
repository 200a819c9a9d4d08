//! `cargo knot template`: prints the stacks as templates, for users who create them with CloudFormation or Terraform.

use cargo_knot::exit;
use clap::{Args, Subcommand};
use cloudknot::{ImageSettings, KnotBuilder, KnotSettings, ParsSettings};

use crate::aws::AwsArgs;
use crate::build::CompileArgs;
use crate::failure::Failure;
use crate::output;
use crate::pars;
use crate::settings::SettingsArgs;

/// Options of `cargo knot template`.
#[derive(Args)]
pub(crate) struct Template {
    #[command(subcommand)]
    kind: TemplateKind,
}

#[derive(Subcommand)]
enum TemplateKind {
    /// Print the stack that `cargo knot pars create` would create
    #[command(after_help = exit::help())]
    Pars(Box<ParsArgs>),
    /// Compile the program, and print the stack that `cargo knot deploy` would create
    #[command(after_help = exit::help())]
    Knot(Box<KnotArgs>),
}

#[derive(Args)]
struct ParsArgs {
    /// Name of the Pars; if not given, the one set by `cargo knot configure`, else `<user>-default`
    name: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs<ParsSettings>,
    #[command(flatten)]
    aws: AwsArgs,
}

#[derive(Args)]
struct KnotArgs {
    #[command(flatten)]
    settings: SettingsArgs<KnotSettings>,
    #[command(flatten)]
    aws: AwsArgs,
    #[command(flatten)]
    compile: CompileArgs,
    #[command(flatten)]
    image: SettingsArgs<ImageSettings>,
}

impl Template {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let template = match self.kind {
            TemplateKind::Pars(args) => args.aws.pars(pars::builder(args.name, args.settings.0)?).template().await?,
            TemplateKind::Knot(knot) => {
                let compile = knot.compile.compile(knot.image.0.has_base());
                let builder = KnotBuilder::of(knot.settings.0).compile(compile);
                knot.aws.knot(builder.image(knot.image.0)).template().await?
            }
        };
        Ok(output::text(&template)?)
    }
}
