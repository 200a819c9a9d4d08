//! Options of all subcommands that call AWS.

use clap::Args;
use cloudknot::{KnotBuilder, ParsBuilder};

/// AWS profile and region of a subcommand.
#[derive(Args, Clone, Default)]
pub(crate) struct AwsArgs {
    /// AWS profile, instead of `AWS_PROFILE` and the one set by `cargo knot configure`
    #[arg(long, value_name = "NAME", help_heading = "AWS")]
    aws_profile: Option<String>,
    /// AWS region, instead of `AWS_REGION` and the one set by `cargo knot configure` or by the profile
    #[arg(long, value_name = "NAME", help_heading = "AWS")]
    region: Option<String>,
}

impl AwsArgs {
    pub(crate) fn profile(&self) -> Option<&str> {
        self.aws_profile.as_deref()
    }

    pub(crate) fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    pub(crate) fn pars(&self, mut builder: ParsBuilder) -> ParsBuilder {
        if let Some(profile) = &self.aws_profile {
            builder = builder.profile(profile);
        }
        match &self.region {
            Some(region) => builder.region(region),
            None => builder,
        }
    }

    pub(crate) fn knot(&self, mut builder: KnotBuilder) -> KnotBuilder {
        if let Some(profile) = &self.aws_profile {
            builder = builder.profile(profile);
        }
        match &self.region {
            Some(region) => builder.region(region),
            None => builder,
        }
    }
}
