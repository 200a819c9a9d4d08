//! How values become bytes and back: the codecs, and the frame around each value. The only file that names bincode.
//!
//! A frame is 32 bytes and then the value:
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | `CKNT` |
//! | 4 | version of this layout, 1 |
//! | 5 | codec: 1 for bincode, 2 for messagepack |
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
    /// Its one nil stands for `None` and for `()`: `Some(None)` and `Some(())` come back as `None`.
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

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bincode => "bincode",
            Self::Messagepack => "messagepack",
        })
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
    let written = match codec {
        Codec::Bincode => {
            encode_bincode(value, out).map_err(|what| CodecError::new("failed to encode with bincode", what))
        }
        Codec::Messagepack => {
            out.extend_from_slice(&[0; HEADER]);
            value
                .serialize(&mut rmp_serde::Serializer::new(&mut *out).with_struct_map())
                .map_err(|error| CodecError::new("failed to encode with messagepack", error))
        }
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
    decode_value(codec, verify(codec, fingerprint, frame)?)
}

/// Decodes a frame that `encode` has just made, so that what is written otherwise than it is read is found before it
/// travels. `Of` is what `T` is made of.
///
/// What is large and made of the standard library's types alone is not decoded: those are read as they are written.
pub fn read_back<T: DeserializeOwned, Of>(codec: Codec, frame: &[u8]) -> Result<(), CodecError> {
    const LARGE: usize = 64 << 10;
    if frame.len() > LARGE && codec == Codec::Bincode && is_plain(std::any::type_name::<Of>()) {
        return Ok(());
    }
    decode_value::<T>(codec, &frame[HEADER..]).map(drop)
}

/// Whether a type's name has nothing but these in it: numbers, texts, and lists, options and tuples of them.
fn is_plain(type_name: &str) -> bool {
    const PLAIN: [&str; 19] = [
        "bool",
        "char",
        "u8",
        "u16",
        "u32",
        "u64",
        "u128",
        "usize",
        "i8",
        "i16",
        "i32",
        "i64",
        "i128",
        "isize",
        "f32",
        "f64",
        "alloc::string::String",
        "alloc::vec::Vec",
        "core::option::Option",
    ];
    let mut names = type_name.split([' ', ',', '(', ')', '<', '>']).filter(|name| !name.is_empty());
    names.all(|name| PLAIN.contains(&name))
}

fn decode_value<T: DeserializeOwned>(codec: Codec, value: &[u8]) -> Result<T, CodecError> {
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
        let other = [Codec::Bincode, Codec::Messagepack].into_iter().find(|codec| codec.byte() == frame[5]);
        return Err(match other {
            Some(other) => bad(format!("it was written with {other}, and is to be read with {codec}")),
            None => bad(format!("unknown codec {}: damaged", frame[5])),
        });
    }
    if frame[6..8] != [0, 0] {
        return Err(bad("its header is damaged".into()));
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
        format!("{left} bytes are left over; {NOT_ALIKE}"),
    ))
}

/// What is behind bytes that are whole and still cannot be read.
const NOT_ALIKE: &str = "a type that is written otherwise than it is read (`skip_serializing_if`, `flatten`, \
                         `untagged`, or by hand) may need #[cloudknot::remote(codec = \"messagepack\")]";

// bincode takes its limit as a constant, and a number counts with its full width there even where it is written
// in one byte: a u128 of one byte counts for sixteen, so sixteen times the length is enough, and nothing counts for
// more. The classes keep what a hostile length can allocate in proportion to what was really read; each of them
// compiles the decoding of every type once more, so they are few.
fn decode_bincode<T: DeserializeOwned>(value: &[u8]) -> Result<T, CodecError> {
    fn within<T: DeserializeOwned, const LIMIT: usize>(value: &[u8]) -> Result<T, CodecError> {
        let config = bincode::config::standard().with_limit::<LIMIT>();
        let (decoded, read) = bincode::serde::decode_from_slice(value, config)
            .map_err(|error| CodecError::new("failed to decode with bincode", not_decoded(&error)))?;
        all_read(value.len() - read)?;
        Ok(decoded)
    }
    match value.len() {
        0..=0x10_0000 => within::<T, 0x100_0000>(value),
        0x10_0001..=0x400_0000 => within::<T, 0x4000_0000>(value),
        // Values of up to 256 GiB. What is hostile here comes from the types themselves, for the checksum is right.
        _ => within::<T, 0x400_0000_0000>(value),
    }
}

const TAKE_MESSAGEPACK: &str = "the type needs a self-describing format (serde_json::Value, `untagged`, `tag` or \
                               `flatten`); use #[cloudknot::remote(codec = \"messagepack\")]";

/// What bincode could not write, in words for people.
fn not_encoded(error: &bincode::error::EncodeError) -> String {
    use bincode::error::EncodeError as Error;
    match error {
        Error::Serde(bincode::serde::EncodeError::SequenceMustHaveLength) => TAKE_MESSAGEPACK.into(),
        Error::OtherString(text) => text.clone(),
        Error::Other(text) => (*text).into(),
        other => format!("{other}"),
    }
}

/// What bincode could not read, in words for people.
fn not_decoded(error: &bincode::error::DecodeError) -> String {
    use bincode::error::DecodeError as Error;
    use bincode::serde::DecodeError as Serde;
    match error {
        Error::Serde(Serde::AnyNotSupported | Serde::IgnoredAnyNotSupported | Serde::IdentifierNotSupported) => {
            TAKE_MESSAGEPACK.into()
        }
        Error::UnexpectedEnd { .. } => format!("it ends too early; {NOT_ALIKE}"),
        Error::LimitExceeded => format!("it claims to be far longer than it is; {NOT_ALIKE}"),
        Error::OtherString(text) => text.clone(),
        Error::Other(text) => (*text).into(),
        other => format!("{other:?}; {NOT_ALIKE}"),
    }
}

// Counting the bytes first costs next to nothing, and a buffer that grows step by step is paid for page by page.
fn encode_bincode<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), String> {
    let (mut size, config) = (0, bincode::config::standard());
    bincode::serde::encode_into_writer(value, Counting(&mut size), config).map_err(|error| not_encoded(&error))?;
    let begin = out.len() + HEADER;
    out.resize(begin + size, 0);
    match bincode::serde::encode_into_slice(value, &mut out[begin..], config) {
        Ok(written) if written == size => Ok(()),
        Ok(_) | Err(bincode::error::EncodeError::UnexpectedEnd) => {
            Err("written twice, it has two lengths: its `Serialize` changes what it writes".into())
        }
        Err(error) => Err(not_encoded(&error)),
    }
}

struct Counting<'a>(&'a mut usize);

impl bincode::enc::write::Writer for Counting<'_> {
    // Called once a number, and from other crates: without `inline` it is a call for every eight bytes.
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        *self.0 += bytes.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    fn plain<T>() -> bool {
        is_plain(std::any::type_name::<T>())
    }

    #[test]
    fn what_the_standard_library_reads_as_it_writes_is_plain() {
        struct Own;
        assert!(plain::<Vec<f64>>() && plain::<(u8, String)>() && plain::<Vec<(i32, Option<Vec<u128>>)>>());
        assert!(plain::<((), Vec<Vec<bool>>)>());
        assert!(!plain::<Vec<Own>>() && !plain::<(f64, Own)>() && !plain::<Option<Own>>() && !plain::<Own>());
        assert!(!is_plain("my::f64") && !is_plain("alloc::vec::Vec<my::String>"));
    }
}
