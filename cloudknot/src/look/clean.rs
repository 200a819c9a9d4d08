//! Deletes runs that have ended. A deletion that is interrupted leaves a folder without a manifest, which is no run, and which the
//! next deletion finds.

use std::time::{Duration, SystemTime};

use cloudknot_runtime::contract::{MAX_ITEMS_WITHOUT_INPUTS, RunState, index_of};
use cloudknot_runtime::engine;

use super::find::{self, Found};
use super::listing::Listing;
use super::open::{self, Opened};
use super::summary::Summary;
use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};

/// Age from which a folder without a manifest is taken for the rest of a submission that was ended.
const LEFTOVER_AGE: Duration = Duration::from_hours(1);
/// Age from which a run is taken to have ended if its record cannot be read.
const UNREADABLE_AGE: Duration = Duration::from_hours(24);
/// Maximum number of runs that are looked at concurrently.
const MAX_AT_ONCE: usize = 16;

/// Selection of runs to delete.
///
/// ```
/// use std::time::Duration;
///
/// use cloudknot::look::{Removals, Runs};
///
/// let old = Removals::default().older_than(Duration::from_hours(30 * 24)).keep(20);
/// # let runs = Runs::in_folder("/no/such/folder");
/// for removal in runs.removals(old).wait()? {
///     println!("{}: {} bytes", removal.summary.run, removal.bytes);
///     removal.delete().wait()?;
/// }
/// # Ok::<(), cloudknot::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Removals {
    named: Vec<String>,
    older_than: Option<Duration>,
    keep: usize,
    inputs_only: bool,
}

impl Removals {
    /// Selects this run, as [`Runs::find`](super::Runs::find) does. If runs are named, only these are selected.
    #[must_use]
    pub fn run(mut self, run: impl Into<String>) -> Self {
        self.named.push(run.into());
        self
    }

    /// Selects only runs that were submitted at least this time ago.
    #[must_use]
    pub fn older_than(mut self, age: Duration) -> Self {
        self.older_than = Some(age);
        self
    }

    /// Keeps this number of runs, the newest ones.
    #[must_use]
    pub fn keep(mut self, newest: usize) -> Self {
        self.keep = newest;
        self
    }

    /// Deletes only the inputs. Such a run can be read, but not retried. Selects only runs whose items all have a value.
    #[must_use]
    pub fn inputs_only(mut self) -> Self {
        self.inputs_only = true;
        self
    }

    /// Returns why a run is kept, although it was named or is old enough.
    async fn kept_because(&self, opened: &Opened) -> Result<Option<String>> {
        let is_named = !self.named.is_empty();
        let is_on_aws = opened.found.backend.executor().region().is_some();
        if opened.goes_on().await? {
            return Ok(Some("it has not ended: cancel it first".into()));
        }
        let record = match &opened.record {
            Ok(record) => record,
            Err(problem) if self.inputs_only => return Ok(Some(problem.clone())),
            // In a folder, the lock shows that nothing computes the run.
            Err(_)
                if !is_named && is_on_aws && opened.listing.newest().is_some_and(is_younger_than(UNREADABLE_AGE)) =>
            {
                return Ok(Some(
                    "its record cannot be read, and it may not have ended: something was stored today".into(),
                ));
            }
            Err(_) => return Ok(None),
        };
        let items = record.ledger.record.manifest.items;
        Ok(match record.state {
            RunState::Done if self.inputs_only && items > MAX_ITEMS_WITHOUT_INPUTS => {
                Some(format!("a run of {items} items cannot be read without its inputs"))
            }
            _ if self.inputs_only && record.state != RunState::Done => {
                Some("items have no value, and cannot be retried without the inputs".into())
            }
            state if state.is_end() || is_named => None,
            _ => Some("it has not ended; name it to delete it nevertheless".into()),
        })
    }
}

fn is_younger_than(age: Duration) -> impl Fn(SystemTime) -> bool {
    move |time| time.elapsed().unwrap_or(Duration::ZERO) < age
}

/// A run that was selected, or what is left of one.
#[derive(Debug)]
#[non_exhaustive]
pub struct Removal {
    /// Summary of the run.
    pub summary: Summary,
    /// Number of bytes that a deletion frees.
    pub bytes: u64,
    /// `true` if there is no run, but only what is left of one.
    pub is_leftover: bool,
    /// Reason why it cannot be deleted.
    pub kept_because: Option<String>,
    found: Found,
    keys: Vec<String>,
    inputs_only: bool,
}

