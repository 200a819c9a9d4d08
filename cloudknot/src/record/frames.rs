//! The frames of a stored part, one by one, and the errors of outcomes that cannot be read.

use bytes::Bytes;
use cloudknot_runtime::contract::{Part, PartEnd};
use cloudknot_runtime::failure::{Failure, ItemError, ItemErrorKind};
use cloudknot_runtime::frame::frame_length;
use cloudknot_runtime::store::StoreError;

use crate::error::Error;
use crate::record::{Record, SettledOutcome};

/// The frames of a part.
pub(crate) struct PartFrames {
    part: Part,
    next: u64,
    /// The remaining frames, or the error message for frames that cannot be read.
    frames: Result<Bytes, String>,
}

impl PartFrames {
    /// Creates the frames from the bytes of a part. Each frame is verified by itself, so that the values before a damaged end can be
    /// read.
    pub(crate) fn new(part: Part, bytes: Result<Bytes, String>) -> Self {
        let frames = bytes.map(|bytes| match PartEnd::frames_len(part, &bytes) {
            Ok(len) => bytes.slice(..len),
            Err(_) => bytes,
        });
        Self { part, next: part.first, frames }
    }

    /// Returns the next item, with its frame or the reason why that cannot be read; `None` after the last one.
    pub(crate) fn next(&mut self, record: &Record) -> Option<(u64, Result<Bytes, String>)> {
        let item = (self.next <= self.part.last).then_some(self.next)?;
        self.next += 1;
        Some((item, self.next_frame(record)))
    }

    /// Cuts off the next frame. If that fails, the rest of the part is lost as well.
    fn next_frame(&mut self, record: &Record) -> Result<Bytes, String> {
        let frames = self.frames.as_mut().map_err(|why| why.clone())?;
        let length = frame_length(frames).map_err(|error| error.to_string());
        let cut = length.and_then(|length| match usize::try_from(length) {
            Ok(length) if length <= frames.len() => Ok(frames.split_to(length)),
            _ => Err(format!("the object is truncated: {} of {length} bytes remain", frames.len())),
        });
        let cut = cut.map_err(|why| damaged_outcome(record, SettledOutcome::Values(self.part), &why));
        if let Err(why) = &cut {
            self.frames = Err(why.clone());
        }
        cut
    }
}

/// Returns the bytes of a settled outcome, or the reason why they cannot be read.
pub(crate) fn bytes_of(
    record: &Record,
    settled: SettledOutcome,
    read: Result<Option<Bytes>, StoreError>,
) -> Result<Bytes, String> {
    match read {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(damaged_outcome(record, settled, "the object was deleted")),
        Err(error) => Err(format!("{}; attach to the run again to read it", Error::from(error).in_one_line())),
    }
}

/// Returns the error of the item whose last attempt failed, from the bytes of its failure.
pub(crate) fn failure_of(record: &Record, settled: SettledOutcome, bytes: Result<Bytes, String>) -> ItemError {
    let damaged = |error: serde_json::Error| damaged_outcome(record, settled, &error.to_string());
    let read = bytes.and_then(|bytes| serde_json::from_slice(&bytes).map_err(damaged));
    read.unwrap_or_else(without_outcome)
}

/// Error message for an outcome that cannot be decoded.
pub(crate) fn damaged_outcome(record: &Record, settled: SettledOutcome, why: &str) -> String {
    format!(
        "cannot read `{}` in {}: {why}; delete the object and attach to the run again to compute its items again",
        record.key_of(settled),
        record.store.describe()
    )
}

/// Returns the error of an item whose outcome may exist but cannot be read.
pub(crate) fn without_outcome(why: String) -> ItemError {
    ItemError::new(Failure::new(ItemErrorKind::Infrastructure, why), 0)
}
