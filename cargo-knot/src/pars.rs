//! `cargo knot pars`: creates, lists, shows and deletes Pars, the resources that Knots share.

use cargo_knot::exit;
use clap::{Args, Subcommand, ValueEnum};
use cloudknot::config::Config;
use cloudknot::{Internet, Pars, ParsBuilder, Tenancy};
use serde_json::{Value, json};

use crate::aws::AwsArgs;
use crate::failure::Failure;
use crate::output::{self, table};

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
    settings: ParsSettingsArgs,
    /// Show what would be created and what it costs while idle, and create nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    aws: AwsArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Settings of a Pars.
#[derive(Args)]
pub(crate) struct ParsSettingsArgs {
    /// Existing VPC [default: the account's default VPC]
    ///
    /// Jobs run in the subnets of this VPC that give no public addresses, or in all if each gives them. In the default VPC, they
    /// run in the subnets that AWS created with it and that give public addresses.
    #[arg(long, value_name = "ID", conflicts_with = "cidr", help_heading = "Network")]
    vpc: Option<String>,
    /// Create a VPC with this address range, such as 10.0.0.0/16
    #[arg(long, value_name = "CIDR", help_heading = "Network")]
    cidr: Option<String>,
    /// Access of jobs in a new VPC to the internet
    #[arg(long, value_name = "HOW", requires = "cidr", help_heading = "Network")]
    internet: Option<InternetArg>,
    /// Create endpoints for ECR and logs in a new VPC, besides its internet access; they cost while idle
    #[arg(long, requires = "cidr", help_heading = "Network")]
    endpoints: bool,
    /// Tenancy of instances in a new VPC
    #[arg(long, value_name = "WHOSE", requires = "cidr", help_heading = "Network")]
    tenancy: Option<TenancyArg>,
    /// Name of the bucket, which is created if it does not exist; if not given, a new one with a name that AWS chooses
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    bucket: Option<String>,
    /// Prefix of all keys in the bucket
    #[arg(long, value_name = "PREFIX", help_heading = "Data")]
    prefix: Option<String>,
    /// ARN of the KMS key that encrypts objects and logs
    #[arg(long, value_name = "ARN", help_heading = "Data")]
    kms_key: Option<String>,
    /// Delete runs after this number of days; 0 for never [default: 30]
    #[arg(long, value_name = "DAYS", help_heading = "Data")]
    expire_runs: Option<u32>,
    /// Delete logs after this number of days; 0 for never [default: 30]
    #[arg(long, value_name = "DAYS", help_heading = "Data")]
    log_retention: Option<u32>,
    /// Name of an existing role for instances; a clobber keeps it
    #[arg(long, value_name = "NAME", help_heading = "Roles")]
    instance_role: Option<String>,
    /// Name of an existing role that starts containers; a clobber keeps it
    #[arg(long, value_name = "NAME", help_heading = "Roles")]
    execution_role: Option<String>,
    /// ARN of the policy that bounds every role
    #[arg(long, value_name = "ARN", help_heading = "Roles")]
    permissions_boundary: Option<String>,
    /// Path of every role, such as /team/
    #[arg(long, value_name = "PATH", help_heading = "Roles")]
    role_path: Option<String>,
    /// Tag of all resources; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::settings::pair)]
    tag: Vec<(String, String)>,
}

#[derive(Clone, Copy, ValueEnum)]
enum InternetArg {
    /// Through a NAT gateway, which costs while idle
    Nat,
    /// No internet: AWS is reached through endpoints, which cost while idle
    None,
    /// Through public addresses, which cost nothing while idle
    PublicIp,
}

#[derive(Clone, Copy, ValueEnum)]
enum TenancyArg {
    /// Hardware shared with other accounts
    Default,
    /// Hardware of this account alone
    Dedicated,
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
                let leaving = builder.clobber();
                let leaving = if clobber.keep_data { leaving.keep_data() } else { leaving };
                leaving.await?;
                output::note(&format!("the Pars `{}` is gone", clobber.name));
                Ok(())
            }
        }
    }
}

impl Create {
    async fn run(self) -> Result<(), Failure> {
        let builder = self.aws.pars(self.settings.builder(&name_or_default(self.name)?)?);
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

impl ParsSettingsArgs {
    /// Returns the builder of a Pars with these settings. The bucket and the KMS key default to those in `config.toml`.
    pub(crate) fn builder(self, name: &str) -> Result<ParsBuilder, Failure> {
        let chosen = Config::read()?;
        let mut builder = Pars::builder(name);
        if let Some(vpc) = self.vpc {
            builder = builder.vpc(vpc);
        }
        if let Some(cidr) = self.cidr {
            builder = builder.new_vpc(cidr);
        }
        if let Some(internet) = self.internet {
            builder = builder.internet(match internet {
                InternetArg::Nat => Internet::Nat,
                InternetArg::None => Internet::None,
                InternetArg::PublicIp => Internet::PublicIp,
            });
        }
        if self.endpoints {
            builder = builder.endpoints();
        }
        if let Some(tenancy) = self.tenancy {
            builder = builder.tenancy(match tenancy {
                TenancyArg::Default => Tenancy::Default,
                TenancyArg::Dedicated => Tenancy::Dedicated,
            });
        }
        if let Some(bucket) = self.bucket.or(chosen.bucket) {
            builder = builder.bucket(bucket);
        }
        if let Some(key) = self.kms_key.or(chosen.kms_key) {
            builder = builder.kms_key(key);
        }
        if let Some(days) = self.expire_runs {
            builder = builder.expire_runs(Some(days).filter(|days| *days > 0));
        }
        if let Some(days) = self.log_retention {
            builder = builder.log_retention(Some(days).filter(|days| *days > 0));
        }
        builder = self.prefix.into_iter().fold(builder, ParsBuilder::prefix);
        builder = self.instance_role.into_iter().fold(builder, ParsBuilder::instance_role);
        builder = self.execution_role.into_iter().fold(builder, ParsBuilder::execution_role);
        builder = self.permissions_boundary.into_iter().fold(builder, ParsBuilder::permissions_boundary);
        builder = self.role_path.into_iter().fold(builder, ParsBuilder::role_path);
        Ok(self.tag.into_iter().fold(builder, |builder, (key, value)| builder.tag(key, value)))
    }
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
