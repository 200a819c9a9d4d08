//! Looks at runs, of any program: lists them, shows their states, measurements and failures, cancels and deletes them.
//!
//! Nothing here starts work, as an attach does, and looking writes nothing. The types of the functions are not needed, so that one
//! program can look at the runs of another: `cargo knot runs`, `status`, `wait`, `logs`, `cancel` and `clean` do. A program that has the
//! function reads the results of a run with [`RemoteFn::look`](crate::RemoteFn::look).
//!
//! ```
//! # #[cloudknot::remote]
//! # fn double(x: u32) -> u32 { 2 * x }
//! use cloudknot::look::{RunState, Runs};
//!
//! assert_eq!(double.map([1, 2, 3]).wait()?, [2, 4, 6]);
//! let last = Runs::of_this_program()?.find("last").wait()?;
//! assert_eq!(last.summary().state, Some(RunState::Done));
//! assert_eq!(last.summary().items.succeeded, 3);
//! # Ok::<(), cloudknot::Error>(())
//! ```

mod clean;
mod detail;
mod failures;
mod find;
mod items;
mod listing;
mod logs;
mod measured;
mod open;
mod program;
mod results;
mod retry;
mod summary;

use std::path::Path;
use std::sync::Arc;

use cloudknot_runtime::{engine, function};

use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::home;
use crate::home::knot_note::KnotNote;
use crate::pending::Pending;

pub use crate::failures::{FailureGroup, failure_lines};
pub use clean::{Removal, Removals};
pub use cloudknot_runtime::contract::RunState;
pub use cloudknot_runtime::fingerprint::RawForm;
pub use detail::Details;
pub use items::Items;
pub use logs::{LogEntry, LogLine, LogQuery, Logs};
pub use measured::{Distribution, Measured};
pub use program::RunProgram;
pub use results::{EncodedValue, StoredResults};
pub use retry::{Retried, Retry};
pub use summary::{RoundSummary, Summary};

use find::Found;
use open::Opened;

/// Runs of a program: those in its folder on this machine, and those of its Knot.
#[derive(Debug, Clone)]
pub struct Runs {
    places: Vec<Backend>,
    /// Description of the places, for messages.
    scope: String,
}

/// Selection of the runs in a list.
///
/// ```
/// let filter = cloudknot::look::Filter::default().function("align").limit(20);
/// # let runs = cloudknot::look::Runs::in_folder("/no/such/folder").list(filter).wait()?;
/// # assert_eq!(runs.total, 0);
/// # Ok::<(), cloudknot::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Filter {
    function: Option<String>,
    state: Option<RunState>,
    limit: Option<usize>,
}

impl Filter {
    /// Selects the runs of this function: its name, or the end of its path.
    #[must_use]
    pub fn function(mut self, name: impl Into<String>) -> Self {
        self.function = Some(name.into());
        self
    }

    /// Selects the runs in this state.
    #[must_use]
    pub fn state(mut self, state: RunState) -> Self {
        self.state = Some(state);
        self
    }

    /// Selects at most this number of runs, the newest ones.
    #[must_use]
    pub fn limit(mut self, runs: usize) -> Self {
        self.limit = Some(runs);
        self
    }

    /// Returns whether a run of this function may be selected.
    fn has_function(&self, id: Option<&str>) -> bool {
        let Some(name) = &self.function else { return true };
        id.is_some_and(|id| function::is_named(id, name))
    }

    fn selects(&self, summary: &Summary) -> bool {
        self.has_function(summary.function.as_deref()) && self.state.is_none_or(|state| summary.state == Some(state))
    }
}

/// Runs that were selected, newest first.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RunList {
    /// Summaries of the selected runs.
    pub runs: Vec<Summary>,
    /// Number of all runs of the program.
    pub total: usize,
    /// `true` if more runs are selected than the limit allows to show, or may be.
    pub is_cut: bool,
    /// Places that were searched, in words: "`/home/ada/lab/.cloudknot` together with the Knot `sweep`".
    pub scope: String,
}

impl Runs {
    /// Opens the runs of this program: those in its folder, and those of the Knot that is recorded there.
    ///
    /// # Errors
    /// Returns an error if the record of the Knot cannot be read, or if the program has none of the code for AWS.
    pub fn of_this_program() -> Result<Self> {
        let local = Self::in_folder(home::of_this_program());
        KnotNote::of_this_program()?.map_or(Ok(local.clone()), |note| local.and_knot(note))
    }

