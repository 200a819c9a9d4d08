//! The messages between a supervisor and an item process: requests in one direction, replies in the other. The keeper of
//! the item process adds one message, how the process ended ([`Exit`]), on a channel of its own.

use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::failure::Failure;
use crate::measurements::{Measured, Memory};

/// Header of a message from a supervisor to an item process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Run an item. Its input, a frame of `length` bytes, follows.
    Run {
        /// Index of the item.
        item: u64,
        /// Length of the frame that follows.
        length: u64,
    },
    /// Give back the items that have not begun.
    GiveBack,
}

const REQUEST_LEN: usize = 16;
/// Index in the header of [`Request::GiveBack`]. No item has it, because a run has fewer items.
const GIVE_BACK: u64 = u64::MAX;

impl Request {
    /// Appends the request to run an item, and the item's frame, to `out`.
    pub fn append(item: u64, frame: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&item.to_le_bytes());
        out.extend_from_slice(&(frame.len() as u64).to_le_bytes());
        out.extend_from_slice(frame);
    }

    /// Appends the request to give back items to `out`.
    pub fn append_give_back(out: &mut Vec<u8>) {
        Self::append(GIVE_BACK, &[], out);
    }

    /// Reads the next request. Returns `None` at the end of the input.
    pub fn read(input: &mut impl Read) -> io::Result<Option<Self>> {
        let mut header = [0; REQUEST_LEN];
        if input.read(&mut header[..1])? == 0 {
            return Ok(None);
        }
        input.read_exact(&mut header[1..])?;
        let (item, length) = (u64_at(&header, 0), u64_at(&header, 8));
        Ok(Some(if item == GIVE_BACK { Self::GiveBack } else { Self::Run { item, length } }))
    }
}

const MEASURED_LEN: usize = 32;
const UNKNOWN: u64 = u64::MAX;
const IS_BOUND: u64 = 1 << 63;

impl Measured {
    fn to_bytes(self) -> [u8; MEASURED_LEN] {
        let memory = self
            .memory
            .map_or(UNKNOWN, |Memory { peak, is_bound }| peak & !IS_BOUND | if is_bound { IS_BOUND } else { 0 });
        let mut bytes = [0; MEASURED_LEN];
        let numbers = [self.started_us, self.duration_us, self.cpu_us.unwrap_or(UNKNOWN), memory];
        for (bytes, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// Parses measurements. The function may have written any of the numbers.
    fn parse(bytes: &[u8]) -> Self {
        let known = |number: u64| (number != UNKNOWN).then_some(number);
        let memory = |number: u64| Memory { peak: number & !IS_BOUND, is_bound: number & IS_BOUND != 0 };
        Self {
            started_us: u64_at(bytes, 0),
            duration_us: u64_at(bytes, 8),
            cpu_us: known(u64_at(bytes, 16)),
            memory: known(u64_at(bytes, 24)).map(memory),
        }
    }
}

/// Message from an item process: a tag (8 bytes), a number (8), a length (8), measurements (32), and that number of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The process has started and has the function.
    Ready,
    /// The init functions have returned: from now on, an item is running.
    Initialized,
    /// The process cannot run this function, for this reason.
    Refused(String),
    /// The process cannot start, because of this error of the operating system.
    NotStarted(i32),
    /// The item failed.
    Failed(u64, Failure, Measured),
    /// The frame of an item's value.
    Value(u64, Vec<u8>, Measured),
    /// This number of items, the last ones that were sent, have not begun, and will not.
    GivenBack(u64),
    /// The process is to be replaced. All items that it has not answered have not begun, and will not.
    Replace,
}

/// Result of [`Reply::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// The first reply, and its length.
    Reply(Reply, usize),
    /// The bytes are the beginning of a reply, which has this length.
    Incomplete(usize),
    /// The bytes were not written by an item process.
    Stray,
}

