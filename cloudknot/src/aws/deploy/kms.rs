//! KMS, and no other AWS service: whether the policy of a key lets CloudWatch Logs use it.
//!
//! KMS allows an AWS service only what the policy of the key grants to it: unlike users and roles, a service does not get permissions
//! from the account.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::aws::signed::{self, Request, Service};
use crate::aws::{Aws, code};
use crate::error::{Error, ErrorKind, Result};
use crate::settings::partition::Partition;

const KMS: Service = Service { id: "KMS", name: "kms", is_global: false, refusal: signed::json_refusal };

#[derive(Deserialize)]
struct Response {
    /// The policy, as a JSON document.
    #[serde(rename = "Policy")]
    policy: String,
}

/// Returns whether the policy of a key names CloudWatch Logs. The conditions of its statements are not evaluated.
///
/// # Errors
/// `NotFound` if there is no such key, and `Denied` if the caller may not read the policy, such as that of another account's key.
pub(crate) async fn is_for_logs(aws: &Aws, key: &str) -> Result<bool> {
    let action = format!("read the policy of the KMS key `{key}`");
    let body = json!({"KeyId": key, "PolicyName": "default"}).to_string();
    let request = Request::post("application/x-amz-json-1.1", Some("TrentService.GetKeyPolicy"), body);
    let response = match signed::send(aws, &KMS, "GetKeyPolicy", request).await {
        Ok(response) => response,
        Err(error) if code(&error) == Some("NotFoundException") => {
            return Err(aws
                .failed(&action, error)
                .of_kind(ErrorKind::NotFound)
                .with_hint("set the ARN of a key of this region"));
        }
        Err(error) => return Err(aws.failed(&action, error)),
    };
    let policy = serde_json::from_str(&response)
        .and_then(|response: Response| serde_json::from_str(&response.policy))
        .map_err(|error| Error::new(ErrorKind::Aws, format!("cannot {action}")).with_source(error))?;
    Ok(names_logs(&policy, &aws.region))
}

/// Returns the statement that lets CloudWatch Logs encrypt this log group, for the policy of a key ("Encrypt log data in CloudWatch
/// Logs using AWS Key Management Service" in the user guide of CloudWatch Logs).
pub(crate) fn statement_for_logs(region: &str, account: &str, group: &str) -> String {
    let Partition { name, domain, .. } = Partition::of(region);
    let group = format!("arn:{name}:logs:{region}:{account}:log-group:{group}");
    let statement = json!({
        "Effect": "Allow",
        "Principal": {"Service": format!("logs.{region}.{domain}")},
        "Action": ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"],
        "Resource": "*",
        "Condition": {"ArnEquals": {"kms:EncryptionContext:aws:logs:arn": group}},
    });
    statement.to_string()
}

/// Returns whether a statement of the policy allows something to CloudWatch Logs in this region.
fn names_logs(policy: &Value, region: &str) -> bool {
    let regional = format!("logs.{region}.");
    let is_logs =
        |service: &&str| *service == "*" || *service == "logs.amazonaws.com" || service.starts_with(&regional);
    let allows = |statement: &&Value| {
        let principal = &statement["Principal"];
        let is_anybody = principal == "*" || one_or_more(&principal["AWS"]).contains(&"*");
        statement["Effect"] == "Allow" && (is_anybody || one_or_more(&principal["Service"]).iter().any(is_logs))
    };
    match &policy["Statement"] {
        Value::Array(statements) => statements.iter().any(|statement| allows(&statement)),
        statement => allows(&statement),
    }
}

/// Returns the strings of a value that is one string or a list of them.
fn one_or_more(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy that AWS gives to a new key.
    const USUAL: &str = r#"{"Version": "2012-10-17", "Statement": [{"Sid": "Enable IAM User Permissions", "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::123456789012:root"}, "Action": "kms:*", "Resource": "*"}]}"#;

    #[test]
    fn usual_policy_of_a_key_is_not_for_logs() {
        let check = |policy: &str, expected| {
            assert_eq!(names_logs(&serde_json::from_str(policy).unwrap(), "eu-west-1"), expected, "{policy}");
        };
        check(USUAL, false);
        let of = |principal: &str, effect: &str| {
            format!(
                r#"{{"Statement": {{"Effect": "{effect}", "Principal": {principal}, "Action": "kms:*", "Resource": "*"}}}}"#
            )
        };
        check(&of(r#"{"Service": "logs.eu-west-1.amazonaws.com"}"#, "Allow"), true);
        check(&of(r#"{"AWS": "*"}"#, "Allow"), true);
        check(&of(r#"{"Service": ["s3.amazonaws.com", "logs.amazonaws.com"]}"#, "Allow"), true);
        check(&of(r#""*""#, "Allow"), true);
        check(&of(r#"{"Service": "logs.eu-west-2.amazonaws.com"}"#, "Allow"), false);
        check(&of(r#"{"Service": "logs.eu-west-1.amazonaws.com"}"#, "Deny"), false);
        check("{}", false);
    }

    #[test]
    fn statement_is_what_the_check_looks_for() {
        for (region, service) in
            [("eu-west-1", "logs.eu-west-1.amazonaws.com"), ("cn-north-1", "logs.cn-north-1.amazonaws.com.cn")]
        {
            let statement: Value =
                serde_json::from_str(&statement_for_logs(region, "123456789012", "/cloudknot/lab")).unwrap();
            assert_eq!(statement["Principal"]["Service"], service);
            let mut policy: Value = serde_json::from_str(USUAL).unwrap();
            policy["Statement"].as_array_mut().unwrap().push(statement);
            assert!(names_logs(&policy, region));
        }
    }
}
