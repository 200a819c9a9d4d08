//! The structure of a function's types, traced through serde, and its fingerprint.

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// One line a type.
    pub text: String,
    /// The hash of the text.
    pub fingerprint: Fingerprint,
}

impl Schema {
    /// Traces both types of a function.
    pub fn of<I: DeserializeOwned, O: DeserializeOwned>(codec: Codec) -> Self {
        let text = format!("{codec:?}\n{}\n{}", std::any::type_name::<I>(), std::any::type_name::<O>());
        let fingerprint = Fingerprint(XxHash3_64::oneshot(text.as_bytes()));
        Self { text, fingerprint }
    }

    /// The lines in which this structure is not the other.
    pub fn difference(&self, other: &str) -> String {
        format!("- {other}\n+ {}", self.text)
    }
}
