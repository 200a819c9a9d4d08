//! A selection of a run's items.

use std::ops::RangeInclusive;

use cloudknot_runtime::failure::ItemErrorKind;

use crate::error::{Error, ErrorKind, Result};
use crate::failures::ranges;
use crate::record::SettledOutcome;
use crate::record::ledger::Ledger;

/// Selection of a run's items: all, some by their numbers, or those that failed. Selections narrow each other down.
///
/// ```
/// use cloudknot::look::Items;
///
/// let failed = Items::all().within([3..=3, 8..=10]).failed();
/// assert!(!failed.is_all());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Items {
    ranges: Option<Vec<RangeInclusive<u64>>>,
    failed: bool,
    kind: Option<ItemErrorKind>,
}

impl Items {
    /// Selects all items.
    pub fn all() -> Self {
        Self::default()
    }

    /// Selects only items in these ranges.
    #[must_use]
    pub fn within(mut self, ranges: impl IntoIterator<Item = RangeInclusive<u64>>) -> Self {
        self.ranges = Some(merged(ranges));
        self
    }

    /// Selects only items whose last attempt failed, and that have no value.
    #[must_use]
    pub fn failed(mut self) -> Self {
        self.failed = true;
        self
    }

    /// Selects only items whose last attempt failed in this way.
    #[must_use]
    pub fn kind(mut self, kind: ItemErrorKind) -> Self {
        self.kind = Some(kind);
        self.failed()
    }

    /// Returns whether all items are selected.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the selected items of a run, as ranges in order.
    ///
    /// # Errors
    /// `Config` if the run has fewer items.
    pub(super) fn of(&self, ledger: &Ledger) -> Result<Vec<RangeInclusive<u64>>> {
        let count = ledger.record.manifest.items;
        let beyond = self.ranges.iter().flatten().find(|range| *range.end() >= count);
        if let Some(range) = beyond {
            let item = count.max(*range.start());
            let run = &ledger.record.manifest.run;
            let message = format!("cannot select item {item}: the run {run} has {count} items, which begin with 0");
            return Err(
                Error::new(ErrorKind::Config, message).with_hint("`cargo knot status` shows the items of a run")
            );
        }
        let all = if count == 0 { Vec::new() } else { vec![0..=count - 1] };
        let within = self.ranges.clone().unwrap_or(all);
        if !self.failed {
            return Ok(within);
        }
        let mut failed: Vec<u64> =
            ledger.all_settled().iter().filter_map(|settled| self.failed_item(settled)).collect();
        failed.retain(|item| !ledger.has_value(*item) && contains(&within, *item));
        failed.sort_unstable();
        failed.dedup();
        Ok(ranges(failed))
    }

    fn failed_item(&self, settled: &SettledOutcome) -> Option<u64> {
        match settled {
            SettledOutcome::Failure(failure) if self.kind.is_none_or(|kind| failure.cause.kind == kind) => {
                Some(failure.item)
            }
            _ => None,
        }
    }
}

/// Returns whether an item is in one of these ranges, which are in order.
pub(super) fn contains(ranges: &[RangeInclusive<u64>], item: u64) -> bool {
    let next = ranges.partition_point(|range| *range.end() < item);
    ranges.get(next).is_some_and(|range| range.contains(&item))
}

/// Returns the ranges in order, without empty ones, and joins those that overlap or follow each other.
fn merged(ranges: impl IntoIterator<Item = RangeInclusive<u64>>) -> Vec<RangeInclusive<u64>> {
    let mut sorted: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
    sorted.sort_unstable_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<u64>> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if *range.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "an empty range selects nothing")]
    fn ranges_are_merged_in_order() {
        assert_eq!(merged([8..=10, 3..=3, 4..=5, 9..=12, 2..=1]), [3..=5, 8..=12]);
        assert_eq!(merged([5..=u64::MAX, u64::MAX..=u64::MAX, 0..=0]), [0..=0, 5..=u64::MAX]);
    }

    #[test]
    fn items_are_found_in_ranges() {
        let ranges = [3..=5, 8..=12];
        let found: Vec<u64> = (0..20).filter(|item| contains(&ranges, *item)).collect();
        assert_eq!(found, [3, 4, 5, 8, 9, 10, 11, 12]);
        assert!(!contains(&[], 0));
    }
}
