//! Reads the tables at the ends of a run's parts: the measurements of its items, without their values.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use cloudknot_runtime::contract::{Part, PartEnd};
use cloudknot_runtime::engine;
use cloudknot_runtime::measurements::Measurements;
use cloudknot_runtime::store::{Object, Store};

use crate::error::Result;
use crate::failures::ranges;
use crate::record::SettledOutcome;
use crate::record::ledger::{Bits, Ledger};

/// A part, and its items whose values are used: those that no part which was stored before contains.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Winner {
    pub(crate) part: Part,
    pub(crate) items: Vec<RangeInclusive<u64>>,
}

impl Winner {
    /// Returns the measurements of the items whose values are used.
    pub(crate) fn rows<'a>(&'a self, end: &'a PartEnd) -> impl Iterator<Item = (u64, Measurements)> + 'a {
        let items = (self.part.first..=self.part.last).zip(&end.rows);
        let is_used = |item: u64| self.items.iter().any(|range| range.contains(&item));
        items.filter(move |(item, _)| is_used(*item)).map(|(item, row)| (item, *row))
    }
}

/// Returns the parts with a value that is used, in the order of their items.
pub(crate) fn winning(ledger: &Ledger) -> Vec<Winner> {
    let mut taken = Bits::new(ledger.record.manifest.items);
    let mut winners = Vec::new();
    for settled in ledger.all_settled() {
        let SettledOutcome::Values(part) = settled else { continue };
        let items = ranges((part.first..=part.last).filter(|item| !taken.get(*item)));
        items.iter().cloned().flatten().for_each(|item| taken.set(item));
        if !items.is_empty() {
            winners.push(Winner { part, items });
        }
    }
    winners.sort_unstable_by_key(|winner| (winner.part.first, winner.part.last));
    winners
}

/// Reads the ends of parts, and gives each to `take` with its part; the reason if it cannot be parsed. `objects` is a listing of the
/// run, which has their sizes.
pub(crate) async fn read(
    ledger: &Ledger,
    objects: &[Object],
    winners: &[Winner],
    mut take: impl FnMut(&Winner, Result<PartEnd, String>),
) -> Result<()> {
    let sizes: HashMap<&str, u64> = objects.iter().map(|object| (object.key.as_str(), object.size)).collect();
    let store = &ledger.record.store;
    for batch in winners.chunks(store.parallel_reads().max(1)) {
        let reads: Vec<_> = batch
            .iter()
            .map(|winner| {
                let (store, key, part) = (Arc::clone(store), ledger.record.keys.part(winner.part), winner.part);
                let size = sizes.get(key.as_str()).copied().unwrap_or_default();
                engine::spawn(async move { read_end(&*store, &key, part, size).await })
            })
            .collect();
        for (winner, read) in batch.iter().zip(reads) {
            take(winner, read.await.expect("reading a part does not panic")?);
        }
    }
    Ok(())
}

async fn read_end(store: &dyn Store, key: &str, part: Part, size: u64) -> Result<Result<PartEnd, String>> {
    let bytes = store.get_range(key, size.saturating_sub(PartEnd::max_len(part))..size).await?;
    Ok(PartEnd::parse(part, &bytes))
}
