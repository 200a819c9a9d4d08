//! Round trips of values through frames, and damaged frames.
#![allow(missing_docs, clippy::needless_pass_by_value)]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use cloudknot_runtime::codec::{Codec, CodecError};
use cloudknot_runtime::fingerprint::Fingerprint;
use cloudknot_runtime::frame::{self, HEADER_LEN};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

const TYPES: Fingerprint = Fingerprint(0x0123_4567_89ab_cdef);
const CODECS: [Codec; 2] = [Codec::Bincode, Codec::Messagepack];

fn frame<T: Serialize>(codec: Codec, value: &T) -> Vec<u8> {
    let mut out = b"before".to_vec();
    let _ = frame::encode(codec, TYPES, value, &mut out).unwrap();
    assert_eq!(out[..6], *b"before");
    out.split_off(6)
}

fn through<T: Serialize + DeserializeOwned + Send>(codec: Codec, value: &T) -> T {
    frame::decode(codec, TYPES, &frame(codec, value)).unwrap()
}

#[track_caller]
fn check<T: Serialize + DeserializeOwned + Send + PartialEq + Debug>(value: T) {
    check_large(&value);
    for codec in CODECS {
        crate::json::check(codec, &value);
    }
}

/// Same as `check`, without the JSON, which takes long.
#[track_caller]
fn check_large<T: Serialize + DeserializeOwned + Send + PartialEq + Debug>(value: &T) {
    for codec in CODECS {
        assert_eq!(through(codec, value), *value, "{codec:?}");
    }
}

/// Returns a frame around arbitrary bytes, with the right length and checksum.
fn forged(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    let mut out = frame(codec, &());
    out.truncate(HEADER_LEN);
    out.extend_from_slice(bytes);
    out[16..24].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    out[24..32].copy_from_slice(&XxHash3_64::oneshot_with_seed(TYPES.0, bytes).to_le_bytes());
    out
}

#[track_caller]
fn refused<T: DeserializeOwned + Send>(codec: Codec, frame: &[u8], expected: &str) {
    match frame::decode::<T>(codec, TYPES, frame) {
        Ok(_) => panic!("the frame was decoded; expected an error with `{expected}`"),
        Err(error) => assert!(error.to_string().contains(expected), "`{error}` does not contain `{expected}`"),
    }
}

#[test]
fn floats_keep_every_bit() {
    let bits = [
        0,
        1 << 63,
        1,
        f64::NAN.to_bits(),
        0x7ff8_dead_beef_0001,
        0xfff0_0000_0000_0001,
        f64::INFINITY.to_bits(),
        f64::NEG_INFINITY.to_bits(),
        f64::MIN_POSITIVE.to_bits(),
        f64::MAX.to_bits(),
    ];
    let values: Vec<f64> = bits.iter().map(|bits| f64::from_bits(*bits)).collect();
    let narrow = [0x8000_0000, 0x7fc0_1234, 0xff80_0000, 1].map(f32::from_bits);
    for codec in CODECS {
        assert_eq!(through(codec, &values).iter().map(|value| value.to_bits()).collect::<Vec<_>>(), bits);
        assert_eq!(through(codec, &narrow).map(f32::to_bits), narrow.map(f32::to_bits));
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Circle(f64),
    Pair(i8, Box<Shape>),
    Group { name: String, members: Vec<Shape>, note: Option<String> },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
struct Key {
    row: u16,
    column: Option<char>,
}

#[test]
fn values_round_trip() {
    check(());
    check(true);
    check((i8::MIN, i16::MIN, i32::MIN, i64::MIN, i128::MIN));
    check((i8::MAX, i16::MAX, i32::MAX, i64::MAX, i128::MAX));
    check((u8::MAX, u16::MAX, u32::MAX, u64::MAX, u128::MAX));
    check([0_u64, 250, 251, 252, 253, 65_535, 65_536, 1 << 32]);
    check(['a', '\0', 'é', '猫', '🦀', char::MAX]);
    check(String::new());
    check("naïve 猫 🦀 \0 e\u{301}".to_owned());
    check(Vec::<f64>::new());
    check(vec![Vec::<u8>::new(), vec![0, 255], (0..=255).collect()]);
    check((PathBuf::from("/data/données.csv"), Duration::new(u64::MAX, 999_999_999)));
    check(vec![vec![vec![vec![vec![Some(1.5)]]], vec![]]]);
    check(vec![
        Shape::Nothing,
        Shape::Circle(-0.5),
        Shape::Pair(-1, Box::new(Shape::Pair(1, Box::new(Shape::Nothing)))),
        Shape::Group { name: "outer".into(), members: vec![Shape::Circle(1.0), Shape::Nothing], note: None },
    ]);
    check(HashMap::from([((1_u32, true), "one"), ((2, false), "two")].map(|(key, value)| (key, value.to_owned()))));
    check(BTreeMap::from([(Key { row: 1, column: Some('x') }, vec![1.0]), (Key { row: 0, column: None }, vec![])]));
    check(BTreeMap::from([(u128::MAX, i128::MIN)]));
    check(Ok::<u8, String>(1));
    check(Err::<u8, String>("no".into()));
}

// The fingerprint is traced as not human-readable, so both codecs must encode the same form of a type that has two.
#[test]
fn codecs_are_not_human_readable() {
    #[derive(Debug, PartialEq)]
    struct Machine;
    impl Serialize for Machine {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            assert!(!serializer.is_human_readable());
            ().serialize(serializer)
        }
    }
    impl<'de> Deserialize<'de> for Machine {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            assert!(!deserializer.is_human_readable());
            <()>::deserialize(deserializer).map(|()| Self)
        }
    }
    check((Machine, vec![Machine]));
    check(std::net::IpAddr::from([127, 0, 0, 1]));
}

