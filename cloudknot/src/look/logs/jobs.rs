//! The logs of a run's jobs in CloudWatch Logs: several streams at once, whose lines are merged by their times.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use cloudknot_runtime::contract::unix_ms;
use cloudknot_runtime::log::Source;

use super::super::find::Found;
use super::super::open::{Opened, OpenedRecord};
use super::super::summary::time;
use super::streams::{self, StreamKey, Streams};
use super::{LogEntry, LogLine, Selection, Watch, Watched};
use crate::backend::{LogEvent, LogPageRequest};
use crate::error::{Error, ErrorKind, Result};

/// Maximum number of streams in a request (`FilterLogEvents` in the API reference of CloudWatch Logs).
const MAX_STREAMS: usize = 100;
/// Maximum number of items whose prefixes are in the pattern of a request; a pattern has at most 1,024 characters.
const MAX_PATTERNS: u64 = 20;
/// Interval between two reads of the same streams. An account may send 5 requests of `FilterLogEvents` a second ("CloudWatch Logs quotas"
/// in the user guide), and each request reads up to [`MAX_STREAMS`] streams: with a request a second at most, four are left for others.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Interval between two looks for new jobs, and for the end of the run.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Time by which lines may arrive late in CloudWatch Logs: the log driver sends them every five seconds.
const DELAY: Duration = Duration::from_secs(15);
/// Time before the submission of a run at which its first line is looked for: clocks of machines differ.
const CLOCK_DIFFERENCE: Duration = Duration::from_mins(10);

/// Reader of the logs of a run's jobs.
pub(super) struct JobLogs {
    found: Found,
    selection: Selection,
    items: Vec<RangeInclusive<u64>>,
    streams: Streams,
    cursors: Vec<Cursor>,
    watch: Watch,
    /// IDs of the lines that were read last, with their times: each poll reads them again.
    seen: HashMap<String, u64>,
    /// Time of the first line that is selected.
    first_ms: u64,
    /// Time of the newest line that was read.
    newest_ms: u64,
    /// Streams of which all earlier lines were read.
    known: HashSet<StreamKey>,
    stage: Stage,
    /// The last lines that are selected, until all earlier ones are read.
    tail: VecDeque<LogEntry>,
    /// `true` if a request has failed for a reason that may pass, and none has succeeded since.
    is_outage: bool,
    /// `true` once it was said that not all streams are read.
    is_cut_noted: bool,
    /// Number of lines that were read, and of those that were selected.
    counts: (u64, u64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// All lines until now are read.
    First,
    /// New lines are read.
    Following,
    /// The lines that arrive after the end of the run are read.
    Last,
    Finished,
}

/// Streams of a group that are read together.
#[derive(Debug)]
struct Cursor {
    group: String,
    streams: Vec<String>,
    /// Time from which lines are read.
    from_ms: u64,
    token: Option<String>,
    page: VecDeque<LogEvent>,
    is_done: bool,
}

impl Cursor {
    fn new(group: &str, streams: &[String], from_ms: u64) -> Self {
        let (group, streams) = (group.to_owned(), streams.to_vec());
        Self { group, streams, from_ms, token: None, page: VecDeque::new(), is_done: false }
    }

    fn needs_page(&self) -> bool {
        self.page.is_empty() && !self.is_done
    }
}

impl JobLogs {
    pub(super) async fn open(
        opened: &Opened,
        record: &OpenedRecord,
        items: &[RangeInclusive<u64>],
        selection: Selection,
    ) -> Result<Self> {
        let submitted = time(record.ledger.record.manifest.submitted_ms);
        let first = submitted.checked_sub(CLOCK_DIFFERENCE).unwrap_or(submitted);
        let first_ms = unix_ms(selection.query.since.map_or(first, |since| since.max(first)));
        let mut logs = Self {
            found: opened.found.clone(),
            items: items.to_vec(),
            streams: streams::find(opened, record, items).await?,
            cursors: Vec::new(),
            watch: Watch::new(&opened.found),
            seen: HashMap::new(),
            first_ms,
            newest_ms: first_ms,
            known: HashSet::new(),
            stage: Stage::First,
            tail: VecDeque::new(),
            is_outage: false,
            is_cut_noted: false,
            counts: (0, 0),
            selection,
        };
        logs.rewind();
        Ok(logs)
    }

