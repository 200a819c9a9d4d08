//! Findings about permissions, one per verb.

use crate::aws::Aws;
use crate::aws::permissions::{Simulation, SimulationResult, simulate};
use crate::deploy::doctor::{Finding, State, in_one_line};
use crate::deploy::policy::{Allowed, Scope};
use crate::error::ErrorKind;

/// Returns one finding for each verb, or a single one if the request to IAM fails.
pub(super) async fn examine(aws: &Aws, caller: &str, scope: &Scope, verbs: &[Allowed], has_pars: bool) -> Vec<Finding> {
    let subject = "permissions";
    let policies: Vec<_> = verbs.iter().map(|verb| verb.policy(scope)).collect();
    match simulate(aws, caller, &policies).await {
        Ok(Simulation::Results(results)) => {
            verbs.iter().zip(results).map(|(verb, result)| finding(result, *verb, has_pars)).collect()
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

fn finding(result: SimulationResult, verb: Allowed, has_pars: bool) -> Finding {
    let name = verb.name();
    let subject = format!("permissions to {}", name.replace('-', " "));
    if result.denied.is_empty() {
        return Finding::good(subject, "all its permissions are granted");
    }
    let denied: Vec<_> = result.denied.into_iter().collect();
    let mut found = format!("not allowed: {}", denied.join(", "));
    // Users of an existing Pars do not need the permission to create one.
    let mut state = if verb == Allowed::ParsCreate && has_pars { State::Doubtful } else { State::Bad };
    if !result.missing_context_keys.is_empty() {
        let missing: Vec<_> = result.missing_context_keys.into_iter().collect();
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
    use crate::aws::permissions::{SimulationRequest, simulation_requests};

    #[test]
    fn permission_checks_are_valid_for_iam() {
        let scope = Scope::new("123456789012", "eu-west-1", "lab", "sweep");
        for verb in crate::deploy::doctor::checks::VERBS {
            let requests = simulation_requests(&verb.policy(&scope), "eu-west-1");
            assert!(requests.len() >= 8, "{}", verb.name());
            let simulates =
                |request: &SimulationRequest| request.actions.iter().any(|action| action.starts_with("iam:Simulate"));
            assert!(!requests.iter().any(simulates), "{} does not need simulations", verb.name());
            for request in requests {
                let all = request.actions.iter().chain(&request.resources).chain(request.context.values());
                assert!(all.clone().all(|text| text == "*" || !text.contains('*')), "{request:?}");
                assert!(!request.actions.is_empty() && !request.resources.is_empty(), "{request:?}");
            }
        }
    }

    #[test]
    fn denial_on_one_resource_is_a_denial() {
        let evaluation = Evaluation {
            action: "batch:SubmitJob".into(),
            is_allowed: true,
            per_resource: vec![true, false],
            missing_context_keys: Vec::new(),
        };
        let mut result = SimulationResult::default();
        result.add(&evaluation);
        let denied = finding(result.clone(), Allowed::Run, true);
        assert_eq!((denied.state, denied.found.as_str()), (State::Bad, "not allowed: batch:SubmitJob"));
        assert_eq!(
            denied.remedy.as_deref(),
            Some("ask an administrator to grant it: `cargo knot policy run` prints the policy")
        );
        assert_eq!(finding(result.clone(), Allowed::ParsCreate, true).state, State::Doubtful);
        result.missing_context_keys.insert("aws:SourceIp".into());
        assert_eq!(finding(result, Allowed::Run, true).state, State::Doubtful);
    }
}
