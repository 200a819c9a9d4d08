//! Lines of the log of a run in a folder.

use serde::{Deserialize, Serialize};

/// A line of the log of a run in a folder, stored as a line of JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogLine {
    /// Time at which the line was read, in milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// Item that printed the line; `None` for output before the first item of a process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<u64>,
    /// Number of the item's attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Number of the round.
    pub round: u32,
    /// The line, without its line break. Bytes that are not UTF-8 are replaced.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// `true` if older lines were removed before this one, because the log was full.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_gap: bool,
}

impl LogLine {
    /// Encodes the line, with its line break.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("a line serializes to JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Parses the lines of a segment. An incomplete last line, which is still being written, is left out.
    pub fn parse_all(segment: &[u8]) -> Vec<Self> {
        let lines = segment.split_inclusive(|&byte| byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
        lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}
