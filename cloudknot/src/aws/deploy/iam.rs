//! IAM, and no other AWS service: finds existing roles and policies by name, and simulates policies.
//!
//! The IAM SDK takes half a minute to compile, so the few requests are written here and sent by `query.rs`.

use roxmltree::Node;

use super::cloudformation::PARS_STACKS;
use super::query::{Api, QueryRequest, descendant, items, text_at};
use crate::aws::{Aws, code};
use crate::error::{Error, ErrorKind, Result};

const IAM: Api = Api::new("IAM", "iam", true, "2010-05-08");

/// Returns the ARN of the role with this name.
///
/// # Errors
/// `NotFound` if there is no such role.
pub(crate) async fn role(aws: &Aws, name: &str) -> Result<String> {
    let action = format!("find the role `{name}`");
    let response = match IAM.send(aws, &QueryRequest::new("GetRole").with("RoleName", name)).await {
        Ok(response) => response,
        Err(error) if code(&error) == Some("NoSuchEntity") => {
            return Err(aws
                .failed(&action, error)
                .of_kind(ErrorKind::NotFound)
                .with_hint("set the name of an existing role, not its ARN, or remove the setting"));
        }
        Err(error) => return Err(aws.failed(&action, error)),
    };
    let arn = |root: Node<'_, '_>| text_at(root, "GetRoleResult/Role/Arn").map(str::to_owned);
    IAM.parse(aws, &action, &response, arn)?.ok_or_else(|| IAM.unreadable(aws, &action, "the role has no ARN"))
}

/// Returns the ARN of an instance profile of this role. Instance profiles of a Pars are skipped, because they are deleted
/// together with their Pars.
pub(crate) async fn instance_profile(aws: &Aws, role: &str) -> Result<Option<String>> {
    let request = QueryRequest::new("ListInstanceProfilesForRole").with("RoleName", role);
    let profile =
        |item: Node<'_, '_>| Some((text_at(item, "InstanceProfileName")?.to_owned(), text_at(item, "Arn")?.to_owned()));
    let found = pages(aws, &format!("find the role `{role}`"), &request, "InstanceProfiles", profile).await?;
    Ok(found.into_iter().find(|(name, _)| !name.starts_with(PARS_STACKS)).map(|(_, arn)| arn))
}

/// Returns the ARNs of policies that are given by name or ARN.
pub(crate) async fn policies(aws: &Aws, names_or_arns: &[String]) -> Result<Vec<String>> {
    if names_or_arns.iter().all(|policy| policy.starts_with("arn:")) {
        return Ok(names_or_arns.to_vec());
    }
    let request = QueryRequest::new("ListPolicies").with("MaxItems", "1000");
    let policy = |item: Node<'_, '_>| Some((text_at(item, "PolicyName")?.to_owned(), text_at(item, "Arn")?.to_owned()));
    let all = pages(aws, "list the IAM policies", &request, "Policies", policy).await?;
    let arn = |policy: &String| {
        if policy.starts_with("arn:") {
            return Ok(policy.clone());
        }
        let found = all.iter().find(|(name, _)| name == policy).map(|(_, arn)| arn.clone());
        found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("cannot find the policy `{policy}`"))
                .with_hint("set the name or ARN of an AWS managed policy or one of your account")
        })
    };
    names_or_arns.iter().map(arn).collect()
}

/// Simulates the policies of a principal; see [`permissions`](super::permissions).
pub(super) async fn simulate(aws: &Aws, source: &str, request: QueryRequest) -> Result<Vec<Evaluation>> {
    let request = request.with("PolicySourceArn", source);
    pages(aws, &format!("simulate the permissions of `{source}`"), &request, "EvaluationResults", Evaluation::read)
        .await
}

/// Creates a request to simulate policies.
pub(super) fn simulation(actions: &[String], resources: &[String]) -> QueryRequest {
    QueryRequest::new("SimulatePrincipalPolicy").members("ActionNames", actions).members("ResourceArns", resources)
}

/// IAM's decision on one action.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evaluation {
    pub(crate) action: String,
    pub(crate) is_allowed: bool,
    /// Decision for each resource (`true` if allowed); empty if IAM did not distinguish resources.
    pub(crate) per_resource: Vec<bool>,
    /// Context keys that the policies require and the request lacked.
    pub(crate) missing_context_keys: Vec<String>,
}

impl Evaluation {
    fn read(item: Node<'_, '_>) -> Option<Self> {
        let resources = || items(item, "ResourceSpecificResults");
        let missing = |node| items(node, "MissingContextValues").filter_map(|key| Some(key.text()?.trim().to_owned()));
        let per_resource = resources().map(|one| Some(text_at(one, "EvalResourceDecision")? == "allowed"));
        Some(Self {
            action: text_at(item, "EvalActionName")?.to_owned(),
            is_allowed: text_at(item, "EvalDecision")? == "allowed",
            per_resource: per_resource.collect::<Option<_>>()?,
            missing_context_keys: missing(item).chain(resources().flat_map(missing)).collect(),
        })
    }
}

/// Returns all members of this list, over all pages.
async fn pages<T>(
    aws: &Aws,
    action: &str,
    request: &QueryRequest,
    list: &str,
    read: impl Fn(Node<'_, '_>) -> Option<T>,
) -> Result<Vec<T>> {
    let result = format!("{}Result", request.action());
    let page = |root: Node<'_, '_>| {
        let result = descendant(root, &result)?;
        let items = items(result, list).map(&read).collect::<Option<_>>()?;
        let is_truncated = text_at(result, "IsTruncated") == Some("true");
        Some((items, text_at(result, "Marker").filter(|_| is_truncated).map(str::to_owned)))
    };
    IAM.pages(aws, action, request, "Marker", &[], page).await
}
