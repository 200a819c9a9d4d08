//! What a person chose once, for all programs: `config.toml` in the system's folder for configurations, or where
//! `CLOUDKNOT_CONFIG` says. Holds choices only, and never a secret: what exists is found in the account, by name.

use std::path::PathBuf;

use cloudknot_runtime::engine;
use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Where the choices are, in place of the usual file.
const ENV_CONFIG: &str = "CLOUDKNOT_CONFIG";

/// `config.toml`. A choice that was not made is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Config {
    /// The profile of AWS; `AWS_PROFILE` goes before it.
    pub profile: Option<String>,
    /// The region; `AWS_REGION` goes before it, and it goes before the profile's.
    pub region: Option<String>,
    /// The Pars that a Knot stands on if it names none.
    pub pars: Option<String>,
    /// The bucket of a Pars that is made from now on: one that exists.
    pub bucket: Option<String>,
    /// The ARN of the key that such a bucket is encrypted with.
    pub kms_key: Option<String>,
}

impl Config {
    /// Where it is.
    ///
    /// # Errors
    /// If this system has no such folder.
    pub fn path() -> Result<PathBuf> {
        if let Some(path) = std::env::var_os(ENV_CONFIG).filter(|path| !path.is_empty()) {
            return Ok(path.into());
        }
        let system = etcetera::choose_base_strategy().map_err(|error| {
            Error::new(ErrorKind::Config, "failed to find the folder for configurations")
                .with_source(error)
                .with_hint(format!("set HOME, or {ENV_CONFIG} to the path of a file"))
        })?;
        Ok(system.config_dir().join("cloudknot").join("config.toml"))
    }

    /// What was chosen. Where there is no file, nothing was.
    ///
    /// # Errors
    /// If there is a file that cannot be read.
    pub fn read() -> Result<Self> {
        let path = Self::path()?;
        let failed = || Error::new(ErrorKind::Config, format!("failed to read `{}`", path.display()));
        match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map_err(|error| {
                failed().with_source(error).with_hint("mend it, or remove it and run `cargo knot configure` again")
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(failed().with_source(error)),
        }
    }

    /// The profiles of AWS that there are on this machine, in the order of their names.
    ///
    /// # Errors
    /// If AWS's own files cannot be understood.
    pub async fn profiles() -> Result<Vec<String>> {
        let (fs, env) = (aws_types::os_shim_internal::Fs::real(), aws_types::os_shim_internal::Env::real());
        let files = aws_runtime::env_config::file::EnvConfigFiles::default();
        let found = engine::inside(Box::pin(aws_config::profile::load(&fs, &env, &files, None)));
        let found = found.await.map_err(|error| {
            Error::new(ErrorKind::Config, "failed to read the profiles of AWS")
                .with_source(error)
                .with_hint("mend `~/.aws/config` or `~/.aws/credentials`")
        })?;
        let mut names: Vec<_> = found.profiles().map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// Writes it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self) -> Result<()> {
        let path = Self::path()?;
        let text = toml::to_string(self).expect("choices are texts");
        let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        folder.and_then(|()| std::fs::write(&path, text)).map_err(|error| {
            Error::new(ErrorKind::Config, format!("failed to write `{}`", path.display())).with_source(error)
        })
    }
}

/// The name of a Pars where none is said: `<user>-default`, as far as the user's name can be in one.
#[must_use]
pub fn default_pars() -> String {
    let user = ["USER", "LOGNAME", "USERNAME"].iter().find_map(|name| std::env::var(name).ok());
    let user = user.unwrap_or_default().to_lowercase();
    let fits = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = user.chars().map(fits).skip_while(|c| !c.is_ascii_alphabetic()).take(30).collect();
    let name = name.trim_end_matches('-');
    if name.is_empty() { "cloudknot-default".to_owned() } else { format!("{name}-default") }
}
