//! The log of a run in a folder: segments of JSON lines, which the program that computes the run appends to and removes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cloudknot_runtime::contract::{self, RunKeys};
use cloudknot_runtime::store::{Object, Store, StoreError, StoreErrorKind};

use super::super::open::Opened;
use super::super::summary::time;
use super::{LogEntry, LogLine, Selection, Watch, Watched};
use crate::error::Result;

/// Maximum number of bytes that are read at once, unless the last lines are requested.
const MAX_READ: u64 = 1 << 20;
/// Interval between two looks for new lines.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Minimum interval between two looks for the end of the run.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Reader of the log of a run in a folder.
pub(super) struct LocalLogs {
    store: Arc<dyn Store>,
    keys: RunKeys,
    selection: Selection,
    /// Segment and offset of the next line; `None` before the first read.
    position: Option<(u64, u64)>,
    watch: Watch,
    /// `true` once the run is known to have ended: then the rest is read.
    is_over: bool,
    /// Why a run that has not ended is not followed any longer.
    because: Option<String>,
    /// Number of lines that were read, and of those that were selected.
    counts: (u64, u64),
    is_finished: bool,
}

/// A segment: its number, its size, and the time of its last line.
type Segment = (u64, u64, SystemTime);

impl LocalLogs {
    pub(super) fn new(opened: &Opened, selection: Selection) -> Self {
        Self {
            store: Arc::clone(&opened.found.store),
            keys: opened.found.keys(),
            watch: Watch::new(&opened.found),
            selection,
            position: None,
            is_over: false,
            because: None,
            counts: (0, 0),
            is_finished: false,
        }
    }

    /// Reads more of the log; `None` at its end.
    pub(super) async fn read(&mut self) -> Result<Option<Vec<LogEntry>>> {
        if self.is_finished {
            return Ok(None);
        }
        let Some((number, offset)) = self.position else { return self.begin().await.map(Some) };
        let segments = self.segments().await?;
        match segments.iter().find(|(other, ..)| *other >= number) {
            Some((found, ..)) if *found > number => {
                // The segment was removed before all of it was read, unless nothing was there yet.
                self.position = Some((*found, 0));
                Ok(Some(if number > 0 { vec![lost()] } else { Vec::new() }))
            }
            Some((_, size, _)) if *size > offset => self.read_segment(number, offset, *size, &segments).await.map(Some),
            _ if segments.iter().any(|(other, ..)| *other > number) => {
                self.position = Some((number + 1, 0));
                Ok(Some(Vec::new()))
            }
            _ => self.at_the_end().await.map(Some),
        }
    }

    /// Returns the segments in order.
    async fn segments(&self) -> Result<Vec<Segment>> {
        let objects = self.store.list(&self.keys.logs(), None).await?;
        let segment = |object: &Object| Some((contract::log_of(&object.key)?, object.size, object.stored));
        Ok(objects.iter().filter_map(segment).collect())
    }

    /// Finds the first line, and reads the last lines if these are requested.
    async fn begin(&mut self) -> Result<Vec<LogEntry>> {
        let segments = self.segments().await?;
        if let Some(lines) = self.selection.query.tail {
            return self.read_tail(&segments, lines).await;
        }
        let Some((first, ..)) = segments.first() else {
            self.position = Some((0, 0));
            return Ok(Vec::new());
        };
        let is_new = |(_, _, stored): &&Segment| self.selection.query.since.is_none_or(|since| *stored >= since);
        let start = segments.iter().find(is_new).or(segments.last()).map_or(*first, |(number, ..)| *number);
        self.position = Some((start, 0));
        let is_lost = start == *first && *first > 1;
        Ok(if is_lost { vec![lost()] } else { Vec::new() })
    }

    /// Reads a piece of a segment up to its last whole line.
    async fn read_segment(
        &mut self,
        number: u64,
        offset: u64,
        size: u64,
        segments: &[Segment],
    ) -> Result<Vec<LogEntry>> {
        let end = size.min(offset.saturating_add(MAX_READ));
        let read = self.store.get_range(&self.keys.log(number), offset..end).await;
        let Some(bytes) = unless_removed(read)? else { return Ok(Vec::new()) };
        let Some(last) = bytes.iter().rposition(|&byte| byte == b'\n') else {
            let is_complete = segments.iter().any(|(other, ..)| *other > number);
            if end < size || is_complete {
                // No line is as long: this is what an interrupted program wrote.
                self.position = Some((number, end));
                return Ok(Vec::new());
            }
            return self.at_the_end().await;
        };
        self.position = Some((number, offset + last as u64 + 1));
        let lines = contract::LogLine::parse_all(&bytes[..=last]);
        Ok(lines.into_iter().filter_map(|line| self.take(line)).collect())
    }

    /// Counts a line. Returns it if it is selected.
    fn take(&mut self, line: contract::LogLine) -> Option<LogEntry> {
        // A gap is known by the number of the first segment.
        let line = (!line.is_gap).then(|| public(line))?;
        self.counts.0 += 1;
        self.selection.selects(&line).then(|| {
            self.counts.1 += 1;
            LogEntry::Line(line)
        })
    }

    /// Reads the last selected lines, from the last segment backwards.
    async fn read_tail(&mut self, segments: &[Segment], lines: usize) -> Result<Vec<LogEntry>> {
        let mut tail = VecDeque::new();
        self.position = Some((0, 0));
        for (number, ..) in segments.iter().rev() {
            let read = self.store.get(&self.keys.log(*number)).await?;
            let Some(bytes) = read else { break };
            let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
            if self.position == Some((0, 0)) {
                self.position = Some((*number, whole as u64));
            }
            for line in bytes[..whole].rsplit(|&byte| byte == b'\n') {
                if tail.len() >= lines {
                    return Ok(tail.into());
                }
                let line = serde_json::from_slice(line).ok();
                if let Some(entry) = line.and_then(|line| self.take(line)) {
                    tail.push_front(entry);
                }
            }
        }
        if segments.first().is_some_and(|(first, ..)| *first > 1) {
            tail.push_front(lost());
        }
        Ok(tail.into())
    }

    /// Waits for more lines, if the run is followed and goes on. Otherwise, ends the log.
    async fn at_the_end(&mut self) -> Result<Vec<LogEntry>> {
        if !self.selection.query.follow || self.is_over {
            self.is_finished = true;
            let none = (self.counts.1 == 0).then(|| self.why_none());
            return Ok(self.because.take().into_iter().chain(none).map(LogEntry::Note).collect());
        }
        if self.watch.is_due(LOOK_INTERVAL)
            && let Watched::Over(because) = self.watch.look().await?.0
        {
            // What was printed last is read once more.
            (self.is_over, self.because) = (true, because);
            return Ok(Vec::new());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
        Ok(Vec::new())
    }

    fn why_none(&self) -> String {
        match self.counts.0 {
            0 => "no line is stored: the items have printed nothing, or they run as threads of the program".to_owned(),
            1 => "the only line that was read is not selected".to_owned(),
            read => format!("none of the {read} lines that were read is selected"),
        }
    }
}

/// Returns what was read; `None` if the segment has been removed, or cut, meanwhile.
fn unless_removed<T>(read: Result<T, StoreError>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if matches!(error.kind(), StoreErrorKind::Missing | StoreErrorKind::Short) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn lost() -> LogEntry {
    LogEntry::Note("lines are missing here: a run on this machine keeps the last 64 MiB of its log".to_owned())
}

fn public(line: contract::LogLine) -> LogLine {
    LogLine {
        item: line.item,
        attempt: line.attempt,
        round: Some(line.round),
        time: time(line.time_ms),
        text: line.text,
    }
}
