//! A listing of a run's folder: its record, its outcomes, and when they were stored.

use std::time::SystemTime;

use cloudknot_runtime::contract::{self, RunKeys};
use cloudknot_runtime::store::{Object, Store};

use crate::error::Result;

/// The objects of a run, in the order of their keys.
#[derive(Debug)]
pub(super) struct Listing {
    keys: RunKeys,
    pub(super) objects: Vec<Object>,
}

impl Listing {
    /// Lists the folder of a run.
    pub(super) async fn read(store: &dyn Store, keys: RunKeys) -> Result<Self> {
        let objects = store.list(&keys.all(), None).await?;
        Ok(Self { keys, objects })
    }

    pub(super) fn object(&self, key: &str) -> Option<&Object> {
        let position = self.objects.binary_search_by(|object| object.key.as_str().cmp(key));
        position.ok().map(|position| &self.objects[position])
    }

    /// Returns the manifest. Without it, there is no run.
    pub(super) fn manifest(&self) -> Option<&Object> {
        self.object(&self.keys.manifest())
    }

    pub(super) fn inputs(&self) -> Option<&Object> {
        self.object(&self.keys.inputs())
    }

    /// Returns the object that exists if this round was cancelled.
    pub(super) fn cancellation(&self, round: u32) -> Option<&Object> {
        self.object(&self.keys.cancelled(round))
    }

    /// Returns the number of the last round. The first one has no object.
    pub(super) fn last_round(&self) -> u32 {
        self.objects.iter().filter_map(|object| contract::round_of(&object.key)).max().unwrap_or(1)
    }

    /// Returns the time at which the last outcome or cancellation in this period was stored.
    pub(super) fn last_outcome(&self, from: SystemTime, to: Option<SystemTime>) -> Option<SystemTime> {
        let outcomes = self.objects.iter().filter(|object| self.is_outcome(object)).map(|object| object.stored);
        outcomes.filter(|stored| *stored >= from && to.is_none_or(|to| *stored < to)).max()
    }

    fn is_outcome(&self, object: &Object) -> bool {
        let key = &object.key;
        let is_cancellation = || key.strip_prefix(&self.keys.all()).is_some_and(|name| name.starts_with("cancelled/"));
        contract::part_of(key).is_some() || contract::failure_of(key).is_some() || is_cancellation()
    }

    /// Returns the time at which the newest object was stored.
    pub(super) fn newest(&self) -> Option<SystemTime> {
        self.objects.iter().map(|object| object.stored).max()
    }

    /// Returns the size of all objects in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.size).sum()
    }
}
