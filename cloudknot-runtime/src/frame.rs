//! The frame around each value. It shows that the value is complete and that it has the function's types.
//!
//! A frame is a header of 32 bytes, followed by the value:
//!
//! | bytes | content |
//! |---|---|
//! | 0..4 | `CKNT` |
//! | 4 | version of this layout, 1 |
//! | 5 | codec: 1 for bincode, 2 for messagepack |
//! | 6 | what the value does not show: 1 if a type has another form for people, plus 2 if kinds of values are ambiguous |
//! | 7 | zero |
//! | 8..16 | fingerprint of the function's types |
//! | 16..24 | length of the value |
//! | 24..32 | XXH3-64 of the value, seeded with the fingerprint and byte 6 |
//!
//! All numbers are little-endian. The frame is verified before anything is decoded.

use serde::{Serialize, de::DeserializeOwned};
use twox_hash::XxHash3_64;

use crate::codec::{Bincode, Codec, CodecError, Encoding, Hidden, Messagepack, PartOrder, Written};
use crate::fingerprint::json::StoredValue;
use crate::fingerprint::{Fingerprint, Part, Structure};

/// Length in bytes of the header of a frame.
pub const HEADER_LEN: usize = 32;
const MAGIC: [u8; 4] = *b"CKNT";
const VERSION: u8 = 1;

/// Appends the frame of `value` to `out`, and returns what [`read_back`] compares. On an error, `out` is unchanged.
pub fn encode<T: Serialize>(
    codec: Codec,
    fingerprint: Fingerprint,
    value: &T,
    out: &mut Vec<u8>,
) -> Result<Written, CodecError> {
    match codec {
        Codec::Bincode => encode_with::<Bincode, T>(fingerprint, value, out),
        Codec::Messagepack => encode_with::<Messagepack, T>(fingerprint, value, out),
    }
}

/// Same as [`encode`], compiled for one codec.
pub fn encode_with<E: Encoding, T: Serialize>(
    fingerprint: Fingerprint,
    value: &T,
    out: &mut Vec<u8>,
) -> Result<Written, CodecError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_LEN]);
    let written = E::encode(value, out).inspect_err(|_| out.truncate(start))?;
    write_header(E::CODEC, fingerprint, written.hidden(), &mut out[start..]);
    Ok(written)
}

fn write_header(codec: Codec, fingerprint: Fingerprint, hidden: Hidden, frame: &mut [u8]) {
    let (header, value) = frame.split_at_mut(HEADER_LEN);
    header[..4].copy_from_slice(&MAGIC);
    header[4] = VERSION;
    header[5] = byte(codec);
    header[6] = bits(hidden);
    header[8..16].copy_from_slice(&fingerprint.0.to_le_bytes());
    header[16..24].copy_from_slice(&(value.len() as u64).to_le_bytes());
    header[24..32].copy_from_slice(&checksum(fingerprint, bits(hidden), value).to_le_bytes());
}

/// Verifies a whole frame, then decodes its value.
pub fn decode<T: DeserializeOwned + Send>(
    codec: Codec,
    fingerprint: Fingerprint,
    frame: &[u8],
) -> Result<T, CodecError> {
    match codec {
        Codec::Bincode => decode_with::<Bincode, T>(fingerprint, frame),
        Codec::Messagepack => decode_with::<Messagepack, T>(fingerprint, frame),
    }
}

/// Same as [`decode`], compiled for one codec.
pub fn decode_with<E: Encoding, T: DeserializeOwned + Send>(
    fingerprint: Fingerprint,
    frame: &[u8],
) -> Result<T, CodecError> {
    E::decode(verify(E::CODEC, fingerprint, frame)?)
}

/// Decodes a frame that `encode` has just created, and compares the value with what was written, so that a type that is
/// not read in the way it is written is detected before its values are sent. Returns the order of the value. `Of` is the type
/// that `T` is made of.
///
/// Large bincode values that consist only of standard library types are not decoded, since these types are read as
/// they are written.
pub fn read_back<T: Serialize + DeserializeOwned + Send, Of>(
    codec: Codec,
    frame: &[u8],
    written: &Written,
) -> Result<PartOrder, CodecError> {
    match codec {
        Codec::Bincode => read_back_with::<Bincode, T, Of>(frame, written),
        Codec::Messagepack => read_back_with::<Messagepack, T, Of>(frame, written),
    }
}

