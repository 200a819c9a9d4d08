//! Leases: at most one program at a time submits the jobs of a round.
//!
//! AWS Batch has no request that submits a job only once, and lists a new job with a delay. The store has both: an object is created
//! once, and a listing is current. So a program creates the lease of the round's next epoch before it submits anything, and renews it
//! while it submits. It sends a request only shortly after a renewal, and another program takes the lease over only when it is so old
//! that every job of its owner is listed.
//!
//! | time since the last renewal | |
//! |---|---|
//! | 20 s | the owner renews the lease |
//! | 30 s | the owner sends no request without a renewal |
//! | 40 s | all requests of the owner have ended |
//! | 60 s | the owner does not renew the lease any more |
//! | 75 s | AWS Batch lists all jobs of the owner |
//! | 120 s, by the clock of the store | another program looks for jobs, and then creates the lease of the next epoch |

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cloudknot_runtime::contract::{self, Lease, LeaseState, LeasedJob};
use cloudknot_runtime::store::{StoreError, StoreErrorKind};

use super::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;
use crate::record::ledger::Ledger;

/// Age at which the owner renews a lease.
pub(super) const RENEWAL_AGE: Duration = Duration::from_secs(20);
/// Maximum age at which the owner sends a request.
pub(super) const MAX_SENDING_AGE: Duration = Duration::from_secs(30);
/// Timeout of a request that submits a job.
pub(super) const SUBMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time until AWS Batch lists and describes an accepted job.
pub(super) const LISTING_DELAY: Duration = Duration::from_secs(35);
/// Age at which a lease can no longer be renewed.
const MAX_RENEWAL_AGE: Duration = Duration::from_mins(1);
/// Timeout of a renewal.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(20);
/// Age by the clock of the store at which another program may take over a lease. The times in a listing are in whole seconds.
pub(super) const TAKEOVER_AGE: Duration = Duration::from_secs(121);
/// Time after which all jobs of a submission that was interrupted by a closed lease are listed, by the clock of the store: its owner
/// may have checked its lease just before, and may send a request until the lease has the age [`MAX_SENDING_AGE`].
pub(super) const CLOSING_DELAY: Duration = Duration::from_secs(76);

/// The leases of a run.
#[derive(Debug, Clone)]
pub(super) struct Leases {
    ledger: Arc<Ledger>,
    clock: Clock,
    /// Random ID of this task.
    owner: String,
}

/// The last lease of a round.
#[derive(Debug)]
pub(super) struct LastLease {
    pub(super) epoch: u32,
    pub(super) lease: Lease,
}

impl LastLease {
    /// Returns the epoch in which jobs may have been submitted that the lease does not list.
    pub(super) fn interrupted_epoch(&self) -> Option<u32> {
        match self.lease.state {
            LeaseState::Released | LeaseState::Closed { interrupted: false } => None,
            LeaseState::Submitting => Some(self.epoch),
            LeaseState::Closed { interrupted: true } => Some(self.epoch - 1),
        }
    }
}

/// A lease that this program holds.
#[derive(Debug)]
pub(super) struct HeldLease {
    pub(super) epoch: u32,
    pub(super) lease: Lease,
    /// Time before the last renewal was sent.
    renewed: Duration,
}

