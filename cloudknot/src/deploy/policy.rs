//! IAM policies with the least permissions for each verb of `cargo knot`, and for a Knot's jobs. Makes no requests.

use serde_json::{Value, json};

use super::template::render;
use crate::error::Result;
use crate::host::host_await;
use crate::settings::account::Account;
use crate::settings::partition::Partition;

/// Operation, or principal, that a policy grants permissions to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Allowed {
    /// `cargo knot pars create`, in an existing VPC.
    ParsCreate,
    /// Additional permissions of `cargo knot pars create` for a new VPC.
    ParsNetwork,
    /// `cargo knot pars clobber`.
    ParsClobber,
    /// `cargo knot deploy`, on an existing Pars.
    Deploy,
    /// `cargo knot clobber`.
    Clobber,
    /// Maps on AWS Batch, and reading, retrying and cancelling their runs.
    Run,
    /// Additional permissions of `cargo knot clean`, which deletes runs.
    Clean,
    /// `cargo knot list` and `show`.
    Show,
    /// `cargo knot push` to ECR.
    Push,
    /// `cargo knot doctor`.
    Doctor,
    /// `cargo knot prune`.
    Prune,
    /// The jobs of a Knot.
    JobRole,
}

/// Resources that the policies name.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Scope {
    /// Partition: `aws`, `aws-cn`, `aws-us-gov` or another one.
    pub partition: String,
    /// Region.
    pub region: String,
    /// Account, by its twelve digits.
    pub account: String,
    /// Name of the Pars, or a pattern in which `*` stands for any text.
    pub pars: String,
    /// Name of the Knot, or a pattern in which `*` stands for any text.
    pub knot: String,
    /// Bucket of the Pars, unless AWS has generated its name.
    pub bucket: Option<String>,
    /// KMS key of the Pars.
    pub kms_key: Option<String>,
    /// Prefix of all keys in the bucket.
    pub prefix: String,
    /// Path of every role.
    pub role_path: String,
    /// ARN of the policy that bounds the permissions of every role.
    pub permissions_boundary: Option<String>,
    /// Shared repository of the Knot.
    pub repository: Option<String>,
    /// ARN of the existing queue that the Knot uses.
    pub queue: Option<String>,
    /// ARNs of existing roles that are used and not created.
    pub adopted_roles: Vec<String>,
    /// ARNs of further policies of the job role.
    pub policies: Vec<String>,
}

impl Scope {
    /// Creates the scope of a Knot and a Pars that have the default settings.
    pub fn new(account: impl Into<String>, region: impl Into<String>, pars: &str, knot: &str) -> Self {
        let region = region.into();
        Self {
            partition: Partition::of(&region).name.to_owned(),
            region,
            account: account.into(),
            pars: pars.to_owned(),
            knot: knot.to_owned(),
            bucket: None,
            kms_key: None,
            prefix: String::new(),
            role_path: "/".to_owned(),
            permissions_boundary: None,
            repository: None,
            queue: None,
            adopted_roles: Vec::new(),
            policies: Vec::new(),
        }
    }

    /// Creates the scope for the account and region that the arguments, the environment, the profile and `config.toml`
    /// select. The caller's account is looked up.
    ///
    /// # Errors
    /// Returns an error if a request to AWS fails.
    pub async fn of_caller(profile: Option<&str>, region: Option<&str>, pars: &str, knot: &str) -> Result<Self> {
        let account = Account { profile: profile.map(str::to_owned), region: region.map(str::to_owned) };
        host_await!(async {
            let aws = crate::aws::Aws::load(&account).await?;
            Ok(Self::new(aws.account().await?, &aws.region, pars, knot))
        })
    }
}

impl Allowed {
    /// All operations and principals.
    pub const ALL: [Self; 12] = [
        Self::ParsCreate,
        Self::ParsNetwork,
        Self::ParsClobber,
        Self::Deploy,
        Self::Clobber,
        Self::Run,
        Self::Clean,
        Self::Show,
        Self::Push,
        Self::Doctor,
        Self::Prune,
        Self::JobRole,
    ];

    /// Returns the name that is used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::ParsCreate => "pars-create",
            Self::ParsNetwork => "pars-network",
            Self::ParsClobber => "pars-clobber",
            Self::Deploy => "deploy",
            Self::Clobber => "clobber",
            Self::Run => "run",
            Self::Clean => "clean",
            Self::Show => "show",
            Self::Push => "push",
            Self::Doctor => "doctor",
            Self::Prune => "prune",
            Self::JobRole => "job-role",
        }
    }

    /// Returns the policy as JSON that IAM accepts.
    pub fn policy(self, scope: &Scope) -> Value {
        let repository = scope.repository.clone().unwrap_or_else(|| format!("cloudknot/{}", scope.knot.to_lowercase()));
        let values = json!({
            "in_stack": false,
            "partition": scope.partition,
            "region": scope.region,
            "account": scope.account,
            "pars": scope.pars,
            "knot": scope.knot,
            "pars_start": start_of(&scope.pars),
            "knot_start": start_of(&scope.knot),
            "bucket": scope.bucket.clone().unwrap_or_else(|| format!("cloudknot-pars-{}-*", scope.pars)),
            "bucket_key": scope.kms_key,
            "prefix": scope.prefix,
            "log_group": format!("/cloudknot/{}", scope.pars),
            "role_path": scope.role_path,
            "permissions_boundary": scope.permissions_boundary,
            "repository": repository,
            "queue": scope.queue,
            "adopted_roles": scope.adopted_roles,
            "policies": scope.policies,
            "file_systems": [],
        });
        let text = render(&format!("policies/{}.json.j2", self.name()), &values);
        serde_json::from_str(&text).expect("the embedded policies are JSON")
    }
}

