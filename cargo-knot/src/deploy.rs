//! `cargo knot deploy`: turns the source of a program into a Knot that is ready for maps.

use clap::Args;
use cloudknot::compile::{AwsFeature, Compile, CompileError, CompileErrorKind};
use cloudknot::{Compute, KnotBuilder, KnotSettings};

use crate::aws::AwsArgs;
use crate::build::CompileArgs;
use crate::failure::Failure;
use crate::image::ImageArgs;
use crate::knots::show;
use crate::output;
use crate::pars::{pair, plan};

#[derive(Args)]
pub(crate) struct Deploy {
    #[command(flatten)]
    settings: KnotArgs,
    /// Compile only, and show what would be created or changed and what it costs while idle
    #[arg(long)]
    dry_run: bool,
    /// Enable the feature `aws` of cloudknot if the program lacks it: select a feature of the package, or run `cargo add`
    #[arg(long, conflicts_with = "dry_run")]
    add_feature: bool,
    #[command(flatten)]
    aws: AwsArgs,
    #[command(flatten)]
    compile: CompileArgs,
    #[command(flatten)]
    image: ImageArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Settings of a Knot. They take precedence over `[package.metadata.cloudknot]` and the attributes of the functions.
#[derive(Args)]
pub(crate) struct KnotArgs {
    /// Name of the Knot; the package's name if not given
    #[arg(long, value_name = "NAME", help_heading = "Knot")]
    knot: Option<String>,
    /// Existing Pars of the Knot; if not given, the one set by `cargo knot configure`, else `<user>-default`, which is
    /// created if it does not exist
    #[arg(long, value_name = "NAME", help_heading = "Knot")]
    pars: Option<String>,
    /// Shared ECR repository, instead of the Knot's own
    #[arg(long, value_name = "NAME", help_heading = "Knot")]
    repository: Option<String>,
    /// Further policy of the job role, by name or ARN; may be repeated
    #[arg(long, value_name = "POLICY", help_heading = "Knot")]
    policy: Vec<String>,
    /// ARN of the job role, instead of the Knot's own
    #[arg(long, value_name = "ARN", help_heading = "Knot")]
    job_role: Option<String>,
    /// Tag of all resources; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair, help_heading = "Knot")]
    tag: Vec<(String, String)>,
    /// Virtual CPUs of each item
    #[arg(long, value_name = "NUMBER", help_heading = "Jobs")]
    vcpus: Option<f64>,
    /// Memory of each item, such as "8 GiB"
    #[arg(long, value_name = "AMOUNT", help_heading = "Jobs")]
    memory: Option<String>,
    /// GPUs of each item
    #[arg(long, value_name = "NUMBER", help_heading = "Jobs")]
    gpus: Option<u32>,
    /// Size of /dev/shm, such as "1 GiB"
    #[arg(long, value_name = "AMOUNT", help_heading = "Jobs")]
    shared_memory: Option<String>,
    /// Disk of a container on Fargate, such as "50 GiB"
    #[arg(long, value_name = "AMOUNT", help_heading = "Jobs")]
    ephemeral_storage: Option<String>,
    /// Maximum number of starts of a job that is lost with its machine, 1 to 10
    #[arg(long, value_name = "NUMBER", help_heading = "Jobs")]
    attempts: Option<u32>,
    /// Environment variable of every job; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, help_heading = "Jobs")]
    env: Vec<(String, String)>,
    /// Environment variable with a secret of Secrets Manager or SSM as its value; may be repeated
    #[arg(long, value_name = "NAME=ARN", value_parser = pair, help_heading = "Jobs")]
    secret: Vec<(String, String)>,
    /// ARN of the KMS key that encrypts secrets, if it is not AWS's own; may be repeated
    #[arg(long, value_name = "ARN", help_heading = "Jobs")]
    secret_key: Vec<String>,
    /// EFS file system, and its path in the container; may be repeated
    #[arg(long, value_name = "PATH=ID", value_parser = pair, help_heading = "Jobs")]
    mount: Vec<(String, String)>,
    /// Make all folders except /tmp read-only; on Fargate, /tmp as well
    #[arg(long, help_heading = "Jobs")]
    read_only: bool,
    /// Kind of machines for jobs: ec2, spot, fargate or fargate-spot
    #[arg(long, value_name = "KIND", help_heading = "Machines")]
    compute: Option<Compute>,
    /// Maximum price of Spot instances, in percent of the On-Demand price
    #[arg(long, value_name = "PERCENT", help_heading = "Machines")]
    bid_percentage: Option<u32>,
    /// Instance types or families, separated by commas
    #[arg(long, value_name = "TYPES", value_delimiter = ',', help_heading = "Machines")]
    instance_types: Vec<String>,
    /// Minimum number of virtual CPUs, which cost even if nothing runs
    #[arg(long, value_name = "NUMBER", help_heading = "Machines")]
    min_vcpus: Option<u32>,
    /// Initial number of virtual CPUs
    #[arg(long, value_name = "NUMBER", help_heading = "Machines")]
    desired_vcpus: Option<u32>,
    /// Maximum number of virtual CPUs at once
    #[arg(long, value_name = "NUMBER", help_heading = "Machines")]
    max_vcpus: Option<u32>,
    /// Disk of an instance, such as "200 GiB"
    #[arg(long, value_name = "AMOUNT", help_heading = "Machines")]
    volume_size: Option<String>,
    /// Machine image (AMI) of instances
    #[arg(long, value_name = "ID", help_heading = "Machines")]
    ami: Option<String>,
    /// SSH key pair of instances
    #[arg(long, value_name = "NAME", help_heading = "Machines")]
    key_pair: Option<String>,
    /// ARN of a service role for the compute environment, instead of Batch's own
    #[arg(long, value_name = "ARN", help_heading = "Machines")]
    service_role: Option<String>,
    /// ARN of an existing job queue; no compute environment is created
    #[arg(long, value_name = "ARN", help_heading = "Machines")]
    queue: Option<String>,
    /// Name of the job queue that is created
    #[arg(long, value_name = "NAME", conflicts_with = "queue", help_heading = "Machines")]
    queue_name: Option<String>,
    /// Priority of the job queue that is created
    #[arg(long, value_name = "NUMBER", conflicts_with = "queue", help_heading = "Machines")]
    priority: Option<u32>,
}

impl Deploy {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let compile = self.compile.compile(self.image.has_base());
        let builder = self.image.knot(KnotBuilder::of(self.settings.settings()).compile(compile.clone()));
        let builder = self.aws.knot(builder);
        if self.dry_run {
            return plan(&builder.plan().await?, self.json);
        }
        let builder = if self.add_feature { builder.add_feature() } else { builder };
        let deployed = match builder.clone().deploy().await {
            Err(error) if lacks_feature(&error) && !self.json && may_add_feature(&error, &compile)? => {
                builder.add_feature().deploy().await?
            }
            deployed => deployed?,
        };
        show(&deployed, self.json)
    }
}

