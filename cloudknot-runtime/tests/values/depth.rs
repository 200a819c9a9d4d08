//! Values that contain themselves: bounded alike in encoding and decoding, whatever the stack of the caller's thread.
#![allow(missing_docs, clippy::needless_pass_by_value, clippy::large_enum_variant)]

use std::fmt::Debug;
use std::thread;

use cloudknot_runtime::codec::Codec;
use cloudknot_runtime::fingerprint::Fingerprint;
use cloudknot_runtime::frame::{self, HEADER_LEN};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const TYPES: Fingerprint = Fingerprint(7);
const BOTH: [Codec; 2] = [Codec::Bincode, Codec::Messagepack];
/// A level for the newtype and one for the option.
const MAX_NESTS: usize = 64;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Nest(Option<Box<Nest>>);

impl Nest {
    fn of(depth: usize) -> Self {
        (1..depth).fold(Self(None), |inner, _| Self(Some(Box::new(inner))))
    }
}

// Not derived: dropping such a value overflows the stack, and so does comparing it.
impl Drop for Nest {
    fn drop(&mut self) {
        let mut inner = self.0.take();
        while let Some(mut nest) = inner {
            inner = nest.0.take();
        }
    }
}

/// A struct with many fields on the stack, with all kinds of content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Wide {
    numbers: [[f64; 16]; 16],
    name: String,
    more: (u128, u128, Option<[u64; 32]>),
    kind: Kind,
    children: Vec<Wide>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Kind {
    Plain,
    Boxed { inner: Box<Wide>, numbers: [u64; 32] },
}

impl Wide {
    fn of(depth: usize) -> Self {
        let leaf = Self {
            numbers: [[0.5; 16]; 16],
            name: "wide".into(),
            more: (1, 2, Some([3; 32])),
            kind: Kind::Plain,
            children: vec![],
        };
        (1..depth).fold(leaf.clone(), |inner, at| match at % 2 {
            0 => Self { children: vec![inner], ..leaf.clone() },
            _ => Self { kind: Kind::Boxed { inner: Box::new(inner), numbers: [4; 32] }, ..leaf.clone() },
        })
    }
}

/// Runs on a thread with the stack of an ordinary thread.
fn on_small_stack<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::Builder::new().stack_size(2 << 20).spawn(act);
    thread.expect("a thread starts").join().expect("the thread succeeds")
}

fn check<T: Serialize + DeserializeOwned + Send + PartialEq + Debug>(codec: Codec, value: T) {
    let mut out = Vec::new();
    let written = frame::encode(codec, TYPES, &value, &mut out).unwrap();
    frame::read_back::<T, T>(codec, &out, &written).unwrap();
    crate::json::check(codec, &value);
    assert_eq!(frame::decode::<T>(codec, TYPES, &out).unwrap(), value);
}

// M6: the item succeeded, and the host that read its value overflowed its stack.
#[test]
fn m6_value_that_is_too_deep_is_refused_when_it_is_encoded() {
    for depth in [MAX_NESTS + 1, 1_000, 13_000] {
        for codec in BOTH {
            on_small_stack(move || {
                let mut out = Vec::new();
                let error = frame::encode(codec, TYPES, &Nest::of(depth), &mut out).unwrap_err().to_string();
                assert!(error.contains("nested more than 128 levels") && error.contains("`Vec`"), "{error}");
                assert!(out.is_empty());
            });
        }
    }
}

#[test]
fn a_value_of_the_maximum_depth_is_sent() {
    on_small_stack(|| (1..=MAX_NESTS).for_each(|depth| check(Codec::Bincode, Nest::of(depth))));
    for codec in BOTH {
        // Three levels and two levels, by turns; the last has tuples and arrays in it.
        on_small_stack(move || check(codec, Wide::of(62)));
    }
    let json = (1..128).fold(serde_json::json!([1]), |inner, _| serde_json::json!([inner]));
    on_small_stack(move || check(Codec::Messagepack, json));
}

/// Takes 16 KiB of the stack in each function that moves it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Large {
    block: Vec<u8>,
    #[serde(with = "serde_bytes")]
    array: [u8; 16 << 10],
    next: Option<Box<Large>>,
}

#[test]
fn nested_large_values_are_sent() {
    let large = |next| Some(Box::new(Large { block: vec![1; 9], array: [2; 16 << 10], next }));
    let value = (0..40).fold(None, |inner, _| large(inner));
    on_small_stack(move || check(Codec::Bincode, value));
}

// A frame of another program, or a damaged one, with a right checksum.
#[test]
fn m6_frame_that_is_too_deep_is_refused_when_it_is_decoded() {
    for depth in [MAX_NESTS + 1, 1_000, 1_000_000] {
        // One byte a level: `Some`, then the next.
        let mut deep = vec![1; depth - 1];
        deep.push(0);
        on_small_stack(move || refused::<Nest>(Codec::Bincode, &deep));
        on_small_stack(move || refused::<Lists>(Codec::Bincode, &vec![1; 3 * depth]));
        // An array of one element, which is an array of one element.
        let arrays = vec![0x91; 3 * depth];
        on_small_stack(move || {
            refused::<Lists>(Codec::Messagepack, &arrays);
            refused::<serde_json::Value>(Codec::Messagepack, &arrays);
        });
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
struct Lists(Vec<Lists>);

#[track_caller]
fn refused<T: Serialize + DeserializeOwned + Send + Debug>(codec: Codec, bytes: &[u8]) {
    let mut forged = Vec::new();
    let _ = frame::encode(codec, TYPES, &(), &mut forged).unwrap();
    forged.truncate(HEADER_LEN);
    forged.extend_from_slice(bytes);
    forged[16..24].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    let checksum = twox_hash::XxHash3_64::oneshot_with_seed(TYPES.0, bytes);
    forged[24..32].copy_from_slice(&checksum.to_le_bytes());
    let error = frame::decode::<T>(codec, TYPES, &forged).unwrap_err().to_string();
    assert!(error.contains("nested more than 128 levels"), "{error}");
}
