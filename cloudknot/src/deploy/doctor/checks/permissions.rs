//! Findings about permissions, one per verb.

use crate::aws::Aws;
use crate::aws::permissions::{Answer, Simulation, simulate};
use crate::deploy::doctor::{Finding, State, in_one_line};
use crate::deploy::policy::{Allowed, Scope};
use crate::error::ErrorKind;

/// Returns one finding for each verb, or a single one if the request to IAM fails.
pub(super) async fn examine(aws: &Aws, caller: &str, scope: &Scope, verbs: &[Allowed], has_pars: bool) -> Vec<Finding> {
    let subject = "permissions";
    let policies: Vec<_> = verbs.iter().map(|verb| verb.policy(scope)).collect();
    match simulate(aws, caller, &policies).await {
        Ok(Simulation::Answers(answers)) => {
            verbs.iter().zip(answers).map(|(verb, answer)| finding(answer, *verb, has_pars)).collect()
        }
        Ok(Simulation::Unsupported(why)) => vec![Finding::unknown(subject, why)],
        Err(error) => {
            let finding = Finding::unknown(subject, in_one_line(&error));
            let grant = "ask an administrator to grant `iam:SimulatePrincipalPolicy`: `cargo knot policy doctor` prints the \
            policy";
            vec![if error.kind() == ErrorKind::Denied { finding.remedy(grant) } else { finding }]
        }
    }
}

fn finding(answer: Answer, verb: Allowed, has_pars: bool) -> Finding {
    let name = verb.name();
    let subject = format!("permissions to {}", name.replace('-', " "));
    if answer.denied.is_empty() {
        return Finding::good(subject, "all its permissions are granted");
    }
    let denied: Vec<_> = answer.denied.into_iter().collect();
    let mut found = format!("not allowed: {}", denied.join(", "));
    // Users of an existing Pars do not need the permission to create one.
    let mut state = if verb == Allowed::ParsCreate && has_pars { State::Doubtful } else { State::Bad };
    if !answer.missing_context_keys.is_empty() {
        let missing: Vec<_> = answer.missing_context_keys.into_iter().collect();
        found = format!(
            "{found}; unless a policy grants it by {}, which the simulation did not include",
            missing.join(", ")
        );
        state = State::Doubtful;
    }
    Finding::new(subject, state, found)
        .remedy(format!("ask an administrator to grant it: `cargo knot policy {name}` prints the policy"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::iam::Evaluation;
    use crate::aws::permissions::{Question, questions};

    #[test]
    fn permission_checks_are_valid_for_iam() {
        let scope = Scope::new("123456789012", "eu-west-1", "lab", "sweep");
        for verb in crate::deploy::doctor::checks::VERBS {
            let questions = questions(&verb.policy(&scope), "eu-west-1");
            assert!(questions.len() >= 8, "{}", verb.name());
            let simulates =
                |question: &Question| question.actions.iter().any(|action| action.starts_with("iam:Simulate"));
            assert!(!questions.iter().any(simulates), "{} does not need simulations", verb.name());
            for question in questions {
                let all = question.actions.iter().chain(&question.resources).chain(question.context.values());
                assert!(all.clone().all(|text| text == "*" || !text.contains('*')), "{question:?}");
                assert!(!question.actions.is_empty() && !question.resources.is_empty(), "{question:?}");
            }
        }
    }

    #[test]
    fn denial_on_one_resource_is_a_denial() {
        let result = Evaluation {
            action: "batch:SubmitJob".into(),
            is_allowed: true,
            per_resource: vec![true, false],
            missing_context_keys: Vec::new(),
        };
        let mut answer = Answer::default();
        answer.add(&result);
        let denied = finding(answer.clone(), Allowed::Run, true);
        assert_eq!((denied.state, denied.found.as_str()), (State::Bad, "not allowed: batch:SubmitJob"));
        assert_eq!(
            denied.remedy.as_deref(),
            Some("ask an administrator to grant it: `cargo knot policy run` prints the policy")
        );
        assert_eq!(finding(answer.clone(), Allowed::ParsCreate, true).state, State::Doubtful);
        answer.missing_context_keys.insert("aws:SourceIp".into());
        assert_eq!(finding(answer, Allowed::Run, true).state, State::Doubtful);
    }
}
