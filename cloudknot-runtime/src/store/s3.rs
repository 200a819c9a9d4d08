//! S3 as a store. Handles the requests to S3, independently of the contents of objects. Needs a tokio runtime.
//!
//! The SDK retries requests, so each of them can be sent twice: all requests here may be repeated. Uploads carry the SDK's
//! checksums. Downloads are not checked here: every frame contains a checksum, which is checked before the frame is
//! decoded.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::ResponseChecksumValidation;
use aws_sdk_s3::types::Object as Listed;
use bytes::Bytes;

use super::{BoxFuture, Object, Result, Store, StoreError, StoreErrorKind, Writer, key};

mod config;
#[cfg(not(cloudknot_worker))]
mod delete;
mod error;
mod read;
#[cfg(not(cloudknot_worker))]
mod write;

pub use config::{has_custom_endpoint, loader, retries};
use error::Fault;
pub use error::credentials_cause;
#[cfg(not(cloudknot_worker))]
use write::S3Writer;

/// Maximum number of retries of a create that S3 rejects because of a concurrent write of the same key.
const MAX_CONFLICT_RETRIES: u32 = 6;

/// A prefix of a bucket as a store.
///
/// The times of objects have a resolution of one second.
#[derive(Debug, Clone)]
pub struct S3Store {
    bucket: Arc<Bucket>,
}

/// State shared by the store and its writers.
#[derive(Debug)]
struct Bucket {
    client: Client,
    name: String,
    /// Prefix of the store, which is empty or ends with a slash.
    prefix: String,
}

impl S3Store {
    /// Opens the store below this prefix of this bucket, with the settings of the environment and the AWS profile.
    ///
    /// # Errors
    /// Fails if these settings have no region. The existence of the bucket is not checked.
    pub async fn open(bucket: &str, prefix: &str) -> Result<Self> {
        let config = config::load().await;
        let store = Self::new(&config, bucket, prefix);
        if config.region().is_some() {
            return Ok(store);
        }
        let action = format!("open `{}`", store.describe());
        Err(StoreError::new(StoreErrorKind::Other, action, Some("no AWS region is set".into()))
            .with_hint("set AWS_REGION, or `region` in the AWS profile"))
    }

    /// Creates a store below this prefix of this bucket. `config` must come from [`loader`].
    pub fn new(config: &SdkConfig, bucket: &str, prefix: &str) -> Self {
        let settings = aws_sdk_s3::config::Builder::from(config)
            .retry_classifier(config::UntrustedCertificate)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            // Servers other than AWS seldom have a host name for each bucket.
            .force_path_style(has_custom_endpoint(config));
        #[cfg(not(cloudknot_worker))]
        let settings = settings.retry_classifier(config::FirstContact).interceptor(config::FirstContact);
        let settings = settings.build();
        let mut prefix = prefix.trim_matches('/').to_owned();
        if !prefix.is_empty() {
            prefix.push('/');
        }
        let bucket = Bucket { client: Client::from_conf(settings), name: bucket.to_owned(), prefix };
        Self { bucket: Arc::new(bucket) }
    }
}

impl Store for S3Store {
    fn describe(&self) -> String {
        self.bucket.describe()
    }

    // The limit of a PutObject request (Amazon S3 User Guide, "Uploading objects"). Other writes go in parts.
    fn max_object(&self) -> u64 {
        5 << 30
    }

    fn parallel_reads(&self) -> usize {
        32
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        Box::pin(self.bucket.get(key))
    }

    fn size<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(self.bucket.size(key))
    }

    fn get_range<'a>(&'a self, key: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(self.bucket.get_range(key, range))
    }

    fn put<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.bucket.put(key, bytes))
    }

    fn create<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.bucket.create(key, bytes))
    }

    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> BoxFuture<'a, Result<Vec<Object>>> {
        Box::pin(self.bucket.list(prefix, after))
    }

    fn folders<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(self.bucket.folders(prefix))
    }

    #[cfg(not(cloudknot_worker))]
    fn writer<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn Writer>>> {
        let writer = S3Writer::open(&self.bucket, key).map(|writer| Box::new(writer) as Box<dyn Writer>);
        Box::pin(std::future::ready(writer))
    }

    #[cfg(not(cloudknot_worker))]
    fn delete<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.bucket.delete(keys))
    }

    // Workers do not send these requests, and the SDK's code for them would add to the worker's size.
    #[cfg(cloudknot_worker)]
    fn writer<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn Writer>>> {
        Box::pin(std::future::ready(Err(self.bucket.host_only("write piece by piece", key))))
    }

    #[cfg(cloudknot_worker)]
    fn delete<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<()>> {
        let refused = keys.first().map(|key| self.bucket.host_only("delete", key));
        Box::pin(std::future::ready(refused.map_or(Ok(()), Err)))
    }
}

