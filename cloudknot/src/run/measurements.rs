//! The measurements of a run's items, from the tables of its parts and from its failures. Reads no values.

use std::sync::Arc;

use cloudknot_runtime::engine;
use cloudknot_runtime::failure::ItemError;
use cloudknot_runtime::measurements::{Machine, Measurements};

use super::Run;
use crate::error::Result;
use crate::pending::Pending;
use crate::record::ledger::Ledger;
use crate::record::{SettledOutcome, tables};

/// Measurements of the last attempt of an item, and the machine that it ran on. See [`Run::measurements`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MeasuredAttempt {
    /// Times and memory of the attempt.
    pub measurements: Measurements,
    /// Machine of the worker. Items of one part share it.
    pub machine: Arc<Machine>,
}

impl<T: Send + 'static> Run<T> {
    /// Returns the measurements of each item in the order of the inputs, once no more outcomes will come: those of the attempt that
    /// gave its value, or of the last one if all failed. `None` for an item of which no attempt is recorded: it did not run, or its
    /// record is damaged.
    ///
    /// Only the ends of the stored parts and the failures are read, not the values. Times are durations, starts are milliseconds
    /// since the run was submitted, and memory is in bytes: see [`Measurements`].
    ///
    /// ```
    /// # #[cloudknot::remote]
    /// # fn double(x: u32) -> u32 { 2 * x }
    /// let run = double.map([1, 2, 3]).submit().wait()?;
    /// for (item, measured) in run.measurements().wait()?.into_iter().enumerate() {
    ///     let Some(measured) = measured else { continue };
    ///     let (host, time) = (&measured.machine.host, measured.measurements.duration);
    ///     println!("item {item} took {time:?} on {host:?}, and {:?} bytes", measured.measurements.peak_memory);
    /// }
    /// # Ok::<(), cloudknot::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Store` if the store cannot be read.
    pub fn measurements(&self) -> Pending<Vec<Option<MeasuredAttempt>>> {
        let ledger = Arc::clone(&self.ledger);
        Pending::new(async move {
            ledger.finished().await;
            read(&ledger).await
        })
    }
}

async fn read(ledger: &Ledger) -> Result<Vec<Option<MeasuredAttempt>>> {
    let items = usize::try_from(ledger.record.manifest.items).expect("the measurements of all items fit into memory");
    let mut measured = vec![None; items];
    let mut put = |item: u64, attempt: MeasuredAttempt| {
        let item = usize::try_from(item).expect("the index of an item fits into memory");
        measured[item] = Some(attempt);
    };
    for (item, error) in failures(ledger).await? {
        if let (Some(measurements), Some(machine)) = (error.measurements(), error.machine()) {
            put(item, MeasuredAttempt { measurements: *measurements, machine: Arc::new(machine.clone()) });
        }
    }
    let objects = ledger.record.store.list(&ledger.record.keys.results(), None).await?;
    tables::read(ledger, &objects, &tables::winning(ledger), |winner, end| {
        let Ok(end) = end else { return };
        let machine = Arc::new(end.machine.clone());
        for (item, measurements) in winner.rows(&end) {
            put(item, MeasuredAttempt { measurements, machine: Arc::clone(&machine) });
        }
    })
    .await?;
    Ok(measured)
}

/// Reads the last failures of the items that have no value. One that cannot be read is left out.
async fn failures(ledger: &Ledger) -> Result<Vec<(u64, ItemError)>> {
    let is_failure = |settled| match settled {
        SettledOutcome::Failure(failure) if !ledger.has_value(failure.item) => Some(failure),
        _ => None,
    };
    let failures: Vec<_> = ledger.all_settled().into_iter().filter_map(is_failure).collect();
    let store = &ledger.record.store;
    let mut errors = Vec::with_capacity(failures.len());
    for batch in failures.chunks(store.parallel_reads().max(1)) {
        let reads: Vec<_> = batch
            .iter()
            .map(|failure| {
                let (store, key) = (Arc::clone(store), ledger.record.keys.failure(*failure));
                engine::spawn(async move { store.get(&key).await })
            })
            .collect();
        for (failure, read) in batch.iter().zip(reads) {
            let bytes = read.await.expect("reading a failure does not panic")?.unwrap_or_default();
            errors.extend(serde_json::from_slice(&bytes).ok().map(|error| (failure.item, error)));
        }
    }
    Ok(errors)
}
