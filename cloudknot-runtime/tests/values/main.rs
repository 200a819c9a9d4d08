//! Tests of values and their types: the codec and the fingerprint.

mod codec;
mod comparison;
mod depth;
mod fingerprint;
mod json;
mod made_up;
mod unordered;
mod unsupported;
