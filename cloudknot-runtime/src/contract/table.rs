//! The end of a part: after the frames, a table with a row for each item, a description of the machine, and a trailer, which
//! shows where each of them begins. A reader of the table reads the end of the object only.
//!
//! | content | length in bytes |
//! |---|---|
//! | frames | |
//! | table | 32 for each item |
//! | machine: a [`Machine`] as JSON | at most 2048 |
//! | trailer | 32 |
//!
//! A row:
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | start in milliseconds since the run was submitted, signed |
//! | 8..12 | seconds in the function, f32 |
//! | 12..16 | seconds between the receipt of the item by its slot and its start, f32 |
//! | 16..20 | CPU seconds, f32; NaN if unknown |
//! | 20..24 | peak memory in KiB; `u32::MAX` if unknown |
//! | 24..26 | round |
//! | 26..28 | attempt |
//! | 28..30 | slot |
//! | 30..32 | 1 if the peak memory is an upper bound, else 0 |
//!
//! The trailer:
//!
//! | bytes | content |
//! |---|---|
//! | 0..4 | `CKPT` |
//! | 4 | version of this layout, 1 |
//! | 5..8 | zero |
//! | 8..16 | number of items |
//! | 16..24 | length of the machine in bytes |
//! | 24..32 | XXH3-64 of the table, the machine, and the trailer up to here |
//!
//! All numbers are little-endian.

use std::time::Duration;

use twox_hash::XxHash3_64;

use super::Part;
use crate::measurements::{Machine, Measurements};

const TRAILER_LEN: usize = 32;
const MAGIC: [u8; 4] = *b"CKPT";
const VERSION: u8 = 1;
/// Maximum length in bytes of a machine as JSON. A longer one loses what is longest: its log stream.
const MAX_MACHINE_LEN: usize = 2048;

/// Length in bytes of a row.
pub const ROW_LEN: usize = 32;
/// Maximum number of bytes that follow the frame of a part of one item.
pub const MAX_END_LEN: u64 = (ROW_LEN + MAX_MACHINE_LEN + TRAILER_LEN) as u64;

