//! How values become bytes and back: the codecs, and the frame around each value. The only file that names bincode.
//!
//! A frame is 32 bytes and then the value:
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | `CKNT` |
//! | 4 | version of this layout, 1 |
//! | 5 | codec: 1 bincode, 2 MessagePack |
//! | 6..8 | zero |
//! | 8..16 | fingerprint of the function's types |
//! | 16..24 | length of the value |
//! | 24..32 | XXH3-64 of the value, seeded with the fingerprint |
//!
//! All numbers are little-endian. The frame is verified before anything is decoded.

use std::error::Error as StdError;
use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use twox_hash::XxHash3_64;

use crate::fingerprint::Fingerprint;

/// The length of what stands before each value.
pub const HEADER: usize = 32;
const MAGIC: [u8; 4] = *b"CKNT";
const VERSION: u8 = 1;

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Compact and near the memory's speed; cannot carry what needs a self-describing format.
    Bincode,
    /// Self-describing (named fields): carries `serde_json::Value`, `untagged`, `flatten`, `skip_serializing_if`.
    Messagepack,
}

impl Codec {
    fn byte(self) -> u8 {
        match self {
            Self::Bincode => 1,
            Self::Messagepack => 2,
        }
    }
}

/// A value that could not be written or read.
#[derive(Debug)]
pub struct CodecError {
    doing: &'static str,
    what: String,
}

impl CodecError {
    fn new(doing: &'static str, what: impl fmt::Display) -> Self {
        Self { doing, what: what.to_string() }
    }
}

impl CodecError {
    /// What is stored is not what was written.
    pub fn damaged(what: impl fmt::Display) -> Self {
        Self::new("found damaged data", what)
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.what)
    }
}

impl StdError for CodecError {}