impl Leases {
    pub(super) fn new(ledger: &Arc<Ledger>, clock: Clock) -> Self {
        let owner = format!("{:016x}", RandomState::new().hash_one((SystemTime::now(), std::process::id())));
        Self { ledger: Arc::clone(ledger), clock, owner }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Returns the last lease of a round, or `None` if no program has begun to submit it.
    pub(super) async fn last(&self, round: u32) -> Result<Option<LastLease>> {
        let Record { store, keys, .. } = &self.ledger.record;
        let objects = store.list(&keys.leases(), None).await?;
        let leases = objects.iter().filter_map(|object| contract::lease_of(&object.key));
        let epochs = leases.filter(|(of_round, _)| *of_round == round).map(|(_, epoch)| epoch);
        let Some(epoch) = epochs.max() else { return Ok(None) };
        let lease = self.read(round, epoch).await?;
        let lease = lease.ok_or_else(|| self.damaged(round, epoch, "the object was deleted"))?;
        Ok(Some(LastLease { epoch, lease }))
    }

    /// Returns the age of a lease by the clock of the store: the time since it was created or renewed.
    pub(super) async fn age(&self, round: u32, epoch: u32) -> Result<Duration> {
        let Record { store, keys, .. } = &self.ledger.record;
        store.put(&keys.clock(), bytes::Bytes::new()).await?;
        let objects = store.list(&keys.leases(), None).await?;
        let time_of = |key: String| objects.iter().find(|object| object.key == key).map(|object| object.stored);
        let now = time_of(keys.clock()).unwrap_or(SystemTime::UNIX_EPOCH);
        let then = time_of(keys.lease(round, epoch)).unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(now.duration_since(then).unwrap_or_default())
    }

    /// Creates the lease of this epoch, and returns it; `None` if another program has created it. `since` is the time before this was
    /// first called, because a call that failed may have created the lease.
    pub(super) async fn acquire(
        &self,
        round: u32,
        epoch: u32,
        jobs: Vec<LeasedJob>,
        since: Duration,
    ) -> Result<Option<HeldLease>> {
        let lease = Lease { owner: self.owner.clone(), state: LeaseState::Submitting, jobs };
        let is_created = self.create(round, epoch, &lease).await?;
        Ok(is_created.then_some(HeldLease { epoch, lease, renewed: since }))
    }

    /// Closes a round with the lease of this epoch. Returns `false` if another program has created it.
    pub(super) async fn close(&self, round: u32, epoch: u32, jobs: Vec<LeasedJob>, interrupted: bool) -> Result<bool> {
        let lease = Lease { owner: self.owner.clone(), state: LeaseState::Closed { interrupted }, jobs };
        self.create(round, epoch, &lease).await
    }

    /// Renews a lease. Returns `false` if it is too old: another program may be about to take it over.
    pub(super) async fn renew(&self, held: &mut HeldLease) -> Result<bool> {
        let now = self.clock.now();
        if now.saturating_sub(held.renewed) > MAX_RENEWAL_AGE {
            return Ok(false);
        }
        let written = tokio::time::timeout(RENEWAL_TIMEOUT, self.write(held)).await;
        written.unwrap_or_else(|_| {
            let Record { keys, round, .. } = &self.ledger.record;
            let action = format!("write `{}`", keys.lease(*round, held.epoch));
            Err(StoreError::new(StoreErrorKind::Unavailable, action, Some("it took too long".into())).into())
        })?;
        held.renewed = now;
        Ok(true)
    }

    /// Returns the age of a held lease.
    pub(super) fn age_of(&self, held: &HeldLease) -> Duration {
        self.clock.now().saturating_sub(held.renewed)
    }

    /// Returns whether a program has created the lease of this epoch.
    pub(super) async fn exists(&self, round: u32, epoch: u32) -> Result<bool> {
        let Record { store, keys, .. } = &self.ledger.record;
        Ok(store.get(&keys.lease(round, epoch)).await?.is_some())
    }

    /// Writes a held lease, without renewing it.
    pub(super) async fn write(&self, held: &HeldLease) -> Result<()> {
        let Record { store, keys, round, .. } = &self.ledger.record;
        Ok(store.put(&keys.lease(*round, held.epoch), to_bytes(&held.lease)).await?)
    }

    async fn create(&self, round: u32, epoch: u32, lease: &Lease) -> Result<bool> {
        let Record { store, keys, .. } = &self.ledger.record;
        if store.create(&keys.lease(round, epoch), to_bytes(lease)).await? {
            return Ok(true);
        }
        // An earlier request of the same call may have created it, and its response was lost.
        Ok(self.read(round, epoch).await?.is_some_and(|found| found == *lease))
    }

    pub(super) async fn read(&self, round: u32, epoch: u32) -> Result<Option<Lease>> {
        let record = &self.ledger.record;
        let (store, key) = (&record.store, record.keys.lease(round, epoch));
        let Some(size) = store.size(&key).await? else { return Ok(None) };
        // An earlier round has at most as many children as the run has items.
        let children = if round == record.round { record.children() } else { record.manifest.items };
        let max_len = Lease::max_len(children);
        if size > max_len {
            return Err(self.damaged(round, epoch, &format!("it has {size} bytes, more than {max_len}")));
        }
        let Some(bytes) = store.get(&key).await? else { return Ok(None) };
        Lease::parse(&bytes, children).map(Some).map_err(|why| self.damaged(round, epoch, &why))
    }

    fn damaged(&self, round: u32, epoch: u32, why: &str) -> Error {
        let Record { keys, manifest, .. } = &self.ledger.record;
        let message =
            format!("cannot read `{}` of run {}: it is damaged: {why}", keys.lease(round, epoch), manifest.run);
        Error::new(ErrorKind::Store, message)
            .with_hint("stored results stay readable; map the remaining inputs again, and end the jobs of this run in the AWS console")
    }
}

fn to_bytes(lease: &Lease) -> bytes::Bytes {
    serde_json::to_vec(lease).expect("a lease serializes to JSON").into()
}
