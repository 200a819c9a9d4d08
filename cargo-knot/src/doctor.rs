//! `cargo knot doctor`: shows what is missing on this machine and in the account, and how to get it, or rehearses a deploy.

use cargo_knot::exit;
use clap::Args;
use cloudknot::ParsSettings;
use cloudknot::doctor::{Examination, Finding, State, examine};
use serde_json::json;

use crate::aws::AwsArgs;
use crate::failure::Failure;
use crate::output;
use crate::rehearsal::RehearsalArgs;
use crate::settings::SettingsArgs;

#[derive(Args)]
pub(crate) struct Doctor {
    /// Name of the Knot; the Knot of the program in this folder if not given
    #[arg(long, value_name = "NAME", conflicts_with = "rehearse")]
    knot: Option<String>,
    /// Name of the Pars; if not given, the Pars of the Knot or of `cargo knot configure`, else `<user>-default`
    #[arg(long, value_name = "NAME", conflicts_with = "rehearse")]
    pars: Option<String>,
    #[command(flatten)]
    rehearsal: RehearsalArgs,
    #[command(flatten)]
    aws: AwsArgs,
    /// Settings of the Pars of a rehearsal.
    #[command(flatten)]
    settings: SettingsArgs<ParsSettings>,
    /// Print one JSON array instead of text
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        if self.rehearsal.is_requested() {
            return self.rehearsal.run(&self.aws, self.settings.0, self.json).await;
        }
        if self.settings.0 != ParsSettings::default() {
            return Err(Failure::new(exit::USAGE, "invalid options: settings of a Pars require `--rehearse`"));
        }
        let mut examination = Examination::default();
        examination.profile = self.aws.profile().map(str::to_owned);
        examination.region = self.aws.region().map(str::to_owned);
        examination.pars = self.pars;
        examination.knot = self.knot;
        let found = examine(&examination).await;
        if self.json {
            output::json(&json!(found))?;
        } else {
            output::lines(found.iter().flat_map(as_lines))?;
        }
        match found.iter().filter(|finding| finding.state == State::Bad).count() {
            0 => Ok(()),
            1 => Err(Failure::new(exit::DOCTOR_ERROR, "found one problem")),
            several => Err(Failure::new(exit::DOCTOR_ERROR, format!("found {several} problems"))),
        }
    }
}

fn as_lines(finding: &Finding) -> Vec<String> {
    let state = match finding.state {
        State::Good => "ok",
        State::Doubtful => "warning",
        State::Bad => "error",
        _ => "unknown",
    };
    let first = format!("{state:<7}  {}: {}", finding.subject, finding.found);
    let remedy = finding.remedy.iter().flat_map(|remedy| remedy.lines());
    std::iter::once(first).chain(remedy.map(|line| format!("           {line}"))).collect()
}
