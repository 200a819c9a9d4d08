//! Finds the runs of a program: by the folders of its runs and by the index, which name all of them, and by the RUN of a command
//! line.

use std::collections::BTreeMap;
use std::sync::Arc;

use cloudknot_runtime::contract::{self, IndexEntry, RunKeys};
use cloudknot_runtime::engine;
use cloudknot_runtime::store::Store;

use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};

/// Maximum number of candidates that an error lists.
const MAX_CANDIDATES: usize = 10;

/// A run that was found, and what the index says of it.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) backend: Backend,
    pub(super) store: Arc<dyn Store>,
    pub(super) knot: String,
    pub(super) run: String,
    pub(super) entries: Vec<IndexEntry>,
}

impl Found {
    pub(super) fn keys(&self) -> RunKeys {
        RunKeys::new(&self.knot, &self.run)
    }

    /// Returns the name that the user gave the run, as far as the index says so.
    pub(super) fn name(&self) -> Option<&str> {
        self.entries.iter().find_map(|entry| match entry {
            IndexEntry::Submitted { name, .. } => name.as_deref(),
            _ => None,
        })
    }

    /// Returns the random word of the run's ID; the whole ID if it has none.
    pub(super) fn word(&self) -> &str {
        contract::word_of(&self.run)
    }

    /// Returns whether the index says that the run was submitted, so that it has a manifest.
    pub(super) fn is_submitted(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry, IndexEntry::Submitted { .. }))
    }

    fn describe(&self) -> String {
        match self.name() {
            Some(name) => format!("{} ({name})", self.run),
            None => self.run.clone(),
        }
    }
}

/// Returns the runs of all these places, newest first. Folders without a manifest are included: only a look at each would show it.
pub(super) async fn all(places: &[Backend]) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for backend in places {
        let store = backend.executor().store()?;
        let knots = match backend.executor().only_knot() {
            Some(knot) => vec![knot.to_owned()],
            None => {
                store.folders(RunKeys::KNOTS).await?.iter().filter_map(|folder| contract::knot_of(folder)).collect()
            }
        };
        for knot in knots {
            found.extend(of_knot(backend, &store, knot).await?);
        }
    }
    found.sort_by(|a, b| b.run.cmp(&a.run));
    Ok(found)
}

async fn of_knot(backend: &Backend, store: &Arc<dyn Store>, knot: String) -> Result<Vec<Found>> {
    let index = {
        let (store, prefix) = (Arc::clone(store), contract::index(&knot));
        engine::spawn(async move { store.list(&prefix, None).await })
    };
    let runs = store.folders(&RunKeys::runs(&knot)).await?;
    let index = index.await.expect("a listing does not panic")?;
    let mut entries: BTreeMap<String, Vec<IndexEntry>> = BTreeMap::new();
    for (run, entry) in index.iter().filter_map(|object| contract::index_entry(&object.key)) {
        entries.entry(run).or_default().push(entry);
    }
    let found = |run: String| Found {
        entries: entries.remove(&run).unwrap_or_default(),
        backend: backend.clone(),
        store: Arc::clone(store),
        knot: knot.clone(),
        run,
    };
    Ok(runs.into_iter().map(found).collect())
}

/// Meaning of a RUN on the command line.
#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    /// The run that was submitted this many runs before the last one.
    Last(usize),
    Named(&'a str),
}

impl<'a> Wanted<'a> {
    fn parse(run: &'a str) -> Self {
        let before =
            |number: &str| number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok()).flatten();
        match run.strip_prefix("last") {
            Some("") => Self::Last(0),
            Some(rest) => rest.strip_prefix('-').and_then(before).map_or(Self::Named(run), Self::Last),
            None => Self::Named(run),
        }
    }
}

/// Returns the only run that RUN names: `last`, `last-1`, a prefix of the ID or of its random word, or a name.
///
/// # Errors
/// `NotFound` if there is none, or several; the hint lists the candidates.
pub(super) async fn one(mut all: Vec<Found>, run: &str, scope: &str) -> Result<Found> {
    let position = match Wanted::parse(run) {
        Wanted::Last(before) => nth_submitted(&all, before).await?,
        Wanted::Named(name) => named(&all, name).map_err(|several| ambiguous(name, &several))?,
    };
    match position {
        Some(position) => Ok(all.swap_remove(position)),
        None => Err(none(&all, run, scope)),
    }
}

/// Returns the position of a run with a manifest, in the order of submission.
async fn nth_submitted(all: &[Found], before: usize) -> Result<Option<usize>> {
    let mut remaining = before;
    for (position, found) in all.iter().enumerate() {
        let exists = found.is_submitted() || found.store.size(&found.keys().manifest()).await?.is_some();
        match remaining {
            _ if !exists => {}
            0 => return Ok(Some(position)),
            _ => remaining -= 1,
        }
    }
    Ok(None)
}

