//! Reads the record of a run. Whatever the store contains, it is checked as a whole before anything is done with it.

use std::ops::Range;

use bytes::Bytes;
use cloudknot_runtime::contract::{self, MAX_RECORD_LEN, Manifest, ManifestError, Round, RunKeys};
use cloudknot_runtime::inputs::{self, InputsError};
use cloudknot_runtime::store::Store;

use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;

/// Reads the manifest of a run of this Knot. Returns `None` if there is no such run.
pub(crate) async fn manifest(store: &dyn Store, knot: &str, run: &str) -> Result<Option<Manifest>> {
    let keys = RunKeys::new(knot, run);
    let key = keys.manifest();
    let is_damaged = |why: String| damaged(run, &format!("its manifest `{key}`"), &why);
    let Some(size) = store.size(&key).await? else { return Ok(None) };
    let manifest = manifest_of_size(store, &key, size).await?.map_err(|error| match error {
        ManifestError::Damaged(why) => is_damaged(why),
        other => of_another_version(run, &other),
    })?;
    let inputs = store.size(&keys.inputs()).await?;
    manifest.check(knot, run, inputs).map_err(is_damaged)?;
    Ok(Some(manifest))
}

/// Reads a manifest of this size, which is still to be checked. Returns the reason if it is not one of this version.
pub(crate) async fn manifest_of_size(
    store: &dyn Store,
    key: &str,
    size: u64,
) -> Result<Result<Manifest, ManifestError>> {
    if size > MAX_RECORD_LEN {
        let why = format!("it has {size} bytes, more than {MAX_RECORD_LEN}");
        return Ok(Err(ManifestError::Damaged(why)));
    }
    Ok(Manifest::parse(&store.get_range(key, 0..size).await?))
}

/// Reads the last round of a run, with its number.
pub(crate) async fn last_round(store: &dyn Store, keys: &RunKeys, manifest: &Manifest) -> Result<(u32, Round)> {
    let objects = store.list(&keys.rounds(), None).await?;
    let rounds = objects.iter().filter_map(|object| Some((contract::round_of(&object.key)?, object.size)));
    let Some((round, size)) = rounds.max() else { return Ok((1, first_round(manifest))) };
    Ok((round, undamaged_round(store, &keys.round(round), manifest, size).await?))
}

/// Reads a round of a run that exists.
#[allow(dead_code, reason = "only AWS Batch reads earlier rounds")]
pub(crate) async fn round(store: &dyn Store, keys: &RunKeys, manifest: &Manifest, round: u32) -> Result<Round> {
    if round == 1 {
        return Ok(first_round(manifest));
    }
    let key = keys.round(round);
    let missing = || damaged(&manifest.run, &format!("its round `{key}`"), "it does not exist");
    let size = store.size(&key).await?.ok_or_else(missing)?;
    undamaged_round(store, &key, manifest, size).await
}

async fn undamaged_round(store: &dyn Store, key: &str, manifest: &Manifest, size: u64) -> Result<Round> {
    let round = round_of_size(store, key, manifest, size).await?;
    round.map_err(|why| damaged(&manifest.run, &format!("its round `{key}`"), &why))
}

/// Reads a round of this size. Returns the reason if it is damaged.
pub(crate) async fn round_of_size(
    store: &dyn Store,
    key: &str,
    manifest: &Manifest,
    size: u64,
) -> Result<Result<Round, String>> {
    // A round that schedules many single items is longer than other records.
    if size > Round::max_len(manifest.items) {
        return Ok(Err(format!("it has {size} bytes, more than any round of {} items", manifest.items)));
    }
    let bytes = store.get_range(key, 0..size).await?;
    Ok(Round::parse(&bytes, manifest.items))
}

/// Returns the first round, which schedules all items.
pub(crate) fn first_round(manifest: &Manifest) -> Round {
    #[allow(clippy::single_range_in_vec_init)]
    let items = if manifest.items == 0 { Vec::new() } else { vec![0..manifest.items] };
    Round { items, retries: manifest.retries, recorded_ms: manifest.submitted_ms, ..Round::default() }
}

/// Reads the inputs of the first items of a range that is not empty: at least one, and no more than have `limit` bytes together.
/// Returns their frames, and the index of the item after them.
pub(crate) async fn inputs(record: &Record, range: &Range<u64>, limit: u64) -> Result<(Vec<Bytes>, u64)> {
    let Record { store, keys, manifest, .. } = record;
    let key = keys.inputs();
    inputs::read(&**store, &key, manifest.inputs, range, limit).await.map_err(|error| match error {
        InputsError::Store(error) => error.into(),
        InputsError::Damaged(error) => damaged(&manifest.run, &format!("its object `{key}`"), &error.to_string()),
    })
}

fn of_another_version(run: &str, error: &ManifestError) -> Error {
    let hint = match error {
        ManifestError::Newer { .. } => "update cloudknot in Cargo.toml, and `cargo knot`",
        _ => "read the run with the version of cloudknot that submitted it, or submit the map again",
    };
    Error::new(ErrorKind::Store, format!("cannot read the run `{run}`: {error}")).with_hint(hint)
}

fn damaged(run: &str, what: &str, why: &str) -> Error {
    Error::new(ErrorKind::Store, format!("cannot read the run `{run}`: {what} is damaged: {why}"))
        .with_hint("restore the file, or submit the map again")
}
