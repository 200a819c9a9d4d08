//! Stored values as JSON, without the program that has their types: by the structure of the types and the encoded bytes.
//!
//! The JSON equals what `serde_json` prints for the value: the parts of the value are passed to its serializer as they are
//! decoded, and nothing is kept. Values of [opaque](crate::fingerprint::Opaque) types are refused, because only their program
//! has the code that converts them.

mod walk;

use std::cell::{Cell, RefCell};
use std::error::Error as StdError;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer};
use serde::ser::{Error as _, Serialize, Serializer};

use super::Part;
use super::structure::{NodeId, Structure};
use crate::codec::{self, Codec, CodecError, Hidden, NeedsStack};

/// Maximum stack that is used to serialize a value with another serializer.
const MAX_STACK: usize = 768 << 10;
/// Number of parts without bytes that a value may have, as the elements of a `Vec<()>` are. Its length can be anything.
const MAX_EMPTY_PARTS: u64 = 2 << 20;
/// Number of parts that each byte of a value may have. Most of them are structs and newtypes around another part.
const MAX_PARTS_PER_BYTE: u64 = 64;

/// Value in a frame that is read by the structure of its type.
///
/// It can be serialized. Structs become maps, because the names of their fields are known at run time only; in JSON, both are the
/// same.
///
/// ```
/// # use cloudknot_runtime::codec::Codec;
/// # use cloudknot_runtime::fingerprint::{Part, Schema, json::StoredValue};
/// # use cloudknot_runtime::frame;
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Star {
///     name: String,
///     magnitude: Option<f32>,
/// }
/// let Schema { structure, fingerprint, .. } = Schema::of::<(), Star>(Codec::Bincode);
/// let mut stored = Vec::new();
/// let star = Star { name: "Vega".into(), magnitude: Some(0.03) };
/// let _ = frame::encode(Codec::Bincode, fingerprint, &star, &mut stored)?;
///
/// let value = StoredValue::new(&structure, Part::Output, Codec::Bincode, fingerprint, &stored)?;
/// assert_eq!(value.to_json()?, r#"{"name":"Vega","magnitude":0.03}"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct StoredValue<'a> {
    structure: &'a Structure,
    part: Part,
    codec: Codec,
    value: &'a [u8],
    hidden: Hidden,
}

/// Error of a value that could not be converted to JSON.
#[derive(Debug)]
#[non_exhaustive]
pub enum JsonError {
    /// Only the program can convert the value, for this reason.
    Opaque(String),
    /// The value could not be decoded.
    Codec(CodecError),
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opaque(reason) => write!(f, "cannot convert the value to JSON without its program: {reason}"),
            Self::Codec(error) => error.fmt(f),
        }
    }
}

impl StdError for JsonError {}

impl From<CodecError> for JsonError {
    fn from(error: CodecError) -> Self {
        Self::Codec(error)
    }
}

impl NeedsStack for JsonError {
    fn needs_stack(&self) -> bool {
        matches!(self, Self::Codec(error) if error.needs_stack())
    }
}

impl<'a> StoredValue<'a> {
    pub(crate) fn of(structure: &'a Structure, part: Part, codec: Codec, value: &'a [u8], hidden: Hidden) -> Self {
        Self { structure, part, codec, value, hidden }
    }

    /// Converts the value to JSON, on one line.
    ///
    /// # Errors
    /// Returns [`JsonError::Opaque`] if only the program can convert the value.
    pub fn to_json(&self) -> Result<String, JsonError> {
        codec::with_enough_stack(|max_stack| {
            let mut json = Vec::new();
            self.pass(max_stack, &mut serde_json::Serializer::new(&mut json))?;
            Ok(String::from_utf8(json).expect("JSON is UTF-8"))
        })
    }

    /// Passes the value to a serializer.
    fn pass<S: Serializer>(&self, max_stack: usize, serializer: S) -> Result<S::Ok, JsonError> {
        if self.hidden.readable {
            let known = self.structure.opaque(self.part).map(ToString::to_string);
            let reason = known.unwrap_or_else(|| "a type in it has another form in JSON than in the encoding".into());
            return Err(JsonError::Opaque(reason));
        }
        let conversion = Conversion::new(self);
        let whole = Whole { conversion: &conversion, root: self.structure.root(self.part), serializer };
        codec::read(self.codec, self.value, whole, max_stack).map_err(|error| match conversion.fault.take() {
            _ if error.is_overflow() => JsonError::Codec(error),
            Some(Fault::Opaque(reason)) => JsonError::Opaque(reason),
            Some(Fault::Damaged(reason)) => CodecError::damaged(reason).into(),
            None => JsonError::Codec(error),
        })
    }
}

impl Serialize for StoredValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.pass(MAX_STACK, serializer).map_err(S::Error::custom)
    }
}

/// State of a conversion.
struct Conversion<'a> {
    structure: &'a Structure,
    codec: Codec,
    ambiguous: bool,
    /// Number of parts that may still follow.
    parts: Cell<u64>,
    /// First error. Those of the codec and the serializer take turns on the way up, where each would wrap the other, and escape its
    /// text again.
    fault: RefCell<Option<Fault>>,
}

/// Text of an error that is kept in the conversion.
const FAILED: &str = "the part cannot be converted";

enum Fault {
    Opaque(String),
    Damaged(String),
}

impl<'a> Conversion<'a> {
    fn new(value: &StoredValue<'a>) -> Self {
        let max_parts = (value.value.len() as u64).saturating_mul(MAX_PARTS_PER_BYTE).saturating_add(MAX_EMPTY_PARTS);
        Self {
            structure: value.structure,
            codec: value.codec,
            ambiguous: value.hidden.ambiguous,
            parts: Cell::new(max_parts),
            fault: RefCell::new(None),
        }
    }

    /// Counts a part of the value, or the length of a name, which is in the structure only.
    #[inline]
    fn count<E: serde::de::Error>(&self, parts: usize) -> Result<(), E> {
        match self.parts.get().checked_sub(parts as u64) {
            Some(parts) => {
                self.parts.set(parts);
                Ok(())
            }
            None => Err(self.opaque("it has too many parts without content")),
        }
    }

    /// Records that only the program can convert the value.
    fn opaque<E: serde::de::Error>(&self, reason: impl fmt::Display) -> E {
        self.fault.borrow_mut().get_or_insert_with(|| Fault::Opaque(reason.to_string()));
        E::custom(FAILED)
    }

    /// Converts an error of the serializer, which cannot print such a value, as JSON cannot have some keys.
    fn not_serialized<E: serde::de::Error>(&self, error: impl fmt::Display) -> E {
        self.opaque(error)
    }

    /// Converts an error of the decoder.
    fn not_decoded<E: serde::ser::Error>(&self, error: impl fmt::Display) -> E {
        self.fault.borrow_mut().get_or_insert_with(|| Fault::Damaged(error.to_string()));
        E::custom(FAILED)
    }
}

/// Seed of the whole value.
struct Whole<'a, S> {
    conversion: &'a Conversion<'a>,
    root: NodeId,
    serializer: S,
}

impl<'de, S: Serializer> DeserializeSeed<'de> for Whole<'_, S> {
    type Value = S::Ok;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Ok, D::Error> {
        walk::node(self.conversion, self.root, deserializer, self.serializer)
    }
}

/// Returns the error of a structure that refers to a node which it lacks.
fn no_node<E: serde::de::Error>() -> E {
    E::custom("the structure of the types is incomplete")
}
