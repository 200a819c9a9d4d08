//! EFS, and no other AWS service: the mount targets of a file system, and who can reach them.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::aws::signed::{self, Request, Service};
use crate::aws::{Aws, code};
use crate::error::{Error, ErrorKind, Result};

const EFS: Service = Service { id: "EFS", name: "elasticfilesystem", is_global: false, refusal: signed::json_refusal };

/// The address of a file system in one zone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct MountTarget {
    #[serde(rename = "MountTargetId")]
    pub(crate) id: String,
    #[serde(rename = "AvailabilityZoneName")]
    pub(crate) zone: String,
    #[serde(rename = "VpcId")]
    pub(crate) vpc: String,
}

#[derive(Deserialize)]
struct MountTargets {
    /// All of them, because a file system has at most one in each zone, and a page has 100.
    #[serde(rename = "MountTargets")]
    targets: Vec<MountTarget>,
}

#[derive(Deserialize)]
struct SecurityGroups {
    #[serde(rename = "SecurityGroups")]
    groups: Vec<String>,
}

/// Returns the mount targets of a file system.
///
/// # Errors
/// `NotFound` if there is no such file system.
pub(crate) async fn mount_targets(aws: &Aws, file_system: &str) -> Result<Vec<MountTarget>> {
    let action = format!("find the file system `{file_system}`");
    let path = format!("/2015-02-01/mount-targets?FileSystemId={file_system}&MaxItems=100");
    let found: MountTargets = get(aws, "DescribeMountTargets", path, &action).await?;
    Ok(found.targets)
}

/// Returns the security groups of a mount target.
pub(crate) async fn security_groups(aws: &Aws, target: &MountTarget) -> Result<Vec<String>> {
    let action = format!("read the security groups of the mount target `{}`", target.id);
    let path = format!("/2015-02-01/mount-targets/{}/security-groups", target.id);
    let found: SecurityGroups = get(aws, "DescribeMountTargetSecurityGroups", path, &action).await?;
    Ok(found.groups)
}

async fn get<T: DeserializeOwned>(aws: &Aws, operation: &'static str, path: String, action: &str) -> Result<T> {
    let request = Request { method: "GET", path, content_type: None, target: None, body: String::new() };
    let response = match signed::send(aws, &EFS, operation, request).await {
        Ok(response) => response,
        Err(error) if matches!(code(&error), Some("FileSystemNotFound" | "MountTargetNotFound")) => {
            return Err(aws
                .failed(action, error)
                .of_kind(ErrorKind::NotFound)
                .with_hint("set the ID of a file system of this account and region"));
        }
        Err(error) => return Err(aws.failed(action, error)),
    };
    serde_json::from_str(&response)
        .map_err(|error| Error::new(ErrorKind::Aws, format!("cannot {action}")).with_source(error))
}
