//! `cargo knot policy`: prints the permissions that users need, for the administrators who grant them.

use clap::{Args, ValueEnum};
use cloudknot::policy::{Allowed, Scope};

use crate::aws::AwsArgs;
use crate::failure::Failure;
use crate::output;
use crate::pars::name_or_default;

/// Maximum length of a managed policy, without white space ("IAM and AWS STS character limits" in the IAM user guide).
const MAX_LEN: usize = 6_144;

/// Options of `cargo knot policy`.
#[derive(Args)]
pub(crate) struct Policy {
    /// Operation to allow
    verb: Verb,
    /// Name of the Pars, or a pattern such as `lab-*`; if not given, the one set by `cargo knot configure`, else
    /// `<user>-default`
    #[arg(long, value_name = "NAME")]
    pars: Option<String>,
    /// Name of the Knot, or a pattern such as `lab-*`
    #[arg(long, value_name = "NAME", default_value = "*")]
    knot: String,
    /// ID of the account, instead of the one of the credentials; with --region, AWS is not called
    #[arg(long, value_name = "DIGITS", requires = "region")]
    account: Option<String>,
    /// Bucket of the Pars, if AWS has not chosen its name
    #[arg(long, value_name = "NAME")]
    bucket: Option<String>,
    /// Prefix of all keys in the bucket, such as team/
    #[arg(long, value_name = "PREFIX", default_value = "")]
    prefix: String,
    /// ARN of the KMS key of the Pars
    #[arg(long, value_name = "ARN")]
    kms_key: Option<String>,
    /// Path of every role
    #[arg(long, value_name = "PATH", default_value = "/")]
    role_path: String,
    /// ARN of the policy that bounds every role
    #[arg(long, value_name = "ARN")]
    permissions_boundary: Option<String>,
    /// Shared repository of the Knot
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
    /// ARN of the Knot's job queue, if the Knot did not create it
    #[arg(long, value_name = "ARN")]
    queue: Option<String>,
    /// ARN of an existing role that is used and not created; may be repeated
    #[arg(long, value_name = "ARN")]
    adopted_role: Vec<String>,
    /// ARN of a further policy of the job role; may be repeated
    #[arg(long = "policy", value_name = "ARN")]
    further: Vec<String>,
    #[command(flatten)]
    aws: AwsArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Verb {
    /// `cargo knot pars create`, in an existing VPC
    ParsCreate,
    /// Further permissions of `cargo knot pars create`, to create a VPC
    ParsNetwork,
    /// `cargo knot pars clobber`
    ParsClobber,
    /// `cargo knot deploy`, on an existing Pars
    Deploy,
    /// `cargo knot clobber`
    Clobber,
    /// Maps on AWS Batch, and access to their runs
    Run,
    /// Delete runs on AWS with `clean`, in addition to `run`
    Clean,
    /// `cargo knot list` and `show`
    Show,
    /// `cargo knot push` to ECR
    Push,
    /// `cargo knot doctor`
    Doctor,
    /// `cargo knot prune`
    Prune,
    /// Jobs of a Knot
    JobRole,
}

impl Policy {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let pars = name_or_default(self.pars)?;
        let mut scope = match (self.account, self.aws.region()) {
            (Some(account), Some(region)) => Scope::new(account, region, &pars, &self.knot),
            (_, region) => Scope::of_caller(self.aws.profile(), region, &pars, &self.knot).await?,
        };
        scope.bucket = self.bucket;
        scope.prefix = self.prefix;
        scope.kms_key = self.kms_key;
        scope.role_path = self.role_path;
        scope.permissions_boundary = self.permissions_boundary;
        scope.repository = self.repository;
        scope.queue = self.queue;
        scope.adopted_roles = self.adopted_role;
        scope.policies = self.further;
        let policy = self.verb.allowed().policy(&scope);
        // IAM does not count white space.
        let length = policy.to_string().chars().filter(|c| !c.is_whitespace()).count();
        if length > MAX_LEN {
            output::note(&format!(
                "warning: the policy has {length} characters, but IAM accepts at most {MAX_LEN}: attach its statements as two policies"
            ));
        }
        Ok(output::lines([format!("{policy:#}")])?)
    }
}

impl Verb {
    fn allowed(self) -> Allowed {
        match self {
            Self::ParsCreate => Allowed::ParsCreate,
            Self::ParsNetwork => Allowed::ParsNetwork,
            Self::ParsClobber => Allowed::ParsClobber,
            Self::Deploy => Allowed::Deploy,
            Self::Clobber => Allowed::Clobber,
            Self::Run => Allowed::Run,
            Self::Clean => Allowed::Clean,
            Self::Show => Allowed::Show,
            Self::Push => Allowed::Push,
            Self::Doctor => Allowed::Doctor,
            Self::Prune => Allowed::Prune,
            Self::JobRole => Allowed::JobRole,
        }
    }
}