/// Returns the selected runs, and old folders that are no runs.
pub(super) async fn find(places: &[Backend], scope: &str, removals: &Removals) -> Result<Vec<Removal>> {
    let all = find::all(places).await?;
    let mut selected = Vec::new();
    if removals.named.is_empty() {
        selected = all;
    } else {
        for run in &removals.named {
            let found = find::one(all.clone(), run, scope).await?;
            if !selected.iter().any(|other: &Found| other.run == found.run && other.knot == found.knot) {
                selected.push(found);
            }
        }
    }
    let mut found = Vec::new();
    let mut newest_to_keep = removals.keep;
    for batch in selected.chunks(MAX_AT_ONCE) {
        let looks: Vec<_> = batch.iter().cloned().map(|run| engine::spawn(look(run, removals.clone()))).collect();
        for look in looks {
            let Some(removal) = look.await.expect("a look does not panic")? else { continue };
            let is_kept = !removal.is_leftover && newest_to_keep > 0;
            newest_to_keep -= usize::from(is_kept);
            if !is_kept {
                found.push(removal);
            }
        }
    }
    let is_old = |removal: &Removal| removal.is_leftover || removals.older_than.is_none_or(|age| removal.is_older(age));
    found.retain(is_old);
    Ok(found)
}

/// Looks at a run. Returns `None` for a folder without a manifest that may be that of a submission in progress.
async fn look(found: Found, removals: Removals) -> Result<Option<Removal>> {
    match open::open(found.clone()).await? {
        Some(opened) => {
            let kept_because = removals.kept_because(&opened).await?;
            let inputs = opened.listing.inputs();
            let (bytes, keys) = match inputs {
                _ if !removals.inputs_only => (opened.listing.bytes(), Vec::new()),
                Some(inputs) => (inputs.size, vec![inputs.key.clone()]),
                None => return Ok(None),
            };
            let summary = opened.summary();
            Ok(Some(Removal {
                summary,
                bytes,
                is_leftover: false,
                kept_because,
                found,
                keys,
                inputs_only: removals.inputs_only,
            }))
        }
        None => leftover(found, removals.inputs_only).await,
    }
}

async fn leftover(found: Found, inputs_only: bool) -> Result<Option<Removal>> {
    let listing = Listing::read(&*found.store, found.keys()).await?;
    let is_being_deleted = listing.object(&found.keys().deletion()).is_some();
    let is_old = listing.newest().is_some_and(|newest| !is_younger_than(LEFTOVER_AGE)(newest));
    if !(is_being_deleted || is_old) || inputs_only {
        return Ok(None);
    }
    let summary = Summary { problem: Some("only a part of it is left".into()), ..Summary::of_folder(&found) };
    let bytes = listing.bytes();
    Ok(Some(Removal { summary, bytes, is_leftover: true, kept_because: None, found, keys: Vec::new(), inputs_only }))
}

impl Removal {
    fn is_older(&self, age: Duration) -> bool {
        self.summary.submitted.is_none_or(|submitted| !is_younger_than(age)(submitted))
    }

    /// Deletes the run, or its inputs.
    ///
    /// # Errors
    /// `Exists` if the run has not ended; an error if the store rejects a request. The same call then continues the deletion.
    pub fn delete(self) -> crate::pending::Pending<()> {
        crate::pending::Pending::new(async move { self.delete_now().await })
    }

    async fn delete_now(self) -> Result<()> {
        let refused =
            |why: &str| Error::new(ErrorKind::Exists, format!("cannot delete the run `{}`: {why}", self.found.run));
        if let Some(why) = &self.kept_because {
            return Err(refused(why));
        }
        let (store, keys) = (&self.found.store, self.found.keys());
        // A program that begins to compute the run after it was looked at holds its lock, and one that begins now does not get it.
        let executor = self.found.backend.executor();
        let Some(_held) = executor.hold(&keys).await? else { return Err(refused("a program computes it")) };
        if self.inputs_only {
            return Ok(store.delete(&self.keys).await?);
        }
        if let Some(index) = index_of(&self.found.knot, &self.found.run) {
            let entries = store.list(&index, None).await?;
            store.delete(&entries.into_iter().map(|object| object.key).collect::<Vec<_>>()).await?;
            executor.remove_empty_folders(&index).await?;
        }
        // Without its manifest, this is no run any more, and the object says that it is to be deleted.
        store.put(&keys.deletion(), bytes::Bytes::new()).await?;
        store.delete(&[keys.manifest()]).await?;
        let rest = store.list(&keys.all(), None).await?;
        let (last, rest): (Vec<_>, Vec<_>) =
            rest.into_iter().map(|object| object.key).partition(|key| *key == keys.deletion());
        store.delete(&rest).await?;
        store.delete(&last).await?;
        executor.remove_empty_folders(&keys.all()).await
    }
}
