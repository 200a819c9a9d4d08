//! S3 buckets, for deploy and clobber. The store of the runtime writes and reads the objects of a run.

use aws_sdk_s3 as s3;
use cloudknot_runtime::store::s3::has_custom_endpoint;
use cloudknot_runtime::store::{S3Store, Store, StoreErrorKind};
use s3::types::{Delete, ObjectIdentifier};

use crate::aws::{Aws, Retries, code};
use crate::error::{Error, ErrorKind, Result};
use crate::event::step;

/// Creates the client of S3, which addresses buckets as the store of the runtime does.
fn client(aws: &Aws) -> s3::Client {
    let config = s3::config::Builder::from(&aws.config).interceptor(Retries);
    s3::Client::from_conf(config.force_path_style(has_custom_endpoint(&aws.config)).build())
}

/// Deletes all objects in a bucket. CloudFormation deletes only empty buckets, no matter who stored the objects.
pub(crate) async fn empty(aws: &Aws, bucket: &str) -> Result<()> {
    step(&format!("emptying the bucket `{bucket}`"));
    let action = format!("empty the bucket `{bucket}`");
    let client = client(aws);
    // The objects listed by one pass are deleted before the next.
    loop {
        let page = match client.list_object_versions().bucket(bucket).send().await {
            Ok(page) => page,
            Err(error) if code(&error) == Some("NoSuchBucket") => return Ok(()),
            Err(error) => return Err(aws.failed(&action, error)),
        };
        let versions = page.versions.unwrap_or_default().into_iter().map(|one| (one.key, one.version_id));
        let markers = page.delete_markers.unwrap_or_default().into_iter().map(|one| (one.key, one.version_id));
        let object = |(key, version): (Option<String>, Option<String>)| {
            // Objects stored without versioning have the version `null`.
            ObjectIdentifier::builder().set_key(key).set_version_id(version).build().ok()
        };
        let objects: Vec<_> = versions.chain(markers).filter_map(object).collect();
        if objects.is_empty() {
            return Ok(());
        }
        let delete = Delete::builder().set_objects(Some(objects)).quiet(true).build().expect("`objects` is set");
        let response = client.delete_objects().bucket(bucket).delete(delete).send().await;
        let errors = response.map_err(|error| aws.failed(&action, error))?.errors.unwrap_or_default();
        if let Some(first) = errors.first() {
            let (key, why) = (first.key().unwrap_or_default(), first.message().unwrap_or("no reason was given"));
            return Err(Error::new(ErrorKind::Aws, format!("cannot {action}"))
                .with_source(format!("`{key}`: {why}"))
                .with_hint("fix that, then run the same command again; the stack still exists"));
        }
    }
}

/// Deletes all objects below a prefix whose keys start with `key_prefix`, and returns their number. A bucket that does
/// not exist has none.
pub(crate) async fn delete_below(aws: &Aws, bucket: &str, prefix: &str, key_prefix: &str) -> Result<usize> {
    let store = S3Store::new(&aws.config, bucket, prefix);
    let objects = match store.list(key_prefix, None).await {
        Ok(objects) => objects,
        Err(error) if error.kind() == StoreErrorKind::NoStore => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let keys: Vec<String> = objects.into_iter().map(|object| object.key).collect();
    store.delete(&keys).await?;
    Ok(keys.len())
}

/// Returns the names of the folders in a folder of a bucket. A bucket that does not exist has none.
pub(crate) async fn folders(aws: &Aws, bucket: &str, folder: &str) -> Result<Vec<String>> {
    let request = client(aws).list_objects_v2().bucket(bucket).prefix(folder).delimiter("/");
    let mut pages = request.into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        match page {
            Ok(page) => found.extend(page.common_prefixes.unwrap_or_default().into_iter().filter_map(|one| one.prefix)),
            Err(error) if code(&error) == Some("NoSuchBucket") => return Ok(Vec::new()),
            Err(error) => return Err(aws.failed(&format!("list `{folder}` in the bucket `{bucket}`"), error)),
        }
    }
    let name = |path: String| Some(path.strip_prefix(folder)?.trim_end_matches('/').to_owned());
    Ok(found.into_iter().filter_map(name).collect())
}

/// Returns whether the bucket does not exist.
pub(crate) async fn bucket_is_absent(aws: &Aws, bucket: &str) -> Result<bool> {
    match client(aws).head_bucket().bucket(bucket).send().await {
        Ok(_) => Ok(false),
        Err(error) if error.raw_response().is_some_and(|response| response.status().as_u16() == 404) => Ok(true),
        Err(error) => Err(aws.failed(&format!("find the bucket `{bucket}`"), error)),
    }
}

/// Returns whether the account has this bucket.
///
/// # Errors
/// Returns an error if the bucket belongs to another account, or is in another region.
pub(crate) async fn bucket_exists(aws: &Aws, bucket: &str) -> Result<bool> {
    let head = client(aws).head_bucket().bucket(bucket).send().await;
    let Err(error) = head else { return Ok(true) };
    let status = error.raw_response().map(|response| response.status().as_u16());
    let refused = |message: String, hint: String| Err(Error::new(ErrorKind::Exists, message).with_hint(hint));
    match status {
        Some(404) => Ok(false),
        Some(403) => refused(
            format!("cannot use the bucket `{bucket}`: it belongs to another account, or you have no access to it"),
            "choose another name; without one, AWS generates one".to_owned(),
        ),
        Some(301 | 400) => refused(
            format!("cannot use the bucket `{bucket}`: it is in another region than {}", aws.region),
            "choose another name, or that region: --region".to_owned(),
        ),
        _ => Err(aws.failed(&format!("find the bucket `{bucket}`"), error)),
    }
}
