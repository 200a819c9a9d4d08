//! `cargo knot template`: the stacks as templates, for those who make theirs with CloudFormation or Terraform.

use clap::{Args, Subcommand};
use cloudknot::KnotBuilder;

use crate::aws::AwsArgs;
use crate::build::CompileArgs;
use crate::deploy::KnotArgs;
use crate::failure::{EXIT_CODES, Failure};
use crate::image::ImageArgs;
use crate::output;
use crate::pars::{ParsSettingsArgs, name_or_default};

/// `cargo knot template`.
#[derive(Args)]
pub(crate) struct Template {
    #[command(subcommand)]
    of: Of,
}

#[derive(Subcommand)]
enum Of {
    /// The stack that `cargo knot pars create` would make
    #[command(after_help = EXIT_CODES)]
    Pars(Box<OfPars>),
    /// The stack that `cargo knot deploy` would make; the program is compiled
    #[command(after_help = EXIT_CODES)]
    Knot(Box<OfKnot>),
}

#[derive(Args)]
struct OfPars {
    /// Its name; `<user>-default` if not given
    name: Option<String>,
    #[command(flatten)]
    settings: ParsSettingsArgs,
    #[command(flatten)]
    aws: AwsArgs,
}

#[derive(Args)]
struct OfKnot {
    #[command(flatten)]
    settings: KnotArgs,
    #[command(flatten)]
    aws: AwsArgs,
    #[command(flatten)]
    compile: CompileArgs,
    #[command(flatten)]
    image: ImageArgs,
}

impl Template {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let template = match self.of {
            Of::Pars(pars) => {
                let builder = pars.settings.builder(&name_or_default(pars.name)?)?;
                pars.aws.pars(builder).template().await?
            }
            Of::Knot(knot) => {
                let compile = knot.compile.compile(knot.image.has_base());
                let builder = KnotBuilder::of(knot.settings.settings()).compile(compile);
                knot.aws.knot(knot.image.knot(builder)).template().await?
            }
        };
        Ok(output::text(&template)?)
    }
}