const REPLY_HEADER_LEN: usize = 24 + MEASURED_LEN;
// Random numbers whose first byte on the channel, the lowest, is in no text and is no small number: what a function writes
// there is not mistaken for a tag.
const READY: u64 = 0x011c_5b0f_3a72_d4fe;
const REFUSED: u64 = 0x021c_5b0f_3a72_d4fe;
const FAILED: u64 = 0x031c_5b0f_3a72_d4fe;
const VALUE: u64 = 0x041c_5b0f_3a72_d4fe;
const GIVEN_BACK: u64 = 0x051c_5b0f_3a72_d4fe;
const REPLACE: u64 = 0x061c_5b0f_3a72_d4fe;
const NOT_STARTED: u64 = 0x071c_5b0f_3a72_d4fe;
const INITIALIZED: u64 = 0x081c_5b0f_3a72_d4fe;

impl Reply {
    /// Encodes the reply.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Ready => message(READY, 0, &[]),
            Self::Initialized => message(INITIALIZED, 0, &[]),
            Self::Refused(reason) => message(REFUSED, 0, reason.as_bytes()),
            Self::Failed(item, failure, measured) => {
                let failure = serde_json::to_vec(failure).expect("a failure serializes to JSON");
                reply(FAILED, *item, *measured, &failure)
            }
            Self::Value(item, frame, measured) => reply(VALUE, *item, *measured, frame),
            Self::GivenBack(count) => message(GIVEN_BACK, *count, &[]),
            Self::Replace => message(REPLACE, 0, &[]),
            Self::NotStarted(error) => message(NOT_STARTED, u64::from(error.cast_unsigned()), &[]),
        }
    }

    /// Parses the first reply in `bytes`. The length in a header is not to be trusted: it may have been written by the
    /// function.
    pub fn parse(bytes: &[u8]) -> Parsed {
        let Some(header) = bytes.get(..REPLY_HEADER_LEN) else {
            let tag = &bytes[..bytes.len().min(8)];
            return if is_tag(tag) { Parsed::Incomplete(REPLY_HEADER_LEN) } else { Parsed::Stray };
        };
        let (tag, number, length) = (u64_at(header, 0), u64_at(header, 8), u64_at(header, 16));
        let end = usize::try_from(length).ok().and_then(|length| length.checked_add(REPLY_HEADER_LEN));
        let Some(end) = end.filter(|_| is_tag(&header[..8])) else { return Parsed::Stray };
        let Some(body) = bytes.get(REPLY_HEADER_LEN..end) else { return Parsed::Incomplete(end) };
        let measured = Measured::parse(&header[24..]);
        let reply = match tag {
            READY => Self::Ready,
            INITIALIZED => Self::Initialized,
            REFUSED => Self::Refused(String::from_utf8_lossy(body).into_owned()),
            FAILED => match serde_json::from_slice(body) {
                Ok(failure) => Self::Failed(number, failure, measured),
                Err(_) => return Parsed::Stray,
            },
            VALUE => Self::Value(number, body.to_vec(), measured),
            GIVEN_BACK => Self::GivenBack(number),
            NOT_STARTED => match u32::try_from(number) {
                Ok(error) => Self::NotStarted(error.cast_signed()),
                Err(_) => return Parsed::Stray,
            },
            _ => Self::Replace,
        };
        Parsed::Reply(reply, end)
    }
}

/// Returns whether these bytes are a tag, or the beginning of one.
fn is_tag(bytes: &[u8]) -> bool {
    [READY, INITIALIZED, REFUSED, FAILED, VALUE, GIVEN_BACK, REPLACE, NOT_STARTED]
        .iter()
        .any(|tag| tag.to_le_bytes().starts_with(bytes))
}

impl Reply {
    /// Returns whether the bytes are the beginning of the answer to this item.
    pub fn is_answer(bytes: &[u8], item: u64) -> bool {
        let header = bytes.get(..REPLY_HEADER_LEN);
        header.is_some_and(|header| matches!(u64_at(header, 0), VALUE | FAILED) && u64_at(header, 8) == item)
    }
}

