//! `cargo knot`: from the command line to the library and back. Results go to the standard output, progress and errors to
//! the standard error. It asks a question only where somebody at a terminal wants to `configure`.

mod aws;
mod build;
mod configure;
mod deploy;
mod doctor;
mod failure;
mod image;
mod knots;
mod output;
mod pars;
mod policy;
mod prune;
mod push;
mod template;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What cargo starts as `cargo-knot knot …`.
#[derive(Parser)]
#[command(name = "cargo", bin_name = "cargo", disable_help_subcommand = true)]
enum Cargo {
    /// Build and deploy the remote functions of a program.
    #[command(version, after_help = failure::EXIT_CODES)]
    Knot {
        #[command(subcommand)]
        verb: Verb,
    },
}

#[derive(Subcommand)]
enum Verb {
    /// Compile the program to a static worker for the cloud, and assemble its image.
    #[command(after_help = failure::EXIT_CODES)]
    Build(build::Build),
    /// Show the image that was built last: size, digest, layers and functions.
    #[command(after_help = failure::EXIT_CODES)]
    Image(image::Show),
    /// Build, and push the image into a registry; what is there already is not sent.
    #[command(after_help = failure::EXIT_CODES)]
    Push(push::Push),
    /// Choose profile, region, Pars, bucket and key once for all programs, and show what is chosen.
    #[command(after_help = failure::EXIT_CODES)]
    Configure(configure::Configure),
    /// Take the program to AWS: compile it, push its image, and make or change the Knot.
    #[command(after_help = failure::EXIT_CODES)]
    Deploy(Box<deploy::Deploy>),
    /// Take a Knot away, with its runs.
    #[command(after_help = failure::EXIT_CODES)]
    Clobber(knots::Clobber),
    /// List the Knots in this region.
    #[command(after_help = failure::EXIT_CODES)]
    List(knots::List),
    /// Show what a Knot is made of.
    #[command(after_help = failure::EXIT_CODES)]
    Show(knots::Show),
    /// Have the program in this folder run on a Knot that was deployed from elsewhere.
    #[command(name = "use", after_help = failure::EXIT_CODES)]
    Use(knots::Use),
    /// Make, list, show and take away what Knots share.
    Pars(pars::ParsArgs),
    /// Print the least IAM policy that a verb needs, or that of a Knot's jobs.
    #[command(after_help = failure::EXIT_CODES)]
    Policy(Box<policy::Policy>),
    /// Examine this machine and the account: what lacks, and what to do about it.
    #[command(after_help = failure::EXIT_CODES)]
    Doctor(doctor::Doctor),
    /// List what exists without an owner, and delete it if told to.
    #[command(after_help = failure::EXIT_CODES)]
    Prune(prune::Prune),
    /// Print the stacks as templates, to make them with CloudFormation or Terraform of your own.
    Template(template::Template),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cargo::Knot { verb } = Cargo::parse();
    cloudknot::__private::install_terminal();
    let outcome = match verb {
        Verb::Build(build) => build.run().await,
        Verb::Image(show) => show.run(),
        Verb::Push(push) => push.run().await,
        Verb::Configure(configure) => configure.run().await,
        Verb::Deploy(deploy) => deploy.run().await,
        Verb::Clobber(clobber) => clobber.run().await,
        Verb::List(list) => list.run().await,
        Verb::Show(show) => show.run().await,
        Verb::Use(use_it) => use_it.run().await,
        Verb::Pars(pars) => pars.run().await,
        Verb::Policy(policy) => policy.run().await,
        Verb::Doctor(doctor) => doctor.run().await,
        Verb::Prune(prune) => prune.run().await,
        Verb::Template(template) => template.run().await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