impl Measurements {
    /// Appends the row of these measurements to a table.
    pub fn append(&self, table: &mut Vec<u8>) {
        table.extend_from_slice(&self.start_ms.to_le_bytes());
        for seconds in
            [self.duration.as_secs_f32(), self.waited.as_secs_f32(), self.cpu.map_or(f32::NAN, |cpu| cpu.as_secs_f32())]
        {
            table.extend_from_slice(&seconds.to_le_bytes());
        }
        let memory = self.peak_memory.map_or(UNKNOWN, |peak| short(peak.div_ceil(1024)).min(UNKNOWN - 1));
        table.extend_from_slice(&memory.to_le_bytes());
        for number in [self.round, self.attempt, self.slot, self.peak_is_bound.into()] {
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            table.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// Parses a row. Returns `None` if it contains a number that no attempt has.
    fn parse(row: &[u8; ROW_LEN]) -> Option<Self> {
        let seconds = |at: usize| Duration::try_from_secs_f32(f32::from_le_bytes(bytes_at(row, at))).ok();
        let u16_at = |at: usize| u32::from(u16::from_le_bytes(bytes_at(row, at)));
        let cpu = f32::from_le_bytes(bytes_at(row, 16));
        let memory = u32::from_le_bytes(bytes_at(row, 20));
        Some(Self {
            round: u16_at(24),
            attempt: u16_at(26),
            start_ms: i64::from_le_bytes(bytes_at(row, 0)),
            duration: seconds(8)?,
            waited: seconds(12)?,
            cpu: if cpu.is_nan() { None } else { Some(seconds(16)?) },
            peak_memory: (memory != UNKNOWN).then(|| u64::from(memory) * 1024),
            peak_is_bound: u16_at(30) != 0,
            slot: u16_at(28),
        })
    }
}

/// Peak memory in a row if it is unknown.
const UNKNOWN: u32 = u32::MAX;

fn short(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Machine {
    /// Encodes the machine as it is stored in a part.
    pub fn to_bytes(&self) -> Vec<u8> {
        let encode = |machine: &Self| serde_json::to_vec(machine).expect("a machine serializes to JSON");
        let bytes = encode(self);
        if bytes.len() <= MAX_MACHINE_LEN {
            return bytes;
        }
        encode(&Self { started_ms: self.started_ms, vcpus: self.vcpus, memory: self.memory, ..Self::default() })
    }
}

/// The end of a part, as read from the store.
#[derive(Debug, Clone, PartialEq)]
pub struct PartEnd {
    /// Measurements of the items, in their order.
    pub rows: Vec<Measurements>,
    /// Machine of the worker that stored the part.
    pub machine: Machine,
    /// Length in bytes of the end itself.
    pub len: u64,
}

impl PartEnd {
    /// Appends the end of a part to its frames. `machine` is encoded by [`Machine::to_bytes`].
    pub fn append(table: &[u8], machine: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.reserve(table.len() + machine.len() + TRAILER_LEN);
        out.extend_from_slice(table);
        out.extend_from_slice(machine);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, 0, 0, 0]);
        out.extend_from_slice(&((table.len() / ROW_LEN) as u64).to_le_bytes());
        out.extend_from_slice(&(machine.len() as u64).to_le_bytes());
        let checksum = XxHash3_64::oneshot(&out[start..]);
        out.extend_from_slice(&checksum.to_le_bytes());
    }

    /// Returns the number of bytes at the end of a part that contain its end.
    pub fn max_len(part: Part) -> u64 {
        let rows = (part.last - part.first).saturating_mul(ROW_LEN as u64);
        rows.saturating_add(MAX_END_LEN)
    }

    /// Parses the end of a part. `bytes` are the last bytes of the object: all of them, or at least [`max_len`](Self::max_len).
    ///
    /// # Errors
    /// Returns the reason why they are not the end of this part.
    pub fn parse(part: Part, bytes: &[u8]) -> Result<Self, String> {
        let (table, machine, len) = split(part, bytes)?;
        let machine = serde_json::from_slice(machine).map_err(|error| format!("the machine is damaged: {error}"))?;
        let (rows, _) = table.as_chunks::<ROW_LEN>();
        let rows: Option<Vec<Measurements>> = rows.iter().map(Measurements::parse).collect();
        let rows = rows.ok_or_else(|| "a row of the table is damaged".to_owned())?;
        Ok(Self { rows, machine, len })
    }

    /// Returns the length of the frames at the start of a part.
    ///
    /// # Errors
    /// Returns the reason why the part has no valid end.
    pub fn frames_len(part: Part, bytes: &[u8]) -> Result<usize, String> {
        let (_, _, len) = split(part, bytes)?;
        Ok(bytes.len() - usize::try_from(len).expect("the end is a part of the bytes in memory"))
    }
}

/// Returns the table, the machine, and the length of the end of a part, which is verified first.
fn split(part: Part, bytes: &[u8]) -> Result<(&[u8], &[u8], u64), String> {
    let truncated = || format!("the object is truncated: {} bytes remain", bytes.len());
    let (head, trailer) = bytes.split_last_chunk::<TRAILER_LEN>().ok_or_else(truncated)?;
    if trailer[..4] != MAGIC {
        return Err("the object is truncated, or was not written by this version of cloudknot".into());
    }
    if trailer[4..8] != [VERSION, 0, 0, 0] {
        return Err(format!("its layout {} is that of another version of cloudknot", trailer[4]));
    }
    let count = u64::from_le_bytes(bytes_at(trailer, 8));
    let machine_len = u64::from_le_bytes(bytes_at(trailer, 16));
    if count.checked_sub(1) != Some(part.last - part.first) || machine_len > MAX_MACHINE_LEN as u64 {
        return Err("its trailer is damaged, or that of another part".into());
    }
    let machine_len = usize::try_from(machine_len).expect("the length of a machine is small");
    let start = usize::try_from(count)
        .ok()
        .and_then(|count| count.checked_mul(ROW_LEN))
        .and_then(|table| head.len().checked_sub(table)?.checked_sub(machine_len))
        .ok_or_else(truncated)?;
    let end = &bytes[start..];
    let (checked, checksum) = end.split_at(end.len() - 8);
    if XxHash3_64::oneshot(checked).to_le_bytes() != checksum {
        return Err("its table is damaged: the checksum does not match".into());
    }
    let (table, machine) = head[start..].split_at(head.len() - start - machine_len);
    Ok((table, machine, end.len() as u64))
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has this length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurements(attempt: u32) -> Measurements {
        Measurements {
            round: 2,
            attempt,
            start_ms: -5,
            duration: Duration::from_millis(1500),
            waited: Duration::from_millis(250),
            cpu: Some(Duration::from_secs(3)),
            peak_memory: Some(5 << 30),
            peak_is_bound: attempt == 1,
            slot: 7,
        }
    }

    fn part_of(rows: &[Measurements]) -> (Part, Vec<u8>) {
        let mut table = Vec::new();
        for row in rows {
            row.append(&mut table);
        }
        let machine = Machine { host: Some("node-1".into()), started_ms: 17, ..Machine::default() };
        let mut bytes = b"frames".to_vec();
        PartEnd::append(&table, &machine.to_bytes(), &mut bytes);
        (Part { first: 10, last: 9 + rows.len() as u64 }, bytes)
    }

    #[test]
    fn end_of_a_part_is_read_back() {
        let unknown = Measurements { cpu: None, peak_memory: None, ..measurements(3) };
        let rows = [measurements(1), unknown, measurements(65_535)];
        let (part, bytes) = part_of(&rows);
        let end = PartEnd::parse(part, &bytes).unwrap();
        assert_eq!(end.rows, rows);
        assert_eq!((end.machine.host.as_deref(), end.machine.started_ms), (Some("node-1"), 17));
        assert_eq!(end.len, bytes.len() as u64 - 6);
        assert!(end.len <= PartEnd::max_len(part));
        assert_eq!(PartEnd::frames_len(part, &bytes), Ok(6));
        assert_eq!(PartEnd::parse(part, &bytes[6..]), Ok(end));
    }

    #[test]
    fn numbers_beyond_a_row_saturate() {
        let huge = Measurements { attempt: u32::MAX, slot: 1 << 20, peak_memory: Some(u64::MAX), ..measurements(1) };
        let (part, bytes) = part_of(&[huge]);
        let [row] = PartEnd::parse(part, &bytes).unwrap().rows[..] else { panic!("one row") };
        assert_eq!((row.attempt, row.slot), (65_535, 65_535));
        assert_eq!(row.peak_memory, Some(u64::from(u32::MAX - 1) * 1024));
    }

    #[test]
    fn damaged_or_foreign_ends_are_refused() {
        let (part, bytes) = part_of(&[measurements(1), measurements(2)]);
        for cut in 0..bytes.len() {
            assert!(PartEnd::parse(part, &bytes[..cut]).is_err(), "cut at {cut}");
        }
        for at in 6..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(PartEnd::parse(part, &damaged).is_err(), "byte {at}");
        }
        assert!(PartEnd::parse(Part { last: part.last + 1, ..part }, &bytes).is_err());
        assert!(PartEnd::parse(Part { first: 0, last: u64::MAX }, &bytes).is_err());
    }

    #[test]
    fn measurements_are_seconds_in_json() {
        let json = serde_json::to_value(measurements(1)).unwrap();
        assert_eq!((json["seconds"].as_f64(), json["cpu_seconds"].as_f64()), (Some(1.5), Some(3.0)));
        assert_eq!(serde_json::from_value::<Measurements>(json).unwrap(), measurements(1));
        assert!(
            serde_json::from_str::<Measurements>(
                r#"{"round":1,"attempt":1,"start_ms":0,"seconds":-1,"waited_seconds":0,"slot":0}"#
            )
            .is_err()
        );
    }

    #[test]
    fn long_machine_is_shortened() {
        let machine = Machine { log_stream: Some("x".repeat(4096)), vcpus: Some(2.0), ..Machine::default() };
        let short: Machine = serde_json::from_slice(&machine.to_bytes()).unwrap();
        assert_eq!((short.log_stream, short.vcpus), (None, Some(2.0)));
    }
}