/// Length in bytes from which a reply is large. Memory of a buffer beyond this length is freed after use.
pub const LARGE_LEN: usize = 1 << 20;

impl Reply {
    /// Takes the reply out of `bytes` if `bytes` is exactly one large value. The buffer is reused for the value, not copied
    /// as for other replies.
    pub fn take_large(bytes: &mut Vec<u8>) -> Option<Self> {
        let header = bytes.get(..REPLY_HEADER_LEN).filter(|_| bytes.len() >= LARGE_LEN)?;
        let (tag, item, length) = (u64_at(header, 0), u64_at(header, 8), u64_at(header, 16));
        if tag != VALUE || length != (bytes.len() - REPLY_HEADER_LEN) as u64 {
            return None;
        }
        let mut frame = std::mem::take(bytes);
        let measured = Measured::parse(&frame[24..]);
        frame.drain(..REPLY_HEADER_LEN);
        Some(Self::Value(item, frame, measured))
    }
}

/// Encodes a reply that is no answer to an item.
fn message(tag: u64, number: u64, body: &[u8]) -> Vec<u8> {
    reply(tag, number, Measured::default(), body)
}

fn reply(tag: u64, number: u64, measured: Measured, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(REPLY_HEADER_LEN + body.len());
    for number in [tag, number, body.len() as u64] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&measured.to_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Begins a [`Reply::Value`] in place, which saves a copy of a large value. The caller appends the value's frame next and
/// then calls [`end_value`] with the returned position.
pub fn begin_value(out: &mut Vec<u8>, item: u64) -> usize {
    let start = out.len();
    out.extend_from_slice(&message(VALUE, item, &[]));
    start
}

/// Completes a reply started by [`begin_value`].
pub fn end_value(out: &mut [u8], start: usize, measured: Measured) {
    let length = (out.len() - start - REPLY_HEADER_LEN) as u64;
    out[start + 16..start + 24].copy_from_slice(&length.to_le_bytes());
    out[start + 24..start + REPLY_HEADER_LEN].copy_from_slice(&measured.to_bytes());
}

/// How an item process ended, as its keeper reports it: a tag (8 bytes), a kind (4), a number (4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The process ended.
    Ended(ExitStatus),
    /// The process could not be started, because of this error of the operating system.
    NotStarted(i32),
}

const EXIT_LEN: usize = 16;
const EXIT: u64 = 0x51f0_88c3_6d2e_b907;

impl Exit {
    /// Encodes the message.
    pub fn to_bytes(self) -> [u8; EXIT_LEN] {
        let (kind, number) = match self {
            Self::Ended(status) => (0, status.into_raw()),
            Self::NotStarted(error) => (1_u32, error),
        };
        let mut bytes = [0; EXIT_LEN];
        bytes[..8].copy_from_slice(&EXIT.to_le_bytes());
        bytes[8..12].copy_from_slice(&kind.to_le_bytes());
        bytes[12..].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    /// Returns the message at the end of `bytes`. Initializers of the program may have written something before it.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let message = bytes.last_chunk::<EXIT_LEN>().filter(|message| u64_at(*message, 0) == EXIT)?;
        let [.., a, b, c, d] = *message;
        let number = i32::from_le_bytes([a, b, c, d]);
        match message[8] {
            0 => Some(Self::Ended(ExitStatus::from_raw(number))),
            _ => Some(Self::NotStarted(number)),
        }
    }

