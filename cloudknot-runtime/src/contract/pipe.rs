//! The messages in the pipes between a supervisor and an item process: requests in one direction, replies in the other.

use std::io::{self, Read};

use crate::failure::Failure;

/// Header of a message from a supervisor to an item process; `length` bytes of the input's frame follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Index of the item.
    pub item: u64,
    /// Length of the frame that follows.
    pub length: u64,
}

impl Request {
    /// Appends the request and its frame to `out`.
    pub fn append(item: u64, frame: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&item.to_le_bytes());
        out.extend_from_slice(&(frame.len() as u64).to_le_bytes());
        out.extend_from_slice(frame);
    }

    /// Reads the next request. Returns `None` at the end of the input.
    pub fn read(input: &mut impl Read) -> io::Result<Option<Self>> {
        let mut header = [0; 16];
        if input.read(&mut header[..1])? == 0 {
            return Ok(None);
        }
        input.read_exact(&mut header[1..])?;
        Ok(Some(Self { item: u64_at(&header, 0), length: u64_at(&header, 8) }))
    }
}

/// Message from an item process: a tag (8 bytes), an item (8), a length (8), and that number of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The process has started and has the function.
    Ready,
    /// The process cannot run this function, for this reason.
    Refused(String),
    /// The item failed.
    Failed(u64, Failure),
    /// The frame of an item's value.
    Value(u64, Vec<u8>),
}

const REPLY_HEADER_LEN: usize = 24;
const READY: u64 = 0;
const REFUSED: u64 = 1;
const FAILED: u64 = 2;
const VALUE: u64 = 3;

impl Reply {
    /// Encodes the reply.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Ready => reply(READY, 0, &[]),
            Self::Refused(message) => reply(REFUSED, 0, message.as_bytes()),
            Self::Failed(item, failure) => {
                let failure = serde_json::to_vec(failure).expect("a failure serializes to JSON");
                reply(FAILED, *item, &failure)
            }
            Self::Value(item, frame) => reply(VALUE, *item, frame),
        }
    }

    /// Parses the first reply in `bytes` and returns it with its length. `Err` holds the number of bytes that are needed
    /// before parsing can continue.
    ///
    /// An unknown tag or a failure that cannot be decoded yields `Refused`.
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize), usize> {
        let header = bytes.get(..REPLY_HEADER_LEN).ok_or(REPLY_HEADER_LEN)?;
        let (tag, item, length) = (u64_at(header, 0), u64_at(header, 8), u64_at(header, 16));
        let end = usize::try_from(length).ok().and_then(|length| length.checked_add(REPLY_HEADER_LEN));
        let end = end.ok_or(usize::MAX)?;
        let body = bytes.get(REPLY_HEADER_LEN..end).ok_or(end)?;
        let reply = match tag {
            READY => Self::Ready,
            FAILED => match serde_json::from_slice(body) {
                Ok(failure) => Self::Failed(item, failure),
                Err(error) => Self::Refused(format!("cannot decode a failure that the item process sent: {error}")),
            },
            VALUE => Self::Value(item, body.to_vec()),
            _ => Self::Refused(String::from_utf8_lossy(body).into_owned()),
        };
        Ok((reply, end))
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
        frame.drain(..REPLY_HEADER_LEN);
        Some(Self::Value(item, frame))
    }
}

fn reply(tag: u64, item: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(REPLY_HEADER_LEN + body.len());
    for number in [tag, item, body.len() as u64] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

/// Begins a [`Reply::Value`] in place, which saves a copy of a large value. The caller appends the value's frame next and
/// then calls [`end_value`] with the returned position.
pub fn begin_value(out: &mut Vec<u8>, item: u64) -> usize {
    let start = out.len();
    out.extend_from_slice(&reply(VALUE, item, &[]));
    start
}

/// Completes a reply started by [`begin_value`].
pub fn end_value(out: &mut [u8], start: usize) {
    let length = (out.len() - start - REPLY_HEADER_LEN) as u64;
    out[start + 16..start + REPLY_HEADER_LEN].copy_from_slice(&length.to_le_bytes());
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the slice has eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::ItemErrorKind;

    #[test]
    fn truncated_reply_requests_more_bytes() {
        let failure = Failure::new(ItemErrorKind::Returned, "no such star");
        let replies = [
            Reply::Ready,
            Reply::Refused("no".into()),
            Reply::Failed(7, failure),
            Reply::Value(9, vec![1, 2, 3]),
            Reply::Value(u64::MAX, Vec::new()),
        ];
        for reply in replies {
            let bytes = reply.to_bytes();
            assert_eq!(Reply::parse(&bytes), Ok((reply, bytes.len())));
            for cut in 0..bytes.len() {
                let needed = Reply::parse(&bytes[..cut]).unwrap_err();
                assert!(
                    needed > cut && needed <= bytes.len().max(REPLY_HEADER_LEN),
                    "{needed} bytes of {}",
                    bytes.len()
                );
            }
        }
    }

    #[test]
    fn take_large_requires_exactly_one_value() {
        let large = Reply::Value(5, vec![7; LARGE_LEN]);
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
        end_value(&mut bytes, start);
        assert_eq!(bytes[2..], Reply::Value(5, vec![7; 100]).to_bytes());
    }
}
