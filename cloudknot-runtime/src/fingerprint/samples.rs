//! Samples of how values are written, taken while their types are traced. What is traced is how a type is read; where it is
//! written by other names, or in another form, the samples show it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;

use super::shapes::SlotId;
use super::trace::{Sample, Tracer};
use crate::codec;

/// Maximum number of bytes of all samples. One that is not taken verifies nothing.
const MAX_LEN: usize = 16 << 20;

impl Tracer {
    /// Takes a sample of a value that was built. A value that its type refuses to write is not stored either.
    pub(super) fn sample<T: Serialize>(&mut self, root: SlotId, value: &T) {
        let Some(codec) = self.samples.codec.filter(|_| self.samples.len < MAX_LEN) else { return };
        let written = catch_unwind(AssertUnwindSafe(|| {
            let mut encoded = Vec::new();
            let written = codec::encode(codec, value, &mut encoded).ok()?;
            Some((encoded, written, serde_json::to_string(value).ok()))
        }));
        match written {
            Ok(Some((encoded, written, json))) => {
                self.samples.variants.extend(written.variants());
                self.samples.len += encoded.len() + json.as_ref().map_or(0, String::len);
                self.samples.all.push(Sample { root, encoded, json, hidden: written.hidden() });
            }
            Ok(None) => {}
            // Made by the type, so its destructor must not run.
            Err(payload) => std::mem::forget(payload),
        }
    }
}
