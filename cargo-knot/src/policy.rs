//! `cargo knot policy`: what somebody has to be allowed, for those who allow it.

use clap::{Args, ValueEnum};
use cloudknot::policy::{Allowed, Scope};

use crate::aws::AwsArgs;
use crate::failure::Failure;
use crate::output;
use crate::pars::name_or_default;

/// `cargo knot policy`.
#[derive(Args)]
pub(crate) struct Policy {
    /// Who is to be allowed what
    verb: Verb,
    /// The Pars; that of `cargo knot configure`, or `<user>-default`, if not given
    #[arg(long, value_name = "NAME")]
    pars: Option<String>,
    /// The Knot
    #[arg(long, value_name = "NAME", default_value = "*")]
    knot: String,
    /// The account, in place of that of the credentials; with --region, AWS is not asked
    #[arg(long, value_name = "DIGITS", requires = "region")]
    account: Option<String>,
    /// The bucket of the Pars, where AWS has not made up its name
    #[arg(long, value_name = "NAME")]
    bucket: Option<String>,
    /// What stands before all keys in the bucket, such as team/
    #[arg(long, value_name = "PREFIX", default_value = "")]
    prefix: String,
    /// The ARN of the KMS key of the Pars
    #[arg(long, value_name = "ARN")]
    kms_key: Option<String>,
    /// The path of every role
    #[arg(long, value_name = "PATH", default_value = "/")]
    role_path: String,
    /// The ARN of the policy that bounds every role
    #[arg(long, value_name = "ARN")]
    permissions_boundary: Option<String>,
    /// The shared repository of the Knot
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
    /// The ARN of the Knot's queue, where it is not its own
    #[arg(long, value_name = "ARN")]
    queue: Option<String>,
    /// The ARN of a role that is used and not made; may be repeated
    #[arg(long, value_name = "ARN")]
    adopted_role: Vec<String>,
    /// The ARN of a further policy of the job role; may be repeated
    #[arg(long = "policy", value_name = "ARN")]
    further: Vec<String>,
    #[command(flatten)]
    aws: AwsArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Verb {
    /// `cargo knot pars create`, in a VPC that exists
    ParsCreate,
    /// What that needs besides, to make a VPC
    ParsNetwork,
    /// `cargo knot pars clobber`
    ParsClobber,
    /// `cargo knot deploy`, on a Pars that exists
    Deploy,
    /// `cargo knot clobber`
    Clobber,
    /// Maps on AWS Batch, and what becomes of their runs
    Run,
    /// `cargo knot list` and `show`
    Show,
    /// `cargo knot push` to ECR
    Push,
    /// `cargo knot doctor`
    Doctor,
    /// `cargo knot prune`
    Prune,
    /// A Knot's jobs
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
            Self::Show => Allowed::Show,
            Self::Push => Allowed::Push,
            Self::Doctor => Allowed::Doctor,
            Self::Prune => Allowed::Prune,
            Self::JobRole => Allowed::JobRole,
        }
    }
}