    /// Removes all bytes that cannot be part of the message at the end.
    pub fn keep_last(bytes: &mut Vec<u8>) {
        let excess = bytes.len().saturating_sub(EXIT_LEN);
        bytes.drain(..excess);
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the slice has eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::ItemErrorKind;

    fn measured() -> Measured {
        let memory = Some(Memory { peak: 5 << 30, is_bound: true });
        Measured { started_us: 1_795_000_000_000_000, duration_us: 12, cpu_us: Some(7), memory }
    }

    #[test]
    fn truncated_reply_requests_more_bytes() {
        let failure = Failure::new(ItemErrorKind::Returned, "no such star");
        let replies = [
            Reply::Ready,
            Reply::Initialized,
            Reply::Refused("no".into()),
            Reply::Failed(7, failure, measured()),
            Reply::Value(9, vec![1, 2, 3], measured()),
            Reply::Value(u64::MAX, Vec::new(), Measured::default()),
            Reply::GivenBack(12),
            Reply::NotStarted(11),
            Reply::Replace,
        ];
        for reply in replies {
            let bytes = reply.to_bytes();
            assert_eq!(Reply::parse(&bytes), Parsed::Reply(reply, bytes.len()));
            for cut in 0..bytes.len() {
                let Parsed::Incomplete(needed) = Reply::parse(&bytes[..cut]) else { panic!("cut at {cut}") };
                assert!(
                    needed > cut && needed <= bytes.len().max(REPLY_HEADER_LEN),
                    "{needed} bytes of {}",
                    bytes.len()
                );
            }
        }
    }

    // Finding H3: text was taken for a length, and that many bytes were reserved.
    #[test]
    fn stray_bytes_are_recognized_from_the_first() {
        let banner = b"libfast 2.1: using AVX2, 8 threads\n";
        for length in 1..banner.len() {
            assert_eq!(Reply::parse(&banner[..length]), Parsed::Stray);
        }
        let mut too_long = Reply::Value(1, vec![1], measured()).to_bytes();
        too_long[16..24].fill(0xff);
        assert_eq!(Reply::parse(&too_long), Parsed::Stray);
        let mut no_failure = Reply::Value(1, vec![1], measured()).to_bytes();
        no_failure[..8].copy_from_slice(&FAILED.to_le_bytes());
        assert_eq!(Reply::parse(&no_failure), Parsed::Stray);
    }

    #[test]
    fn take_large_requires_exactly_one_value() {
        let large = Reply::Value(5, vec![7; LARGE_LEN], measured());
        let mut bytes = large.to_bytes();
        for cut in [0, 10, REPLY_HEADER_LEN, LARGE_LEN, bytes.len() - 1] {
            assert_eq!(Reply::take_large(&mut bytes[..cut].to_vec()), None);
        }
        let mut two = [bytes.clone(), Reply::Ready.to_bytes()].concat();
        assert_eq!(Reply::take_large(&mut two), None);
        assert_eq!(Reply::take_large(&mut bytes), Some(large));
        assert!(bytes.is_empty());
    }

    #[test]
    fn value_written_in_place_equals_its_reply() {
        let mut bytes = vec![1, 2];
        let start = begin_value(&mut bytes, 5);
        bytes.extend([7; 100]);
        end_value(&mut bytes, start, measured());
        assert_eq!(bytes[2..], Reply::Value(5, vec![7; 100], measured()).to_bytes());
    }

    #[test]
    fn exit_is_found_behind_a_banner() {
        for exit in [Exit::Ended(ExitStatus::from_raw(139)), Exit::NotStarted(11)] {
            let mut bytes = b"libfast 2.1\n".to_vec();
            assert_eq!(Exit::parse(&bytes), None);
            bytes.extend(exit.to_bytes());
            assert_eq!(Exit::parse(&bytes), Some(exit));
            Exit::keep_last(&mut bytes);
            assert_eq!(bytes, exit.to_bytes());
        }
    }

    #[test]
    fn requests_are_read_back() {
        let mut bytes = Vec::new();
        Request::append(3, b"abc", &mut bytes);
        Request::append_give_back(&mut bytes);
        let mut input = bytes.as_slice();
        assert_eq!(Request::read(&mut input).unwrap(), Some(Request::Run { item: 3, length: 3 }));
        input = &input[3..];
        assert_eq!(Request::read(&mut input).unwrap(), Some(Request::GiveBack));
        assert_eq!(Request::read(&mut input).unwrap(), None);
    }
}
