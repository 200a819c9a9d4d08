//! Choices that the user makes once for all programs: `config.toml` in the user's configuration folder, or the file that
//! `CLOUDKNOT_CONFIG` names. Holds choices only, and never a secret: existing resources are found in the
//! account by name.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::host::{host, host_await};

/// Environment variable with the path of the file, in place of the usual one.
const ENV_CONFIG: &str = "CLOUDKNOT_CONFIG";

/// Contents of `config.toml`. A choice that was not made is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Config {
    /// AWS profile; `AWS_PROFILE` takes precedence over it.
    pub profile: Option<String>,
    /// Region; `AWS_REGION` takes precedence over it, and it takes precedence over the region of the profile.
    pub region: Option<String>,
    /// Pars that a Knot uses if it names none.
    pub pars: Option<String>,
    /// Existing bucket for every Pars created from now on.
    pub bucket: Option<String>,
    /// ARN of the KMS key that the bucket is encrypted with.
    pub kms_key: Option<String>,
}

impl Config {
    /// Returns the path of the file.
    ///
    /// # Errors
    /// Returns an error if the configuration folder cannot be found.
    pub fn path() -> Result<PathBuf> {
        if let Some(path) = std::env::var_os(ENV_CONFIG).filter(|path| !path.is_empty()) {
            return Ok(path.into());
        }
        host!({
            use etcetera::BaseStrategy as _;
            let system = etcetera::choose_base_strategy().map_err(|error| {
                Error::new(ErrorKind::Config, "cannot find the configuration folder")
                    .with_source(error)
                    .with_hint(format!("set HOME, or {ENV_CONFIG} to the path of a file"))
            })?;
            Ok(system.config_dir().join("cloudknot").join("config.toml"))
        })
    }

    /// Reads the choices. If there is no file, none was made.
    ///
    /// # Errors
    /// Returns an error if there is a file that cannot be read.
    pub fn read() -> Result<Self> {
        let path = Self::path()?;
        let failed = || Error::new(ErrorKind::Config, format!("cannot read `{}`", path.display()));
        match std::fs::read_to_string(&path) {
            Ok(text) => host!(toml::from_str(&text).map_err(|error| {
                failed().with_source(error).with_hint("fix it, or remove it and run `cargo knot configure` again")
            })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(failed().with_source(error)),
        }
    }

    /// Returns the AWS profiles on this machine, sorted by name.
    ///
    /// # Errors
    /// Returns an error if AWS's own configuration files cannot be parsed.
    pub async fn profiles() -> Result<Vec<String>> {
        host_await!(async {
            let (fs, env) = (aws_types::os_shim_internal::Fs::real(), aws_types::os_shim_internal::Env::real());
            let files = aws_runtime::env_config::file::EnvConfigFiles::default();
            let found = aws_config::profile::load(&fs, &env, &files, None).await.map_err(|error| {
                Error::new(ErrorKind::Config, "cannot read the AWS profiles")
                    .with_source(error)
                    .with_hint("fix `~/.aws/config` or `~/.aws/credentials`")
            })?;
            let mut names: Vec<_> = found.profiles().map(str::to_owned).collect();
            names.sort();
            Ok(names)
        })
    }

    /// Writes the choices to the file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(&self) -> Result<()> {
        host!({
            let path = Self::path()?;
            let text = toml::to_string(self).expect("choices serialize to TOML");
            let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            folder.and_then(|()| std::fs::write(&path, text)).map_err(|error| {
                Error::new(ErrorKind::Config, format!("cannot write `{}`", path.display())).with_source(error)
            })
        })
    }
}

/// Returns the default name of a Pars: `<user>-default`, with the user's name adapted to the characters that a name
/// can have.
#[must_use]
pub fn default_pars() -> String {
    let user = ["USER", "LOGNAME", "USERNAME"].iter().find_map(|name| std::env::var(name).ok());
    let user = user.unwrap_or_default().to_lowercase();
    let fits = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = user.chars().map(fits).skip_while(|c| !c.is_ascii_alphabetic()).take(30).collect();
    let name = name.trim_end_matches('-');
    if name.is_empty() { "cloudknot-default".to_owned() } else { format!("{name}-default") }
}
