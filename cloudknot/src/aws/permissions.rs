//! The permissions of whoever asks: IAM simulates the statements of our own policies for them, one by one, without doing
//! anything.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tokio::task::JoinSet;

use super::Aws;
use super::iam::{self, Evaluation};
use crate::error::{Error, ErrorKind, Result};

/// So many questions are open at once: IAM answers few of them a second.
const AT_ONCE: usize = 4;
/// The region, on which policies of organisations often depend.
const REGION: &str = "aws:RequestedRegion";
/// What Batch works with in an account, and what makes it, once.
const LINKED: (&str, &str) = ("AWSServiceRoleForBatch", "iam:CreateServiceLinkedRole");

/// Who asks, as STS says it.
#[derive(Debug, PartialEq, Eq)]
enum Principal {
    /// One that policies are attached to, by its ARN.
    User(String),
    /// Somebody who has taken on a role, by the role's name.
    Role { name: String, guess: String },
    /// Somebody of whom IAM cannot be asked, and why.
    Other(&'static str),
}

/// One statement, as IAM is asked about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Question {
    pub(crate) actions: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) context: BTreeMap<String, String>,
}

/// What IAM has answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) denied: BTreeSet<String>,
    /// What policies ask for besides, where something is denied.
    pub(crate) untold: BTreeSet<String>,
}

/// Refuses what cannot be done for lack of a permission that it takes in any case, as far as IAM says. What depends on
/// keys', buckets' and organisations' own policies is not asked: AWS itself says it, later.
pub(crate) async fn check(aws: &Aws, verb: &str, takes: &[&str], policy: impl FnOnce(&str) -> Value) -> Result<()> {
    let (account, caller) = aws.caller().await?;
    let source = match Principal::of(&caller) {
        Principal::User(arn) => arn,
        Principal::Role { name, guess } => role(aws, &name).await.unwrap_or(guess),
        Principal::Other(_) => return Ok(()),
    };
    let mut questions = questions(&policy(&account), &aws.region);
    for question in &mut questions {
        question.actions.retain(|action| takes.contains(&action.as_str()));
    }
    questions.retain(|question| !question.actions.is_empty());
    // Whoever may not ask is told by AWS itself, later.
    let Ok(answers) = ask_all(aws, &source, &questions.iter().collect()).await else { return Ok(()) };
    let known = answers.into_values().filter(|answer| answer.untold.is_empty());
    let denied: BTreeSet<String> = known.flat_map(|answer| answer.denied).collect();
    if denied.is_empty() {
        return Ok(());
    }
    let denied: Vec<_> = denied.into_iter().collect();
    let message = format!("failed to begin: `{source}` is not allowed {}", denied.join(", "));
    let hint = format!("have it granted: `cargo knot policy {verb}` prints what it takes; nothing was made");
    Err(Error::new(ErrorKind::Denied, message).with_hint(hint))
}

