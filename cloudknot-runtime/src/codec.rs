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
    reason: String,
}

impl CodecError {
    pub(crate) fn new(action: &'static str, reason: impl fmt::Display) -> Self {
        Self { action, reason: reason.to_string() }
    }

    /// Creates an error for stored data that differs from what was written.
    pub fn damaged(data: impl fmt::Display) -> Self {
        Self::new("cannot decode damaged data", data)
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.action, self.reason)
    }
}

impl StdError for CodecError {}

/// Appends an encoded value to `out`. On an error, a part of the value may have been appended.
pub(crate) fn encode_value<T: Serialize>(codec: Codec, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    match codec {
        Codec::Bincode => {
            encode_bincode(value, out).map_err(|reason| CodecError::new("cannot encode with bincode", reason))
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
            check_all_read(rest.len())?;
            Ok(decoded)
        }
    }
}

fn check_all_read(remaining: usize) -> Result<(), CodecError> {
    if remaining == 0 {
        return Ok(());
    }
    Err(CodecError::new(
        "the decoded value differs from the encoded one",
        format!("{remaining} bytes remain; {ASYMMETRIC_SERDE}"),
    ))
}

/// Likely reason why bytes that are intact cannot be decoded.
const ASYMMETRIC_SERDE: &str = "a type whose `Serialize` and `Deserialize` differ (`skip_serializing_if`, `flatten`, \
                         `untagged`, or by hand) may need #[cloudknot::remote(codec = \"messagepack\")]";

// bincode's limit is a constant, and every number counts with its full width, even if it is written in a single byte. A
// `u128` of one byte counts as sixteen bytes and no number counts for more, so a limit of sixteen times the length is
// enough. The size classes keep the memory that a hostile length can allocate in proportion to the number of bytes that
// were really read. Each class compiles the decoding of every type once more, so there are few.
fn decode_bincode<T: DeserializeOwned>(value: &[u8]) -> Result<T, CodecError> {
    fn within<T: DeserializeOwned, const LIMIT: usize>(value: &[u8]) -> Result<T, CodecError> {
        let config = bincode::config::standard().with_limit::<LIMIT>();
        let (decoded, read) = bincode::serde::decode_from_slice(value, config)
            .map_err(|error| CodecError::new("cannot decode with bincode", decode_error_message(&error)))?;
        check_all_read(value.len() - read)?;
        Ok(decoded)
    }
    match value.len() {
        0..=0x10_0000 => within::<T, 0x100_0000>(value),
        0x10_0001..=0x400_0000 => within::<T, 0x4000_0000>(value),
        // Values of up to 256 GiB. The checksum is right at this point, so a hostile length comes from the types themselves.
        _ => within::<T, 0x400_0000_0000>(value),
    }
}

const USE_MESSAGEPACK: &str = "the type needs a self-describing format (serde_json::Value, `untagged`, `tag` or \
                               `flatten`); use #[cloudknot::remote(codec = \"messagepack\")]";

/// Returns a readable message for a bincode encoding error.
fn encode_error_message(error: &bincode::error::EncodeError) -> String {
    use bincode::error::EncodeError as Error;
    match error {
        Error::Serde(bincode::serde::EncodeError::SequenceMustHaveLength) => USE_MESSAGEPACK.into(),
        Error::OtherString(message) => message.clone(),
        Error::Other(message) => (*message).into(),
        other => format!("{other}"),
    }
}

/// Returns a readable message for a bincode decoding error.
fn decode_error_message(error: &bincode::error::DecodeError) -> String {
    use bincode::error::DecodeError as Error;
    use bincode::serde::DecodeError as Serde;
    match error {
        Error::Serde(Serde::AnyNotSupported | Serde::IgnoredAnyNotSupported | Serde::IdentifierNotSupported) => {
            USE_MESSAGEPACK.into()
        }
        Error::UnexpectedEnd { .. } => format!("the value ends too early; {ASYMMETRIC_SERDE}"),
        Error::LimitExceeded => format!("a length prefix exceeds the size of the value; {ASYMMETRIC_SERDE}"),
        Error::OtherString(message) => message.clone(),
        Error::Other(message) => (*message).into(),
        other => format!("{other:?}; {ASYMMETRIC_SERDE}"),
    }
}

// Counting the bytes first costs almost nothing, whereas a buffer that grows step by step pays for each new page.
fn encode_bincode<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), String> {
    let (mut size, config) = (0, bincode::config::standard());
    bincode::serde::encode_into_writer(value, CountingWriter(&mut size), config)
        .map_err(|error| encode_error_message(&error))?;
    let start = out.len();
    out.resize(start + size, 0);
    match bincode::serde::encode_into_slice(value, &mut out[start..], config) {
        Ok(written) if written == size => Ok(()),
        Ok(_) | Err(bincode::error::EncodeError::UnexpectedEnd) => {
            Err("`Serialize` is not deterministic: two encodings differ in length".into())
        }
        Err(error) => Err(encode_error_message(&error)),
    }
}

struct CountingWriter<'a>(&'a mut usize);

impl bincode::enc::write::Writer for CountingWriter<'_> {
    // Called once per number, and from other crates: without `inline`, this would be a call for every eight bytes.
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        *self.0 += bytes.len();
        Ok(())
    }
}
