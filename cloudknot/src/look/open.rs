//! Opens a run to look at it: reads its record, and determines its state. Sends only requests that read.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cloudknot_runtime::contract::{Manifest, ManifestError, Round, RunState};
use cloudknot_runtime::store::Object;

use super::find::Found;
use super::listing::Listing;
use super::summary::{RoundSummary, Summary, time};
use crate::backend::Activity;
use crate::error::{Error, ErrorKind, Result};
use crate::record::ledger::Ledger;
use crate::record::{Record, read};
use crate::run::Status;

/// A run as its record shows it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) found: Found,
    pub(super) listing: Listing,
    /// The record; or the reason why it cannot be read.
    pub(super) record: Result<OpenedRecord, String>,
}

/// The record of a run, and what is known of its end.
#[derive(Debug)]
pub(super) struct OpenedRecord {
    pub(super) ledger: Arc<Ledger>,
    /// Rounds before the last one, the first one first.
    earlier: Vec<Round>,
    pub(super) state: RunState,
    /// Work on the round according to the backend, unless its outcomes show that it has ended.
    pub(super) activity: Option<Activity>,
}

/// Opens a run. Returns `None` if its folder has no manifest: it was not submitted, or not deleted completely.
pub(super) async fn open(found: Found) -> Result<Option<Opened>> {
    let listing = Listing::read(&*found.store, found.keys()).await?;
    let Some(opened) = Opened::read(found, listing).await? else { return Ok(None) };
    if !opened.nothing_computes() {
        return Ok(Some(opened));
    }
    // The last outcomes may have been stored, and the work have ended, after the listing was read.
    let Opened { found, listing, .. } = &opened;
    let newer = Listing::read(&*found.store, found.keys()).await?;
    if newer.objects == listing.objects { Ok(Some(opened)) } else { Opened::read(opened.found, newer).await }
}

/// Reads and checks the manifest. Returns the reason if it is not one of this version.
async fn read_manifest(found: &Found, object: &Object, inputs: Option<&Object>) -> Result<Result<Manifest, String>> {
    let read = read::manifest_of_size(&*found.store, &object.key, object.size).await?;
    let checked = read.and_then(|manifest| {
        let checked = manifest.check(&found.knot, &found.run, inputs.map(|object| object.size));
        checked.map(|()| manifest).map_err(ManifestError::Damaged)
    });
    Ok(checked.map_err(|error| error.to_string()))
}

impl OpenedRecord {
    async fn read(found: &Found, listing: &Listing, manifest: Manifest) -> Result<Result<Self, String>> {
        let keys = found.keys();
        let mut rounds = vec![read::first_round(&manifest)];
        for number in 2..=listing.last_round() {
            // A round begins only after the one before it, so each has an object.
            let key = keys.round(number);
            let read = match listing.object(&key) {
                Some(object) => read::round_of_size(&*found.store, &key, &manifest, object.size).await?,
                None => Err("it does not exist".into()),
            };
            match read {
                Ok(round) => rounds.push(round),
                Err(why) => return Ok(Err(format!("its round `{key}` is damaged: {why}"))),
            }
        }
        let round = listing.last_round();
        let scheduled = rounds.pop().expect("a run has a first round");
        let ledger = Ledger::new(Record { store: Arc::clone(&found.store), keys, manifest, round, scheduled });
        ledger.take_listing(listing.objects.clone());
        let state = ledger.known_state(listing.cancellation(round).is_some());
        let activity = match state {
            Some(_) => None,
            None => Some(found.backend.executor().activity(&ledger, &listing.objects).await?),
        };
        let state = state.unwrap_or(match &activity {
            Some(Activity::Computed { running: 1.., .. }) => RunState::Running,
            Some(Activity::Over) => RunState::Failed,
            _ => RunState::Waiting,
        });
        Ok(Ok(Self { ledger, earlier: rounds, state, activity }))
    }

    fn manifest(&self) -> &Manifest {
        &self.ledger.record.manifest
    }