/// The outcome of simulating policies.
pub(crate) enum Simulation {
    /// One answer for each policy.
    Answers(Vec<Answer>),
    /// IAM cannot be asked about this principal, and why.
    Unsupported(&'static str),
}

/// Simulates what each of these policies allows, for this caller.
///
/// # Errors
/// If IAM does not answer.
pub(crate) async fn simulate(aws: &Aws, caller: &str, policies: &[Value]) -> Result<Simulation> {
    let source = match Principal::of(caller) {
        Principal::User(arn) => arn,
        Principal::Role { name, guess } => role(aws, &name).await.unwrap_or(guess),
        Principal::Other(why) => return Ok(Simulation::Unsupported(why)),
    };
    let mut of_each: Vec<_> = policies.iter().map(|policy| questions(policy, &aws.region)).collect();
    if role(aws, LINKED.0).await.is_some() {
        for questions in &mut of_each {
            questions.retain(|question| question.actions != [LINKED.1]);
        }
    }
    let all: BTreeSet<&Question> = of_each.iter().flatten().collect();
    let answers = ask_all(aws, &source, &all).await?;
    let of_policy = |questions: Vec<Question>| {
        let mut answer = Answer::default();
        for one in questions.iter().filter_map(|question| answers.get(question)) {
            answer.denied.extend(one.denied.iter().cloned());
            answer.untold.extend(one.untold.iter().cloned());
        }
        answer
    };
    Ok(Simulation::Answers(of_each.into_iter().map(of_policy).collect()))
}

impl Principal {
    fn of(arn: &str) -> Self {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let [_, partition, service, _, account, who] = parts[..] else {
            return Self::Other("AWS does not say by an ARN who asks");
        };
        match (service, &who.split('/').collect::<Vec<_>>()[..]) {
            ("iam", ["user", ..]) => Self::User(arn.to_owned()),
            ("iam", ["root"]) => Self::Other(
                "the root user may do everything, and IAM cannot be asked about it; better make a user or a role, with what \
                 `cargo knot policy` prints",
            ),
            ("sts", ["assumed-role", name, ..]) => {
                // IAM knows the path. One of IAM Identity Center has one that is known as well.
                let path = if name.starts_with("AWSReservedSSO_") { "aws-reserved/sso.amazonaws.com/" } else { "" };
                Self::Role {
                    name: (*name).to_owned(),
                    guess: format!("arn:{partition}:iam::{account}:role/{path}{name}"),
                }
            }
            ("sts", ["federated-user", ..]) => {
                Self::Other("IAM cannot be asked about a federated user: what they may do is decided when they log in")
            }
            _ => Self::Other("IAM can be asked about users and roles, and this is neither"),
        }
    }
}

/// The ARN of a role, with its path; `None` where IAM does not say it.
async fn role(aws: &Aws, name: &str) -> Option<String> {
    iam::role(&aws.with_attempts(2), name).await.ok()
}

/// What IAM is to be asked about a policy of ours.
pub(crate) fn questions(policy: &Value, region: &str) -> Vec<Question> {
    let statements = policy["Statement"].as_array().map(Vec::as_slice).unwrap_or_default();
    let can_be_left_out = |statement: &Value| statement["Sid"].as_str().is_some_and(|sid| sid.starts_with("Advance"));
    let needed = statements.iter().filter(|statement| !can_be_left_out(statement));
    needed.flat_map(|statement| Question::of(statement, region)).collect()
}

impl Question {
    /// One for each value of the condition, of which a request has one only.
    fn of(statement: &Value, region: &str) -> Vec<Self> {
        // IAM takes no pattern in an action. Of those that read a bucket, one stands for the others.
        let action =
            |action: String| if action == "s3:GetBucket*" { "s3:GetBucketLocation".to_owned() } else { action };
        let actions: Vec<String> = texts(&statement["Action"]).into_iter().map(action).collect();
        let resources: Vec<String> = texts(&statement["Resource"]).iter().map(|arn| resource(arn)).collect();
        let mut contexts = vec![BTreeMap::from([(REGION.to_owned(), region.to_owned())])];
        let conditions = statement["Condition"].as_object().into_iter().flat_map(|operators| operators.values());
        for (key, values) in conditions.filter_map(Value::as_object).flatten() {
            let values = texts(values);
            contexts = contexts
                .iter()
                .flat_map(|context| values.iter().map(|value| with(context, key, &condition(value))))
                .collect();
        }
        let question = |context| Self { actions: actions.clone(), resources: resources.clone(), context };
        contexts.into_iter().map(question).collect()
    }
}

fn with(context: &BTreeMap<String, String>, key: &str, value: &str) -> BTreeMap<String, String> {
    let mut context = context.clone();
    context.insert(key.to_owned(), value.to_owned());
    context
}

/// One text or several.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(all) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// A resource that the pattern stands for: policies that are narrower than ours are to be found sufficient as well.
fn resource(pattern: &str) -> String {
    if pattern == "*" {
        return pattern.to_owned();
    }
    if pattern.contains(":role/aws-service-role/") {
        return pattern.trim_end_matches('*').to_owned();
    }
    filled(pattern)
}

/// A value of a condition that the pattern stands for.
fn condition(pattern: &str) -> String {
    match pattern.strip_suffix('*') {
        Some(beginning) if beginning.ends_with(|last: char| last.is_ascii_alphanumeric()) => beginning.to_owned(),
        _ => filled(pattern),
    }
}

/// The pattern with something in each of its gaps.
fn filled(pattern: &str) -> String {
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

/// Asks all of them, a few at a time.
async fn ask_all(aws: &Aws, source: &str, all: &BTreeSet<&Question>) -> Result<BTreeMap<Question, Answer>> {
    let mut answers = BTreeMap::new();
    let questions: Vec<Question> = all.iter().map(|question| (*question).clone()).collect();
    let Some((first, rest)) = questions.split_first() else { return Ok(answers) };
    // Whether IAM answers at all shows at the first, which is not worth minutes.
    answers.insert(first.clone(), ask(&aws.with_attempts(2), source, first).await?);
    for questions in rest.chunks(AT_ONCE) {
        let mut open = JoinSet::new();
        for question in questions {
            let (aws, source, question) = (aws.clone(), source.to_owned(), question.clone());
            open.spawn(async move {
                let answer = ask(&aws, &source, &question).await;
                (question, answer)
            });
        }
        while let Some(done) = open.join_next().await {
            let (question, answer) = done.expect("asking does not panic");
            answers.insert(question, answer?);
        }
    }
    Ok(answers)
}

async fn ask(aws: &Aws, source: &str, question: &Question) -> Result<Answer> {
    let mut simulation = iam::simulation(&question.actions, &question.resources);
    for ((key, value), number) in question.context.iter().zip(1..) {
        let entry = |name: &str| format!("ContextEntries.member.{number}.{name}");
        simulation = simulation.with(&entry("ContextKeyName"), key);
        simulation = simulation.with(&entry("ContextKeyValues.member.1"), value);
        simulation = simulation.with(&entry("ContextKeyType"), "string");
    }
    let mut answer = Answer::default();
    iam::simulate(aws, source, simulation).await?.iter().for_each(|evaluation| answer.add(evaluation));
    Ok(answer)
}

impl Answer {
    /// Denied is what is denied on one of the resources.
    pub(crate) fn add(&mut self, evaluation: &Evaluation) {
        let Evaluation { action, is_allowed, on_each, untold } = evaluation;
        let is_allowed = if on_each.is_empty() { *is_allowed } else { on_each.iter().all(|is_allowed| *is_allowed) };
        if !is_allowed {
            self.denied.insert(action.clone());
            self.untold.extend(untold.iter().cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_who_policies_are_attached_to() {
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
    fn a_statement_is_asked_as_it_stands() {
        let statement = serde_json::json!({
            "Effect": "Allow",
            "Action": ["s3:ListBucket", "s3:GetBucket*"],
            "Resource": "arn:aws:s3:::cloudknot-pars-lab-*",
            "Condition": {"StringLike": {"s3:prefix": ["knots/sweep/*", "stacks/sweep/*"]}},
        });
        let asked = Question::of(&statement, "eu-west-1");
        let prefixes: Vec<_> = asked.iter().map(|question| question.context["s3:prefix"].as_str()).collect();
        assert_eq!(prefixes, ["knots/sweep/example", "stacks/sweep/example"]);
        assert_eq!(asked[0].actions, ["s3:ListBucket", "s3:GetBucketLocation"]);
        assert_eq!(asked[0].resources, ["arn:aws:s3:::cloudknot-pars-lab-example"]);
        assert_eq!(asked[0].context[REGION], "eu-west-1");
        assert_eq!(asked[0].context.len(), 2);
    }

    #[test]
    fn a_pattern_is_asked_by_an_example() {
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
