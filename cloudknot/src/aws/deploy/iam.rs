//! IAM, and no other service of AWS: finds existing roles and policies by name, and simulates policies.
//!
//! The SDK of IAM takes half a minute to compile, so the few requests are written here and sent by `query.rs`.

use roxmltree::Node;

use super::cloudformation::PARS_STACKS;
use super::query::{Api, Ask, below, items, part};
use crate::aws::{Aws, code};
use crate::error::{Error, ErrorKind, Result};

const IAM: Api = Api::new("IAM", "iam", true, "2010-05-08");

/// Returns the ARN of the role with this name.
///
/// # Errors
/// `NotFound` if there is no such role.
pub(crate) async fn role(aws: &Aws, name: &str) -> Result<String> {
    let action = format!("find the role `{name}`");
    let answer = match IAM.send(aws, &Ask::new("GetRole").with("RoleName", name)).await {
        Ok(answer) => answer,
        Err(error) if code(&error) == Some("NoSuchEntity") => {
            return Err(aws
                .failed(&action, error)
                .of_kind(ErrorKind::NotFound)
                .with_hint("give the name of a role that exists, not its ARN, or leave it out"));
        }
        Err(error) => return Err(aws.failed(&action, error)),
    };
    let arn = |root: Node<'_, '_>| part(root, "GetRoleResult/Role/Arn").map(str::to_owned);
    IAM.parse(aws, &action, &answer, arn)?.ok_or_else(|| IAM.unreadable(aws, &action, "the role has no ARN"))
}

/// Returns the ARN of an instance profile of this role. Instance profiles of a Pars are skipped, because they are deleted
/// together with their Pars.
pub(crate) async fn instance_profile(aws: &Aws, role: &str) -> Result<Option<String>> {
    let ask = Ask::new("ListInstanceProfilesForRole").with("RoleName", role);
    let profile =
        |item: Node<'_, '_>| Some((part(item, "InstanceProfileName")?.to_owned(), part(item, "Arn")?.to_owned()));
    let found = pages(aws, &format!("find the role `{role}`"), &ask, "InstanceProfiles", profile).await?;
    Ok(found.into_iter().find(|(name, _)| !name.starts_with(PARS_STACKS)).map(|(_, arn)| arn))
}

/// Returns the ARNs of policies that are given by name or ARN.
pub(crate) async fn policies(aws: &Aws, names_or_arns: &[String]) -> Result<Vec<String>> {
    if names_or_arns.iter().all(|policy| policy.starts_with("arn:")) {
        return Ok(names_or_arns.to_vec());
    }
    let ask = Ask::new("ListPolicies").with("MaxItems", "1000");
    let policy = |item: Node<'_, '_>| Some((part(item, "PolicyName")?.to_owned(), part(item, "Arn")?.to_owned()));
    let all = pages(aws, "list the policies of IAM", &ask, "Policies", policy).await?;
    let arn = |policy: &String| {
        if policy.starts_with("arn:") {
            return Ok(policy.clone());
        }
        let found = all.iter().find(|(name, _)| name == policy).map(|(_, arn)| arn.clone());
        found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("cannot find the policy `{policy}`"))
                .with_hint("give the name or ARN of a policy of AWS's or of your account")
        })
    };
    names_or_arns.iter().map(arn).collect()
}

/// Simulates what a principal's policies decide; see [`permissions`](super::permissions).
pub(super) async fn simulate(aws: &Aws, source: &str, ask: Ask) -> Result<Vec<Evaluation>> {
    let ask = ask.with("PolicySourceArn", source);
    pages(aws, &format!("ask IAM what `{source}` may do"), &ask, "EvaluationResults", Evaluation::read).await
}

/// Creates a request to simulate policies.
pub(super) fn simulation(actions: &[String], resources: &[String]) -> Ask {
    Ask::new("SimulatePrincipalPolicy").members("ActionNames", actions).members("ResourceArns", resources)
}

/// Decision of IAM on one action.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evaluation {
    pub(crate) action: String,
    pub(crate) is_allowed: bool,
    /// Decision for each resource (`true` if allowed); empty if IAM did not distinguish resources.
    pub(crate) on_each: Vec<bool>,
    /// Context keys that the policies require and the request did not have.
    pub(crate) untold: Vec<String>,
}

impl Evaluation {
    fn read(item: Node<'_, '_>) -> Option<Self> {
        let resources = || items(item, "ResourceSpecificResults");
        let missing = |node| items(node, "MissingContextValues").filter_map(|key| Some(key.text()?.trim().to_owned()));
        let of_each = resources().map(|one| Some(part(one, "EvalResourceDecision")? == "allowed"));
        Some(Self {
            action: part(item, "EvalActionName")?.to_owned(),
            is_allowed: part(item, "EvalDecision")? == "allowed",
            on_each: of_each.collect::<Option<_>>()?,
            untold: missing(item).chain(resources().flat_map(missing)).collect(),
        })
    }
}

/// Returns all members of this list, over all pages.
async fn pages<T>(
    aws: &Aws,
    action: &str,
    ask: &Ask,
    list: &str,
    read: impl Fn(Node<'_, '_>) -> Option<T>,
) -> Result<Vec<T>> {
    let result = format!("{}Result", ask.action());
    let page = |root: Node<'_, '_>| {
        let result = below(root, &result)?;
        let items = items(result, list).map(&read).collect::<Option<_>>()?;
        let is_cut = part(result, "IsTruncated") == Some("true");
        Some((items, part(result, "Marker").filter(|_| is_cut).map(str::to_owned)))
    };
    IAM.pages(aws, action, ask, "Marker", &[], page).await
}
