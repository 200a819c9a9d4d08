//! `cargo knot`: from the command line to the library and back. Results go to the standard output, progress and errors to
//! the standard error. It never asks a question.

mod build;
mod failure;

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
    /// Compile the program to a static worker for the cloud.
    #[command(after_help = failure::EXIT_CODES)]
    Build(build::Build),
}

fn main() -> ExitCode {
    let Cargo::Knot { verb } = Cargo::parse();
    let outcome = match verb {
        Verb::Build(build) => build.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.print(),
    }
}
