//! `cargo knot`: calls the library according to the command line, and prints the results. Results go to stdout,
//! progress and errors to stderr. Only `configure`, `deploy` and `doctor --rehearse` ask questions, and
//! only at a terminal.

mod aws;
mod build;
mod call;
mod clean;
mod configure;
mod control;
mod deploy;
mod doctor;
mod failure;
mod groups;
mod image;
mod items;
mod knots;
mod logs;
mod output;
mod pars;
mod patience;
mod policy;
mod program;
mod prune;
mod push;
mod rehearsal;
mod replay;
mod results;
mod retry;
mod runs;
mod scope;
mod settings;
mod shown;
mod status;
mod template;

use std::process::ExitCode;

use cargo_knot::exit;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use failure::Failure;

/// Command that cargo starts as `cargo-knot knot …`
#[derive(Parser)]
#[command(name = "cargo", bin_name = "cargo", disable_help_subcommand = true)]
enum Cargo {
    /// Build and deploy the remote functions of a program
    #[command(version, after_help = exit::help())]
    Knot {
        #[command(subcommand)]
        verb: Verb,
    },
}

#[derive(Subcommand)]
enum Verb {
    /// Call a remote function: one item, whose value is printed as JSON
    #[command(after_help = exit::help())]
    Call(Box<call::Call>),
    /// Map a remote function over the lines of a file, and print the results as JSON lines
    #[command(after_help = exit::help())]
    Map(Box<call::Map>),
    /// Run one item of a run here, in the foreground and in one process; stores nothing
    #[command(after_help = exit::help())]
    Replay(Box<replay::Replay>),
    /// List the runs of the program in this folder: local ones, and those of its Knot
    #[command(after_help = exit::help())]
    Runs(runs::Runs),
    /// Show a run: its items, times, memory and failures
    #[command(after_help = exit::help())]
    Status(status::Status),
    /// Wait until a run has ended
    #[command(after_help = exit::help())]
    Wait(control::Wait),
    /// Print what the items of a run have printed
    #[command(after_help = exit::help())]
    Logs(logs::Logs),
    /// Print the values of a run, and the errors of its failed items
    #[command(after_help = exit::help())]
    Results(results::Results),
    /// Cancel a run: running items are ended, and values are kept
    #[command(after_help = exit::help())]
    Cancel(control::Cancel),
    /// Run the items of a run that have no value again, with the code as it is now
    #[command(after_help = exit::help())]
    Retry(Box<retry::Retry>),
    /// List runs that have ended, and delete them with --yes
    #[command(after_help = exit::help())]
    Clean(clean::Clean),
    /// Compile the program to a static worker for the cloud, and assemble its image
    #[command(after_help = exit::help())]
    Build(build::Build),
    /// Show the image that was built last: size, digest, layers and functions
    #[command(after_help = exit::help())]
    Image(image::Show),
    /// Build the image and push it to a registry; only what the registry lacks is sent
    #[command(after_help = exit::help())]
    Push(push::Push),
    /// Set the profile, region, Pars, bucket and key for all programs, and show these settings
    #[command(after_help = exit::help())]
    Configure(configure::Configure),
    /// Deploy the program to AWS: compile it, push its image, and create or update the Knot
    #[command(after_help = exit::help())]
    Deploy(Box<deploy::Deploy>),
    /// Delete a Knot and its runs
    #[command(after_help = exit::help())]
    Clobber(knots::Clobber),
    /// List the Knots in the region
    #[command(after_help = exit::help())]
    List(knots::List),
    /// Show the details of a Knot
    #[command(after_help = exit::help())]
    Show(knots::Show),
    /// Run the maps of the program in this folder on a Knot that was deployed from elsewhere
    #[command(name = "use", after_help = exit::help())]
    Use(knots::Use),
    /// Create, list, show and delete Pars: the resources that Knots share
    Pars(pars::ParsArgs),
    /// Print the minimal IAM policy that a command or the jobs of a Knot need
    #[command(after_help = exit::help())]
    Policy(Box<policy::Policy>),
    /// Check this machine and the account: show what is missing, and how to get it. With --rehearse, run a small program on AWS
    #[command(after_help = exit::help())]
    Doctor(Box<doctor::Doctor>),
    /// List resources without an owner; delete them with --yes
    #[command(after_help = exit::help())]
    Prune(prune::Prune),
    /// Print the stacks as templates, to create them yourself with CloudFormation or Terraform
    Template(template::Template),
}

#[tokio::main]
async fn main() -> ExitCode {
    let matches = match groups::with_groups(Cargo::command()).try_get_matches() {
        Err(error) if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") => {
            return Failure::of_options(&error).report(true);
        }
        matches => matches.unwrap_or_else(|error| error.exit()),
    };
    let as_json = is_json_requested(&matches);
    let Cargo::Knot { verb } = Cargo::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let _running = cloudknot::__private::install_terminal();
    match run(verb).await {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(as_json),
    }
}

/// Returns whether the verb has the option `--json`, and it is given. Its error is JSON then, too.
fn is_json_requested(matches: &ArgMatches) -> bool {
    match matches.subcommand() {
        Some((_, verb)) => is_json_requested(verb),
        None => matches.try_get_one("json").ok().flatten().copied().unwrap_or(false),
    }
}

/// Runs a verb, and returns its exit code.
async fn run(verb: Verb) -> Result<u8, Failure> {
    match verb {
        Verb::Call(call) => return call.run().await,
        Verb::Map(map) => return map.run().await,
        Verb::Replay(replay) => return replay.run().await,
        Verb::Retry(retry) => return retry.run().await,
        Verb::Runs(runs) => runs.run().await?,
        Verb::Status(status) => return status.run().await,
        Verb::Wait(wait) => return wait.run().await,
        Verb::Logs(logs) => return logs.run().await,
        Verb::Results(results) => return results.run().await,
        Verb::Cancel(cancel) => cancel.run().await?,
        Verb::Clean(clean) => clean.run().await?,
        Verb::Build(build) => build.run().await?,
        Verb::Image(show) => show.run()?,
        Verb::Push(push) => push.run().await?,
        Verb::Configure(configure) => configure.run().await?,
        Verb::Deploy(deploy) => deploy.run().await?,
        Verb::Clobber(clobber) => clobber.run().await?,
        Verb::List(list) => list.run().await?,
        Verb::Show(show) => show.run().await?,
        Verb::Use(use_knot) => use_knot.run().await?,
        Verb::Pars(pars) => pars.run().await?,
        Verb::Policy(policy) => policy.run().await?,
        Verb::Doctor(doctor) => doctor.run().await?,
        Verb::Prune(prune) => prune.run().await?,
        Verb::Template(template) => template.run().await?,
    }
    Ok(exit::DONE)
}
