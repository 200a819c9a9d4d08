//! Downloads objects from S3. Handles responses that break off in the middle.

use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use bytes::Bytes;

use super::error::Fault;
use super::{Bucket, Result};
use crate::store::{StoreErrorKind, key};

/// Maximum number of retries of a response that breaks off. The SDK retries a request only until its response begins.
const MAX_BODY_RETRIES: u32 = 4;

/// Maximum end of a requested range (1 PiB). No object is larger, and not every server can parse a larger number.
const MAX_RANGE_END: u64 = 1 << 50;

/// Body of a response.
enum Body {
    Whole(Bytes),
    Broken(Fault),
}

impl Bucket {
    pub(super) async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        key::check(key)?;
        match self.read(key, None).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(fault) if fault.kind() == StoreErrorKind::Missing => Ok(None),
            Err(fault) => Err(self.failed("read", key, fault)),
        }
    }

    pub(super) async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        key::check(key)?;
        let read = if range.start < range.end && range.end <= MAX_RANGE_END {
            self.read(key, Some(&range)).await
        } else {
            // A range header cannot express an empty range.
            self.empty_range(key, &range).await
        };
        read.map_err(|fault| self.failed(&format!("read bytes {} to {} of", range.start, range.end), key, fault))
    }

    pub(super) async fn size(&self, key: &str) -> Result<Option<u64>> {
        key::check(key)?;
        let size = match self.head(key).await {
            // The response to a HEAD has no body, so it does not distinguish a missing object from a missing bucket, for example.
            Err(fault) if fault.is_refusal() => match self.read(key, Some(&(0..1))).await {
                Ok(_) => self.head(key).await,
                Err(fault) => Err(fault),
            },
            size => size,
        };
        match size {
            Ok(size) => Ok(Some(size)),
            Err(fault) if fault.kind() == StoreErrorKind::Missing => Ok(None),
            Err(fault) => Err(self.failed("read", key, fault)),
        }
    }

    /// Returns the size of an existing object.
    pub(super) async fn head(&self, key: &str) -> std::result::Result<u64, Fault> {
        let head = self.client.head_object().bucket(&self.name).key(self.key(key)).send().await?;
        Ok(length(head.content_length))
    }

    async fn empty_range(&self, key: &str, range: &Range<u64>) -> std::result::Result<Bytes, Fault> {
        let size = self.head(key).await?;
        if range.start > range.end || range.end > size { Err(Fault::short(size)) } else { Ok(Bytes::new()) }
    }

    async fn read(&self, key: &str, range: Option<&Range<u64>>) -> std::result::Result<Bytes, Fault> {
        let header = range.map(|range| format!("bytes={}-{}", range.start, range.end - 1));
        let mut retries = 0;
        loop {
            let request = self.client.get_object().bucket(&self.name).key(self.key(key));
            let response = request.set_range(header.clone()).send().await?;
            match body(response, range).await? {
                Body::Whole(bytes) => return Ok(bytes),
                Body::Broken(fault) if retries == MAX_BODY_RETRIES => return Err(fault),
                Body::Broken(_) => {
                    tokio::time::sleep(Duration::from_millis(100 << retries)).await;
                    retries += 1;
                }
            }
        }
    }
}

async fn body(mut response: GetObjectOutput, range: Option<&Range<u64>>) -> std::result::Result<Body, Fault> {
    let length = length(response.content_length);
    // Checked before allocating. S3 truncates a range that extends past the end of the object.
    match range.map(|range| range.end - range.start) {
        Some(requested) if length < requested => {
            return Err(Fault::short(range.map_or(0, |range| range.start) + length));
        }
        Some(requested) if length > requested => return Err(Fault::other("the server sent more bytes than requested")),
        _ => {}
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(length).unwrap_or(usize::MAX)).map_err(Fault::other)?;
    loop {
        match response.body.try_next().await {
            Ok(Some(piece)) => bytes.extend_from_slice(&piece),
            Ok(None) => break,
            Err(error) => return Ok(Body::Broken(Fault::unavailable(error))),
        }
    }
    if bytes.len() as u64 == length {
        return Ok(Body::Whole(bytes.into()));
    }
    Ok(Body::Broken(Fault::unavailable(format!("the response ended after {} of {length} bytes", bytes.len()))))
}

fn length(length: Option<i64>) -> u64 {
    length.and_then(|length| length.try_into().ok()).unwrap_or(0)
}