#[test]
fn nested_options_are_exact_with_bincode_only() {
    let values: Vec<Option<Option<u8>>> = vec![None, Some(None), Some(Some(0))];
    assert_eq!(through(Codec::Bincode, &values), values);
    assert_eq!(through(Codec::Bincode, &vec![Some(()), None]), [Some(()), None]);
    // MessagePack has only one nil.
    let refused = |result: Result<_, CodecError>| assert!(result.unwrap_err().to_string().contains("like `None`"));
    refused(frame::encode(Codec::Messagepack, TYPES, &values, &mut Vec::new()));
    refused(frame::encode(Codec::Messagepack, TYPES, &vec![Some(()), None], &mut Vec::new()));
}

// The limit counts every number with its full width, even if it was written in fewer bytes.
#[test]
fn values_larger_than_their_encoding_round_trip() {
    check_large(&vec![0_u64; 300_000]);
    check_large(&vec![0_u128; 300_000]);
    check_large(&vec![0_i128; 1]);
    check_large(&vec![(); 1_000_000]);
    check_large(&vec![None::<u128>; 100_000]);
    check_large(&vec![String::new(); 100_000]);
    check_large(&vec![vec![(0_u128, 0_usize)]; 50_000]);
    check_large(&vec![Shape::Nothing; 1_100_000]);
    check_large(&(0_u128, 0_u128, 0_u128));
}

#[test]
fn consecutive_frames_are_split_by_length() {
    let mut out = Vec::new();
    for number in 0..3_u64 {
        let _ = frame::encode(Codec::Bincode, TYPES, &vec![number; 3], &mut out).unwrap();
    }
    let mut rest = &out[..];
    for number in 0..3_u64 {
        let length = usize::try_from(frame::frame_length(rest).unwrap()).unwrap();
        assert_eq!(frame::decode::<Vec<u64>>(Codec::Bincode, TYPES, &rest[..length]).unwrap(), [number; 3]);
        rest = &rest[length..];
    }
    assert!(rest.is_empty());
}

