//! The API of the Elastic Container Registry, and no other AWS service: logins, repositories that others created, and the
//! deletion of images. Images are transferred over the registry protocol.

use std::time::SystemTime;

use aws_sdk_ecr as ecr;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ecr::types::{ImageDetail, ImageFailure, ImageFailureCode, ImageIdentifier};

use crate::aws::{Aws, client, code};
use crate::error::{Error, ErrorKind, Result};
use crate::settings::login::Login;

/// Maximum number of images in one request.
const MAX_PER_REQUEST: usize = 100;

#[derive(Debug, Clone)]
pub(crate) struct Ecr {
    aws: Aws,
    client: ecr::Client,
}

/// A repository that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repository {
    pub(crate) arn: String,
    /// URI of the repository, as `docker pull` accepts it.
    pub(crate) uri: String,
}

/// An image in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredImage {
    pub(crate) digest: String,
    pub(crate) tags: Vec<String>,
    pub(crate) bytes: u64,
    pub(crate) pushed: SystemTime,
}

impl Ecr {
    pub(crate) fn new(aws: &Aws) -> Self {
        Self { client: client!(aws, ecr), aws: aws.clone() }
    }

    /// Returns the login of the account's registry, which is valid for 12 hours.
    pub(crate) async fn login(&self) -> Result<Login> {
        let response = self.client.get_authorization_token().send().await;
        let response = response.map_err(|error| self.aws.failed("get a login for the ECR registry", error))?;
        let token = response.authorization_data().first().and_then(|data| data.authorization_token());
        let login = token
            .and_then(|token| STANDARD.decode(token).ok())
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|text| text.split_once(':').map(|(user, password)| Login::password(user, password)));
        login.ok_or_else(|| Error::new(ErrorKind::Aws, "cannot read the login that ECR returned"))
    }

    /// Returns the repository with this name.
    pub(crate) async fn repository(&self, name: &str) -> Result<Repository> {
        let response = self.client.describe_repositories().repository_names(name).send().await;
        let response = response.map_err(|error| {
            let absent = code(&error) == Some("RepositoryNotFoundException");
            let failed = self.aws.failed(&format!("find the repository `{name}`"), error);
            if absent {
                failed
                    .of_kind(ErrorKind::NotFound)
                    .with_hint("set the name of a repository in this region; without one, the Knot creates its own")
            } else {
                failed
            }
        })?;
        let found = response.repositories.unwrap_or_default().into_iter().next();
        found
            .and_then(|found| Some(Repository { arn: found.repository_arn?, uri: found.repository_uri? }))
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("cannot find the repository `{name}`")))
    }

    /// Returns the images in a repository. A repository that does not exist has none.
    pub(crate) async fn images(&self, repository: &str) -> Result<Vec<StoredImage>> {
        let mut found = Vec::new();
        let mut pages = self.client.describe_images().repository_name(repository).into_paginator().send();
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => {
                    found.extend(page.image_details.unwrap_or_default().into_iter().filter_map(StoredImage::of));
                }
                Err(error) if code(&error) == Some("RepositoryNotFoundException") => return Ok(Vec::new()),
                Err(error) => return Err(self.aws.failed(&format!("list the images in `{repository}`"), error)),
            }
        }
        Ok(found)
    }

    /// Deletes the image with this digest, and all its tags. It is not an error if the image does not exist.
    pub(crate) async fn delete_image(&self, repository: &str, digest: &str) -> Result<()> {
        let image = ImageIdentifier::builder().image_digest(digest).build();
        let response = self.client.batch_delete_image().repository_name(repository).image_ids(image).send().await;
        let action = format!("delete the image {digest} in `{repository}`");
        Self::refused(&action, response.map_err(|error| self.aws.failed(&action, error))?.failures)
    }

    /// Returns an error if ECR refused to delete an image. ECR reports this in a response with a success status.
    fn refused(action: &str, failures: Option<Vec<ImageFailure>>) -> Result<()> {
        let mut failures = failures.unwrap_or_default().into_iter();
        match failures.find(|failure| failure.failure_code() != Some(&ImageFailureCode::ImageNotFound)) {
            Some(failure) => Err(Error::new(ErrorKind::Aws, format!("cannot {action}"))
                .with_source(failure.failure_reason.unwrap_or_else(|| "no reason was given".to_owned()))
                .with_hint("fix that, then run the same command again")),
            None => Ok(()),
        }
    }

    /// Deletes the tags that consist of this prefix and the start of a digest. An image without any other tag is
    /// deleted too. A repository that does not exist has none.
    pub(crate) async fn delete_tags(&self, repository: &str, prefix: &str) -> Result<()> {
        let mut found: Vec<ImageIdentifier> = Vec::new();
        let mut pages = self.client.list_images().repository_name(repository).into_paginator().send();
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => found.extend(page.image_ids.unwrap_or_default()),
                Err(error) if code(&error) == Some("RepositoryNotFoundException") => return Ok(()),
                Err(error) => return Err(self.aws.failed(&format!("list the images in `{repository}`"), error)),
            }
        }
        found.retain(|image| image.image_tag().is_some_and(|tag| is_digest_after(prefix, tag)));
        // Identified by the tag alone, so that an image with tags of others is kept.
        let tag = |image: &ImageIdentifier| ImageIdentifier::builder().set_image_tag(image.image_tag.clone()).build();
        for images in found.chunks(MAX_PER_REQUEST) {
            let images = images.iter().map(tag).collect();
            let request = self.client.batch_delete_image().repository_name(repository).set_image_ids(Some(images));
            let action = format!("delete this Knot's images in `{repository}`");
            Self::refused(&action, request.send().await.map_err(|error| self.aws.failed(&action, error))?.failures)?;
        }
        Ok(())
    }
}

/// Returns whether a tag belongs to this Knot. The name of another Knot may start with the name of this one.
fn is_digest_after(prefix: &str, tag: &str) -> bool {
    let rest = tag.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.len() == 12 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl StoredImage {
    fn of(image: ImageDetail) -> Option<Self> {
        let pushed = image.image_pushed_at.and_then(|time| SystemTime::try_from(time).ok());
        Some(Self {
            digest: image.image_digest?,
            tags: image.image_tags.unwrap_or_default(),
            bytes: image.image_size_in_bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default(),
            // An image without a time counts as new.
            pushed: pushed.unwrap_or_else(SystemTime::now),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_of_a_knot_with_a_longer_name_does_not_match() {
        assert!(is_digest_after("sweep-", "sweep-0123456789ab"));
        assert!(!is_digest_after("sweep-", "sweep-big-0123456789ab"));
        assert!(!is_digest_after("sweep-", "sweep-mine"));
    }
}