    /// Opens the runs of the program of the package in this folder: those in its folder `.cloudknot/`, and those of the Knot that is
    /// recorded there. `CLOUDKNOT_HOME` names another folder of runs.
    ///
    /// # Errors
    /// As for [`of_this_program`](Self::of_this_program).
    pub fn beside(package: impl AsRef<Path>) -> Result<Self> {
        let home = home::of_package(package.as_ref());
        let local = Self::in_folder(&home);
        KnotNote::read(&home)?.map_or(Ok(local.clone()), |note| local.and_knot(note))
    }

    /// Opens the runs in this folder, which is that of a program: `.cloudknot/` or `CLOUDKNOT_HOME`.
    pub fn in_folder(home: impl AsRef<Path>) -> Self {
        let home = std::path::absolute(&home).unwrap_or_else(|_| home.as_ref().to_owned());
        Self { scope: format!("`{}`", home.display()), places: vec![Backend::folder(home)] }
    }

    /// Opens the runs of this backend, such as that of a Knot.
    pub fn on(backend: Backend) -> Self {
        let scope = match backend.executor().only_knot() {
            Some(knot) => format!("the Knot `{knot}`"),
            None => "the folder of runs".to_owned(),
        };
        Self { places: vec![backend], scope }
    }

    fn and_knot(mut self, note: KnotNote) -> Result<Self> {
        self.scope = format!("{} together with the Knot `{}`", self.scope, note.knot);
        self.places.push(Backend::knot(note)?);
        Ok(self)
    }

    /// Returns the runs that the filter selects, newest first.
    ///
    /// The index of a Knot shows all runs that have ended. Of the others, only those that are selected and within the limit are
    /// listed one by one.
    pub fn list(&self, filter: Filter) -> Pending<RunList> {
        let runs = self.clone();
        Pending::new(async move { list(runs, &filter).await })
    }

    /// Finds the only run that `run` names: `last`, `last-1` and so on, a prefix of its ID or of its random word, or its name.
    ///
    /// ```
    /// # let runs = cloudknot::look::Runs::in_folder("/no/such/folder");
    /// let error = runs.find("k5v").wait().unwrap_err();
    /// assert_eq!(error.kind(), cloudknot::ErrorKind::NotFound);
    /// ```
    ///
    /// # Errors
    /// `NotFound` if there is none, or several; the hint lists the candidates.
    pub fn find(&self, run: &str) -> Pending<Look> {
        let (runs, run) = (self.clone(), run.to_owned());
        Pending::new(async move {
            let found = find::one(find::all(&runs.places).await?, &run, &runs.scope).await?;
            Look::open(found).await
        })
    }

    /// Finds the runs that may be deleted. Deletes nothing.
    pub fn removals(&self, removals: Removals) -> Pending<Vec<Removal>> {
        let runs = self.clone();
        Pending::new(async move { clean::find(&runs.places, &runs.scope, &removals).await })
    }
}

async fn list(of: Runs, filter: &Filter) -> Result<RunList> {
    let all = find::all(&of.places).await?;
    let (total, limit) = (all.len(), filter.limit.unwrap_or(usize::MAX));
    let mut candidates = all.into_iter().filter(|found| {
        let function = Summary::function_in_index(found);
        function.is_none() || filter.has_function(function)
    });
    let mut runs = Vec::new();
    let mut is_cut = false;
    loop {
        // A run that has no end in the index is looked at only if it may be shown.
        let wanted = limit.saturating_sub(runs.len()).min(MAX_AT_ONCE);
        let next: Vec<Found> = candidates.by_ref().take(wanted.max(1)).collect();
        if next.is_empty() {
            break;
        }
        if wanted == 0 {
            is_cut = true;
            break;
        }
        let looks: Vec<_> = next.into_iter().map(|found| engine::spawn(summary_of(found))).collect();
        for look in looks {
            runs.extend(look.await.expect("a look does not panic")?.filter(|summary| filter.selects(summary)));
        }
    }
    Ok(RunList { runs, total, is_cut, scope: of.scope })
}

