//! `cargo knot`: from the command line to the library and back. Results go to the standard output, progress and errors to
//! the standard error. It never asks a question.

mod build;
mod failure;
mod image;
mod push;

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
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cargo::Knot { verb } = Cargo::parse();
    cloudknot::__private::install_terminal();
    let outcome = match verb {
        Verb::Build(build) => build.run().await,
        Verb::Image(show) => show.run(),
        Verb::Push(push) => push.run().await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.print(),
    }
}
