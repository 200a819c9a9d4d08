//! The structure of a function's types, traced through serde at run time, and its fingerprint. Host and worker compute
//! it from the same source, each for itself, and must come to the same text: no address, no order of a hash map and
//! no module path gets in (only a type that refuses to be traced is known by its full name).
//!
//! The walk: `trace` goes through a type again and again until nothing of it is unknown (`pending` says what is);
//! `probe` is the deserializer that it goes with, and `access` its half for what has several parts; `offers` holds the
//! values that are offered, and `refusals` says what then; what was learned is kept in `shapes`, and `render` writes it.

mod access;
mod offers;
mod pending;
mod probe;
mod refusals;
mod render;
mod shapes;
mod trace;

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::codec::Codec;

/// A hash of the structure of a function's input and output types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The structure of a function's input and output types, in words that people can compare.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// The input, the output, the codec, and then one line for each named type.
    pub text: String,
    /// The hash of the text.
    pub fingerprint: Fingerprint,
}

impl Schema {
    /// Traces both types of a function. The name of the input type itself does not count, only what is in it.
    pub fn of<I: DeserializeOwned, O: DeserializeOwned>(codec: Codec) -> Self {
        let mut tracer = trace::Tracer::default();
        let input = tracer.explore::<I>();
        let output = tracer.explore::<O>();
        let text = render::text(&tracer, input, output, codec);
        let fingerprint = Fingerprint(XxHash3_64::oneshot(text.as_bytes()));
        Self { text, fingerprint }
    }

    /// What changed from the structure described by `was` to this one: the lines that differ, as `- was` and `+ is`.
    /// Empty if nothing did.
    pub fn difference(&self, was: &str) -> String {
        difference(was, &self.text)
    }
}

/// The lines in which two descriptions differ, as `- was` and `+ is`; lines about the same thing stand together.
pub fn difference(was: &str, is: &str) -> String {
    let gone: Vec<&str> = was.lines().filter(|line| !is.lines().any(|other| other == *line)).collect();
    let mut new: Vec<&str> = is.lines().filter(|line| !was.lines().any(|other| other == *line)).collect();
    let mut lines = Vec::new();
    for line in gone {
        lines.push(format!("- {line}"));
        if let Some(at) = new.iter().position(|other| subject(other) == subject(line)) {
            lines.push(format!("+ {}", new.remove(at)));
        }
    }
    lines.extend(new.into_iter().map(|line| format!("+ {line}")));
    lines.join("\n")
}

/// What a line is about: `input`, or the name of a type, whatever kind of type it has become.
fn subject(line: &str) -> &str {
    let named = ["struct ", "enum ", "type "].iter().find_map(|kind| line.strip_prefix(kind)).unwrap_or(line);
    named.split([':', ' ', '(', ';']).next().unwrap_or(named)
}