/// Returns the position of the only run of this name; otherwise all of them.
fn named<'a>(all: &'a [Found], name: &str) -> Result<Option<usize>, Vec<&'a Found>> {
    if let Some(position) = all.iter().position(|found| found.run == name) {
        return Ok(Some(position));
    }
    let positions = |is_named: &dyn Fn(&Found) -> bool| -> Vec<usize> {
        (0..all.len()).filter(|position| is_named(&all[*position])).collect()
    };
    let mut positions_of_name = positions(&|found| found.word() == name || found.name() == Some(name));
    if positions_of_name.is_empty() && !name.is_empty() {
        positions_of_name = positions(&|found| found.run.starts_with(name) || found.word().starts_with(name));
    }
    match positions_of_name[..] {
        [] => Ok(None),
        [position] => Ok(Some(position)),
        _ => Err(positions_of_name.into_iter().map(|position| &all[position]).collect()),
    }
}

fn ambiguous(name: &str, several: &[&Found]) -> Error {
    let candidates = listed(several.iter().copied());
    Error::new(ErrorKind::NotFound, format!("cannot choose a run: `{name}` names {} runs", several.len())).with_hint(
        if several.iter().any(|found| found.name() == Some(name)) {
            format!("name one by its ID, or by the word at its end: {candidates}")
        } else {
            format!("give more letters: {candidates}")
        },
    )
}

fn none(all: &[Found], run: &str, scope: &str) -> Error {
    let error =
        |why: &str| Error::new(ErrorKind::NotFound, format!("cannot find the run `{run}`: {scope} has no {why}"));
    if all.is_empty() {
        return error("runs").with_hint(
            "run the program, whose maps are recorded there; `cargo knot runs --knot NAME` lists the runs of a Knot",
        );
    }
    error("such run").with_hint(format!("the last runs are {}", listed(all.iter())))
}

fn listed<'a>(mut found: impl Iterator<Item = &'a Found>) -> String {
    let first: Vec<String> = found.by_ref().take(MAX_CANDIDATES).map(Found::describe).collect();
    match found.count() {
        0 => first.join(", "),
        more => format!("{}, and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use cloudknot_runtime::store::DirStore;

    use super::*;

    fn found(run: &str, name: Option<&str>) -> Found {
        let submitted = IndexEntry::Submitted {
            backend: "local".into(),
            items: 1,
            inputs: None,
            function: "f".into(),
            name: name.map(Into::into),
        };
        Found {
            backend: Backend::local(),
            store: Arc::new(DirStore::new("/no/such/folder")),
            knot: "k".into(),
            run: run.into(),
            entries: vec![submitted],
        }
    }

    fn runs() -> Vec<Found> {
        vec![
            found("20261128-101530123-k5vzdk", None),
            found("20261128-101530122-m81xtn", Some("sweep 3")),
            found("20261127-101530122-m8aaaa", Some("k5vzdk")),
        ]
    }

    #[track_caller]
    fn check(run: &str, expected: Result<&str, &str>) {
        let one = crate::pending::wait(Box::pin(one(runs(), run, "the folder")));
        match (one, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.run, expected),
            (Err(error), Err(part)) => assert!(format!("{error:?}").contains(part), "{error:?}"),
            (other, _) => panic!("{run}: {other:?}"),
        }
    }

    #[test]
    fn run_is_found_by_its_position_id_word_or_name() {
        check("last", Ok("20261128-101530123-k5vzdk"));
        check("last-0", Ok("20261128-101530123-k5vzdk"));
        check("last-2", Ok("20261127-101530122-m8aaaa"));
        check("20261127", Ok("20261127-101530122-m8aaaa"));
        check("20261128-101530122-m81xtn", Ok("20261128-101530122-m81xtn"));
        check("m81", Ok("20261128-101530122-m81xtn"));
        check("sweep 3", Ok("20261128-101530122-m81xtn"));
        let named_like_a_word = [runs(), vec![found("20261126-101530122-aaaaaa", Some("m8"))]].concat();
        let one = crate::pending::wait(Box::pin(one(named_like_a_word, "m8", "the folder")));
        assert_eq!(one.map(|found| found.run).ok().as_deref(), Some("20261126-101530122-aaaaaa"));
    }

    #[test]
    fn none_or_several_runs_are_refused_with_the_candidates() {
        check("last-3", Err("the last runs are 20261128-101530123-k5vzdk, "));
        check("x", Err("cannot find the run `x`: the folder has no such run"));
        check("", Err("cannot find the run ``"));
        check("sweep", Err("the last runs are"));
        check("last-", Err("cannot find the run `last-`"));
        check("m8", Err("give more letters: 20261128-101530122-m81xtn (sweep 3), 20261127-101530122-m8aaaa"));
        check("2026", Err("`2026` names 3 runs"));
        check("k5vzdk", Err("`k5vzdk` names 2 runs"));
    }
}
