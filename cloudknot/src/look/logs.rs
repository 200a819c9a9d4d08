//! Reads the output of a run's items: the lines that a query selects, from the log beside a local run, or from CloudWatch Logs.

use std::collections::VecDeque;
use std::fmt;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use cloudknot_runtime::engine;
use cloudknot_runtime::store::BoxFuture;
use futures_core::Stream;

use super::find::Found;
use super::items::{Items, contains};
use super::open::{self, Opened};
use crate::backend::Activity;
use crate::error::Result;
use crate::pending::wait;

mod jobs;
mod local;
mod streams;

use jobs::JobLogs;
use local::LocalLogs;

/// Time after which a run that nothing computes is not followed any longer: a program may be about to start it.
const PATIENCE: Duration = Duration::from_secs(15);

/// Selection of the lines of a run's log. Without any option, all lines are selected.
///
/// ```
/// use cloudknot::look::{Items, LogQuery};
///
/// let query = LogQuery::new().items(Items::all().failed()).containing("warning").tail(100);
/// # let _ = query;
/// ```
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    items: Items,
    since: Option<SystemTime>,
    tail: Option<usize>,
    text: Option<String>,
    attempt: Option<u32>,
    follow: bool,
}

impl LogQuery {
    /// Creates a query that selects all lines.
    pub fn new() -> Self {
        Self::default()
    }

    /// Selects only the lines of these items. Those that failed are the ones that have failed when the log is opened.
    #[must_use]
    pub fn items(mut self, items: Items) -> Self {
        self.items = items;
        self
    }

    /// Selects only lines that were printed at this time or later.
    #[must_use]
    pub fn since(mut self, time: SystemTime) -> Self {
        self.since = Some(time);
        self
    }

    /// Selects only the last lines of those that are otherwise selected.
    #[must_use]
    pub fn tail(mut self, lines: usize) -> Self {
        self.tail = Some(lines);
        self
    }

    /// Selects only lines that contain this text.
    #[must_use]
    pub fn containing(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Selects only the lines of this attempt of each item, counted from 1 in each round.
    #[must_use]
    pub fn attempt(mut self, number: u32) -> Self {
        self.attempt = Some(number);
        self
    }

    /// Goes on with lines that are printed later, until the run has ended.
    #[must_use]
    pub fn follow(mut self) -> Self {
        self.follow = true;
        self
    }
}

/// A line that an item printed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogLine {
    /// Index of the item; `None` for output of a process before its first item, and for messages of a worker.
    pub item: Option<u64>,
    /// Number of the attempt, from 1.
    pub attempt: Option<u32>,
    /// Number of the round, from 1, if it is known.
    pub round: Option<u32>,
    /// Time at which the line was read from the item.
    pub time: SystemTime,
    /// The line, without its line break.
    pub text: String,
}

/// An entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogEntry {
    /// A line.
    Line(LogLine),
    /// Sentence that says which lines are missing here, or why there are none.
    Note(String),
}

/// The lines of a query that are to be read.
#[derive(Debug)]
struct Selection {
    /// Items in order; `None` for all, together with the lines that belong to no item.
    items: Option<Vec<RangeInclusive<u64>>>,
    query: LogQuery,
}

impl Selection {
    fn selects(&self, line: &LogLine) -> bool {
        let query = &self.query;
        let is_of_item = match (&self.items, line.item) {
            (Some(items), Some(item)) => contains(items, item),
            (Some(_), None) => false,
            (None, _) => true,
        };
        is_of_item
            && query.attempt.is_none_or(|attempt| line.attempt == Some(attempt))
            && query.since.is_none_or(|since| line.time >= since)
            && query.text.as_ref().is_none_or(|text| line.text.contains(text))
    }
}

/// The lines of a run's log, in the order of their times. Lines are read as they are requested.
///
/// This is a [`Stream`], for use with combinators. Without combinators, call [`next`](Self::next); without async,
/// [`wait`](Self::wait) returns an [`Iterator`].
pub struct Logs {
    state: State,
    entries: VecDeque<LogEntry>,
}

/// Result of a read, and the reader; `None` at the end of the log.
type Read = (Reader, Result<Option<Vec<LogEntry>>>);

enum State {
    Idle(Reader),
    Reading(BoxFuture<'static, Read>),
    Ended,
}

/// Reader of a log.
enum Reader {
    Local(Box<LocalLogs>),
    Jobs(Box<JobLogs>),
}

impl Reader {
    async fn read(mut self) -> Read {
        // Reads of a folder never wait, and many lines may not be selected.
        tokio::task::yield_now().await;
        let entries = match &mut self {
            Self::Local(log) => log.read().await,
            Self::Jobs(log) => log.read().await,
        };
        (self, entries)
    }
}

/// Opens the log of a run.
pub(super) async fn open(opened: &Opened, query: LogQuery) -> Result<Logs> {
    let record = opened.readable()?;
    let items = query.items.of(&record.ledger)?;
    let selection = Selection { items: (!query.items.is_all()).then_some(items.clone()), query };
    let reader = match record.ledger.record.manifest.batch {
        Some(_) => Reader::Jobs(Box::new(JobLogs::open(opened, record, &items, selection).await?)),
        None => Reader::Local(Box::new(LocalLogs::new(opened, selection))),
    };
    Ok(Logs { state: State::Idle(reader), entries: VecDeque::new() })
}

impl Logs {
    // Not `Iterator::next`: this method is awaited, like a stream's.
    #[allow(clippy::should_implement_trait)]
    /// Returns the next entry, or `None` at the end. Returns nothing more after an error.
    pub fn next(&mut self) -> impl Future<Output = Option<Result<LogEntry>>> + Send + '_ {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context))
    }