/// Appends the frame of `value` to `out`; on an error `out` is as it was.
pub fn encode<T: Serialize>(
    codec: Codec,
    fingerprint: Fingerprint,
    value: &T,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    let written = match codec {
        Codec::Bincode => bincode::serde::encode_into_writer(value, Appending(out), bincode::config::standard())
            .map_err(|error| CodecError::new("failed to encode with bincode", Bincode(&error))),
        Codec::Messagepack => value
            .serialize(&mut rmp_serde::Serializer::new(&mut *out).with_struct_map())
            .map_err(|error| CodecError::new("failed to encode with messagepack", error)),
    };
    if let Err(error) = written {
        out.truncate(start);
        return Err(error);
    }
    let length = (out.len() - start - HEADER) as u64;
    let checksum = checksum(fingerprint, &out[start + HEADER..]);
    let header = &mut out[start..start + HEADER];
    header[..4].copy_from_slice(&MAGIC);
    header[4] = VERSION;
    header[5] = codec.byte();
    header[8..16].copy_from_slice(&fingerprint.0.to_le_bytes());
    header[16..24].copy_from_slice(&length.to_le_bytes());
    header[24..32].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

/// The value of a frame, once all of the frame has been verified.
pub fn decode<T: DeserializeOwned>(codec: Codec, fingerprint: Fingerprint, frame: &[u8]) -> Result<T, CodecError> {
    let value = verify(codec, fingerprint, frame)?;
    match codec {
        Codec::Bincode => decode_bincode(value),
        Codec::Messagepack => {
            let mut rest = value;
            let decoded = T::deserialize(&mut rmp_serde::Deserializer::new(&mut rest))
                .map_err(|error| CodecError::new("failed to decode with messagepack", error))?;
            all_read(rest.len())?;
            Ok(decoded)
        }
    }
}

/// The length of the whole frame that `bytes` begins with.
///
/// # Errors
/// What is there is not the beginning of a frame.
pub fn frame_length(bytes: &[u8]) -> Result<u64, CodecError> {
    let bad = |what: String| CodecError::new("found no value", what);
    let header = bytes.get(..HEADER).ok_or_else(|| bad(format!("only {} bytes are left", bytes.len())))?;
    if header[..4] != MAGIC {
        return Err(bad("these bytes were not written by cloudknot, or are damaged".into()));
    }
    if header[4] != VERSION {
        return Err(bad(format!(
            "layout {} was written by another version of cloudknot (this one reads {VERSION})",
            header[4]
        )));
    }
    u64_at(header, 16).checked_add(HEADER as u64).ok_or_else(|| bad("an impossible length: damaged".into()))
}

fn verify(codec: Codec, fingerprint: Fingerprint, frame: &[u8]) -> Result<&[u8], CodecError> {
    let bad = |what: String| CodecError::new("refused a value", what);
    let length = frame_length(frame)?;
    if length != frame.len() as u64 {
        return Err(bad(format!("{} bytes where its header says {length}: truncated or damaged", frame.len())));
    }
    if frame[5] != codec.byte() {
        return Err(bad(format!("it was written by codec {}, not by {codec:?}", frame[5])));
    }
    let written = Fingerprint(u64_at(frame, 8));
    if written != fingerprint {
        return Err(bad(format!("it was written by a program with other types ({written}, here {fingerprint})")));
    }
    let value = &frame[HEADER..];
    if u64_at(frame, 24) != checksum(fingerprint, value) {
        return Err(bad("its checksum is wrong: damaged".into()));
    }
    Ok(value)
}

fn checksum(fingerprint: Fingerprint, value: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(fingerprint.0, value)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes make a u64"))
}

fn all_read(left: usize) -> Result<(), CodecError> {
    if left == 0 {
        return Ok(());
    }
    Err(CodecError::new(
        "read back something else than was written",
        format!(
            "{left} bytes are left over; a type with `skip_serializing_if`, `flatten`, `untagged` or a hand-written \
                 Serialize may need #[cloudknot::remote(codec = \"messagepack\")]"
        ),
    ))
}

// bincode takes its limit as a constant, and a number counts with its full width there even where it is written
// in one byte (so sixteen times the length is enough). The classes keep what a hostile length can allocate in
// proportion to what was really read.
fn decode_bincode<T: DeserializeOwned>(value: &[u8]) -> Result<T, CodecError> {
    fn within<T: DeserializeOwned, const LIMIT: usize>(value: &[u8]) -> Result<T, CodecError> {
        let config = bincode::config::standard().with_limit::<LIMIT>();
        let (decoded, read) = bincode::serde::decode_from_slice(value, config)
            .map_err(|error| CodecError::new("failed to decode with bincode", Bincode(&error)))?;
        all_read(value.len() - read)?;
        Ok(decoded)
    }
    match value.len() {
        0..=0x1000 => within::<T, 0x1_0000>(value),
        0x1001..=0x4_0000 => within::<T, 0x40_0000>(value),
        0x4_0001..=0x100_0000 => within::<T, 0x1000_0000>(value),
        0x100_0001..=0x4000_0000 => within::<T, 0x4_0000_0000>(value),
        _ => within::<T, { usize::MAX }>(value),
    }
}

/// bincode's errors in words for people; what a self-describing format would carry says so.
struct Bincode<'a, E>(&'a E);

impl<E: fmt::Display + fmt::Debug> fmt::Display for Bincode<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:?}", self.0);
        if text.contains("AnyNotSupported") || text.contains("SequenceMustHaveLength") || text.contains("IgnoredAny") {
            return write!(
                f,
                "the type needs a self-describing format (serde_json::Value, `untagged`, `tag` or `flatten`); use \
                 #[cloudknot::remote(codec = \"messagepack\")]"
            );
        }
        // What a type's own Serialize or Deserialize says stands in quotes within the variant's name.
        let said = text.strip_prefix("OtherString(").and_then(|rest| rest.strip_suffix(')'));
        match said.and_then(|said| serde_json::from_str::<String>(said).ok()) {
            Some(said) => f.write_str(&said),
            None => write!(f, "{}", self.0),
        }
    }
}

struct Appending<'a>(&'a mut Vec<u8>);

impl bincode::enc::write::Writer for Appending<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}
