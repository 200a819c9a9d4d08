//! The permissions of the caller: IAM simulates each statement of cloudknot's policies for the caller, without executing
//! anything.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tokio::task::JoinSet;

use super::iam::{self, Evaluation};
use crate::aws::Aws;
use crate::error::{Error, ErrorKind, Result};

/// Maximum number of simulations in flight. IAM handles only a few of them per second.
const MAX_CONCURRENT: usize = 4;
/// Context key of the region. Policies of organizations often depend on it.
const REGION: &str = "aws:RequestedRegion";
/// Service-linked role for AWS Batch in an account, and the action that creates it, once.
const SERVICE_LINKED_ROLE: (&str, &str) = ("AWSServiceRoleForBatch", "iam:CreateServiceLinkedRole");

/// The caller, as STS identifies it.
#[derive(Debug, PartialEq, Eq)]
enum Principal {
    /// A user, by ARN.
    User(String),
    /// A caller that assumed a role: the name of the role, and a guess of its ARN in case IAM does not return the ARN.
    Role { name: String, guess: String },
    /// A caller whose policies IAM cannot simulate, and the reason.
    Other(&'static str),
}

/// One statement of a policy, as a request to IAM to simulate it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SimulationRequest {
    pub(crate) actions: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) context: BTreeMap<String, String>,
}

/// Response from IAM to one or more requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SimulationResult {
    pub(crate) denied: BTreeSet<String>,
    /// Context keys that the policies require and the requests lacked, for denied actions.
    pub(crate) missing_context_keys: BTreeSet<String>,
}

/// Returns an error if the caller lacks a permission that the operation needs in any case, as far as IAM reports it.
/// Permissions that depend on the policies of keys, buckets and organizations are not checked: AWS itself denies them
/// later.
pub(crate) async fn check(aws: &Aws, verb: &str, required: &[&str], policy: impl FnOnce(&str) -> Value) -> Result<()> {
    let (account, caller) = aws.caller().await?;
    let Ok(source) = source(aws, &caller).await else { return Ok(()) };
    let mut requests = simulation_requests(&policy(&account), &aws.region);
    for request in &mut requests {
        request.actions.retain(|action| required.contains(&action.as_str()));
    }
    requests.retain(|request| !request.actions.is_empty());
    // If the caller may not simulate policies, AWS itself denies what is not allowed, later.
    let Ok(results) = simulate_all(aws, &source, &requests.iter().collect()).await else { return Ok(()) };
    let conclusive = results.into_values().filter(|result| result.missing_context_keys.is_empty());
    let denied: BTreeSet<String> = conclusive.flat_map(|result| result.denied).collect();
    if denied.is_empty() {
        return Ok(());
    }
    let denied: Vec<_> = denied.into_iter().collect();
    let message = format!("permission denied: `{source}` lacks {}", denied.join(", "));
    let hint =
        format!("ask an administrator to grant it: `cargo knot policy {verb}` prints the policy; nothing was created");
    Err(Error::new(ErrorKind::Denied, message).with_hint(hint))
}

/// The outcome of simulating policies.
pub(crate) enum Simulation {
    /// One result for each policy.
    Results(Vec<SimulationResult>),
    /// IAM cannot simulate policies for this principal, for this reason.
    Unsupported(&'static str),
}

/// Simulates each of these policies for this caller.
///
/// # Errors
/// Returns an error if IAM does not respond.
pub(crate) async fn simulate(aws: &Aws, caller: &str, policies: &[Value]) -> Result<Simulation> {
    let source = match source(aws, caller).await {
        Ok(source) => source,
        Err(reason) => return Ok(Simulation::Unsupported(reason)),
    };
    let mut requests_by_policy: Vec<_> =
        policies.iter().map(|policy| simulation_requests(policy, &aws.region)).collect();
    if role(aws, SERVICE_LINKED_ROLE.0).await.is_some() {
        for requests in &mut requests_by_policy {
            requests.retain(|request| request.actions != [SERVICE_LINKED_ROLE.1]);
        }
    }
    let all: BTreeSet<&SimulationRequest> = requests_by_policy.iter().flatten().collect();
    let results = simulate_all(aws, &source, &all).await?;
    let merge_results = |requests: Vec<SimulationRequest>| {
        let mut result = SimulationResult::default();
        for one in requests.iter().filter_map(|request| results.get(request)) {
            result.denied.extend(one.denied.iter().cloned());
            result.missing_context_keys.extend(one.missing_context_keys.iter().cloned());
        }
        result
    };
    Ok(Simulation::Results(requests_by_policy.into_iter().map(merge_results).collect()))
}

impl Principal {
    fn of(arn: &str) -> Self {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let [_, partition, service, _, account, identity] = parts[..] else {
            return Self::Other("AWS identifies the caller without an ARN");
        };
        match (service, &identity.split('/').collect::<Vec<_>>()[..]) {
            ("iam", ["user", ..]) => Self::User(arn.to_owned()),
            ("iam", ["root"]) => Self::Other(
                "the root user may do everything, and IAM cannot simulate its permissions; use a user or a role \
                 with the policies that `cargo knot policy` prints",
            ),
            ("sts", ["assumed-role", name, ..]) => {
                // The ARN lacks the path of the role, which is always the same for IAM Identity Center roles.
                let path = if name.starts_with("AWSReservedSSO_") { "aws-reserved/sso.amazonaws.com/" } else { "" };
                Self::Role {
                    name: (*name).to_owned(),
                    guess: format!("arn:{partition}:iam::{account}:role/{path}{name}"),
                }
            }
            ("sts", ["federated-user", ..]) => {
                Self::Other("IAM cannot simulate the permissions of a federated user, which are decided at login")
            }
            _ => Self::Other("IAM simulates the permissions of users and roles only, and this is neither"),
        }
    }
}

/// Returns the ARN whose policies IAM simulates for this caller, or the reason why it cannot.
async fn source(aws: &Aws, caller: &str) -> Result<String, &'static str> {
    match Principal::of(caller) {
        Principal::User(arn) => Ok(arn),
        Principal::Role { name, guess } => Ok(role(aws, &name).await.unwrap_or(guess)),
        Principal::Other(reason) => Err(reason),
    }
}

