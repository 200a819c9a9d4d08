//! Tests of values and their types: the codec and the fingerprint.

mod codec;
mod fingerprint;
