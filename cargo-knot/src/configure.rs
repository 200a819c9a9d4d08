//! `cargo knot configure`: settings that are chosen once for all programs.

use cargo_knot::exit;
use clap::Args;
use cloudknot::config::Config;
use serde_json::json;

use crate::failure::Failure;
use crate::output;

/// Options of `cargo knot configure`. An empty value removes a setting.
#[derive(Args)]
pub(crate) struct Configure {
    /// AWS profile; "" for none
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// AWS region; "" for the one of the profile
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// Pars of Knots that name none; "" for `<user>-default`
    #[arg(long, value_name = "NAME")]
    pars: Option<String>,
    /// Bucket of every Pars created from now on; "" to create a bucket for each
    #[arg(long, value_name = "NAME")]
    bucket: Option<String>,
    /// KMS key of every Pars created from now on; "" for AWS's own key
    #[arg(long, value_name = "ARN")]
    kms_key: Option<String>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Configure {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let previous = Config::read()?;
        let mut config = previous.clone();
        let profiles = Config::profiles().await?;
        let choices = [
            ("profile", self.profile, &mut config.profile),
            ("region", self.region, &mut config.region),
            ("pars", self.pars, &mut config.pars),
            ("bucket", self.bucket, &mut config.bucket),
            ("kms-key", self.kms_key, &mut config.kms_key),
        ];
        // The user is asked only if no option was given and a terminal is available.
        let ask = choices.iter().all(|(_, option, _)| option.is_none()) && !self.json && output::can_ask();
        if ask {
            let names = if profiles.is_empty() { "none".to_owned() } else { profiles.join(", ") };
            output::note(&format!("profiles: {names}"));
            output::note("Enter keeps the value in brackets, `-` removes it.");
        }
        for (name, option, choice) in choices {
            let value = if ask { answer(name, choice.as_deref())? } else { option };
            if let Some(value) = value {
                *choice = Some(value).filter(|value| !value.is_empty());
            }
        }
        if let Some(profile) = config.profile.as_ref().filter(|profile| !profiles.contains(profile)) {
            let existing = if profiles.is_empty() { "none".to_owned() } else { profiles.join(", ") };
            if config.profile != previous.profile {
                let message = format!("cannot find the AWS profile `{profile}`; nothing was written");
                return Err(Failure::new(exit::USAGE, message).with_hint(format!("existing profiles: {existing}")));
            }
            output::note(&format!("warning: there is no profile `{profile}`; existing profiles: {existing}"));
        }
        if config != previous {
            config.write()?;
        }
        let path = Config::path()?;
        let json = json!({"path": path, "choices": config, "profiles": profiles});
        let shown = |choice: &Option<String>| choice.clone().unwrap_or_else(|| "-".to_owned());
        let lines = [
            ("file", path.display().to_string()),
            ("profile", shown(&config.profile)),
            ("region", shown(&config.region)),
            ("pars", shown(&config.pars)),
            ("bucket", shown(&config.bucket)),
            ("kms-key", shown(&config.kms_key)),
            ("profiles", profiles.join(", ")),
        ];
        Ok(output::fields(self.json.then_some(&json), &lines)?)
    }
}

/// Asks the user for one setting. Returns `None` for an empty line, which keeps the setting, and an empty string for a
/// dash, which removes it.
///
/// # Errors
/// Returns an error if the input ends, so that nothing is written.
fn answer(name: &str, current: Option<&str>) -> Result<Option<String>, Failure> {
    let Some(line) = output::ask(&format!("{name} [{}]", current.unwrap_or("-")))? else {
        return Err(Failure::new(exit::USAGE, "cannot read the settings: the input ended, and nothing was written"));
    };
    Ok(match line.as_str() {
        "" => None,
        "-" => Some(String::new()),
        value => Some(value.to_owned()),
    })
}
