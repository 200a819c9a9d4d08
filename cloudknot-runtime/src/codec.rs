//! Encoding of values to bytes and back. The only file of the library that uses the bincode crate.
//!
//! A value is surveyed before it is encoded: `survey` records its `events` and `names`, and refuses what the codec cannot
//! carry. `reading` records the same while the value is read back, and both are compared: serde's `Serialize` and
//! `Deserialize` may disagree, and bytes that can be decoded may then give another value.

mod events;
mod names;
mod reading;
mod survey;

use std::error::Error as StdError;
use std::fmt;
use std::thread;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::events::{Bincode, Messagepack};
use self::events::{MAX_DEPTH, Overflow, Wire};
use self::names::Names;
use self::reading::{Reading, Whole};
use self::survey::{Content, Survey};

/// Encoding of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Compact, and close to memory speed; cannot carry types that need a self-describing format.
    Bincode,
    /// Self-describing (named fields): carries `serde_json::Value`, `untagged`, `flatten`, `skip_serializing_if`.
    /// `None` and `()` are both encoded as nil, so `Some(None)` and `Some(())` are refused.
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
    overflow: Option<Overflow>,
}

impl CodecError {
    pub(crate) fn new(action: &'static str, reason: impl fmt::Display) -> Self {
        Self { action, reason: reason.to_string(), overflow: None }
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

/// What an encoded value contains, to be compared with what is read back.
#[derive(Debug)]
#[must_use = "a value is read back and compared with it"]
pub struct Written {
    events: u64,
    names: Names,
    content: Content,
}

/// A codec, as a type. Generic code over it compiles each type for the one codec that its function uses.
pub trait Encoding {
    /// The codec as a value.
    const CODEC: Codec;

    /// Appends an encoded value to `out`. On an error, a part of the value may have been appended.
    fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<Written, CodecError>;

    /// Decodes a value, which must take up all of the bytes.
    fn decode<T: DeserializeOwned + Send>(value: &[u8]) -> Result<T, CodecError>;

    /// Decodes a value that has just been encoded, and checks that it is the same value.
    fn read_back<T: Serialize + DeserializeOwned + Send>(value: &[u8], written: &Written) -> Result<(), CodecError>;
}

impl<F: Format> Encoding for F {
    const CODEC: Codec = if F::MESSAGEPACK { Codec::Messagepack } else { Codec::Bincode };

    fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<Written, CodecError> {
        F::append(value, out).map_err(|reason| CodecError::new(F::CANNOT_ENCODE, reason))
    }

    fn decode<T: DeserializeOwned + Send>(value: &[u8]) -> Result<T, CodecError> {
        Ok(decode::<T, F>(value, false)?.0)
    }

    fn read_back<T: Serialize + DeserializeOwned + Send>(value: &[u8], written: &Written) -> Result<(), CodecError> {
        compare::<T, F>(value, written)
    }
}

fn compare<T, W: Format>(value: &[u8], written: &Written) -> Result<(), CodecError>
where
    T: Serialize + DeserializeOwned + Send,
{
    let (decoded, reading) = decode::<T, W>(value, true).map_err(CodecError::with_asymmetry::<W>)?;
    let differs = |reason: &str| CodecError::new(DIFFERENT, reason).with_asymmetry::<W>();
    if reading.ignored {
        return Err(differs("a part of it is ignored when it is read (`skip_deserializing`, or an unknown field)"));
    }
    if reading.events.hash() != written.events {
        return Err(differs("its parts are read as others than were written"));
    }
    if let Some(lists) = &reading.lists
        && !W::MESSAGEPACK
    {
        written.names.check(lists).map_err(|reason| differs(&reason))?;
    }
    // Equal events do not show what a type makes of them, and names of variants and omitted fields are in no bytes: the decoded
    // value is surveyed as well.
    let again = survey::of::<W, T>(&decoded).map_err(|error| differs(&error.to_string()))?;
    if again.names.sum() != written.names.sum() {
        return Err(differs("a variant or an omitted field is read as another one"));
    }
    if again.content != written.content {
        return Err(differs("it has other contents (`with`, `from`, `into`, `flatten`, or by hand)"));
    }
    Ok(())
}

const DIFFERENT: &str = "the decoded value differs from the encoded one";

/// Stack that the decoding of a value may use on the caller's thread, whose stack is of unknown size.
const SMALL_STACK: usize = 256 << 10;
/// Stack of the thread that decodes a value which needs more. Only what is used is taken from the system.
const LARGE_STACK: usize = 64 << 20;

/// Decodes a value.
fn decode<T: DeserializeOwned + Send, W: Format>(value: &[u8], compared: bool) -> Result<(T, Reading<W>), CodecError> {
    match decode_within::<T, W>(value, compared, SMALL_STACK) {
        Err(error) if error.overflow == Some(Overflow::Stack) => decode_on_large_stack(value, compared),
        result => result,
    }
}

fn decode_on_large_stack<T: DeserializeOwned + Send, W: Format>(
    value: &[u8],
    compared: bool,
) -> Result<(T, Reading<W>), CodecError> {
    thread::scope(|scope| {
        thread::Builder::new()
            .stack_size(LARGE_STACK)
            .spawn_scoped(scope, || decode_within::<T, W>(value, compared, LARGE_STACK - SMALL_STACK))
            .map_err(|error| CodecError::new("cannot start a thread to decode a nested value", error))?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn decode_within<T: DeserializeOwned, W: Format>(
    value: &[u8],
    compared: bool,
    max_stack: usize,
) -> Result<(T, Reading<W>), CodecError> {
    let mut reading = Reading::new(max_stack, compared);
    let result = W::parse(value, &mut reading);
    if let Some(overflow) = reading.events.overflow {
        return Err(CodecError { overflow: Some(overflow), ..CodecError::new(W::CANNOT_DECODE, overflow) });
    }
    let (decoded, remaining) = result.map_err(|reason| CodecError::new(W::CANNOT_DECODE, reason))?;
    match remaining {
        0 => Ok((decoded, reading)),
        _ => Err(CodecError::new(DIFFERENT, format!("{remaining} bytes remain")).with_asymmetry::<W>()),
    }
}

impl CodecError {
    /// Adds the likely reason why intact bytes cannot be decoded, or give another value.
    fn with_asymmetry<W: Format>(mut self) -> Self {
        if self.overflow.is_none() && !self.reason.ends_with(USE_MESSAGEPACK_ATTRIBUTE) {
            self.reason = format!("{}; {}", self.reason, W::ASYMMETRY);
        }
        self
    }
}

const USE_MESSAGEPACK_ATTRIBUTE: &str = "use #[cloudknot::remote(codec = \"messagepack\")]";

const USE_MESSAGEPACK: &str = "the type needs a self-describing format (serde_json::Value, `untagged`, `tag` or \
                               `flatten`); use #[cloudknot::remote(codec = \"messagepack\")]";

/// Encoder and decoder of a codec.
trait Format: Wire + Send {
    const CANNOT_ENCODE: &str;
    const CANNOT_DECODE: &str;
    /// Likely reason why intact bytes cannot be decoded.
    const ASYMMETRY: &str;

    fn append<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<Written, String>;

    /// Decodes a value, and returns it with the number of remaining bytes.
    fn parse<T: DeserializeOwned>(value: &[u8], reading: &mut Reading<Self>) -> Result<(T, usize), String>;
}

impl Format for Bincode {
    const CANNOT_ENCODE: &str = "cannot encode with bincode";
    const CANNOT_DECODE: &str = "cannot decode with bincode";
    const ASYMMETRY: &str = "`Serialize` and `Deserialize` of a type differ (`skip`, `skip_serializing_if`, `flatten`, \
                             `untagged`, or by hand); use #[cloudknot::remote(codec = \"messagepack\")]";

    // The survey gives the length, so the buffer grows once: one that grows step by step pays for each new page.
    fn append<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<Written, String> {
        let survey = survey::of::<Bincode, T>(value).map_err(|error| error.to_string())?;
        let start = out.len();
        out.resize(start + survey.size, 0);
        match bincode::serde::encode_into_slice(value, &mut out[start..], bincode::config::standard()) {
            Ok(written) if written == survey.size => Ok(Written::of(survey)),
            Ok(_) | Err(bincode::error::EncodeError::UnexpectedEnd) => {
                Err("`Serialize` is not deterministic: two encodings differ in length".into())
            }
            Err(error) => Err(encode_error_message(&error)),
        }
    }

    // Without a limit: bincode then allocates nothing before it has read it, because strings and bytes are borrowed.
    fn parse<T: DeserializeOwned>(value: &[u8], reading: &mut Reading<Self>) -> Result<(T, usize), String> {
        let whole = Whole::<T, _>::new(reading);
        let (decoded, read) = bincode::serde::seed_decode_from_slice(whole, value, bincode::config::standard())
            .map_err(|error| decode_error_message(&error))?;
        Ok((decoded, value.len() - read))
    }
}

impl Format for Messagepack {
    const CANNOT_ENCODE: &str = "cannot encode with messagepack";
    const CANNOT_DECODE: &str = "cannot decode with messagepack";
    const ASYMMETRY: &str = "`Serialize` and `Deserialize` of a type differ (`skip_deserializing`, or by hand)";

    fn append<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<Written, String> {
        let survey = survey::of::<Messagepack, T>(value).map_err(|error| error.to_string())?;
        value.serialize(&mut rmp_serde::Serializer::new(out).with_struct_map()).map_err(|error| error.to_string())?;
        Ok(Written::of(survey))
    }

    fn parse<T: DeserializeOwned>(value: &[u8], reading: &mut Reading<Self>) -> Result<(T, usize), String> {
        let mut rest = value;
        let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
        // What a type ignores is counted by this limit only.
        deserializer.set_max_depth(2 * MAX_DEPTH as usize);
        let whole = Whole::<T, _>::new(reading);
        let decoded = serde::de::DeserializeSeed::deserialize(whole, &mut deserializer);
        Ok((decoded.map_err(|error| error.to_string())?, rest.len()))
    }
}

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
        Error::UnexpectedEnd { .. } => format!("the value ends too early; {}", Bincode::ASYMMETRY),
        Error::OtherString(message) => message.clone(),
        Error::Other(message) => (*message).into(),
        other => format!("{other:?}; {}", Bincode::ASYMMETRY),
    }
}

impl Written {
    fn of<W: Wire>(survey: Survey<W>) -> Self {
        Self { events: survey.events.hash(), names: survey.names, content: survey.content }
    }
}
