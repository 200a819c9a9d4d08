//! `cargo knot pars`: creates, lists, shows and deletes Pars, the resources that Knots share.

use cargo_knot::exit;
use clap::{Args, Subcommand};
use cloudknot::config::Config;
use cloudknot::{Pars, ParsBuilder, ParsSettings};
use serde_json::{Value, json};

use crate::aws::AwsArgs;
use crate::failure::Failure;
use crate::output::{self, table};
use crate::settings::SettingsArgs;

#[derive(Args)]
pub(crate) struct ParsArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Create a Pars: network, bucket, log group and roles
    #[command(after_help = exit::help())]
    Create(Box<Create>),
    /// List the Pars in the region
    List(List),
    /// Show the details of a Pars
    Show(Show),
    /// Delete a Pars, with all runs in its bucket
    #[command(after_help = exit::help())]
    Clobber(Clobber),
}

/// Options of `cargo knot pars create`.
#[derive(Args)]
pub(crate) struct Create {
    /// Name of the Pars; if not given, the one set by `cargo knot configure`, else `<user>-default`
    name: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs<ParsSettings>,
    /// Show what would be created and what it costs while idle, and create nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    aws: AwsArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Options of `cargo knot pars list`.
#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    aws: AwsArgs,
    /// Print one JSON array instead of text
    #[arg(long)]
    json: bool,
}

/// Options of `cargo knot pars show`.
#[derive(Args)]
pub(crate) struct Show {
    /// Name of the Pars; if not given, the one set by `cargo knot configure`, else `<user>-default`
    name: Option<String>,
    #[command(flatten)]
    aws: AwsArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Options of `cargo knot pars clobber`.
#[derive(Args)]
pub(crate) struct Clobber {
    /// Name of the Pars
    name: String,
    /// Keep the bucket and the logs
    #[arg(long)]
    keep_data: bool,
    #[command(flatten)]
    aws: AwsArgs,
}

impl ParsArgs {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self.verb {
            Verb::Create(create) => create.run().await,
            Verb::List(list) => list.run().await,
            Verb::Show(show) => show.run().await,
            Verb::Clobber(clobber) => {
                let builder = clobber.aws.pars(Pars::builder(&clobber.name));
                let request = builder.clobber();
                let request = if clobber.keep_data { request.keep_data() } else { request };
                request.await?;
                output::note(&format!("deleted the Pars `{}`", clobber.name));
                Ok(())
            }
        }
    }
}

impl Create {
    async fn run(self) -> Result<(), Failure> {
        let builder = self.aws.pars(builder(self.name, self.settings.0)?);
        if self.dry_run {
            return plan(&builder.plan().await?, self.json);
        }
        show(&builder.create().await?, self.json)
    }
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let all = self.aws.pars(Pars::builder("any")).list().await?;
        if self.json {
            let all: Vec<_> = all.iter().map(as_json).collect();
            return Ok(output::json(&Value::from(all))?);
        }
        let row = |pars: &Pars| [pars.name(), pars.region(), pars.bucket(), pars.vpc()].map(str::to_owned).to_vec();
        Ok(table(&["PARS", "REGION", "BUCKET", "VPC"], &all.iter().map(row).collect::<Vec<_>>())?)
    }
}

impl Show {
    async fn run(self) -> Result<(), Failure> {
        let name = name_or_default(self.name)?;
        show(&self.aws.pars(Pars::builder(name)).get().await?, self.json)
    }
}

/// Returns the builder of a Pars with these settings. The name, the bucket and the KMS key default to those in
/// `config.toml`.
pub(crate) fn builder(name: Option<String>, mut settings: ParsSettings) -> Result<ParsBuilder, Failure> {
    let config = Config::read()?;
    settings.bucket = settings.bucket.or(config.bucket);
    settings.kms_key = settings.kms_key.or(config.kms_key);
    Ok(ParsBuilder::of(name_or_default(name)?, settings))
}

/// Returns the given name of a Pars, else the one in `config.toml`, else `<user>-default`.
pub(crate) fn name_or_default(name: Option<String>) -> Result<String, Failure> {
    match name {
        Some(name) => Ok(name),
        None => Ok(Config::read()?.pars.unwrap_or_else(cloudknot::config::default_pars)),
    }
}

/// Prints the steps of a plan, with its notes.
pub(crate) fn plan(plan: &cloudknot::Plan, json: bool) -> Result<(), Failure> {
    if json {
        return Ok(output::json(&json!(plan))?);
    }
    Ok(output::text(&plan.to_string())?)
}

fn show(pars: &Pars, json: bool) -> Result<(), Failure> {
    let subnets = pars.subnets().collect::<Vec<_>>().join(", ");
    let lines = [
        ("pars", pars.name().to_owned()),
        ("region", pars.region().to_owned()),
        ("bucket", pars.bucket().to_owned()),
        ("prefix", pars.prefix().to_owned()),
        ("logs", pars.log_group().to_owned()),
        ("vpc", pars.vpc().to_owned()),
        ("subnets", subnets),
        ("security group", pars.security_group().to_owned()),
        ("instance role", pars.instance_role().to_owned()),
        ("execution role", pars.execution_role().to_owned()),
        ("stack", pars.stack_id().to_owned()),
    ];
    Ok(output::fields(json.then(|| as_json(pars)).as_ref(), &lines)?)
}

fn as_json(pars: &Pars) -> Value {
    json!({
        "pars": pars.name(),
        "region": pars.region(),
        "stack": pars.stack_id(),
        "bucket": pars.bucket(),
        "prefix": pars.prefix(),
        "log_group": pars.log_group(),
        "vpc": pars.vpc(),
        "subnets": pars.subnets().collect::<Vec<_>>(),
        "security_group": pars.security_group(),
        "instance_role": pars.instance_role(),
        "instance_profile": pars.instance_profile(),
        "execution_role": pars.execution_role(),
        "settings": pars.settings(),
    })
}
