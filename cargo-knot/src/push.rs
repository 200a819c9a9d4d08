//! `cargo knot push`: pushes the program's image to a registry, without Docker.

use std::io::Read;

use clap::Args;
use cloudknot::ImageSettings;
use cloudknot::Login;
use serde_json::json;

use crate::build::CompileArgs;
use crate::failure::Failure;
use crate::image::{self, as_json};
use crate::output;
use crate::settings::SettingsArgs;

#[derive(Args)]
pub(crate) struct Push {
    /// Repository, such as ghcr.io/somebody/my-crate or …/my-crate:1.0; without a tag, the start of the digest is used
    #[arg(value_name = "REPOSITORY[:TAG]")]
    repository: String,
    /// User name for the registry, instead of the credentials stored by `docker login`
    #[arg(long, value_name = "NAME", requires = "password_stdin", help_heading = "Registry")]
    username: Option<String>,
    /// Read the password from stdin
    #[arg(long, requires = "username", help_heading = "Registry")]
    password_stdin: bool,
    #[command(flatten)]
    compile: CompileArgs,
    #[command(flatten)]
    image: SettingsArgs<ImageSettings>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Push {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let login = self.login()?;
        let (repository, tag) = split(&self.repository);
        let compile = self.compile.compile(self.image.0.has_base());
        let mut artifacts = image::build(self.image.0, &compile, tag).await?;
        let reference = artifacts.image.push(repository, &login).await?;
        if self.json {
            let mut report = as_json(&artifacts.built);
            report["reference"] = json!(reference);
            return Ok(output::json(&report)?);
        }
        Ok(output::lines([reference])?)
    }

    fn login(&self) -> Result<Login, Failure> {
        let Some(name) = &self.username else { return Ok(Login::stored()) };
        let mut password = String::new();
        std::io::stdin().read_to_string(&mut password).map_err(|error| Failure::of_io("read the password", &error))?;
        Ok(Login::password(name, password.trim_end_matches(['\r', '\n'])))
    }
}

/// Splits a reference into repository and tag. A colon before a slash belongs to a port.
fn split(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    }
}
