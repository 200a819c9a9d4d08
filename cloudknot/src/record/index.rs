//! Writes the entries of a run in the index of its Knot. The index is a hint: a run goes on if it cannot be written.

use std::time::Duration;

use bytes::Bytes;
use cloudknot_runtime::contract::{self, IndexEntry, InputsHash, Manifest};
use cloudknot_runtime::store::Store;

/// Maximum time for an entry. A store that does not respond delays nothing else for longer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Writes the entry of a run that was just recorded.
pub(crate) async fn write_submitted(store: &dyn Store, manifest: &Manifest) {
    let Manifest { backend, items, inputs_hash, function, name, .. } = manifest.clone();
    let inputs = inputs_hash.map(InputsHash::upper_half);
    write(store, manifest, &IndexEntry::Submitted { backend, items, inputs, function, name }).await;
}

/// Writes an entry of a run, unless its ID is not of the form that a host gives. An entry that exists is replaced by itself.
pub(super) async fn write(store: &dyn Store, manifest: &Manifest, entry: &IndexEntry) {
    let Some(key) = contract::index_key(&manifest.knot, &manifest.run, entry) else { return };
    let run = manifest.run.as_str();
    match tokio::time::timeout(TIMEOUT, store.put(&key, Bytes::new())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(run, key, %error, "the index of runs cannot be written"),
        Err(_) => tracing::warn!(run, key, "the store does not respond, so the index of runs is not written"),
    }
}
