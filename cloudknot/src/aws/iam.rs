//! Roles and policies of IAM that exist, by their names.

use aws_sdk_iam as iam;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::cloudformation::PARS_STACKS;
use super::{Aws, client, code};
use crate::error::{Error, ErrorKind, Result};

/// Returns the ARN of this role.
pub(crate) async fn role(aws: &Aws, name: &str) -> Result<Option<String>> {
    let asked = client!(aws, iam).get_role().role_name(name).send().await;
    Ok(asked.map_err(|error| no_role(aws, name, error))?.role.map(|role| role.arn))
}

/// Returns the ARN of an instance profile that this role has, besides those of a Pars: such a one goes with its Pars.
pub(crate) async fn instance_profile(aws: &Aws, role: &str) -> Result<Option<String>> {
    let asked = client!(aws, iam).list_instance_profiles_for_role().role_name(role).send().await;
    let answer = asked.map_err(|error| no_role(aws, role, error))?;
    let stays = |profile: &iam::types::InstanceProfile| !profile.instance_profile_name.starts_with(PARS_STACKS);
    Ok(answer.instance_profiles.into_iter().find(stays).map(|profile| profile.arn))
}

fn no_role<E>(aws: &Aws, role: &str, error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let absent = code(&error) == Some("NoSuchEntity");
    let failed = aws.failed(&format!("find the role `{role}`"), error);
    if absent {
        failed
            .of_kind(ErrorKind::NotFound)
            .with_hint("give the name of a role that exists, not its ARN, or leave it out")
    } else {
        failed
    }
}

/// Returns the ARNs of policies that are given by name or ARN.
pub(crate) async fn policies(aws: &Aws, said: &[String]) -> Result<Vec<String>> {
    let mut arns = Vec::new();
    for policy in said {
        if policy.starts_with("arn:") {
            arns.push(policy.clone());
            continue;
        }
        let mut pages = client!(aws, iam).list_policies().into_paginator().send();
        let mut found = None;
        while let (None, Some(page)) = (&found, pages.next().await) {
            let page = page.map_err(|error| aws.failed(&format!("find the policy `{policy}`"), error))?;
            found = page.policies.unwrap_or_default().into_iter().find(|one| one.policy_name() == Some(policy));
        }
        let arn = found.and_then(|found| found.arn).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("failed to find the policy `{policy}`"))
                .with_hint("give the name or ARN of a policy of AWS's or of your account")
        })?;
        arns.push(arn);
    }
    Ok(arns)
}
