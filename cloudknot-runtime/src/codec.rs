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
use std::marker::PhantomData;
use std::thread;

use serde::de::{DeserializeOwned, DeserializeSeed};
use serde::{Deserialize, Serialize};

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
    hidden: Hidden,
}

/// Facts about a value that its encoding does not show, but that its other forms may depend on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hidden {
    /// A type has asked whether people read the encoding: it may have another form if they do.
    pub readable: bool,
    /// A part is encoded like a value of another kind: in messagepack, numbers of 128 bits like bytes, and structs without
    /// fields like empty sequences.
    pub ambiguous: bool,
}

/// Order of the parts of a value in its encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartOrder {
    /// The copy that was read back is written in the same order as the value.
    Fixed,
    /// The copy is written in another order, as one of a hash map: equal values have different encodings.
    Random,
}

impl Written {
    /// Returns what the encoding does not show.
    pub fn hidden(&self) -> Hidden {
        self.hidden
    }

    /// Returns the variants in the value, each as the name of its enum, its number and its name.
    pub(crate) fn variants(&self) -> impl Iterator<Item = (&'static str, u32, &'static str)> {
        self.names.variants()
    }
}

/// A codec, as a type. Generic code over it compiles each type for the one codec that its function uses.
pub trait Encoding {
    /// The codec as a value.
    const CODEC: Codec;

    /// Appends an encoded value to `out`. On an error, a part of the value may have been appended.
    fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<Written, CodecError>;

    /// Decodes a value, which must take up all of the bytes.
    fn decode<T: DeserializeOwned + Send>(value: &[u8]) -> Result<T, CodecError>;

    /// Decodes a value that has just been encoded, and checks that it is the same value. Returns its order.
    fn read_back<T: Serialize + DeserializeOwned + Send>(
        value: &[u8],
        written: &Written,
    ) -> Result<PartOrder, CodecError>;
}

impl<F: Format> Encoding for F {
    const CODEC: Codec = if F::MESSAGEPACK { Codec::Messagepack } else { Codec::Bincode };

    fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<Written, CodecError> {
        F::append(value, out).map_err(|reason| CodecError::new(F::CANNOT_ENCODE, reason))
    }

    fn decode<T: DeserializeOwned + Send>(value: &[u8]) -> Result<T, CodecError> {
        Ok(decode::<T, F>(value, false)?.0)
    }

    fn read_back<T: Serialize + DeserializeOwned + Send>(
        value: &[u8],
        written: &Written,
    ) -> Result<PartOrder, CodecError> {
        compare::<T, F>(value, written)
    }
}

fn compare<T, W: Format>(value: &[u8], written: &Written) -> Result<PartOrder, CodecError>
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
    if again.content.sum != written.content.sum {
        return Err(differs("it has other contents (`with`, `from`, `into`, `flatten`, or by hand)"));
    }
    Ok(if again.content.ordered == written.content.ordered { PartOrder::Fixed } else { PartOrder::Random })
}

const DIFFERENT: &str = "the decoded value differs from the encoded one";

/// Stack that the decoding of a value may use on the caller's thread, whose stack is of unknown size.
const SMALL_STACK: usize = 256 << 10;
/// Stack of the thread that decodes a value which needs more. Only what is used is taken from the system.
const LARGE_STACK: usize = 64 << 20;

/// Decodes a value.
fn decode<T: DeserializeOwned + Send, W: Format>(value: &[u8], compared: bool) -> Result<(T, Reading<W>), CodecError> {
    with_enough_stack(|max_stack| decode_within::<T, W>(value, compared, max_stack))
}

/// Decodes a value within this much of the stack: first on this thread, then on one with a larger stack if it needs more.
pub(crate) fn with_enough_stack<T: Send, E: From<CodecError> + NeedsStack + Send>(
    decode: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<T, E> {
    match decode(SMALL_STACK) {
        Err(error) if error.needs_stack() => thread::scope(|scope| {
            thread::Builder::new()
                .stack_size(LARGE_STACK)
                .spawn_scoped(scope, || decode(LARGE_STACK - SMALL_STACK))
                .map_err(|error| CodecError::new("cannot start a thread to decode a nested value", error))?
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        }),
        result => result,
    }
}

/// Error that may be due to the size of the stack.
pub(crate) trait NeedsStack {
    /// Returns whether the value may be decoded on a larger stack.
    fn needs_stack(&self) -> bool;
}

impl NeedsStack for CodecError {
    fn needs_stack(&self) -> bool {
        self.overflow == Some(Overflow::Stack)
    }
}

fn decode_within<T: DeserializeOwned, W: Format>(
    value: &[u8],
    compared: bool,
    max_stack: usize,
) -> Result<(T, Reading<W>), CodecError> {
    read_with::<W, _>(value, PhantomData::<T>, Reading::new(max_stack, compared))
}

/// Reads a value with a seed.
fn read_with<'de, W: Format, S: DeserializeSeed<'de>>(
    value: &'de [u8],
    seed: S,
    mut reading: Reading<W>,
) -> Result<(S::Value, Reading<W>), CodecError> {
    let result = W::parse(value, seed, &mut reading);
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
    /// Returns whether the value exceeds a limit.
    pub(crate) fn is_overflow(&self) -> bool {
        self.overflow.is_some()
    }

    /// Adds the likely reason why intact bytes cannot be decoded, or give another value.
    fn with_asymmetry<W: Format>(mut self) -> Self {
        if self.overflow.is_none() && !self.reason.ends_with(USE_MESSAGEPACK_ATTRIBUTE) {
            self.reason = format!("{}; {}", self.reason, W::ASYMMETRY);
        }
        self
    }
}

/// Appends a value encoded with this codec.
pub(crate) fn encode<T: Serialize>(codec: Codec, value: &T, out: &mut Vec<u8>) -> Result<Written, CodecError> {
    match codec {
        Codec::Bincode => Bincode::encode(value, out),
        Codec::Messagepack => Messagepack::encode(value, out),
    }
}

/// Reads a value with a seed, for types that are known at run time only. Uses at most this much of the stack.
pub(crate) fn read<'de, S: DeserializeSeed<'de>>(
    codec: Codec,
    value: &'de [u8],
    seed: S,
    max_stack: usize,
) -> Result<S::Value, CodecError> {
    match codec {
        Codec::Bincode => read_with::<Bincode, S>(value, seed, Reading::new(max_stack, false)).map(|read| read.0),
        Codec::Messagepack => {
            read_with::<Messagepack, S>(value, seed, Reading::new(max_stack, false)).map(|read| read.0)
        }
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

    /// Decodes a value with a seed, and returns it with the number of remaining bytes.
    fn parse<'de, S: DeserializeSeed<'de>>(
        value: &'de [u8],
        seed: S,
        reading: &mut Reading<Self>,
    ) -> Result<(S::Value, usize), String>;
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
    fn parse<'de, S: DeserializeSeed<'de>>(
        value: &'de [u8],
        seed: S,
        reading: &mut Reading<Self>,
    ) -> Result<(S::Value, usize), String> {
        let whole = Whole { seed, reading };
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

    fn parse<'de, S: DeserializeSeed<'de>>(
        value: &'de [u8],
        seed: S,
        reading: &mut Reading<Self>,
    ) -> Result<(S::Value, usize), String> {
        let mut rest = value;
        let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
        // What a type ignores is counted by this limit only.
        deserializer.set_max_depth(2 * MAX_DEPTH as usize);
        let decoded = Whole { seed, reading }.deserialize(&mut deserializer);
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
        Self { events: survey.events.hash(), names: survey.names, content: survey.content, hidden: survey.hidden.get() }
    }
}