/// Returns whether the deploy failed because the program lacks the feature `aws`.
fn lacks_feature(error: &cloudknot::Error) -> bool {
    let compile = error.get_ref().and_then(|error| error.downcast_ref::<CompileError>());
    compile.is_some_and(|error| error.kind() == CompileErrorKind::Feature)
}

/// Asks the user at the terminal, if there is one, whether to enable the feature `aws`.
fn may_add_feature(error: &cloudknot::Error, compile: &Compile) -> Result<bool, Failure> {
    if !output::can_ask() {
        return Ok(false);
    }
    let program = compile.resolve()?;
    let Some(feature) = program.missing_aws_feature()? else { return Ok(false) };
    output::note(&error.to_string());
    let question = match feature {
        AwsFeature::OfPackage { .. } => format!("deploy with `{feature}`"),
        _ => format!("run `{feature}`, then deploy"),
    };
    let answer = output::ask(&format!("{question}? [Y/n]"))?;
    Ok(answer.is_some_and(|answer| matches!(answer.to_lowercase().as_str(), "" | "y" | "yes")))
}

impl KnotArgs {
    pub(crate) fn settings(self) -> KnotSettings {
        let mut settings = KnotSettings::default();
        settings.knot = self.knot;
        settings.pars = self.pars;
        settings.repository = self.repository;
        settings.policies = self.policy;
        settings.job_role = self.job_role;
        settings.tags = self.tag.into_iter().collect();
        settings.vcpus = self.vcpus;
        settings.memory = self.memory;
        settings.gpus = self.gpus;
        settings.shared_memory = self.shared_memory;
        settings.ephemeral_storage = self.ephemeral_storage;
        settings.attempts = self.attempts;
        settings.env = self.env.into_iter().collect();
        settings.secrets = self.secret.into_iter().collect();
        settings.secret_keys = self.secret_key;
        settings.mounts = self.mount.into_iter().map(|(path, id)| (path, cloudknot::Mount::Whole(id))).collect();
        settings.read_only = self.read_only.then_some(true);
        settings.compute = self.compute;
        settings.bid_percentage = self.bid_percentage;
        settings.instance_types = self.instance_types;
        settings.min_vcpus = self.min_vcpus;
        settings.desired_vcpus = self.desired_vcpus;
        settings.max_vcpus = self.max_vcpus;
        settings.volume_size = self.volume_size;
        settings.ami = self.ami;
        settings.key_pair = self.key_pair;
        settings.service_role = self.service_role;
        settings.queue = self.queue;
        settings.queue_name = self.queue_name;
        settings.priority = self.priority;
        settings
    }
}
