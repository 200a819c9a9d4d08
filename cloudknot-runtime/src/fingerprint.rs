//! The structure of a function's types, traced through serde at run time, and its fingerprint. Host and worker compute
//! the structure independently from the same source and must produce the same text. The text therefore contains no
//! address, no hash map order and no module path (only a type that refuses to be traced is listed by its full name).
//!
//! `trace` holds the state of tracing: a type is deserialized repeatedly until no part of it is unknown, and `pending`
//! finds the unknown parts. `probe` is the deserializer, and `access` its half for types with several components.
//! `offers` holds the values that are offered to a type, and `refusals` handles a type that refuses one. `shapes`
//! stores the traced structure, `render` writes it as text, and `unsupported` searches it for what the codec cannot carry.

mod access;
mod offers;
mod pending;
mod probe;
mod refusals;
mod render;
mod shapes;
mod trace;
mod unsupported;

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::codec::Codec;

/// Hash of the structure of a function's input and output types.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Structure of a function's input and output types, in readable form.
///
/// ```
/// # use cloudknot_runtime::{codec::Codec, fingerprint::Schema};
/// #[derive(serde::Deserialize)]
/// struct Input {
///     steps: u32,
///     start: Option<(f64, f64)>,
/// }
/// let schema = Schema::of::<Input, Vec<f64>>(Codec::Bincode);
/// assert_eq!(schema.text, "input: { steps: u32, start: Option<(f64, f64)> }\noutput: [f64]\ncodec: bincode");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// One line each for the input, the output and the codec, then one line for each named type.
    pub text: String,
    /// Hash of the text.
    pub fingerprint: Fingerprint,
    /// Description of a part of the types that the codec can carry in no value, if there is one.
    pub unsupported: Option<String>,
}

impl Schema {
    /// Traces the input and output types of a function. Only the content of the input type counts, not its name.
    pub fn of<I: DeserializeOwned, O: DeserializeOwned>(codec: Codec) -> Self {
        let mut tracer = trace::Tracer::default();
        let input = tracer.explore::<I>();
        let output = tracer.explore::<O>();
        let text = render::text(&tracer, input, output, codec);
        let fingerprint = Fingerprint(XxHash3_64::oneshot(text.as_bytes()));
        let unsupported = unsupported::find(&tracer, input, output, codec);
        Self { text, fingerprint, unsupported }
    }

    /// Returns the lines that differ between the structure described by `old` and this one, as `- old` and `+ new`.
    /// The result is empty if nothing changed.
    pub fn difference(&self, old: &str) -> String {
        difference(old, &self.text)
    }
}

/// Returns the lines in which two descriptions differ, as `- old` and `+ new`. Lines of the same subject are adjacent.
pub fn difference(old: &str, new: &str) -> String {
    let removed: Vec<&str> = old.lines().filter(|line| !new.lines().any(|other| other == *line)).collect();
    let mut added: Vec<&str> = new.lines().filter(|line| !old.lines().any(|other| other == *line)).collect();
    let mut lines = Vec::new();
    for line in removed {
        lines.push(format!("- {line}"));
        if let Some(at) = added.iter().position(|other| subject(other) == subject(line)) {
            lines.push(format!("+ {}", added.remove(at)));
        }
    }
    lines.extend(added.into_iter().map(|line| format!("+ {line}")));
    lines.join("\n")
}

/// Returns the subject of a line: `input`, or the name of a type without its kind, since the kind may have changed.
fn subject(line: &str) -> &str {
    let named = ["struct ", "enum ", "type "].iter().find_map(|kind| line.strip_prefix(kind)).unwrap_or(line);
    named.split([':', ' ', '(', ';']).next().unwrap_or(named)
}
