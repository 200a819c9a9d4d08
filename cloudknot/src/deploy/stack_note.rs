//! The note in the output `Settings` of a stack.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::aws::cloudformation::Stack;
use crate::error::{Error, ErrorKind, Result};

/// Note that only this program reads: the settings of a stack, and a digest of the inputs of its template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StackNote<T> {
    /// Digest of the inputs of the template.
    pub(crate) content: String,
    pub(crate) settings: T,
    /// `true` if the stack was created from a printed template, so that it is unknown whether the image was pushed.
    #[serde(rename = "of_a_template", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) from_template: bool,
}

impl<T: DeserializeOwned> StackNote<T> {
    /// Reads the note of this stack.
    ///
    /// # Errors
    /// Returns an error if the stack has no note, or one of another version.
    pub(crate) fn read(stack: &Stack) -> Result<Self> {
        serde_json::from_str(stack.output("Settings")?).map_err(|error| {
            let message = format!("cannot read the settings of the stack `{}`", stack.name);
            Error::new(ErrorKind::Aws, message)
                .with_source(error)
                .with_hint("another version of cloudknot may have created it: use that version, or clobber it")
        })
    }
}

/// Returns the first half of a SHA-256, in hexadecimal digits.
pub(crate) fn digest(text: impl AsRef<[u8]>) -> String {
    Sha256::digest(text).iter().take(16).fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a `String` does not fail");
        hex
    })
}

/// Returns the differences between two settings, one per line.
pub(crate) fn differences(current: &Value, desired: &Value) -> Vec<String> {
    fn collect(path: &str, current: &Value, desired: &Value, found: &mut Vec<String>) {
        match (current, desired) {
            (Value::Object(one), Value::Object(other)) => {
                let keys: BTreeSet<_> = one.keys().chain(other.keys()).collect();
                for key in keys {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    let value = |side: &Map<String, Value>| side.get(key).cloned().unwrap_or(Value::Null);
                    collect(&path, &value(one), &value(other), found);
                }
            }
            _ if current == desired => {}
            _ => found.push(format!("{path}: is {}, requested {}", display(current), display(desired))),
        }
    }
    fn display(value: &Value) -> String {
        if value.is_null() { "none".to_owned() } else { value.to_string() }
    }
    let mut found = Vec::new();
    collect("", current, desired, &mut found);
    found
}