    /// Begins to read all streams, each from the time at which its lines may be new.
    fn rewind(&mut self) {
        let new_ms = self.new_ms();
        let from_ms = |stream: &StreamKey| if self.known.contains(stream) { new_ms } else { self.first_ms };
        self.cursors = cursors(self.streams.all.keys(), from_ms);
    }

    /// Reads more lines; `None` at the end. A log that is followed goes on through outages.
    pub(super) async fn read(&mut self) -> Result<Option<Vec<LogEntry>>> {
        match self.read_more().await {
            Err(error) if self.selection.query.follow && error.is_temporary() => {
                let note = (!std::mem::replace(&mut self.is_outage, true)).then(|| outage_note(&error));
                tokio::time::sleep(LOOK_INTERVAL).await;
                Ok(Some(note.into_iter().collect()))
            }
            read => read,
        }
    }

    async fn read_more(&mut self) -> Result<Option<Vec<LogEntry>>> {
        if self.stage == Stage::Finished {
            return Ok(None);
        }
        if self.cursors.iter().any(|cursor| !cursor.is_done || !cursor.page.is_empty()) {
            let entries = self.read_page().await?;
            return Ok(Some(self.unless_tail(entries)));
        }
        if !self.tail.is_empty() {
            return Ok(Some(std::mem::take(&mut self.tail).into()));
        }
        self.at_the_end().await.map(Some)
    }

    /// Keeps lines of which only the last ones are selected, until all are read. Returns the others.
    fn unless_tail(&mut self, entries: Vec<LogEntry>) -> Vec<LogEntry> {
        let Some(lines) = self.selection.query.tail.filter(|_| self.stage == Stage::First) else { return entries };
        self.tail.extend(entries);
        let excess = self.tail.len().saturating_sub(lines);
        self.tail.drain(..excess);
        Vec::new()
    }

    /// Reads a page of each cursor that has none, and returns the lines that come before all that are still to be read.
    async fn read_page(&mut self) -> Result<Vec<LogEntry>> {
        while let Some(position) = self.cursors.iter().position(Cursor::needs_page) {
            self.fetch(position).await?;
        }
        let events = merge(&mut self.cursors);
        let entries = events.into_iter().filter_map(|(group, event)| self.take(&group, event)).collect();
        let new_ms = self.new_ms();
        self.seen.retain(|_, time_ms| *time_ms >= new_ms);
        Ok(entries)
    }

    /// Returns the time from which lines of a stream that was read before may be new.
    fn new_ms(&self) -> u64 {
        let late_ms = u64::try_from(DELAY.as_millis()).unwrap_or(u64::MAX);
        // The clock of one machine may be ahead of the others.
        let newest_ms = self.newest_ms.min(unix_ms(SystemTime::now()));
        self.first_ms.max(newest_ms.saturating_sub(late_ms))
    }

