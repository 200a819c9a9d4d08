//! `cargo knot pars`: what Knots share, made, listed, shown and taken away.

use clap::{Args, Subcommand, ValueEnum};
use cloudknot::config::Config;
use cloudknot::{Internet, Pars, ParsBuilder, Tenancy};
use serde_json::{Value, json};

use crate::aws::AwsArgs;
use crate::failure::{EXIT_CODES, Failure};
use crate::output::{self, table};

#[derive(Args)]
pub(crate) struct ParsArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a Pars: network, bucket, log group and roles.
    #[command(after_help = EXIT_CODES)]
    Create(Box<Create>),
    /// List those that there are in this region.
    List(List),
    /// Show what a Pars is made of.
    Show(Show),
    /// Take a Pars away, with all runs in its bucket.
    #[command(after_help = EXIT_CODES)]
    Clobber(Clobber),
}

/// `cargo knot pars create`.
#[derive(Args)]
pub(crate) struct Create {
    /// Its name; `<user>-default` if not given
    name: Option<String>,
    #[command(flatten)]
    settings: ParsSettingsArgs,
    /// Show what would be made, and what it costs while idle, and make nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    aws: AwsArgs,
    /// Print one JSON object in place of text
    #[arg(long)]
    json: bool,
}

/// What a Pars can be told.
#[derive(Args)]
pub(crate) struct ParsSettingsArgs {
    /// In this VPC, in the subnets that give no public addresses, or in all if all do; if not given, in the account's default
    /// VPC, in the subnets that AWS has made with it and that give public addresses
    #[arg(long, value_name = "ID", conflicts_with = "cidr", help_heading = "Network")]
    vpc: Option<String>,
    /// In a new VPC with these addresses, such as 10.0.0.0/16
    #[arg(long, value_name = "CIDR", help_heading = "Network")]
    cidr: Option<String>,
    /// How jobs in a new VPC reach the internet
    #[arg(long, value_name = "HOW", requires = "cidr", help_heading = "Network")]
    internet: Option<InternetArg>,
    /// Reach ECR and logs by endpoints in a new VPC, which cost while idle, besides the internet
    #[arg(long, requires = "cidr", help_heading = "Network")]
    endpoints: bool,
    /// Whose hardware instances in a new VPC run on
    #[arg(long, value_name = "WHOSE", requires = "cidr", help_heading = "Network")]
    tenancy: Option<TenancyArg>,
    /// The bucket of this name: used if it exists, made if not; one with a name of AWS's if not given
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    bucket: Option<String>,
    /// What stands before all keys in the bucket
    #[arg(long, value_name = "PREFIX", help_heading = "Data")]
    prefix: Option<String>,
    /// The ARN of the KMS key that objects and logs are encrypted with
    #[arg(long, value_name = "ARN", help_heading = "Data")]
    kms_key: Option<String>,
    /// Delete runs after so many days; 0 for never [default: 30]
    #[arg(long, value_name = "DAYS", help_heading = "Data")]
    expire_runs: Option<u32>,
    /// Delete logs after so many days; 0 for never [default: 30]
    #[arg(long, value_name = "DAYS", help_heading = "Data")]
    log_retention: Option<u32>,
    /// A role for instances that exists, by its name; it survives a clobber
    #[arg(long, value_name = "NAME", help_heading = "Roles")]
    instance_role: Option<String>,
    /// A role that starts containers and exists, by its name; it survives a clobber
    #[arg(long, value_name = "NAME", help_heading = "Roles")]
    execution_role: Option<String>,
    /// The ARN of the policy that bounds every role
    #[arg(long, value_name = "ARN", help_heading = "Roles")]
    permissions_boundary: Option<String>,
    /// The path of every role, such as /team/
    #[arg(long, value_name = "PATH", help_heading = "Roles")]
    role_path: Option<String>,
    /// A tag for everything; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    tag: Vec<(String, String)>,
}

#[derive(Clone, Copy, ValueEnum)]
enum InternetArg {
    /// By a NAT gateway, which costs while idle
    Nat,
    /// Not at all: AWS is reached by endpoints, which cost while idle
    None,
    /// By addresses of their own, which cost nothing while idle
    PublicIp,
}

#[derive(Clone, Copy, ValueEnum)]
enum TenancyArg {
    /// Shared with other accounts
    Default,
    /// Nobody else's
    Dedicated,
}

/// `cargo knot pars list`.
#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    aws: AwsArgs,
    /// Print one JSON array in place of text
    #[arg(long)]
    json: bool,
}

/// `cargo knot pars show`.
#[derive(Args)]
pub(crate) struct Show {
    /// Its name; the one of `cargo knot configure`, or `<user>-default`, if not given
    name: Option<String>,
    #[command(flatten)]
    aws: AwsArgs,
    /// Print one JSON object in place of text
    #[arg(long)]
    json: bool,
}

/// `cargo knot pars clobber`.
#[derive(Args)]
pub(crate) struct Clobber {
    /// Its name
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
    /// What is not given comes from `config.toml`, as far as that says it.
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

/// The Pars that is meant where none is named.
pub(crate) fn name_or_default(name: Option<String>) -> Result<String, Failure> {
    match name {
        Some(name) => Ok(name),
        None => Ok(Config::read()?.pars.unwrap_or_else(cloudknot::config::default_pars)),
    }
}

/// What would be done; the notes go with it.
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

/// `KEY=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`"))?;
    if key.is_empty() {
        Err(format!("`{text}` has nothing before its `=`"))
    } else {
        Ok((key.to_owned(), value.to_owned()))
    }
}
