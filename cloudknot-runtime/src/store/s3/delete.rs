//! Deletes objects from S3, many in one request.

use aws_sdk_s3::types::{Delete, ObjectIdentifier};

use super::error::Fault;
use super::{Bucket, Result};
use crate::store::key;

/// Maximum number of keys in one request.
const MAX_KEYS_PER_REQUEST: usize = 1_000;

impl Bucket {
    pub(super) async fn delete(&self, keys: &[String]) -> Result<()> {
        keys.iter().try_for_each(|key| key::check(key))?;
        for keys in keys.chunks(MAX_KEYS_PER_REQUEST) {
            let failed = |fault| self.failed("delete", &keys[0], fault);
            let identifier = |key: &String| ObjectIdentifier::builder().key(self.key(key)).build();
            let objects = keys.iter().map(identifier).collect::<std::result::Result<_, _>>();
            let objects = objects.and_then(|objects| Delete::builder().set_objects(Some(objects)).quiet(true).build());
            let objects = objects.map_err(|error| failed(Fault::other(error)))?;
            let response = self.client.delete_objects().bucket(&self.name).delete(objects).send().await;
            let errors = response.map_err(|error| failed(error.into()))?.errors.unwrap_or_default();
            if let Some(first) = errors.first() {
                let key = first.key().and_then(|key| key.strip_prefix(&self.prefix)).unwrap_or(&keys[0]);
                return Err(self.failed("delete", key, Fault::of_key(first, errors.len())));
            }
        }
        Ok(())
    }
}
