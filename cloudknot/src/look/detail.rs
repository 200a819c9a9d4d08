//! Details of one run: its summary, speed, measurements and failures.

use std::time::{Duration, SystemTime};

use cloudknot_runtime::contract::{Part, RunState};

use super::failures;
use super::measured::{self, Measured};
use super::open::{Opened, OpenedRecord};
use super::summary::Summary;
use crate::backend::Activity;
use crate::error::Result;
use crate::failures::FailureGroup;
use crate::record::Record;

/// Period whose outcomes determine the rate of a run.
const RATE_PERIOD: Duration = Duration::from_mins(5);
/// Maximum length in bytes of the reason of a cancellation.
const MAX_REASON_LEN: u64 = 4096;

/// Details of a run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Details {
    /// The summary, as in a list.
    pub summary: Summary,
    /// Name of the user who submitted the run, if it is known.
    pub user: Option<String>,
    /// Values stored per second, if the run goes on.
    pub rate: Option<f64>,
    /// Estimated time until the end, by this rate.
    pub left: Option<Duration>,
    /// Measurements of items with a value.
    pub measured: Measured,
    /// Memory in bytes that a job of the last round asks for.
    pub memory_asked: Option<u64>,
    /// Items whose last attempt failed, by cause, those with the most items first. The first 20 have a message.
    pub failures: Vec<FailureGroup>,
    /// Reason why no item is running, if it is known.
    pub waiting_because: Option<String>,
    /// Reason of the cancellation, if one was given.
    pub cancelled_because: Option<String>,
}

pub(super) async fn read(opened: &Opened, summary: Summary, exact: bool) -> Result<Details> {
    let record = opened.readable()?;
    let manifest = &record.ledger.record.manifest;
    let memory_mib = record.ledger.record.resources().memory_mib;
    let waiting_because = match &record.activity {
        Some(Activity::Abandoned(why)) => Some(why.clone()),
        Some(Activity::Computed { waiting_because, .. }) => waiting_because.clone(),
        _ => None,
    };
    let rate = if summary.state == Some(RunState::Running) { rate(opened, record, SystemTime::now()) } else { None };
    let open = summary.items.running + summary.items.waiting;
    // An item count is far below 2^52.
    #[allow(clippy::cast_precision_loss)]
    let left = rate.and_then(|rate| Duration::try_from_secs_f64(open as f64 / rate).ok());
    Ok(Details {
        user: manifest.provenance.submitter.user.clone(),
        rate,
        left,
        measured: measured::read(&record.ledger, &opened.listing, exact).await?,
        memory_asked: memory_mib.filter(|_| manifest.backend != "local").map(|mib| mib << 20),
        failures: failures::read(&record.ledger).await?,
        waiting_because,
        cancelled_because: cancelled_because(opened, record).await?,
        summary,
    })
}

/// Returns the number of values that were stored per second recently; `None` if there were none.
fn rate(opened: &Opened, record: &OpenedRecord, now: SystemTime) -> Option<f64> {
    let Record { scheduled, .. } = &record.ledger.record;
    let began = super::summary::time(scheduled.recorded_ms);
    let period = now.duration_since(began).ok()?.min(RATE_PERIOD).max(Duration::from_secs(1));
    let since = now.checked_sub(period)?;
    let recent = opened.listing.objects.iter().filter(|object| object.stored >= since);
    let parts = recent.filter_map(|object| cloudknot_runtime::contract::part_of(&object.key));
    let values = parts.map(|Part { first, last }| last - first + 1).fold(0, u64::saturating_add);
    #[allow(clippy::cast_precision_loss)]
    let rate = values as f64 / period.as_secs_f64();
    (values > 0).then_some(rate)
}

async fn cancelled_because(opened: &Opened, record: &OpenedRecord) -> Result<Option<String>> {
    let Record { store, round, .. } = &record.ledger.record;
    let given = opened.listing.cancellation(*round).filter(|object| object.size > 0);
    let Some(object) = given.filter(|_| record.state == RunState::Cancelled) else { return Ok(None) };
    let bytes = store.get_range(&object.key, 0..object.size.min(MAX_REASON_LEN)).await?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}