/// Returns the part of a name that the names of its stack's roles have in any case: CloudFormation shortens a long one. Of a pattern,
/// returns the text before its first `*`.
fn start_of(name: &str) -> &str {
    let text = name.split('*').next().unwrap_or_default();
    text.get(..9).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_short_and_never_allow_all_actions() {
        let scope = Scope::new("123456789012", "eu-central-1", "lab", "sweep");
        for allowed in Allowed::ALL {
            let policy = allowed.policy(&scope);
            let text = policy.to_string();
            assert!(text.len() <= 6_144, "{} has {} characters", allowed.name(), text.len());
            for statement in policy["Statement"].as_array().expect("a policy has statements") {
                assert_ne!(statement["Action"], "*", "{}", allowed.name());
                assert_eq!(statement["Effect"], "Allow");
            }
        }
    }

    /// M11: `cloudknot-sweep-*` fits the job definitions of a Knot `sweep-big`.
    #[test]
    fn m11_policies_do_not_reach_a_knot_whose_name_continues_the_own_one() {
        let mut scope = Scope::new("123456789012", "eu-central-1", "lab", "sweep");
        scope.bucket = Some("lab-data".into());
        let here = "eu-central-1:123456789012";
        let of = |knot: &str| {
            [
                format!("arn:aws:batch:{here}:job-definition/cloudknot-{knot}_f-0a1b2c3d:3"),
                format!("arn:aws:cloudformation:{here}:stack/cloudknot-knot-{knot}/0a1b"),
                format!("arn:aws:ecr:{here}:repository/cloudknot/{knot}"),
                format!("arn:aws:s3:::lab-data/knots/{knot}/runs/r/manifest.json"),
                format!("arn:aws:s3:::lab-data/stacks/{knot}/template"),
            ]
        };
        for allowed in
            [Allowed::Run, Allowed::Clean, Allowed::Deploy, Allowed::Clobber, Allowed::JobRole, Allowed::Push]
        {
            let policy = allowed.policy(&scope).to_string();
            let patterns: Vec<&str> = policy.split('"').filter(|text| text.starts_with("arn:")).collect();
            let fits = |arn: &String| patterns.iter().any(|pattern| fits(pattern, arn));
            assert!(of("sweep").iter().any(fits), "{} fits nothing of its own Knot", allowed.name());
            for arn in of("sweep-big").iter().chain(&of("sweep-f")) {
                assert!(!fits(arn), "{} fits {arn}", allowed.name());
            }
        }
    }

    /// Returns whether a pattern of IAM fits an ARN.
    fn fits(pattern: &str, arn: &str) -> bool {
        let Some((start, rest)) = pattern.split_once('*') else { return pattern == arn };
        let Some(arn) = arn.strip_prefix(start) else { return false };
        (0..=arn.len()).any(|at| fits(rest, &arn[at..]))
    }

    #[test]
    fn roles_of_a_pattern_are_allowed() {
        let scope = Scope::new("123456789012", "eu-central-1", "lab", "team-*-gpu");
        let policy = Allowed::Deploy.policy(&scope).to_string();
        let patterns: Vec<&str> = policy.split('"').filter(|text| text.contains(":role/cloudknot-knot-")).collect();
        // CloudFormation has shortened the name of the stack.
        let role = "arn:aws:iam::123456789012:role/cloudknot-knot-team-alph-JobRole-AbCdEf";
        assert!(!patterns.is_empty() && patterns.iter().all(|pattern| fits(pattern, role)), "{patterns:?}");
    }

    #[test]
    fn jobs_access_only_their_own_prefix() {
        let mut scope = Scope::new("123456789012", "cn-north-1", "lab", "sweep");
        scope.bucket = Some("lab-data".into());
        scope.prefix = "team/".into();
        let policy = Allowed::JobRole.policy(&scope);
        assert_eq!(policy["Statement"][0]["Resource"], "arn:aws-cn:s3:::lab-data/team/knots/sweep/*");
        assert_eq!(policy["Statement"][1]["Condition"]["StringLike"]["s3:prefix"], "team/knots/sweep/*");
    }
}
