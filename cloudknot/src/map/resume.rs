//! Finds the run that a map with `.resume()` goes on with: the last run of the function with equal inputs, if it has not ended.
//!
//! The index names the inputs of each run by half of their hash, and the manifest has all of it, so that this takes one listing for each month, and a look at one run.

use std::sync::Arc;
use std::time::SystemTime;

use cloudknot_runtime::contract::{self, IndexEntry, InputsHash, Manifest, Provenance};
use cloudknot_runtime::function::Function;
use cloudknot_runtime::store::Store;

use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::event;
use crate::provenance;
use crate::record::Record;
use crate::record::ledger::Ledger;
use crate::run::{self, Resumable};

/// Number of months whose runs are considered: this one and those before it.
const MONTHS: u32 = 3;
/// Maximum number of runs that are looked at. Only runs that were deleted meanwhile are passed over.
const MAX_LOOKS: usize = 8;

/// Returns an error if the order of the inputs' parts, which is not fixed, prevents their comparison, and the run has no name.
/// `what` has the unordered part.
pub(super) fn refuse_unordered(function: &Function, name: Option<&str>, what: &str) -> Result<()> {
    if name.is_some() {
        return Ok(());
    }
    let message = format!("cannot resume `{}`: equal inputs cannot be recognized, because {what}", function.id.name);
    Err(Error::new(ErrorKind::Input, message)
        .with_hint("use BTreeMap or BTreeSet, or `.name(..)`, by which the run is then found"))
}

/// Returns the last run that is like this one, which was not submitted yet, if that run has not ended. Without a hash of the inputs,
/// runs are alike that have the same name and number of items.
pub(super) async fn find(
    store: &dyn Store,
    backend: &Backend,
    function: &'static Function,
    wanted: &Manifest,
) -> Result<Option<Arc<Ledger>>> {
    let mut looks = 0;
    for before in 0..MONTHS {
        let month = contract::index_of_month(&wanted.knot, SystemTime::now(), before);
        let objects = store.list(&month, None).await?;
        let entries = objects.iter().filter_map(|object| contract::index_entry(&object.key));
        for (run, _) in entries.filter(|(_, entry)| is_like(entry, wanted)) {
            looks += 1;
            match run::open_resumable(&run, function, backend, wanted.inputs_hash).await.map_err(with_fresh)? {
                Resumable::Missing if looks < MAX_LOOKS => {}
                Resumable::Missing | Resumable::Ended => return Ok(None),
                Resumable::Open(ledger) => return Ok(Some(ledger)),
            }
        }
    }
    Ok(None)
}

fn is_like(entry: &IndexEntry, wanted: &Manifest) -> bool {
    let IndexEntry::Submitted { backend, items, inputs, function, name } = entry else { return false };
    let has_function = match function.strip_prefix('…') {
        Some(end) => wanted.function.ends_with(end),
        None => *function == wanted.function,
    };
    let has_inputs = wanted.inputs_hash.is_none() || *inputs == wanted.inputs_hash.map(InputsHash::upper_half);
    has_function && has_inputs && *backend == wanted.backend && *items == wanted.items && *name == wanted.name
}

fn with_fresh(error: Error) -> Error {
    let hint = match error.hint() {
        Some(hint) => format!("{hint}; `.fresh()` submits a new run"),
        None => "`.fresh()` submits a new run".to_owned(),
    };
    error.with_hint(hint)
}

/// Reports which run is resumed, and in what this program differs from the one that submitted it.
pub(super) fn report(ledger: &Ledger, wanted: &Manifest) {
    let Record { manifest, .. } = &ledger.record;
    let (done, failed) = ledger.counts();
    let word = contract::word_of(&manifest.run);
    event::step(&format!("resuming run {word}: {} of {} items have an outcome", done + failed, manifest.items));
    let last = &ledger.record;
    let before = last.scheduled.provenance.as_ref().unwrap_or(&last.manifest.provenance);
    let differences = differences(last, before, wanted);
    let begun = (!differences.is_empty()).then(|| format!("run {word} was begun with {}", differences.join(", ")));
    // On AWS Batch, the image is the program.
    let has_program = last.batch().is_none();
    let source = has_program.then(|| provenance::change_of_source(word, &before.program, &wanted.provenance.program));
    for difference in begun.into_iter().chain(source.flatten()) {
        event::step(&format!("{difference}; its stored values are kept, and `.fresh()` submits a new run"));
    }
}

/// Describes in what the last round of a run, which has this provenance, differs from a run that this program would submit now.
fn differences(last: &Record, before: &Provenance, wanted: &Manifest) -> Vec<String> {
    let now = &wanted.provenance;
    let image = |batch: Option<&contract::BatchResources>| batch.map(|batch| batch.image.clone());
    let known = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let values = [
        ("version", known(&before.program.version), known(&now.program.version)),
        ("cloudknot", known(&before.cloudknot), known(&now.cloudknot)),
        ("the image", image(last.batch()), image(wanted.batch.as_ref())),
    ];
    let differs = |(what, before, now): (&str, Option<String>, Option<String>)| {
        let (before, now) = (before?, now?);
        (before != now).then(|| format!("{what} {before} instead of {now}"))
    };
    let env = (last.manifest.env != wanted.env).then(|| "other variables of `.env(..)`".to_owned());
    values.into_iter().filter_map(differs).chain(env).collect()
}