    /// Returns a blocking iterator over the same entries.
    pub fn wait(mut self) -> impl Iterator<Item = Result<LogEntry>> {
        std::iter::from_fn(move || wait(std::future::poll_fn(|context| Pin::new(&mut self).poll_next(context))))
    }
}

impl Stream for Logs {
    type Item = Result<LogEntry>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<LogEntry>>> {
        loop {
            if let Some(entry) = self.entries.pop_front() {
                return Poll::Ready(Some(Ok(entry)));
            }
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Idle(reader) => {
                    self.state = State::Reading(Box::pin(engine::inside(Box::pin(reader.read()))));
                }
                State::Reading(mut read) => {
                    let polled = read.as_mut().poll(context);
                    if polled.is_pending() {
                        self.state = State::Reading(read);
                    }
                    let (reader, entries) = ready!(polled);
                    match entries {
                        Ok(Some(entries)) => {
                            self.entries.extend(entries);
                            self.state = State::Idle(reader);
                        }
                        Ok(None) => {}
                        Err(error) => return Poll::Ready(Some(Err(error))),
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logs")
    }
}

/// Determines when a run that is followed has ended.
struct Watch {
    found: Found,
    looked: Instant,
    /// Time that the last look took.
    took: Duration,
    abandoned_since: Option<Instant>,
}

/// State of a run that is followed.
enum Watched {
    GoesOn,
    /// No line will follow. If the run has not ended, nothing computes it, for this reason.
    Over(Option<String>),
}

impl Watch {
    fn new(found: &Found) -> Self {
        Self { found: found.clone(), looked: Instant::now(), took: Duration::ZERO, abandoned_since: None }
    }

    /// Returns whether a look is due: looks take a tenth of the time at most, because each lists the run.
    fn is_due(&self, interval: Duration) -> bool {
        self.looked.elapsed() >= interval.max(self.took * 10)
    }

    /// Looks at the run. Returns what was seen of it, unless it was deleted.
    async fn look(&mut self) -> Result<(Watched, Option<Opened>)> {
        let began = Instant::now();
        let opened = open::open(self.found.clone()).await;
        (self.looked, self.took) = (Instant::now(), began.elapsed());
        let Some(opened) = opened? else { return Ok((Watched::Over(Some("the run was deleted".into())), None)) };
        Ok((self.watched(&opened, began).await?, Some(opened)))
    }

    async fn watched(&mut self, opened: &Opened, began: Instant) -> Result<Watched> {
        let Ok(record) = &opened.record else { return Ok(Watched::Over(None)) };
        let Some(Activity::Abandoned(why)) = &record.activity else {
            self.abandoned_since = None;
            let goes_on = opened.goes_on().await?;
            return Ok(if goes_on || !record.state.is_end() { Watched::GoesOn } else { Watched::Over(None) });
        };
        let since = *self.abandoned_since.get_or_insert(began);
        let is_over = since.elapsed() > PATIENCE;
        Ok(if is_over { Watched::Over(Some(format!("the run has not ended: {why}"))) } else { Watched::GoesOn })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_selected_by_all_options_together() {
        let line = |item: Option<u64>, attempt: u32, second: u64, text: &str| LogLine {
            item,
            attempt: item.map(|_| attempt),
            round: Some(1),
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
            text: text.into(),
        };
        let lines = [line(None, 1, 1, "start"), line(Some(3), 1, 2, "warning: a"), line(Some(4), 2, 3, "warning: b")];
        let check = |items: Option<Vec<RangeInclusive<u64>>>, query: LogQuery, expected: [bool; 3]| {
            let selection = Selection { items, query };
            assert_eq!(lines.each_ref().map(|line| selection.selects(line)), expected, "{selection:?}");
        };
        let query = LogQuery::new;
        check(None, query(), [true, true, true]);
        check(Some(vec![3..=3, 9..=9]), query(), [false, true, false]);
        check(Some(Vec::new()), query(), [false; 3]);
        check(None, query().attempt(2), [false, false, true]);
        check(None, query().containing("warning"), [false, true, true]);
        check(None, query().since(SystemTime::UNIX_EPOCH + Duration::from_secs(2)), [false, true, true]);
        check(Some(vec![4..=4]), query().containing("warning").attempt(1), [false; 3]);
    }
}