/// Maximum number of runs that are looked at concurrently.
const MAX_AT_ONCE: usize = 32;

/// Returns the summary of a run; `None` if it has no manifest.
async fn summary_of(found: Found) -> Result<Option<Summary>> {
    match Summary::of_index(&found) {
        Some(summary) => Ok(Some(summary)),
        None => Ok(open::open(found).await?.map(|opened| opened.summary())),
    }
}

/// A run, opened to look at it: its state at one moment.
#[derive(Debug, Clone)]
pub struct Look {
    opened: Arc<Opened>,
    summary: Summary,
}

/// Effect of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cancellation {
    /// Number of items that were running and were ended.
    pub ended: u64,
    /// Number of items that had not started and will not start.
    pub not_started: u64,
    /// Number of items whose values are kept.
    pub kept: u64,
}

impl Look {
    async fn open(found: Found) -> Result<Self> {
        let (run, word) = (found.run.clone(), found.word().to_owned());
        let opened = open::open(found).await?.ok_or_else(|| {
            let message = format!("cannot find the run `{run}`: its record is gone or was never completed");
            Error::new(ErrorKind::NotFound, message).with_hint(format!(
                "a program may still be submitting it; if nothing is stored for an hour, `cargo knot clean {word}` deletes the rest"
            ))
        })?;
        Ok(Self { summary: opened.summary(), opened: Arc::new(opened) })
    }

    /// Returns the ID of the run.
    pub fn id(&self) -> &str {
        &self.opened.found.run
    }

    /// Returns the summary, as in a list.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Returns the reason why nothing computes the run, although it has not ended: its program was ended, for example. An attach
    /// continues it.
    pub fn abandoned(&self) -> Option<&str> {
        match self.opened.record.as_ref().ok()?.activity.as_ref()? {
            crate::backend::Activity::Abandoned(why) => Some(why),
            _ => None,
        }
    }

    /// Looks at the run again.
    pub fn again(&self) -> Pending<Self> {
        let found = self.opened.found.clone();
        Pending::new(async move { Self::open(found).await })
    }

    /// Reads the measurements and failures of the run. The measurements are those of at most 200 parts, which are spread evenly;
    /// all of them if `exact`.
    ///
    /// # Errors
    /// Returns an error if the record of the run cannot be read.
    pub fn details(&self, exact: bool) -> Pending<Details> {
        let look = self.clone();
        Pending::new(async move { detail::read(&look.opened, look.summary, exact).await })
    }

    /// Opens what the items of the run printed: the log beside a run on this machine, or CloudWatch Logs.
    ///
    /// ```
    /// # #[cloudknot::remote]
    /// # fn double(x: u32) -> u32 {
    /// #     println!("doubling {x}");
    /// #     2 * x
    /// # }
    /// use cloudknot::look::{LogEntry, LogQuery, Runs};
    ///
    /// double.map([1, 2, 3]).wait()?;
    /// let last = Runs::of_this_program()?.find("last").wait()?;
    /// for entry in last.logs(LogQuery::new()).wait()?.wait() {
    ///     if let LogEntry::Line(line) = entry? {
    ///         println!("{:?}: {}", line.item, line.text);
    ///     }
    /// }
    /// # Ok::<(), cloudknot::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error if the record of the run cannot be read, or if the run has not all of the items.
    pub fn logs(&self, query: LogQuery) -> Pending<Logs> {
        let look = self.clone();
        Pending::new(async move { logs::open(&look.opened, query).await })
    }

    /// Returns the stored outcomes of these items, in order, without their types. See [`RemoteFn::look`](crate::RemoteFn::look) for
    /// values with their types.
    ///
    /// ```
    /// # #[cloudknot::remote]
    /// # fn double(x: u32) -> u32 { 2 * x }
    /// # assert_eq!(double.map([1, 2, 3]).wait()?, [2, 4, 6]);
    /// use cloudknot::look::{Items, Runs};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), cloudknot::Error> {
    /// let mut results = Runs::of_this_program()?.find("last").await?.results(&Items::all())?;
    /// while let Some((item, outcome)) = results.next().await {
    ///     match outcome {
    ///         Ok(value) => println!("{item}  {}", value.to_json()?),
    ///         Err(error) => println!("{item}  {error}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// # main()?;
    /// # Ok::<(), cloudknot::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Config` if the run has fewer items; `Store` if its record cannot be read.
    pub fn results(&self, items: &Items) -> Result<StoredResults> {
        StoredResults::new(&self.opened, items)
    }