/// Returns the ARN of a role, with its path; `None` if IAM does not return it.
async fn role(aws: &Aws, name: &str) -> Option<String> {
    iam::role(&aws.with_attempts(2), name).await.ok()
}

/// Returns the requests that simulate one of cloudknot's policies.
pub(crate) fn simulation_requests(policy: &Value, region: &str) -> Vec<SimulationRequest> {
    let statements = policy["Statement"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_optional = |statement: &Value| {
        statement["Sid"].as_str().is_some_and(|sid| sid.starts_with("Advance") || sid.starts_with("Optional"))
    };
    let required = statements.iter().filter(|statement| !is_optional(statement));
    required.flat_map(|statement| SimulationRequest::of(statement, region)).collect()
}

impl SimulationRequest {
    /// Returns one request for each value of the condition, because a request has only one value.
    fn of(statement: &Value, region: &str) -> Vec<Self> {
        // IAM accepts no wildcard in an action. One of the actions that read a bucket represents the others.
        let action =
            |action: String| if action == "s3:GetBucket*" { "s3:GetBucketLocation".to_owned() } else { action };
        let actions: Vec<String> = strings(&statement["Action"]).into_iter().map(action).collect();
        let resources: Vec<String> = strings(&statement["Resource"]).iter().map(|arn| resource(arn)).collect();
        let mut contexts = vec![BTreeMap::from([(REGION.to_owned(), region.to_owned())])];
        let conditions = statement["Condition"].as_object().into_iter().flat_map(|operators| operators.values());
        for (key, values) in conditions.filter_map(Value::as_object).flatten() {
            let values = strings(values);
            contexts = contexts
                .iter()
                .flat_map(|context| values.iter().map(|value| with(context, key, &condition(value))))
                .collect();
        }
        let request = |context| Self { actions: actions.clone(), resources: resources.clone(), context };
        contexts.into_iter().map(request).collect()
    }
}

fn with(context: &BTreeMap<String, String>, key: &str, value: &str) -> BTreeMap<String, String> {
    let mut context = context.clone();
    context.insert(key.to_owned(), value.to_owned());
    context
}

/// Returns the strings of a value that is a string or an array of strings.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(all) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// Returns an example of a resource that matches the pattern, so that policies narrower than cloudknot's
/// are sufficient too.
fn resource(pattern: &str) -> String {
    if pattern == "*" {
        return pattern.to_owned();
    }
    if pattern.contains(":role/aws-service-role/") {
        return pattern.trim_end_matches('*').to_owned();
    }
    with_examples(pattern)
}

/// Returns an example of a condition value that matches the pattern.
fn condition(pattern: &str) -> String {
    match pattern.strip_suffix('*') {
        Some(prefix) if prefix.ends_with(|last: char| last.is_ascii_alphanumeric()) => prefix.to_owned(),
        _ => with_examples(pattern),
    }
}

/// Replaces each wildcard of the pattern by an example.
fn with_examples(pattern: &str) -> String {
    let mut text = String::new();
    for c in pattern.chars() {
        if c != '*' {
            text.push(c);
        } else if text.ends_with(|last: char| last.is_ascii_alphanumeric()) {
            text.push_str("-example");
        } else {
            text.push_str("example");
        }
    }
    text
}

/// Sends all requests to IAM, a few at a time.
async fn simulate_all(
    aws: &Aws,
    source: &str,
    all: &BTreeSet<&SimulationRequest>,
) -> Result<BTreeMap<SimulationRequest, SimulationResult>> {
    let mut results = BTreeMap::new();
    let requests: Vec<SimulationRequest> = all.iter().map(|request| (*request).clone()).collect();
    let Some((first, rest)) = requests.split_first() else { return Ok(results) };
    // The first request shows whether IAM responds at all. It has few attempts, so that a failure does not take minutes.
    results.insert(first.clone(), simulate_one(&aws.with_attempts(2), source, first).await?);
    for requests in rest.chunks(MAX_CONCURRENT) {
        let mut tasks = JoinSet::new();
        for request in requests {
            let (aws, source, request) = (aws.clone(), source.to_owned(), request.clone());
            tasks.spawn(async move {
                let result = simulate_one(&aws, &source, &request).await;
                (request, result)
            });
        }
        while let Some(done) = tasks.join_next().await {
            let (request, result) = done.expect("the request does not panic");
            results.insert(request, result?);
        }
    }
    Ok(results)
}

async fn simulate_one(aws: &Aws, source: &str, request: &SimulationRequest) -> Result<SimulationResult> {
    let mut simulation = iam::simulation(&request.actions, &request.resources);
    for ((key, value), number) in request.context.iter().zip(1..) {
        let entry = |name: &str| format!("ContextEntries.member.{number}.{name}");
        simulation = simulation.with(&entry("ContextKeyName"), key);
        simulation = simulation.with(&entry("ContextKeyValues.member.1"), value);
        simulation = simulation.with(&entry("ContextKeyType"), "string");
    }
    let mut result = SimulationResult::default();
    iam::simulate(aws, source, simulation).await?.iter().for_each(|evaluation| result.add(evaluation));
    Ok(result)
}

impl SimulationResult {
    /// Adds the evaluation of an action. An action counts as denied if it is denied on any of the resources.
    pub(crate) fn add(&mut self, evaluation: &Evaluation) {
        let Evaluation { action, is_allowed, per_resource, missing_context_keys } = evaluation;
        let is_allowed =
            if per_resource.is_empty() { *is_allowed } else { per_resource.iter().all(|is_allowed| *is_allowed) };
        if !is_allowed {
            self.denied.insert(action.clone());
            self.missing_context_keys.extend(missing_context_keys.iter().cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caller_arn_maps_to_principal() {
        let user = "arn:aws:iam::123456789012:user/team/ada";
        assert_eq!(Principal::of(user), Principal::User(user.into()));
        let check = |arn: &str, name: &str, guess: &str| {
            assert_eq!(Principal::of(arn), Principal::Role { name: name.into(), guess: guess.into() }, "{arn}");
        };
        check("arn:aws:sts::123456789012:assumed-role/lab/i-0123", "lab", "arn:aws:iam::123456789012:role/lab");
        check(
            "arn:aws-cn:sts::123456789012:assumed-role/AWSReservedSSO_Lab_ab12/ada@lab",
            "AWSReservedSSO_Lab_ab12",
            "arn:aws-cn:iam::123456789012:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_Lab_ab12",
        );
        for arn in ["arn:aws:iam::1:root", "arn:aws:sts::1:federated-user/ada", "arn:aws:sts::1:user/moto", "ada"] {
            assert!(matches!(Principal::of(arn), Principal::Other(_)), "{arn}");
        }
    }

    #[test]
    fn statement_is_simulated_for_each_condition_value() {
        let statement = serde_json::json!({
            "Effect": "Allow",
            "Action": ["s3:ListBucket", "s3:GetBucket*"],
            "Resource": "arn:aws:s3:::cloudknot-pars-lab-*",
            "Condition": {"StringLike": {"s3:prefix": ["knots/sweep/*", "stacks/sweep/*"]}},
        });
        let requests = SimulationRequest::of(&statement, "eu-west-1");
        let prefixes: Vec<_> = requests.iter().map(|request| request.context["s3:prefix"].as_str()).collect();
        assert_eq!(prefixes, ["knots/sweep/example", "stacks/sweep/example"]);
        assert_eq!(requests[0].actions, ["s3:ListBucket", "s3:GetBucketLocation"]);
        assert_eq!(requests[0].resources, ["arn:aws:s3:::cloudknot-pars-lab-example"]);
        assert_eq!(requests[0].context[REGION], "eu-west-1");
        assert_eq!(requests[0].context.len(), 2);
    }

    #[test]
    fn pattern_is_simulated_by_an_example() {
        assert_eq!(resource("*"), "*");
        assert_eq!(
            resource("arn:aws:iam::1:role/cloudknot-knot-sweep*"),
            "arn:aws:iam::1:role/cloudknot-knot-sweep-example"
        );
        let linked = "arn:aws:iam::1:role/aws-service-role/batch.amazonaws.com/AWSServiceRoleForBatch";
        assert_eq!(resource(&format!("{linked}*")), linked);
        assert_eq!(condition("ec2.amazonaws.com*"), "ec2.amazonaws.com");
        assert_eq!(condition("batch.amazonaws.com"), "batch.amazonaws.com");
    }
}