    /// Requests the next page of a cursor. Streams that do not exist, or not yet, are left out.
    async fn fetch(&mut self, position: usize) -> Result<()> {
        let cursor = &self.cursors[position];
        let request = LogPageRequest {
            group: cursor.group.clone(),
            streams: cursor.streams.clone(),
            pattern: pattern(self.selection.items.as_deref(), self.selection.query.attempt),
            from_ms: cursor.from_ms,
            token: cursor.token.clone(),
        };
        let page = self.found.backend.executor().read_log(request).await;
        let cursor = &mut self.cursors[position];
        match page {
            Ok(page) => {
                self.is_outage = false;
                cursor.is_done = page.next.is_none() || page.next == cursor.token;
                cursor.token = page.next;
                cursor.page.extend(page.events);
                if cursor.is_done {
                    self.known.extend(cursor.streams.iter().map(|stream| (cursor.group.clone(), stream.clone())));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // CloudWatch Logs refuses the request if one of the streams is absent.
                let half = cursor.streams.split_off(cursor.streams.len() / 2);
                if cursor.streams.is_empty() {
                    cursor.is_done = true;
                } else {
                    let other = Cursor::new(&cursor.group, &half, cursor.from_ms);
                    self.cursors.push(other);
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Returns the line of an event, if it is new and selected.
    fn take(&mut self, group: &str, event: LogEvent) -> Option<LogEntry> {
        self.newest_ms = self.newest_ms.max(event.time_ms);
        if self.selection.query.follow && self.seen.insert(event.id, event.time_ms).is_some() {
            return None;
        }
        self.counts.0 += 1;
        let (source, text) =
            Source::parse(&event.text).map_or((None, event.text.as_str()), |(source, text)| (Some(source), text));
        let line = LogLine {
            item: source.map(|source| source.item),
            attempt: source.map(|source| source.attempt),
            round: self.streams.all.get(&(group.to_owned(), event.stream)).copied().flatten(),
            time: time(event.time_ms),
            text: text.to_owned(),
        };
        self.selection.selects(&line).then(|| {
            self.counts.1 += 1;
            LogEntry::Line(line)
        })
    }

    /// Goes on once all lines have been read that CloudWatch Logs had: waits for others, or ends the log.
    async fn at_the_end(&mut self) -> Result<Vec<LogEntry>> {
        if !self.selection.query.follow || self.stage == Stage::Last {
            self.stage = Stage::Finished;
            return Ok(self.notes());
        }
        self.stage = Stage::Following;
        let mut entries = Vec::new();
        tokio::time::sleep(POLL_INTERVAL.max(Duration::from_secs(self.cursors.len() as u64))).await;
        if self.watch.is_due(LOOK_INTERVAL) {
            let (watched, opened) = self.watch.look().await?;
            if let Some(opened) = opened
                && let Ok(record) = &opened.record
            {
                // Jobs may have begun meanwhile.
                self.streams.extend(streams::find(&opened, record, &self.items).await?);
            }
            entries.extend(self.cut_note());
            if let Watched::Over(because) = watched {
                entries.extend(because.map(LogEntry::Note));
                self.stage = Stage::Last;
                tokio::time::sleep(DELAY).await;
            }
        }
        self.rewind();
        Ok(entries)
    }

    /// Returns the note that not all streams are read, once.
    fn cut_note(&mut self) -> Option<LogEntry> {
        if !self.streams.is_cut || std::mem::replace(&mut self.is_cut_noted, true) {
            return None;
        }
        Some(LogEntry::Note(
            "the logs of some jobs are not read, because there are too many: select fewer items".into(),
        ))
    }

    /// Returns why lines are missing, or why there are none.
    fn notes(&mut self) -> Vec<LogEntry> {
        let cut = self.cut_note();
        let groups: Vec<String> = self.streams.all.keys().map(|(group, _)| format!("`{group}`")).collect();
        let why = match (self.counts, groups.first()) {
            ((_, 1..), _) => None,
            (_, None) => Some(
                "no log of these items is known: no job of them has begun, or AWS Batch has forgotten it".to_owned(),
            ),
            ((0, _), Some(group)) => Some(format!(
                "the log group {group} has none of these lines: the items have printed nothing, or its retention has removed them"
            )),
            ((read, _), Some(_)) => Some(format!("none of the {read} lines that were read is selected")),
        };
        cut.into_iter().chain(why.map(LogEntry::Note)).collect()
    }
}

fn outage_note(error: &Error) -> LogEntry {
    LogEntry::Note(format!("{}; trying again every {} s", error.in_one_line(), LOOK_INTERVAL.as_secs()))
}

/// Returns cursors for streams, each of which is read from its own time.
fn cursors<'a>(streams: impl Iterator<Item = &'a StreamKey>, from_ms: impl Fn(&StreamKey) -> u64) -> Vec<Cursor> {
    let mut together: BTreeMap<(&String, u64), Vec<String>> = BTreeMap::new();
    for stream in streams {
        together.entry((&stream.0, from_ms(stream))).or_default().push(stream.1.clone());
    }
    let of_group = |((group, from_ms), streams): ((&String, u64), Vec<String>)| -> Vec<Cursor> {
        streams.chunks(MAX_STREAMS).map(|streams| Cursor::new(group, streams, from_ms)).collect()
    };
    together.into_iter().flat_map(of_group).collect()
}

/// Removes the lines that come before all that are still to be read, in the order of their times, with their groups.
fn merge(cursors: &mut [Cursor]) -> Vec<(String, LogEvent)> {
    let mut events = Vec::new();
    while !cursors.iter().any(Cursor::needs_page) {
        let next = cursors.iter_mut().filter_map(|cursor| Some((cursor.page.front()?.time_ms, cursor)));
        let Some((_, cursor)) = next.min_by_key(|(time_ms, _)| *time_ms) else { break };
        let event = cursor.page.pop_front().expect("the cursor has a line");
        events.push((cursor.group.clone(), event));
    }
    events
}

/// Returns the pattern that lines of a few items match, so that no others are sent. Lines are checked again when they are read.
fn pattern(items: Option<&[RangeInclusive<u64>]>, attempt: Option<u32>) -> Option<String> {
    let items = items?;
    let count = items.iter().map(|range| (range.end() - range.start()).saturating_add(1)).fold(0, u64::saturating_add);
    if !(1..=MAX_PATTERNS).contains(&count) {
        return None;
    }
    let prefix = |item: u64| match attempt {
        Some(attempt) => format!("\"{}\"", Source { item, attempt }),
        None => format!("\"[item {item}, attempt\""),
    };
    // Terms with a question mark are alternatives ("Filter pattern syntax" in the user guide of CloudWatch Logs).
    let mark = if count == 1 { "" } else { "?" };
    let terms: Vec<String> = items.iter().cloned().flatten().map(|item| format!("{mark}{}", prefix(item))).collect();
    Some(terms.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_merged_by_their_times_as_far_as_they_are_read() {
        let cursor = |group: &str, times: &[u64], is_done| {
            let event = |time_ms: &u64| LogEvent {
                id: format!("{group}{time_ms}"),
                stream: "s".into(),
                time_ms: *time_ms,
                text: String::new(),
            };
            Cursor { page: times.iter().map(event).collect(), is_done, ..Cursor::new(group, &["s".to_owned()], 0) }
        };
        let ids = |cursors: &mut [Cursor]| merge(cursors).into_iter().map(|(_, event)| event.id).collect::<Vec<_>>();
        let mut cursors = [cursor("a", &[1, 4, 9], true), cursor("b", &[2, 4], false), cursor("c", &[], true)];
        assert_eq!(ids(&mut cursors), ["a1", "b2", "a4", "b4"], "the next line of b may come before a9");
        assert!(ids(&mut cursors).is_empty());
        cursors[1].is_done = true;
        assert_eq!(ids(&mut cursors), ["a9"]);
    }

    /// A job may be found long after it has begun to print.
    #[test]
    fn streams_with_other_start_times_are_read_apart() {
        let streams: Vec<StreamKey> =
            [("g", "old"), ("g", "new"), ("h", "old")].map(|(group, name)| (group.into(), name.into())).into();
        let cursors = cursors(streams.iter(), |(_, stream)| if stream == "new" { 5 } else { 70 });
        let read: Vec<_> = cursors.iter().map(|cursor| (&*cursor.group, &cursor.streams[..], cursor.from_ms)).collect();
        let (old, new) = (["old".to_owned()], ["new".to_owned()]);
        assert_eq!(read, [("g", &new[..], 5), ("g", &old, 70), ("h", &old, 70)]);
        let many: Vec<StreamKey> = (0..150).map(|number| ("g".into(), number.to_string())).collect();
        assert_eq!(super::cursors(many.iter(), |_| 0).len(), 2);
    }

    #[test]
    fn few_items_are_selected_by_a_pattern() {
        let check = |items: Option<&[RangeInclusive<u64>]>, attempt, expected: Option<&str>| {
            assert_eq!(pattern(items, attempt).as_deref(), expected);
        };
        check(None, None, None);
        check(None, Some(2), None);
        check(Some(&[17..=17]), Some(1), Some("\"[item 17, attempt 1]\""));
        check(Some(&[17..=17]), None, Some("\"[item 17, attempt\""));
        check(Some(&[3..=4]), None, Some("?\"[item 3, attempt\" ?\"[item 4, attempt\""));
        check(Some(&[0..=u64::MAX]), None, None);
        let longest = pattern(Some(&[u64::MAX - 19..=u64::MAX]), Some(u32::MAX)).unwrap();
        assert!(longest.len() <= 1_024, "{} characters", longest.len());
    }
}
