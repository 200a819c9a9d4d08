//! Reads inputs of a run from its store: frames one after another, whose offsets follow if they differ in length.

use std::ops::Range;

use bytes::Bytes;

use crate::codec::CodecError;
use crate::contract::InputLayout;
use crate::store::{Store, StoreError};

/// Maximum number of inputs of one read.
const MAX_PER_READ: u64 = 1 << 16;

/// Reason why inputs cannot be read.
#[derive(Debug)]
pub enum InputsError {
    /// The store cannot be read.
    Store(StoreError),
    /// The object is damaged.
    Damaged(CodecError),
}

impl From<StoreError> for InputsError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Reads the inputs of the first items of a range that is not empty: at least one, and no more than have `limit` bytes together.
/// Returns their frames, and the index of the item after them.
///
/// # Errors
/// See [`InputsError`].
pub async fn read(
    store: &dyn Store,
    key: &str,
    layout: InputLayout,
    range: &Range<u64>,
    limit: u64,
) -> Result<(Vec<Bytes>, u64), InputsError> {
    let most = MAX_PER_READ.min(range.end - range.start);
    let bounds: Vec<u64> = match layout {
        InputLayout::Uniform(size) => {
            let count = (limit / size.max(1)).clamp(1, most);
            (range.start..=range.start + count).map(|item| item * size).collect()
        }
        InputLayout::Offsets(at) => {
            let offsets = at + range.start * 8..at + (range.start + most + 1) * 8;
            let bytes = store.get_range(key, offsets).await?;
            let mut bounds: Vec<u64> = bytes
                .chunks_exact(8)
                .map(|offset| u64::from_le_bytes(offset.try_into().expect("the chunk has eight bytes")))
                .collect();
            let within = bounds.partition_point(|&bound| bound.saturating_sub(bounds[0]) <= limit);
            bounds.truncate(within.max(2));
            bounds
        }
    };
    let damaged =
        || InputsError::Damaged(CodecError::damaged(format!("the offsets of `{key}` in {}", store.describe())));
    let (Some(&first), Some(&last)) = (bounds.first(), bounds.last()) else { return Err(damaged()) };
    if bounds.len() < 2 || !bounds.is_sorted() {
        return Err(damaged());
    }
    let bytes = store.get_range(key, first..last).await?;
    let cut = |bounds: &[u64]| {
        let at = |bound: u64| usize::try_from(bound - first).expect("the offset is within the bytes in memory");
        bytes.slice(at(bounds[0])..at(bounds[1]))
    };
    Ok((bounds.windows(2).map(cut).collect(), range.start + bounds.len() as u64 - 1))
}