    fn counts(&self) -> Status {
        let items = self.manifest().items;
        let (succeeded, failed) = self.ledger.counts();
        let open = items.saturating_sub(succeeded).saturating_sub(failed);
        let running = match self.activity {
            Some(Activity::Computed { running, .. }) => running.min(open),
            _ => 0,
        };
        let finished = self.state.is_end();
        let (waiting, unfinished) = if finished { (0, open) } else { (open - running, 0) };
        Status { items, succeeded, failed, running, waiting, unfinished, finished }
    }

    fn rounds(&self, listing: &Listing, ended: Option<SystemTime>) -> Vec<RoundSummary> {
        let last = &self.ledger.record.scheduled;
        let rounds: Vec<&Round> = self.earlier.iter().chain([last]).collect();
        let started = |position: usize| match position {
            0 => Some(time(self.manifest().submitted_ms)),
            _ => rounds.get(position).map(|round| time(round.recorded_ms)),
        };
        let summary = |position: usize| {
            let (start, next) = (started(position), started(position + 1).filter(|_| position + 1 < rounds.len()));
            // The times of a store are in whole seconds, so that an outcome may seem to be older than the run.
            let from = if position == 0 { SystemTime::UNIX_EPOCH } else { start.unwrap_or(SystemTime::UNIX_EPOCH) };
            let end = match next {
                Some(_) => listing.last_outcome(from, next),
                None => Some(ended.unwrap_or_else(SystemTime::now)),
            };
            let duration = end.zip(start).map(|(end, start)| end.duration_since(start).unwrap_or(Duration::ZERO));
            let is_last = next.is_none();
            let succeeded = is_last.then(|| self.ledger.values_in(&last.items));
            RoundSummary { started: start, items: rounds[position].len(), succeeded, duration }
        };
        (0..rounds.len()).map(summary).collect()
    }
}

impl Opened {
    async fn read(found: Found, listing: Listing) -> Result<Option<Self>> {
        let Some(manifest) = listing.manifest() else { return Ok(None) };
        let record = match read_manifest(&found, manifest, listing.inputs()).await? {
            Ok(manifest) => OpenedRecord::read(&found, &listing, manifest).await?,
            Err(problem) => Err(problem),
        };
        Ok(Some(Self { found, listing, record }))
    }

    /// Returns whether the backend has no work on the round, although items have no outcome in the listing.
    fn nothing_computes(&self) -> bool {
        let activity = self.record.as_ref().ok().and_then(|record| record.activity.as_ref());
        matches!(activity, Some(Activity::Over | Activity::Abandoned(_)))
    }

    pub(super) fn summary(&self) -> Summary {
        let summary = Summary::of_folder(&self.found);
        let record = match &self.record {
            Ok(record) => record,
            Err(problem) => return Summary { problem: Some(problem.clone()), ..summary },
        };
        let manifest = record.manifest();
        let submitted = time(manifest.submitted_ms);
        let ended = record.state.is_end().then(|| {
            self.listing.last_outcome(SystemTime::UNIX_EPOCH, None).map_or(submitted, |stored| stored.max(submitted))
        });
        Summary {
            name: manifest.name.clone(),
            function: Some(manifest.function.clone()),
            backend: Some(manifest.backend.clone()),
            region: manifest.batch.as_ref().map(|batch| batch.region.clone()),
            submitted: Some(submitted),
            ended,
            state: Some(record.state),
            items: record.counts(),
            rounds: record.rounds(&self.listing, ended),
            ..summary
        }
    }

    /// Returns whether the run may be going on: a program computes it, or its jobs have not ended.
    pub(super) async fn goes_on(&self) -> Result<bool> {
        match &self.record {
            Ok(OpenedRecord { activity: Some(Activity::Computed { .. }), .. }) => Ok(true),
            // The program of a round that has just ended, or was cancelled, may still write.
            _ => self.found.backend.executor().is_held(&self.found.keys()).await,
        }
    }

    /// Returns the record.
    ///
    /// # Errors
    /// Returns an error if it cannot be read.
    pub(super) fn readable(&self) -> Result<&OpenedRecord> {
        self.record.as_ref().map_err(|problem| {
            Error::new(ErrorKind::Store, format!("cannot read the run `{}`: {problem}", self.found.run))
                .with_hint(format!(
                    "a run of another version can be read with that version of cloudknot; `cargo knot clean {}` deletes the run",
                    self.found.word()
                ))
        })
    }
}