#[test]
fn every_flipped_bit_is_detected() {
    for codec in CODECS {
        let whole = frame(codec, &(7_u64, "some text".to_owned(), vec![1.0, f64::NAN]));
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                let error = frame::decode::<(u64, String, Vec<f64>)>(codec, TYPES, &damaged);
                assert!(error.is_err(), "{codec:?}: bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn truncated_and_extended_frames_are_refused() {
    for codec in CODECS {
        let whole = frame(codec, &vec!["text".to_owned(); 3]);
        for length in 0..whole.len() {
            let expected = if length < HEADER_LEN { "bytes remain" } else { "truncated or damaged" };
            refused::<Vec<String>>(codec, &whole[..length], expected);
        }
        let longer: Vec<u8> = whole.iter().copied().chain([0]).collect();
        refused::<Vec<String>>(codec, &longer, "truncated or damaged");
    }
}

#[test]
fn frame_errors_state_the_problem() {
    let whole = frame(Codec::Bincode, &1_u8);
    refused::<u8>(Codec::Messagepack, &whole, "encoded with bincode");
    let with = |at: usize, byte: u8| {
        let mut changed = whole.clone();
        changed[at] = byte;
        changed
    };
    refused::<u8>(Codec::Bincode, &with(0, b'X'), "not written by cloudknot");
    refused::<u8>(Codec::Bincode, &with(4, 9), "another version of cloudknot");
    refused::<u8>(Codec::Bincode, &with(5, 9), "unknown codec");
    refused::<u8>(Codec::Bincode, &with(6, 1), "damaged");
    refused::<u8>(Codec::Bincode, &with(8, 0), "other types (fingerprint 0123456789abcd00, expected 0123456789abcdef)");
    refused::<u8>(Codec::Bincode, &with(23, 255), "truncated or damaged");
    refused::<u8>(Codec::Bincode, &with(HEADER_LEN, 2), "checksum");
    refused::<u8>(Codec::Bincode, b"", "only 0 bytes remain");
    let mut endless = whole.clone();
    endless[16..24].fill(255);
    assert!(frame::frame_length(&endless).is_err());
}

#[test]
fn hostile_lengths_are_refused_without_reserving_memory() {
    // bincode: a marker, then 2^45 in eight bytes.
    let mut bytes = vec![253];
    bytes.extend_from_slice(&(1_u64 << 45).to_le_bytes());
    bytes.extend_from_slice(b"0123456789");
    for length in [bytes.len(), 0x10_0000, 0x10_0001, 0x400_0001] {
        bytes.resize(length, b'x');
        let hostile = forged(Codec::Bincode, &bytes);
        refused::<String>(Codec::Bincode, &hostile, "ends too early");
        refused::<serde_bytes::ByteBuf>(Codec::Bincode, &hostile, "ends too early");
    }
    let bytes = forged(Codec::Bincode, &bytes[..100]);
    refused::<PathBuf>(Codec::Bincode, &bytes, "ends too early");
    refused::<Vec<u8>>(Codec::Bincode, &bytes, "ends too early");
    refused::<Vec<f64>>(Codec::Bincode, &bytes, "ends too early");
    refused::<HashMap<u64, f64>>(Codec::Bincode, &bytes, "decode with bincode");
    // MessagePack: a string, bytes, an array and a map of length 2^32 - 1.
    for marker in [0xdb, 0xc6, 0xdd, 0xdf] {
        let hostile = forged(Codec::Messagepack, &[marker, 255, 255, 255, 255, 1, 1, 1]);
        refused::<String>(Codec::Messagepack, &hostile, "cannot decode with messagepack");
        refused::<Vec<u8>>(Codec::Messagepack, &hostile, "cannot decode with messagepack");
        refused::<Vec<f64>>(Codec::Messagepack, &hostile, "cannot decode with messagepack");
        refused::<HashMap<u64, u64>>(Codec::Messagepack, &hostile, "cannot decode with messagepack");
        refused::<serde_json::Value>(Codec::Messagepack, &hostile, "cannot decode with messagepack");
    }
}

#[test]
fn leftover_bytes_are_refused() {
    refused::<u8>(Codec::Bincode, &forged(Codec::Bincode, &[1, 2]), "1 bytes remain");
    refused::<u8>(Codec::Messagepack, &forged(Codec::Messagepack, &[1, 2]), "1 bytes remain");
    refused::<bool>(Codec::Bincode, &forged(Codec::Bincode, &[7]), "cannot decode with bincode");
    refused::<char>(Codec::Bincode, &forged(Codec::Bincode, &[255]), "cannot decode with bincode");
    refused::<String>(Codec::Bincode, &forged(Codec::Bincode, &[1, 255]), "cannot decode with bincode");
    refused::<Shape>(Codec::Bincode, &forged(Codec::Bincode, &[9]), "cannot decode with bincode");
}

// Decoding must end without a panic for any bytes.
#[test]
fn arbitrary_bytes_never_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::new();
    for round in 0..20_000_usize {
        bytes.clear();
        for _ in 0..round % 40 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.push(state.to_le_bytes()[7]);
        }
        for codec in CODECS {
            let frame = forged(codec, &bytes);
            // A value that is decoded by chance must be one that can be encoded again.
            if let Ok(value) = frame::decode::<(Shape, HashMap<String, Vec<u64>>)>(codec, TYPES, &frame) {
                self::frame(codec, &value);
            }
            if let Ok(value) = frame::decode::<Vec<Shape>>(codec, TYPES, &frame) {
                self::frame(codec, &value);
            }
        }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u32),
    Text(String),
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Point { x: f64 },
    Empty,
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    name: String,
    #[serde(flatten)]
    rest: BTreeMap<String, u32>,
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Skips {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<u32>,
    second: u32,
}

/// Checks that bincode refuses to encode or decode a value, and that the error suggests messagepack.
#[track_caller]
fn messagepack_only<T: Serialize + DeserializeOwned + Send + PartialEq + Debug>(value: T) {
    assert_eq!(through(Codec::Messagepack, &value), value);
    let mut out = b"kept".to_vec();
    let error: CodecError = match frame::encode(Codec::Bincode, TYPES, &value, &mut out) {
        Ok(_) => frame::decode::<T>(Codec::Bincode, TYPES, &out[4..]).unwrap_err(),
        Err(error) => {
            assert_eq!(out, b"kept", "a failed encoding leaves the buffer unchanged");
            error
        }
    };
    assert!(error.to_string().contains("#[cloudknot::remote(codec = \"messagepack\")]"), "{error}");
}

#[test]
fn self_describing_types_need_messagepack() {
    messagepack_only(serde_json::json!({"a": [1, 2.5, null, "x"], "b": {"c": -1}}));
    messagepack_only(vec![Untagged::Number(1), Untagged::Text("one".into())]);
    messagepack_only(vec![Tagged::Point { x: 0.5 }, Tagged::Empty]);
    messagepack_only(Flat { name: "a".into(), rest: BTreeMap::from([("b".into(), 1)]) });
    messagepack_only(Skips { first: None, second: 1 });
}

#[test]
fn failed_encoding_leaves_the_buffer_unchanged() {
    struct Never;
    impl Serialize for Never {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("the telescope is closed"))
        }
    }
    for codec in CODECS {
        let mut out = vec![1, 2, 3];
        let error = frame::encode(codec, TYPES, &(vec![1.0; 100], Never), &mut out).unwrap_err();
        assert!(error.to_string().ends_with(": the telescope is closed"), "{error}");
        assert_eq!(out, [1, 2, 3]);
    }
}

