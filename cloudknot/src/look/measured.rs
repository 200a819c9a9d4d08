//! Measurements of a run's items, from the tables of its parts: their times and memory. Reads the ends of parts, never values.

use std::time::Duration;

use cloudknot_runtime::measurements::Measurements;

use super::listing::Listing;
use crate::error::Result;
use crate::record::ledger::Ledger;
use crate::record::tables;

/// Maximum number of parts whose tables are read, unless all of them are requested.
const MAX_PARTS: usize = 200;

/// Distribution of a quantity over items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Distribution<T> {
    /// Half of the items have at most this.
    pub median: T,
    /// 95 % of the items have at most this.
    pub p95: T,
    /// Maximum.
    pub max: T,
    /// Item that has the maximum; the first of several.
    pub max_item: u64,
}

/// Measurements of items that have a value. Items that failed are not included: one that ran out of memory needed more than these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Measured {
    /// Number of items whose measurements were read.
    pub items: u64,
    /// Time in the function; `None` without items.
    pub time: Option<Distribution<Duration>>,
    /// Peak memory in bytes, of the items for which it is known; `None` without such items.
    pub memory: Option<Distribution<u64>>,
    /// Number of items whose peak memory is only an upper bound: that of an earlier item of the same process.
    pub bounded: u64,
    /// Number of items whose peak memory is unknown.
    pub unknown: u64,
    /// Number of parts whose table is damaged, or was written by another version of cloudknot.
    pub unreadable: u64,
}

/// Reads the tables of a run's parts: all of them, or at most [`MAX_PARTS`] that are spread evenly.
pub(super) async fn read(ledger: &Ledger, listing: &Listing, exact: bool) -> Result<Measured> {
    let winning = tables::winning(ledger);
    let chosen = if exact { winning } else { spread(winning, MAX_PARTS) };
    let mut rows = Vec::new();
    let mut unreadable = 0;
    tables::read(ledger, &listing.objects, &chosen, |winner, end| match end {
        Ok(end) => rows.extend(winner.rows(&end)),
        Err(_) => unreadable += 1,
    })
    .await?;
    Ok(Measured { unreadable, ..Measured::of(&rows) })
}

/// Returns at most this number of elements, spread evenly.
fn spread<T>(all: Vec<T>, most: usize) -> Vec<T> {
    let count = all.len();
    if count <= most {
        return all;
    }
    let mut all = all.into_iter();
    let mut taken = 0;
    let positions = (0..most).map(|chosen| chosen * count / most);
    positions
        .filter_map(|position| {
            let element = all.nth(position - taken);
            taken = position + 1;
            element
        })
        .collect()
}

impl Measured {
    fn of(rows: &[(u64, Measurements)]) -> Self {
        let count =
            |is_counted: fn(&Measurements) -> bool| rows.iter().filter(|(_, row)| is_counted(row)).count() as u64;
        Self {
            items: rows.len() as u64,
            time: Distribution::of(rows.iter().map(|(item, row)| (row.duration, *item)).collect()),
            memory: Distribution::of(rows.iter().filter_map(|(item, row)| Some((row.peak_memory?, *item))).collect()),
            bounded: count(|row| row.peak_is_bound && row.peak_memory.is_some()),
            unknown: count(|row| row.peak_memory.is_none()),
            unreadable: 0,
        }
    }
}

impl<T: Ord + Copy> Distribution<T> {
    /// Returns the distribution of these amounts of items; `None` if there are none.
    fn of(mut amounts: Vec<(T, u64)>) -> Option<Self> {
        amounts.sort_unstable();
        let (max, _) = *amounts.last()?;
        let first = amounts.partition_point(|(amount, _)| *amount < max);
        let at_most = |percent: usize| amounts[(amounts.len() * percent).div_ceil(100) - 1].0;
        Some(Self { median: at_most(50), p95: at_most(95), max, max_item: amounts[first].1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distribution_names_the_item_with_the_maximum() {
        let of = |amounts: &[u64]| Distribution::of(amounts.iter().copied().zip(10..).collect());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[7]), Some(Distribution { median: 7, p95: 7, max: 7, max_item: 10 }));
        assert_eq!(of(&[5, 9, 1, 9]), Some(Distribution { median: 5, p95: 9, max: 9, max_item: 11 }));
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(of(&hundred), Some(Distribution { median: 50, p95: 95, max: 100, max_item: 109 }));
    }

    #[test]
    fn parts_are_chosen_evenly() {
        let spread = |count: usize, most: usize| spread((0..count).collect(), most);
        assert_eq!(spread(3, 5), [0, 1, 2]);
        assert_eq!(spread(10, 5), [0, 2, 4, 6, 8]);
        for count in [201, 399, 400, 10_000] {
            let chosen = spread(count, 200);
            assert_eq!((chosen.len(), chosen[0]), (200, 0), "of {count}");
            let steps = chosen.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(steps.clone().max().unwrap() - steps.min().unwrap() <= 1, "of {count}: {chosen:?}");
        }
    }
}
