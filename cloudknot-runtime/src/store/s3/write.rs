//! Uploads an object to S3 piece by piece: in one request if it is small, else as a multipart upload, a few parts at a time.

use std::sync::Arc;

use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::error::Fault;
use super::{Bucket, config};
use crate::store::{BoxFuture, Result, Writer, key};

/// Size of the first parts in bytes. S3 accepts no part below 5 MiB except the last.
const FIRST_PART_SIZE: usize = 8 * 1024 * 1024;
/// Number of parts after which their size doubles: 10,000 parts, S3's maximum, then hold 8 TiB.
const DOUBLE_AFTER: usize = 1_000;
/// Maximum number of parts that are uploaded at once. Each of them is in memory.
const MAX_CONCURRENT_PARTS: usize = 3;

/// Writer of an object that is written piece by piece.
pub(super) struct S3Writer {
    bucket: Arc<Bucket>,
    key: String,
    /// Bytes that do not fill a part yet.
    rest: BytesMut,
    /// Multipart upload, started when the first part is full.
    upload: Option<Upload>,
}

/// A multipart upload, aborted if dropped before it is complete.
struct Upload {
    bucket: Arc<Bucket>,
    key: String,
    id: String,
    in_flight: JoinSet<std::result::Result<CompletedPart, Fault>>,
    sent: Vec<CompletedPart>,
    /// Number of parts whose upload was started.
    parts: usize,
    bytes: u64,
    complete: bool,
}

impl S3Writer {
    pub(super) fn open(bucket: &Arc<Bucket>, key: &str) -> Result<Self> {
        key::check(key)?;
        Ok(Self { bucket: Arc::clone(bucket), key: key.to_owned(), rest: BytesMut::new(), upload: None })
    }

    async fn append(&mut self, mut bytes: Bytes) -> std::result::Result<(), Fault> {
        while !bytes.is_empty() {
            let room = part_size(self.upload.as_ref().map_or(0, |upload| upload.parts)) - self.rest.len();
            let piece = bytes.split_to(room.min(bytes.len()));
            let full = piece.len() == room;
            if full && self.rest.is_empty() {
                self.send(piece).await?;
                continue;
            }
            self.rest.extend_from_slice(&piece);
            if full {
                let part = self.rest.split().freeze();
                self.send(part).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, part: Bytes) -> std::result::Result<(), Fault> {
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => none.insert(Upload::begin(&self.bucket, &self.key).await?),
        };
        upload.send(part).await
    }

    async fn publish(mut self) -> std::result::Result<(), Fault> {
        let rest = std::mem::take(&mut self.rest).freeze();
        let Some(mut upload) = self.upload.take() else {
            return self.bucket.upload(&self.key, rest, false).await;
        };
        if !rest.is_empty() {
            upload.send(rest).await?;
        }
        upload.finish().await
    }
}

impl Upload {
    async fn begin(bucket: &Arc<Bucket>, key: &str) -> std::result::Result<Self, Fault> {
        let request = bucket.client.create_multipart_upload().bucket(&bucket.name).key(bucket.key(key));
        let response = request.checksum_algorithm(ChecksumAlgorithm::Crc32).send().await?;
        Ok(Self {
            bucket: Arc::clone(bucket),
            key: key.to_owned(),
            id: response.upload_id.unwrap_or_default(),
            in_flight: JoinSet::new(),
            sent: Vec::new(),
            parts: 0,
            bytes: 0,
            complete: false,
        })
    }

    async fn send(&mut self, part: Bytes) -> std::result::Result<(), Fault> {
        while self.in_flight.len() >= MAX_CONCURRENT_PARTS {
            self.join_one().await?;
        }
        self.parts += 1;
        self.bytes += part.len() as u64;
        let number = i32::try_from(self.parts).map_err(Fault::other)?;
        let (bucket, key, id) = (Arc::clone(&self.bucket), self.bucket.key(&self.key), self.id.clone());
        self.in_flight.spawn(async move {
            let timeout = config::upload_timeout(part.len());
            let request = bucket.client.upload_part().bucket(&bucket.name).key(key).upload_id(id).part_number(number);
            let request = request.checksum_algorithm(ChecksumAlgorithm::Crc32).body(part.into());
            let response = request.customize().config_override(timeout).send().await?;
            let sent = CompletedPart::builder().part_number(number).set_e_tag(response.e_tag);
            Ok(sent.set_checksum_crc32(response.checksum_crc32).build())
        });
        Ok(())
    }

    /// Waits for one of the parts that are being uploaded. Returns whether there was one.
    async fn join_one(&mut self) -> std::result::Result<bool, Fault> {
        let Some(sent) = self.in_flight.join_next().await else { return Ok(false) };
        self.sent.push(sent.map_err(Fault::other)??);
        Ok(true)
    }

    async fn finish(mut self) -> std::result::Result<(), Fault> {
        while self.join_one().await? {}
        self.sent.sort_unstable_by_key(|part| part.part_number);
        let parts = CompletedMultipartUpload::builder().set_parts(Some(std::mem::take(&mut self.sent))).build();
        let bucket = &self.bucket;
        let request = bucket.client.complete_multipart_upload().bucket(&bucket.name).key(bucket.key(&self.key));
        let request = request.upload_id(&self.id).multipart_upload(parts);
        // S3 assembles the parts before it responds, which takes long for many parts.
        let timeout = config::upload_timeout(usize::try_from(self.bytes / 8).unwrap_or(usize::MAX));
        match request.customize().config_override(timeout).send().await {
            Ok(_) => self.complete = true,
            Err(error) => {
                let fault = Fault::from(error);
                // An earlier request whose response was lost has completed the upload.
                self.complete =
                    fault.is_no_upload() && bucket.head(&self.key).await.is_ok_and(|size| size == self.bytes);
                if !self.complete {
                    return Err(fault);
                }
            }
        }
        Ok(())
    }
}

impl Drop for Upload {
    /// Aborts an incomplete upload, because S3 charges for its parts. If the program ends first, they remain until the
    /// bucket's rule for incomplete uploads removes them.
    fn drop(&mut self) {
        let Ok(runtime) = Handle::try_current() else { return };
        if self.complete {
            return;
        }
        let (bucket, key, id) = (Arc::clone(&self.bucket), self.bucket.key(&self.key), self.id.clone());
        let mut in_flight = std::mem::take(&mut self.in_flight);
        runtime.spawn(async move {
            // A part that arrives after the abort would remain.
            in_flight.shutdown().await;
            let request = bucket.client.abort_multipart_upload().bucket(&bucket.name).key(key).upload_id(id);
            if let Err(error) = request.send().await {
                tracing::debug!(%error, "cannot abort an upload in parts");
            }
        });
    }
}

impl Writer for S3Writer {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let result = self.append(bytes).await;
            result.map_err(|fault| self.bucket.failed("write", &self.key, fault))
        })
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let (bucket, key) = (Arc::clone(&self.bucket), self.key.clone());
            self.publish().await.map_err(|fault| bucket.failed("write", &key, fault))
        })
    }
}

/// Returns the size of the part that follows this number of parts.
fn part_size(parts: usize) -> usize {
    FIRST_PART_SIZE << (parts / DOUBLE_AFTER).min(9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_sizes_fit_the_s3_limits() {
        const TIB: usize = 1 << 40;
        const GIB: usize = 1 << 30;
        assert_eq!(part_size(0), FIRST_PART_SIZE);
        assert!((0..10_000).map(part_size).sum::<usize>() > 5 * TIB);
        assert!((0..20_000).map(part_size).max() < Some(5 * GIB));
    }
}