impl Bucket {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        key::check(key)?;
        self.upload(key, bytes, false).await.map_err(|fault| self.failed("write", key, fault))
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<bool> {
        key::check(key)?;
        let mut conflicts = 0;
        loop {
            match self.upload(key, bytes.clone(), true).await {
                Ok(()) => return Ok(true),
                // If a response was lost, the existing object may be from this call. Callers accept either case.
                Err(fault) if fault.object_exists() => return Ok(false),
                Err(fault) if fault.is_conflict() && conflicts < MAX_CONFLICT_RETRIES => {
                    tokio::time::sleep(Duration::from_millis(50 << conflicts)).await;
                    conflicts += 1;
                }
                Err(fault) => return Err(self.failed("write", key, fault)),
            }
        }
    }

    async fn upload(&self, key: &str, bytes: Bytes, if_absent: bool) -> std::result::Result<(), Fault> {
        let timeout = config::upload_timeout(bytes.len());
        let request = self.client.put_object().bucket(&self.name).key(self.key(key)).body(bytes.into());
        let request = if if_absent { request.if_none_match("*") } else { request };
        request.customize().config_override(timeout).send().await?;
        Ok(())
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Object>> {
        key::check_prefix(prefix)?;
        let request = self.client.list_objects_v2().bucket(&self.name).prefix(self.key(prefix));
        let after = after.filter(|after| !after.is_empty()).map(|after| self.key(after));
        let mut pages = request.set_start_after(after).into_paginator().send();
        let mut objects = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.failed("list", prefix, error.into()))?;
            objects.extend(page.contents.unwrap_or_default().into_iter().filter_map(|listed| self.object(listed)));
        }
        Ok(objects)
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        key::check_folder(prefix)?;
        let whole = self.key(prefix);
        let request = self.client.list_objects_v2().bucket(&self.name).prefix(&whole).delimiter("/");
        let mut pages = request.into_paginator().send();
        let mut names = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.failed("list", prefix, error.into()))?;
            let found = page.common_prefixes.unwrap_or_default().into_iter().filter_map(|folder| folder.prefix);
            names.extend(found.filter_map(|folder| Some(folder.strip_prefix(&whole)?.strip_suffix('/')?.to_owned())));
        }
        // Other programs may have objects whose keys are none of a store.
        names.retain(|name| key::check(name).is_ok());
        // S3 orders `a-b/` before `a/`.
        names.sort_unstable();
        Ok(names)
    }

    fn object(&self, listed: Listed) -> Option<Object> {
        let key = listed.key?.strip_prefix(&self.prefix)?.to_owned();
        // Folders created in the AWS console are objects whose keys end with a slash.
        key::check(&key).ok()?;
        let stored = listed.last_modified.and_then(|time| SystemTime::try_from(time).ok());
        let size = listed.size.and_then(|size| size.try_into().ok()).unwrap_or(0);
        Some(Object { key, size, stored: stored.unwrap_or(SystemTime::UNIX_EPOCH) })
    }

    #[cfg(cloudknot_worker)]
    fn host_only(&self, verb: &str, key: &str) -> StoreError {
        self.failed(verb, key, Fault::other("workers are built without this operation"))
    }

    fn describe(&self) -> String {
        format!("s3://{}/{}", self.name, self.prefix.trim_end_matches('/'))
    }

    /// Returns the key in the bucket.
    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn failed(&self, verb: &str, key: &str, fault: Fault) -> StoreError {
        fault.into_error(verb, &format!("`{key}` in `{}`", self.describe()))
    }
}
