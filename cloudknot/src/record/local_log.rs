//! The log of a run in a folder: the lines that its items printed, in segments of JSON lines. Written by the program that computes the
//! run, which holds its lock, and read by any other.
//!
//! The futures of a folder are ready when they are created, so that none of them blocks a thread of an async runtime.

use std::fs::File;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use cloudknot_runtime::contract::{self, LogLine, RunKeys};
use cloudknot_runtime::log::Printed;
use cloudknot_runtime::store::{DirStore, Store};

use crate::error::Result;

/// Length in bytes of a segment, after which the next one begins.
const MAX_SEGMENT_LEN: u64 = 8 << 20;
/// Maximum number of segments of a run.
const MAX_SEGMENTS: u64 = 8;

/// Writer of the log of a run in a folder.
#[derive(Debug)]
pub(crate) struct LocalLog {
    store: DirStore,
    keys: RunKeys,
    round: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Nothing has been written by this program.
    New,
    /// A segment is being written.
    Open { number: u64, file: File, len: u64 },
    /// The log cannot be written. This was reported.
    Failed,
}

impl LocalLog {
    pub(crate) fn new(store: DirStore, keys: RunKeys, round: u32) -> Self {
        Self { store, keys, round, state: Mutex::new(State::New) }
    }

    /// Appends the lines. A log that cannot be written does not end the run: its values are more important.
    pub(crate) fn write(&self, printed: &Printed) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.append(&mut state, printed) {
            tracing::warn!(%error, key = self.keys.logs(), "the output of the items is not kept from now on");
            *state = State::Failed;
        }
    }

    fn append(&self, state: &mut State, printed: &Printed) -> Result<()> {
        let (number, len) = match state {
            State::Failed => return Ok(()),
            State::New => self.last_segment()?,
            State::Open { number, len, .. } => (*number, *len),
        };
        let mut lines = Vec::new();
        let mut bytes = Vec::new();
        if number == 0 || len >= MAX_SEGMENT_LEN {
            lines.extend(self.begin_segment(state, number + 1)?);
        } else if matches!(state, State::New) {
            *state = State::Open { number, file: self.store.open_append(&self.keys.log(number))?, len };
            // An interrupted program may have written a part of a line. Readers skip it, and empty lines.
            bytes.push(b'\n');
        }
        let time = contract::unix_ms(SystemTime::now());
        lines.extend(printed.lines().map(|text| LogLine {
            time_ms: time,
            item: printed.source.map(|source| source.item),
            attempt: printed.source.map(|source| source.attempt),
            round: self.round,
            text: String::from_utf8_lossy(text).into_owned(),
            ..LogLine::default()
        }));
        bytes.extend(lines.iter().flat_map(LogLine::to_bytes));
        let State::Open { file, len, .. } = state else { unreachable!("a segment was just opened") };
        file.write_all(&bytes).map_err(|error| self.store.failed_to_append(&self.keys.logs(), error))?;
        *len += bytes.len() as u64;
        Ok(())
    }

    /// Returns the number and the length of the last segment; zero if there is none.
    fn last_segment(&self) -> Result<(u64, u64)> {
        let objects = pollster::block_on(self.store.list(&self.keys.logs(), None))?;
        let segments = objects.iter().filter_map(|object| Some((contract::log_of(&object.key)?, object.size)));
        Ok(segments.max().unwrap_or_default())
    }

    /// Begins a segment. Removes the oldest one if there are too many, and returns the line that says so.
    fn begin_segment(&self, state: &mut State, number: u64) -> Result<Option<LogLine>> {
        let file = self.store.open_append(&self.keys.log(number))?;
        *state = State::Open { number, file, len: 0 };
        let Some(oldest) = number.checked_sub(MAX_SEGMENTS).filter(|&oldest| oldest > 0) else { return Ok(None) };
        pollster::block_on(self.store.delete(&[self.keys.log(oldest)]))?;
        let time_ms = contract::unix_ms(SystemTime::now());
        Ok(Some(LogLine { time_ms, round: self.round, is_gap: true, ..LogLine::default() }))
    }
}

#[cfg(test)]
mod tests {
    use cloudknot_runtime::log::Source;

    use super::*;

    fn lines(store: &DirStore, keys: &RunKeys) -> Vec<LogLine> {
        let objects = pollster::block_on(store.list(&keys.logs(), None)).unwrap();
        let read = |key: &str| pollster::block_on(store.get(key)).unwrap().unwrap();
        objects.iter().flat_map(|object| LogLine::parse_all(&read(&object.key))).collect()
    }

    fn printed(item: u64, text: &str) -> Printed {
        Printed { source: Some(Source { item, attempt: 1 }), text: text.into() }
    }

    #[test]
    fn lines_are_appended_by_one_program_after_another() {
        let folder = tempfile::tempdir().unwrap();
        let (store, keys) = (DirStore::new(folder.path()), RunKeys::new("k", "r"));
        for round in 1..=2 {
            let log = LocalLog::new(store.clone(), keys.clone(), round);
            log.write(&printed(3, "one\n\ntwo \u{1b}[1m\n"));
            log.write(&Printed { source: None, text: b"banner \xff\n".to_vec() });
            store.open_append(&keys.log(1)).unwrap().write_all(b"{\"a part of a line").unwrap();
        }
        let lines = lines(&store, &keys);
        let shown: Vec<_> = lines.iter().map(|line| (line.round, line.item, line.text.as_str())).collect();
        let of = |round| {
            [
                (round, Some(3), "one"),
                (round, Some(3), ""),
                (round, Some(3), "two \u{1b}[1m"),
                (round, None, "banner \u{fffd}"),
            ]
        };
        assert_eq!(shown, [of(1), of(2)].concat());
        assert_eq!(pollster::block_on(store.list(&keys.logs(), None)).unwrap().len(), 1);
    }

    #[test]
    fn oldest_segment_goes_and_the_next_one_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let (store, keys) = (DirStore::new(folder.path()), RunKeys::new("k", "r"));
        let log = LocalLog::new(store.clone(), keys.clone(), 1);
        let text = format!("{}\n", "x".repeat(4 << 20));
        for item in 0..20 {
            log.write(&printed(item, &text));
        }
        let objects = pollster::block_on(store.list(&keys.logs(), None)).unwrap();
        assert_eq!(objects.len() as u64, MAX_SEGMENTS);
        let lines = lines(&store, &keys);
        assert!(lines.iter().all(|line| line.text.len() <= cloudknot_runtime::log::MAX_LINE_LEN));
        assert!(lines.iter().any(|line| line.is_gap), "the loss is said");
        assert_eq!(lines.last().and_then(|line| line.item), Some(19));
    }
}