#[test]
fn nondeterministic_serialize_is_refused() {
    /// Loses its items when it is encoded.
    struct Drained(std::cell::RefCell<std::vec::IntoIter<u32>>);

    impl Serialize for Drained {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(self.0.take())
        }
    }

    for items in [vec![1], vec![1; 5_000]] {
        let mut out = b"before".to_vec();
        let error = frame::encode(Codec::Bincode, TYPES, &Drained(items.into_iter().into()), &mut out).unwrap_err();
        assert!(
            error.to_string().ends_with("`Serialize` is not deterministic: two encodings differ in length"),
            "{error}"
        );
        assert_eq!(out, b"before");
    }
}

#[test]
fn asymmetric_serde_is_detected_at_any_size() {
    #[derive(Serialize, Deserialize)]
    struct Sparse {
        #[serde(skip_serializing_if = "Option::is_none")]
        left_out: Option<u8>,
        rest: Vec<u8>,
    }

    for size in [1, 1_000_000] {
        let sparse = Sparse { left_out: None, rest: vec![1; size] };
        let error = frame::encode(Codec::Bincode, TYPES, &sparse, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("`left_out`"), "{size} bytes: {error}");
    }
    let mut numbers = Vec::new();
    let written = frame::encode(Codec::Bincode, TYPES, &vec![1.5_f64; 1_000_000], &mut numbers).unwrap();
    frame::read_back::<Vec<f64>, Vec<f64>>(Codec::Bincode, &numbers, &written).unwrap();
}
