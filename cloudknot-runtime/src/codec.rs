//! Encoding of values to bytes and back. This is the only file that uses the bincode crate.

use std::error::Error as StdError;
use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Encoding of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Compact, and close to memory speed; cannot carry types that need a self-describing format.
    Bincode,
    /// Self-describing (named fields): carries `serde_json::Value`, `untagged`, `flatten`, `skip_serializing_if`.
    /// `None` and `()` are both encoded as nil, so `Some(None)` and `Some(())` are decoded as `None`.
    Messagepack,
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bincode => "bincode",
            Self::Messagepack => "messagepack",
        })
    }
}

/// Error of a value that could not be encoded or decoded.
#[derive(Debug)]
pub struct CodecError {
    action: &'static str,
    what: String,
}

impl CodecError {
    pub(crate) fn new(action: &'static str, what: impl fmt::Display) -> Self {
        Self { action, what: what.to_string() }
    }

    /// Creates an error for stored data that differs from what was written.
    pub fn damaged(what: impl fmt::Display) -> Self {
        Self::new("found damaged data", what)
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.action, self.what)
    }
}

impl StdError for CodecError {}

/// Appends an encoded value to `out`. On an error, a part of the value may have been appended.
pub(crate) fn encode_value<T: Serialize>(codec: Codec, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    match codec {
        Codec::Bincode => {
            encode_bincode(value, out).map_err(|what| CodecError::new("cannot encode with bincode", what))
        }
        Codec::Messagepack => value
            .serialize(&mut rmp_serde::Serializer::new(out).with_struct_map())
            .map_err(|error| CodecError::new("cannot encode with messagepack", error)),
    }
}

/// Decodes a value, which must take up all of the bytes.
pub(crate) fn decode_value<T: DeserializeOwned>(codec: Codec, value: &[u8]) -> Result<T, CodecError> {
    match codec {
        Codec::Bincode => decode_bincode(value),
        Codec::Messagepack => {
            let mut rest = value;
            let decoded = T::deserialize(&mut rmp_serde::Deserializer::new(&mut rest))
                .map_err(|error| CodecError::new("cannot decode with messagepack", error))?;
            all_read(rest.len())?;
            Ok(decoded)
        }
    }
}

fn all_read(left: usize) -> Result<(), CodecError> {
    if left == 0 {
        return Ok(());
    }
    Err(CodecError::new(
        "the decoded value differs from the encoded one",
        format!("{left} bytes are left over; {ASYMMETRIC_SERDE}"),
    ))
}

/// Likely reason why bytes that are intact cannot be decoded.
const ASYMMETRIC_SERDE: &str = "a type whose `Serialize` and `Deserialize` differ (`skip_serializing_if`, `flatten`, \
                         `untagged`, or by hand) may need #[cloudknot::remote(codec = \"messagepack\")]";

// bincode takes its limit as a constant, and counts every number with its full width, even one that is written in a
// single byte. A `u128` of one byte counts as sixteen bytes and nothing counts for more, so a limit of sixteen times
// the length is enough. The size classes keep the memory that a hostile length can allocate in proportion to the number
// of bytes that were really read. Each class compiles the decoding of every type once more, so there are few.
fn decode_bincode<T: DeserializeOwned>(value: &[u8]) -> Result<T, CodecError> {
    fn within<T: DeserializeOwned, const LIMIT: usize>(value: &[u8]) -> Result<T, CodecError> {
        let config = bincode::config::standard().with_limit::<LIMIT>();
        let (decoded, read) = bincode::serde::decode_from_slice(value, config)
            .map_err(|error| CodecError::new("cannot decode with bincode", not_decoded(&error)))?;
        all_read(value.len() - read)?;
        Ok(decoded)
    }
    match value.len() {
        0..=0x10_0000 => within::<T, 0x100_0000>(value),
        0x10_0001..=0x400_0000 => within::<T, 0x4000_0000>(value),
        // Values of up to 256 GiB. The checksum is right at this point, so a hostile length comes from the types themselves.
        _ => within::<T, 0x400_0000_0000>(value),
    }
}

const TAKE_MESSAGEPACK: &str = "the type needs a self-describing format (serde_json::Value, `untagged`, `tag` or \
                               `flatten`); use #[cloudknot::remote(codec = \"messagepack\")]";

/// Returns a readable message for a bincode encoding error.
fn not_encoded(error: &bincode::error::EncodeError) -> String {
    use bincode::error::EncodeError as Error;
    match error {
        Error::Serde(bincode::serde::EncodeError::SequenceMustHaveLength) => TAKE_MESSAGEPACK.into(),
        Error::OtherString(text) => text.clone(),
        Error::Other(text) => (*text).into(),
        other => format!("{other}"),
    }
}

/// Returns a readable message for a bincode decoding error.
fn not_decoded(error: &bincode::error::DecodeError) -> String {
    use bincode::error::DecodeError as Error;
    use bincode::serde::DecodeError as Serde;
    match error {
        Error::Serde(Serde::AnyNotSupported | Serde::IgnoredAnyNotSupported | Serde::IdentifierNotSupported) => {
            TAKE_MESSAGEPACK.into()
        }
        Error::UnexpectedEnd { .. } => format!("it ends too early; {ASYMMETRIC_SERDE}"),
        Error::LimitExceeded => format!("a length prefix exceeds the size of the value; {ASYMMETRIC_SERDE}"),
        Error::OtherString(text) => text.clone(),
        Error::Other(text) => (*text).into(),
        other => format!("{other:?}; {ASYMMETRIC_SERDE}"),
    }
}

// Counting the bytes first costs almost nothing, whereas a buffer that grows step by step pays for each new page.
fn encode_bincode<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), String> {
    let (mut size, config) = (0, bincode::config::standard());
    bincode::serde::encode_into_writer(value, Counting(&mut size), config).map_err(|error| not_encoded(&error))?;
    let begin = out.len();
    out.resize(begin + size, 0);
    match bincode::serde::encode_into_slice(value, &mut out[begin..], config) {
        Ok(written) if written == size => Ok(()),
        Ok(_) | Err(bincode::error::EncodeError::UnexpectedEnd) => {
            Err("its `Serialize` is not deterministic: two encodings differ in length".into())
        }
        Err(error) => Err(not_encoded(&error)),
    }
}

struct Counting<'a>(&'a mut usize);

impl bincode::enc::write::Writer for Counting<'_> {
    // Called once per number, and from other crates: without `inline`, this would be a call for every eight bytes.
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        *self.0 += bytes.len();
        Ok(())
    }
}