    /// Returns the form in which values of the run can be written without an encoding: text and bytes.
    pub fn raw_form(&self) -> Option<RawForm> {
        results::raw_form(&self.opened)
    }

    /// Runs the items without a value again, with the deployed worker, on AWS Batch. Unlike [`Run::retry_failed`](crate::Run::retry_failed),
    /// this needs neither the function nor its types, and the run must have ended. On this machine, the program of the run retries it.
    ///
    /// ```no_run
    /// # async fn retry() -> cloudknot::Result<()> {
    /// let look = cloudknot::look::Runs::of_this_program()?.find("last").await?;
    /// let retried = look.retry().memory("16 GiB").await?;
    /// println!("{} items are retried", retried.items());
    /// let look = retried.finished().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry(&self) -> Retry {
        Retry::new(self.clone())
    }

    /// Cancels the run: running items are ended, items with a value keep it, and the others will not start. Waits until the
    /// program or the jobs that compute it have stopped. The reason is stored with the run.
    ///
    /// Does nothing if the run has ended, except that jobs of a run that was cancelled before are ended.
    pub fn cancel(&self, reason: Option<&str>) -> Pending<Cancellation> {
        let (look, reason) = (self.clone(), reason.map(str::to_owned));
        Pending::new(async move { look.cancel_now(reason.as_deref()).await })
    }

    /// Cancels items of the run: those that have an outcome keep it. Possible only if each of them has a job of its own, that is, on AWS
    /// Batch with one item per job. Does not wait until the jobs have ended. If one item cannot be cancelled, none is.
    ///
    /// # Errors
    /// `Config` if an item has no job of its own, or the run has fewer items.
    pub fn cancel_items(&self, items: &Items) -> Pending<Cancellation> {
        let (look, items) = (self.clone(), items.clone());
        Pending::new(async move {
            let ledger = &look.opened.readable()?.ledger;
            let selected: Vec<u64> = items.of(ledger)?.into_iter().flatten().collect();
            let count = selected.len() as u64;
            let open: Vec<u64> = selected.into_iter().filter(|item| ledger.is_missing(*item)).collect();
            let ended = open.len() as u64;
            if ended > 0 {
                look.opened.found.backend.executor().cancel_items(ledger, open).await?;
            }
            Ok(Cancellation { ended, not_started: 0, kept: count - ended })
        })
    }

    async fn cancel_now(&self, reason: Option<&str>) -> Result<Cancellation> {
        let record = self.opened.readable()?;
        let before = self.summary.items;
        if matches!(record.state, RunState::Done | RunState::Failed) && before.unfinished == 0 {
            return Ok(Cancellation { ended: 0, not_started: 0, kept: before.succeeded });
        }
        let failed = |error: Error| {
            let message = format!("cannot cancel run {}: {}", self.id(), error.in_one_line());
            Error::new(ErrorKind::Infrastructure, message).with_hint("the same command finishes the cancellation")
        };
        record.ledger.record_cancellation_for(reason.unwrap_or_default()).await?;
        self.opened.found.backend.executor().cancel_ended(&record.ledger).await.map_err(failed)?;
        let after = Self::open(self.opened.found.clone()).await?.summary.items;
        let ended = before.running.min(after.unfinished);
        Ok(Cancellation { ended, not_started: after.unfinished - ended, kept: after.succeeded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_selected_by_the_end_of_their_path() {
        let check = |name: &str, id: &str, expected: bool| {
            assert_eq!(Filter::default().function(name).has_function(Some(id)), expected, "{name} of {id}");
        };
        check("align", "lab:lab::align", true);
        check("lab::align", "lab:lab::align", true);
        check("lab:lab::align", "lab:lab::align", true);
        check("lign", "lab:lab::align", false);
        check("align", "…align", true);
        check("align", "lab:lab::align::index", false);
        assert!(Filter::default().has_function(None));
        assert!(!Filter::default().function("align").has_function(None));
    }
}