/// Same as [`read_back`], compiled for one codec.
pub fn read_back_with<E: Encoding, T: Serialize + DeserializeOwned + Send, Of>(
    frame: &[u8],
    written: &Written,
) -> Result<PartOrder, CodecError> {
    const LARGE_LEN: usize = 64 << 10;
    if frame.len() > LARGE_LEN && E::CODEC == Codec::Bincode && is_plain(std::any::type_name::<Of>()) {
        return Ok(PartOrder::Fixed);
    }
    E::read_back::<T>(&frame[HEADER_LEN..], written)
}

/// Returns whether a type's name contains only primitive types, strings, and lists, options and tuples of them.
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

/// Returns the length of the whole frame at the start of `bytes`.
///
/// # Errors
/// Returns an error if `bytes` does not start with the header of a frame.
pub fn frame_length(bytes: &[u8]) -> Result<u64, CodecError> {
    let error = |reason: String| CodecError::new("cannot decode the value", reason);
    let header = bytes.get(..HEADER_LEN).ok_or_else(|| error(format!("only {} bytes remain", bytes.len())))?;
    if header[..4] != MAGIC {
        return Err(error("the header was not written by cloudknot, or is damaged".into()));
    }
    if header[4] != VERSION {
        return Err(error(format!(
            "it was written by another version of cloudknot (layout {}, expected {VERSION})",
            header[4]
        )));
    }
    u64_at(header, 16).checked_add(HEADER_LEN as u64).ok_or_else(|| error("the length in the header is damaged".into()))
}

impl<'a> StoredValue<'a> {
    /// Verifies a frame, and returns the value in it.
    ///
    /// # Errors
    /// Returns an error if the frame is damaged, or was written with another codec or other types.
    pub fn new(
        structure: &'a Structure,
        part: Part,
        codec: Codec,
        fingerprint: Fingerprint,
        frame: &'a [u8],
    ) -> Result<Self, CodecError> {
        let value = verify(codec, fingerprint, frame)?;
        let is_set = |bit: u8| frame[6] & bit != 0;
        let hidden = Hidden { readable: is_set(READABLE_BIT), ambiguous: is_set(AMBIGUOUS_BIT) };
        Ok(Self::of(structure, part, codec, value, hidden))
    }
}

fn verify(codec: Codec, fingerprint: Fingerprint, frame: &[u8]) -> Result<&[u8], CodecError> {
    let error = |reason: String| CodecError::new("cannot decode the value", reason);
    let length = frame_length(frame)?;
    if length != frame.len() as u64 {
        return Err(error(format!("truncated or damaged: {} bytes, but the header specifies {length}", frame.len())));
    }
    if frame[5] != byte(codec) {
        let other = [Codec::Bincode, Codec::Messagepack].into_iter().find(|codec| byte(*codec) == frame[5]);
        return Err(match other {
            Some(other) => error(format!("it is encoded with {other}, expected {codec}")),
            None => error(format!("the header is damaged: unknown codec {}", frame[5])),
        });
    }
    if frame[6] > HIDDEN_BITS || frame[7] != 0 {
        return Err(error("the header is damaged".into()));
    }
    let written = Fingerprint(u64_at(frame, 8));
    if written != fingerprint {
        return Err(error(format!(
            "it was written by a program with other types (fingerprint {written}, expected {fingerprint})"
        )));
    }
    let value = &frame[HEADER_LEN..];
    if u64_at(frame, 24) != checksum(fingerprint, frame[6], value) {
        return Err(error("it is damaged: the checksum does not match".into()));
    }
    Ok(value)
}

fn checksum(fingerprint: Fingerprint, hidden: u8, value: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(fingerprint.0 ^ u64::from(hidden), value)
}

const READABLE_BIT: u8 = 1;
const AMBIGUOUS_BIT: u8 = 2;
const HIDDEN_BITS: u8 = READABLE_BIT | AMBIGUOUS_BIT;

fn bits(hidden: Hidden) -> u8 {
    (u8::from(hidden.readable) * READABLE_BIT) | (u8::from(hidden.ambiguous) * AMBIGUOUS_BIT)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the slice has eight bytes"))
}

fn byte(codec: Codec) -> u8 {
    match codec {
        Codec::Bincode => 1,
        Codec::Messagepack => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    fn plain<T>() -> bool {
        is_plain(std::any::type_name::<T>())
    }

    #[test]
    fn standard_library_types_are_plain() {
        struct Own;
        assert!(plain::<Vec<f64>>() && plain::<(u8, String)>() && plain::<Vec<(i32, Option<Vec<u128>>)>>());
        assert!(plain::<((), Vec<Vec<bool>>)>());
        assert!(!plain::<Vec<Own>>() && !plain::<(f64, Own)>() && !plain::<Option<Own>>() && !plain::<Own>());
        assert!(!is_plain("my::f64") && !is_plain("alloc::vec::Vec<my::String>"));
    }
}
