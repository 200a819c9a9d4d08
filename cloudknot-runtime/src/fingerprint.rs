//! The structure of a function's types, traced through serde at run time, and its fingerprint. Host and worker compute
//! the structure independently from the same source and must produce the same text. The text therefore contains no
//! address, no hash map order and no module path (only a type that refuses to be traced is listed by its full name).
//!
//! `trace` holds the state of tracing: a type is deserialized repeatedly until no part of it is unknown, and `pending`
//! finds the unknown parts. `explore` runs these passes, on a thread of their own; `steps` numbers the points at which a type
//! may end the process. `probe` is the deserializer, and `access` its half for types with several components.
//! `offers` holds the values that are offered to a type, and `refusals` handles a type that refuses one. `shapes`
//! stores the traced structure, `samples` how built values are written, `render` writes the structure as text, `structure` makes
//! data of it, and `unsupported` searches it for what the codec cannot carry, and `unordered` for maps and sets without an order. `json` reads stored values by these data.
//!
//! Tracing builds values that nobody made, and runs code of the user on them. A program with a generated main therefore
//! traces in a process of its own (`trace_process`).

mod access;
mod explore;
pub mod json;
mod offers;
mod pending;
mod probe;
mod refusals;
mod render;
mod samples;
mod shapes;
mod steps;
mod structure;
mod trace;
mod unordered;
mod unsupported;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use self::explore::Root;
use self::json::{JsonError, StoredValue};
pub use self::structure::{Opaque, OpaqueReason, RawForm, Structure};
pub use self::trace::Observer;
use self::trace::Tracer;
use crate::codec::Codec;

/// Maximum time to trace the input or the output of a function. Tracing takes milliseconds; a type that needs longer is
/// described by its name alone.
pub const TRACE_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// Name of a type in the input whose entries have no fixed order, such as `HashMap<String, u32>`, if one was found. Equal inputs
    /// are then encoded differently.
    pub unordered: Option<String>,
    /// The same structure as data, from which values are read without the types.
    pub structure: Structure,
}

impl Schema {
    /// Same as [`of`](Self::of), for types that can be written. The structure then has the names by which they are written.
    pub fn sampled<I, O>(codec: Codec) -> Self
    where
        I: Serialize + DeserializeOwned,
        O: Serialize + DeserializeOwned,
    {
        TypePair::sampled::<I, O>().trace(codec).expect("the operating system starts a thread")
    }

    /// Traces the input and output types of a function, in this process. Only the content of the input type counts, not its
    /// name.
    pub fn of<I: DeserializeOwned, O: DeserializeOwned>(codec: Codec) -> Self {
        TypePair::of::<I, O>().trace(codec).expect("the operating system starts a thread")
    }

    fn new(tracer: &Tracer, types: [(Root, shapes::SlotId); 2], codec: Codec) -> Self {
        let [input, output] = types.map(|(_, slot)| slot);
        let text = render::text(tracer, input, output, codec);
        let fingerprint = Fingerprint(XxHash3_64::oneshot(text.as_bytes()));
        let unsupported = unsupported::find(tracer, input, output, codec);
        let mut structure = structure::build(tracer, input, output, codec);
        for (part, (root, slot)) in [Part::Input, Part::Output].into_iter().zip(types) {
            let mut samples = tracer.samples.all.iter().filter(|sample| sample.root == slot);
            if !samples.all(|sample| agrees(&structure, part, codec, sample)) {
                structure.set_asymmetric(part, root.name());
            }
        }
        Self { text, fingerprint, unsupported, unordered: None, structure }
    }

    /// Returns the lines that differ between the structure described by `old` and this one, as `- old` and `+ new`.
    /// The result is empty if nothing changed.
    pub fn difference(&self, old: &str) -> String {
        difference(old, &self.text)
    }
}

/// Returns whether the JSON of a sample is right, if it has any by the structure.
fn agrees(structure: &Structure, part: Part, codec: Codec, sample: &trace::Sample) -> bool {
    match StoredValue::of(structure, part, codec, &sample.encoded, sample.hidden).to_json() {
        Ok(json) => sample.json.as_ref() == Some(&json),
        Err(JsonError::Opaque(_)) => true,
        Err(JsonError::Codec(_)) => false,
    }
}

/// Part of a function's types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Part {
    /// The arguments.
    Input,
    /// The result.
    Output,
}

/// Exceptions of a trace, as learned from an earlier one that was not completed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exceptions {
    /// Parts that are described by their names alone.
    pub opaque: BTreeSet<Part>,
    /// Points at which a type ends the process, by part. The trace continues as if the type had panicked there.
    pub ends: BTreeMap<Part, BTreeSet<u64>>,
}

/// Input and output type of a function, to be traced.
#[derive(Debug, Clone, Copy)]
pub struct TypePair {
    input: Root,
    output: Root,
    is_sampled: bool,
}

impl TypePair {
    /// Returns the pair of these types.
    pub const fn of<I: DeserializeOwned, O: DeserializeOwned>() -> Self {
        Self { input: Root::of::<I>(), output: Root::of::<O>(), is_sampled: false }
    }

    /// Returns the pair of these types, which can be written as well.
    pub const fn sampled<I, O>() -> Self
    where
        I: Serialize + DeserializeOwned,
        O: Serialize + DeserializeOwned,
    {
        Self { input: Root::sampled::<I>(), output: Root::sampled::<O>(), is_sampled: true }
    }

    /// Traces the types in this process, on a thread of their own. A type that needs too long is left running.
    ///
    /// # Errors
    /// Returns an error if no thread can be started.
    pub fn trace(self, codec: Codec) -> io::Result<Schema> {
        let mut exceptions = Exceptions::default();
        loop {
            match self.trace_with(codec, &exceptions, None, Some(TRACE_TIMEOUT))? {
                Ok(schema) => return Ok(schema),
                Err(part) => exceptions.opaque.insert(part),
            };
        }
    }

    /// Traces the types with these exceptions. Returns the part that took longer than `limit`, if one did.
    ///
    /// # Errors
    /// Returns an error if no thread can be started.
    pub fn trace_with(
        self,
        codec: Codec,
        exceptions: &Exceptions,
        observer: Option<&Arc<dyn Observer>>,
        limit: Option<Duration>,
    ) -> io::Result<Result<Schema, Part>> {
        let mut tracer = Tracer::default();
        tracer.steps.observer = observer.cloned();
        tracer.samples.codec = self.is_sampled.then_some(codec);
        let mut slots = [0; 2];
        let mut unordered = None;
        for (slot, (part, root)) in slots.iter_mut().zip([(Part::Input, self.input), (Part::Output, self.output)]) {
            if exceptions.opaque.contains(&part) {
                *slot = tracer.opaque(root);
            } else {
                tracer.begin_part(part, exceptions.ends.get(&part));
                match tracer.explore(root, limit)? {
                    Some(explored) => (tracer, *slot) = explored,
                    None => return Ok(Err(part)),
                }
            }
            if part == Part::Input {
                unordered = tracer.unordered_type().map(render::without_paths);
            }
        }
        let schema = Schema::new(&tracer, [(self.input, slots[0]), (self.output, slots[1])], codec);
        Ok(Ok(Schema { unordered, ..schema }))
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
