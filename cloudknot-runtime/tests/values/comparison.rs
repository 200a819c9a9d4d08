//! Values that are read back: which types give the value that was written, and which are refused.
#![allow(missing_docs, clippy::needless_pass_by_value, clippy::trivially_copy_pass_by_ref)]

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::ffi::{CString, OsString};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::{Bound, Range};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use cloudknot_runtime::codec::{Codec, CodecError};
use cloudknot_runtime::fingerprint::Fingerprint;
use cloudknot_runtime::frame::{self, HEADER_LEN};
use serde::de::{DeserializeOwned, Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::{SerializeStruct, SerializeTuple, Serializer};
use serde::{Deserialize, Serialize};

const TYPES: Fingerprint = Fingerprint(7);
const BOTH: [Codec; 2] = [Codec::Bincode, Codec::Messagepack];

/// Encodes a value, reads it back, and decodes it.
fn sent<T: Serialize + DeserializeOwned + Send>(codec: Codec, value: &T) -> Result<T, CodecError> {
    let mut out = Vec::new();
    let written = frame::encode(codec, TYPES, value, &mut out)?;
    frame::read_back::<T, T>(codec, &out, &written)?;
    frame::decode(codec, TYPES, &out)
}

#[track_caller]
fn same<T: Serialize + DeserializeOwned + Send + PartialEq + Debug>(codecs: &[Codec], value: T) {
    for codec in codecs {
        assert_eq!(sent(*codec, &value).unwrap_or_else(|error| panic!("{codec}: {error}")), value, "{codec}");
        crate::json::check(*codec, &value);
        let mut framed = Vec::new();
        let _ = frame::encode(*codec, TYPES, &value, &mut framed).unwrap();
        assert_eq!(framed[HEADER_LEN..], bare(*codec, &value), "{codec}: other bytes than those of the bare codec");
    }
}

/// Returns the bytes that the codec's own serializer writes.
fn bare<T: Serialize>(codec: Codec, value: &T) -> Vec<u8> {
    match codec {
        Codec::Bincode => bincode::serde::encode_to_vec(value, bincode::config::standard()).unwrap(),
        Codec::Messagepack => rmp_serde::to_vec_named(value).unwrap(),
    }
}

#[track_caller]
fn refused<T: Serialize + DeserializeOwned + Send + Debug>(codecs: &[Codec], value: T, expected: &str) {
    for codec in codecs {
        match sent(*codec, &value) {
            Ok(decoded) => panic!("{codec}: {value:?} was sent, as {decoded:?}"),
            Err(error) => assert!(error.to_string().contains(expected), "{codec}: `{error}` lacks `{expected}`"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Reading {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    flag: Option<u8>,
    n: u8,
}

// H1: the first value with a skipped field is refused, wherever it is.
#[test]
fn h1_skipped_field_is_refused_with_bincode() {
    let all = [None, Some(0), Some(7)].map(|flag| [0, 1, 4, 255].map(|n| Reading { flag, n }));
    for value in all.concat() {
        if value.flag.is_some() {
            same(&BOTH, vec![value.clone(), value]);
        } else {
            refused(&[Codec::Bincode], vec![value.clone()], "the field `flag` of `Reading`");
            refused(&[Codec::Bincode], Some((1_u8, value.clone())), "codec = \"messagepack\"");
            same(&[Codec::Messagepack], vec![value]);
        }
    }
}

// H1: of 2,000 such vectors, 39 were decoded as other values.
#[test]
fn h1_random_vectors_with_skipped_fields_are_right_or_refused() {
    let mut random = Random(0x5eed);
    let mut accepted = 0;
    for _ in 0..2_000 {
        let value: Vec<Reading> = (0..=random.below(6))
            .map(|_| Reading { flag: (random.below(2) == 1).then(|| random.byte() % 8), n: random.byte() % 8 })
            .collect();
        if let Ok(decoded) = sent(Codec::Bincode, &value) {
            assert_eq!(decoded, value);
            accepted += 1;
        }
        assert_eq!(sent(Codec::Messagepack, &value).unwrap(), value);
    }
    assert!(accepted > 100, "{accepted}");
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn byte(&mut self) -> u8 {
        self.below(256).to_le_bytes()[0]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Method {
    #[serde(skip)]
    #[allow(dead_code)]
    Interactive,
    Euler,
    Heun,
    RungeKutta,
}

// [Euler, Heun] ran as [Heun, RungeKutta].
#[test]
fn a_skipped_variant_is_refused_with_bincode() {
    for value in [Method::Euler, Method::Heun, Method::RungeKutta] {
        refused(&[Codec::Bincode], value, "messagepack");
        refused(&[Codec::Bincode], vec![(1_u8, Some(value))], "messagepack");
        same(&[Codec::Messagepack], vec![value]);
    }
    refused(&[Codec::Bincode], vec![Method::Euler, Method::Heun], "read as another one");
}

// The place of `B` in the reader's list of names is right by chance, because the alias of `A` is in that list as well.
#[test]
fn a_skipped_variant_beside_an_alias_is_refused() {
    #[derive(Debug, Serialize, Deserialize)]
    enum Mixed {
        #[serde(skip_deserializing)]
        Gone,
        #[serde(alias = "An", alias = "Ah")]
        A,
        B,
        C,
    }
    refused(&BOTH, Mixed::Gone, "");
    for value in [Mixed::A, Mixed::B, Mixed::C] {
        refused(&[Codec::Bincode], value, "messagepack");
    }
}

#[test]
fn fields_that_one_side_skips_are_refused() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct NotWritten {
        a: u8,
        #[serde(skip_serializing, default)]
        b: u8,
        c: u8,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct NotRead {
        a: u8,
        #[serde(skip_deserializing)]
        b: u8,
        c: u8,
    }
    refused(&[Codec::Bincode], NotWritten { a: 1, b: 2, c: 3 }, "messagepack");
    refused(&[Codec::Bincode], [1, 2].map(|a| NotWritten { a, b: 2, c: 3 }), "messagepack");
    refused(&BOTH, NotRead { a: 1, b: 2, c: 3 }, "differs from the encoded one");
    refused(&BOTH, [1, 2].map(|a| NotRead { a, b: 2, c: 3 }), "");
}

// The default is not the value for which the field was omitted.
#[test]
fn an_omitted_field_with_another_default_is_refused() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Scaled {
        #[serde(skip_serializing_if = "is_zero", default = "one")]
        factor: u8,
        offset: u8,
    }
    fn is_zero(value: &u8) -> bool {
        *value == 0
    }
    fn one() -> u8 {
        1
    }
    refused(&BOTH, Scaled { factor: 0, offset: 1 }, "");
    same(&BOTH, Scaled { factor: 2, offset: 1 });
}

// Fields with `#[serde(skip)]` are not sent, as serde documents.
#[test]
fn a_field_that_both_sides_skip_is_not_sent() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Cached {
        a: u8,
        #[serde(skip)]
        cache: Option<Vec<u8>>,
        b: u8,
    }
    for codec in BOTH {
        let decoded = sent(codec, &vec![Cached { a: 1, cache: Some(vec![2]), b: 3 }]).unwrap();
        assert_eq!(decoded, [Cached { a: 1, cache: None, b: 3 }]);
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Aliased {
    #[serde(alias = "aa", alias = "z")]
    last: u8,
    #[serde(alias = "first", alias = "zz")]
    middle: Option<u8>,
    #[serde(rename = "renamed", alias = "a")]
    first: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
enum Variants {
    #[serde(alias = "z")]
    B,
    #[serde(alias = "A", alias = "Z")]
    Newtype(u16),
    #[serde(rename = "pair", alias = "P")]
    Tuple(u8, String),
    Fields {
        #[serde(alias = "b")]
        c: u8,
        a: Option<char>,
    },
    #[serde(other)]
    Other,
}

fn variants() -> Vec<Variants> {
    vec![
        Variants::Other,
        Variants::Fields { c: 1, a: Some('é') },
        Variants::Tuple(2, "two".into()),
        Variants::Newtype(300),
        Variants::B,
        Variants::B,
    ]
}

#[test]
fn aliases_and_other_are_sent() {
    same(&BOTH, vec![Aliased { last: 1, middle: None, first: "x".into() }]);
    same(&BOTH, Aliased { last: 1, middle: Some(2), first: String::new() });
    same(&BOTH, variants());
    for value in variants() {
        same(&BOTH, (Some(value.clone()), [value]));
    }
}

#[test]
fn types_of_the_standard_library_are_sent() {
    same(&BOTH, (OsString::from("a\u{e9}"), PathBuf::from("/a/b"), CString::new("text").unwrap()));
    same(&BOTH, (Duration::new(7, 999_999_999), SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123)));
    same(&BOTH, vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([1_u16, 2, 3, 4, 5, 6, 7, 8])]);
    same(&BOTH, vec![SocketAddr::from(([10, 0, 0, 1], 80)), SocketAddr::from(([1_u16; 8], 443))]);
    same(&BOTH, (u128::MAX, i128::MIN, 250_u128, 251_u128, u128::from(u64::MAX) + 1, -1_i128));
    same(&BOTH, (PhantomData::<String>, (), [(); 3], [0_u8; 0]));
    same(&BOTH, (Box::new([1.5_f32; 3]), Cell::new(4), NonZeroU32::MIN, std::num::Wrapping(3_i16)));
    same(&BOTH, (Range { start: 1, end: 2 }, Bound::Included(3), Ok::<u8, String>(1), Err::<u8, String>("e".into())));
    same(&BOTH, (Cow::<'static, str>::Owned("owned".into()), VecDeque::from([1, 2]), BTreeSet::from(['a', 'b'])));
    same(&[Codec::Bincode], vec![Some(Some(Some(1_u8))), Some(Some(None)), Some(None), None]);
    same(&[Codec::Bincode], vec![Some(()), None]);
    same(&BOTH, vec![Some(Some(1_u8)), None]);
    same(&BOTH, vec![Some(PhantomData::<u8>), None]);
    for codec in BOTH {
        let heap = sent(codec, &BinaryHeap::from([3, 1, 2])).unwrap();
        assert_eq!(heap.into_sorted_vec(), [1, 2, 3]);
        assert_eq!(sent(codec, &-f64::NAN).unwrap().to_bits(), (-f64::NAN).to_bits());
    }
}

// Equal maps and sets may have their entries in different orders.
#[test]
fn hash_maps_and_sets_are_sent() {
    for size in [0_u16, 1, 2, 30, 2_000] {
        let keys = 0..size;
        same(&BOTH, keys.clone().map(|key| (key, key.to_string())).collect::<HashMap<u16, String>>());
        same(&BOTH, keys.clone().map(|key| (key, 0.5)).collect::<BTreeMap<u16, f64>>());
        let of_variants = |key: u16| match key % 3 {
            0 => Variants::Newtype(key),
            1 => Variants::Tuple(1, key.to_string()),
            _ => Variants::Fields { c: 1, a: char::from_u32(key.into()) },
        };
        same(&BOTH, keys.clone().map(of_variants).collect::<HashSet<_>>());
        same(&BOTH, keys.map(|key| (of_variants(key), vec![of_variants(key / 2)])).collect::<HashMap<_, _>>());
    }
}

#[test]
fn numbers_of_every_length_are_sent() {
    let edges = [0, 1, 127, 128, 250, 251, 252, 253, 254, 255, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, u64::MAX];
    for edge in edges {
        let wide = u128::from(edge);
        #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
        same(&BOTH, (edge, edge as u32, edge as u16, edge as u8, wide, wide << 64, edge as usize));
        #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
        same(&BOTH, (edge as i64, -(edge as i32), edge as i16, edge as i8, -(wide as i128), (wide << 63) as i128));
        if let Ok(len) = usize::try_from(edge).map(|len| len.min(70_000)) {
            same(&BOTH, ("é".repeat(len), vec![7_u8; len], serde_bytes::ByteBuf::from(vec![8; len])));
        }
    }
}

#[test]
fn types_of_other_crates_are_sent() {
    same(&BOTH, uuid::Uuid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_def0));
    same(&BOTH, (serde_bytes::ByteBuf::from(vec![1, 2, 3]), serde_bytes::ByteArray::new([4; 20])));
    same(&BOTH, ndarray::arr2(&[[1.5, 2.5], [3.5, 4.5]]).reversed_axes());
    same(&BOTH, ndarray::Array3::<u8>::zeros((2, 0, 3)).into_dyn());
    same(&BOTH, vec![(glam::DVec3::new(1.0, 2.0, 3.0), glam::Mat4::IDENTITY, glam::Quat::IDENTITY, glam::IVec2::ONE)]);
    let date = chrono::NaiveDate::from_ymd_opt(2026, 11, 29).unwrap();
    same(&BOTH, (date, date.and_hms_milli_opt(1, 2, 3, 4).unwrap().and_utc(), chrono::Weekday::Sun));
}

#[test]
fn attributes_that_convert_are_sent() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(transparent)]
    struct Transparent {
        inner: Vec<Variants>,
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(into = "(u8, String)", try_from = "(u8, String)")]
    struct Converted(u8);
    impl From<Converted> for (u8, String) {
        fn from(value: Converted) -> Self {
            (value.0, "converted".into())
        }
    }
    impl TryFrom<(u8, String)> for Converted {
        type Error = String;
        fn try_from((number, text): (u8, String)) -> Result<Self, String> {
            if text == "converted" { Ok(Self(number)) } else { Err(text) }
        }
    }
    mod tenths {
        use super::{Deserialize, Deserializer, Serializer};
        pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(&format_args!("{}", value * 10.0))
        }
        pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
            String::deserialize(deserializer)?
                .parse::<f64>()
                .map(|value| value / 10.0)
                .map_err(serde::de::Error::custom)
        }
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct With {
        #[serde(with = "tenths")]
        value: f64,
        #[serde(default)]
        unit: Option<String>,
    }
    same(&BOTH, Transparent { inner: variants() });
    same(&BOTH, vec![Converted(1), Converted(2)]);
    same(&BOTH, vec![With { value: 0.5, unit: None }]);
}

#[test]
fn self_describing_types_are_sent_with_messagepack() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Nothing,
        Number(i64),
        Real(f64),
        Pair(u8, Option<f32>),
        Fields { name: String, inner: Option<Box<Untagged>> },
        Variant(Variants),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Empty,
        Point { x: f64, y: Option<u8> },
        Struct(Aliased),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind", content = "content")]
    enum Adjacent {
        Empty,
        Number(u8),
        Pair(u8, Variants),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Flat {
        a: u8,
        #[serde(flatten)]
        inner: Aliased,
        #[serde(flatten)]
        rest: BTreeMap<String, serde_json::Value>,
    }
    let json = serde_json::json!({"a": [1, -2, 2.5, null, "x", true, u64::MAX], "b": {"c": {}, "d": []}});
    let aliased = || Aliased { last: 1, middle: None, first: "x".into() };
    let only = [Codec::Messagepack];
    same(&only, json.clone());
    same(&only, vec![Untagged::Nothing, Untagged::Number(-1), Untagged::Real(0.5), Untagged::Pair(1, Some(0.5))]);
    same(&only, Untagged::Fields { name: "n".into(), inner: Some(Box::new(Untagged::Pair(1, None))) });
    same(&only, variants().into_iter().map(Untagged::Variant).collect::<Vec<_>>());
    same(&only, vec![Tagged::Empty, Tagged::Point { x: 0.5, y: None }, Tagged::Struct(aliased())]);
    same(&only, vec![Adjacent::Empty, Adjacent::Number(1), Adjacent::Pair(2, Variants::B)]);
    same(&only, vec![Flat { a: 1, inner: aliased(), rest: BTreeMap::from([("json".into(), json.clone())]) }]);
    refused(&[Codec::Bincode], json, "codec = \"messagepack\"");
}

/// Writes its numbers with these names, and reads them with those names.
macro_rules! by_hand {
    ($name:ident: writes $($written:literal = $at:tt),+; reads $($read:literal = $into:tt),+) => {
        #[derive(Debug, PartialEq)]
        struct $name(u8, u8);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut fields = serializer.serialize_struct(stringify!($name), 2)?;
                $(fields.serialize_field($written, &self.$at)?;)+
                fields.end()
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Numbers;
                impl<'de> Visitor<'de> for Numbers {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("two numbers")
                    }
                    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<$name, A::Error> {
                        let mut value = $name(0, 0);
                        $(value.$into = seq.next_element()?.ok_or_else(|| A::Error::custom("too short"))?;)+
                        Ok(value)
                    }
                }
                deserializer.deserialize_struct(stringify!($name), &[$($read),+], Numbers)
            }
        }
    };
}

#[test]
fn fields_in_another_order_are_refused() {
    by_hand!(Right: writes "a" = 0, "b" = 1; reads "a" = 0, "b" = 1);
    by_hand!(Swapped: writes "a" = 0, "b" = 1; reads "b" = 1, "a" = 0);
    by_hand!(Fewer: writes "a" = 0, "b" = 1; reads "a" = 0);
    by_hand!(More: writes "a" = 0; reads "a" = 0, "b" = 1);
    by_hand!(Other: writes "a" = 0, "b" = 1; reads "a" = 0, "c" = 1);
    same(&[Codec::Bincode], vec![Right(1, 2), Right(2, 1)]);
    for value in [1, 2] {
        refused(&[Codec::Bincode], Swapped(value, 2), "in another order");
        refused(&[Codec::Bincode], vec![Swapped(value, 2), Swapped(2, value)], "in another order");
        refused(&[Codec::Bincode], vec![Fewer(value, 0), Fewer(1, 0)], "");
        refused(&[Codec::Bincode], vec![More(value, 0), More(1, 0)], "");
        refused(&[Codec::Bincode], Other(value, 0), "other names");
    }
}

// Beyond the number of names that are compared at once.
#[test]
fn many_fields_in_another_order_are_refused() {
    macro_rules! many {
        ($owner:ident, $($field:ident)*) => {
            #[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
            pub(super) struct $owner { $(pub(super) $field: u8),* }
        };
    }
    mod written {
        use super::*;
        many!(Many, a b c d e f g h i j k l m n o p q r s t);
    }
    mod read {
        use super::*;
        many!(Many, a b c d e f g h i j k l m n o p q r t s);
    }
    #[derive(Debug, Clone, Serialize, Deserialize)]
    #[serde(into = "written::Many", from = "read::Many")]
    struct Converted(u8);
    impl From<Converted> for written::Many {
        fn from(value: Converted) -> Self {
            Self { s: value.0, ..Self::default() }
        }
    }
    impl From<read::Many> for Converted {
        fn from(value: read::Many) -> Self {
            Self(value.s)
        }
    }
    same(&BOTH, vec![written::Many::default(); 3]);
    refused(&[Codec::Bincode], vec![Converted(1)], "in another order");
}

#[test]
fn variants_in_another_order_are_refused() {
    mod written {
        use super::*;
        #[derive(Clone, Serialize)]
        pub(super) enum Direction {
            Up,
            Down,
            Left,
        }
    }
    mod read {
        use super::*;
        #[derive(Deserialize)]
        pub(super) enum Direction {
            Down,
            Up,
            Left,
        }
    }
    #[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
    #[serde(into = "written::Direction", from = "read::Direction")]
    struct Converted(u8);
    impl From<Converted> for written::Direction {
        fn from(value: Converted) -> Self {
            [Self::Up, Self::Down, Self::Left][usize::from(value.0)].clone()
        }
    }
    impl From<read::Direction> for Converted {
        fn from(value: read::Direction) -> Self {
            Self(match value {
                read::Direction::Up => 0,
                read::Direction::Down => 1,
                read::Direction::Left => 2,
            })
        }
    }
    for values in [vec![0], vec![1], vec![0, 1], vec![1, 0, 2]] {
        let values: Vec<_> = values.into_iter().map(Converted).collect();
        refused(&[Codec::Bincode], values.clone(), "read as another one");
        same(&[Codec::Messagepack], values);
    }
    same(&BOTH, Converted(2));
}

/// Writes one type and reads another.
macro_rules! asymmetric {
    ($name:ident: $written:expr => $read:ty) => {
        #[derive(Debug)]
        struct $name;

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $written.serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <$read>::deserialize(deserializer).map(|_| Self)
            }
        }
    };
}

#[test]
fn a_value_that_is_read_as_another_kind_is_refused() {
    asymmetric!(SeqAsTuple: vec![0_u8, 2] => (u8, u8, u8));
    asymmetric!(TupleAsSeq: (1_u8, 2_u8) => Vec<u8>);
    asymmetric!(StrAsSeq: "abc" => Vec<u8>);
    asymmetric!(FloatAsInts: 1.5_f32 => [u8; 4]);
    asymmetric!(SignedAsUnsigned: 1_i32 => u32);
    asymmetric!(ByteAsBool: 1_u8 => bool);
    asymmetric!(ByteAsWide: 7_u8 => u64);
    asymmetric!(OptionAsByte: None::<u8> => u8);
    asymmetric!(Nested: ((1_u8, 2_u8, 3_u8), (4_u8, 5_u8)) => ((u8, u8), (u8, u8, u8)));
    asymmetric!(Shorter: [[1_u8, 2, 3], [4, 5, 6]] => [[u8; 2]; 3]);
    asymmetric!(MapAsSeq: BTreeMap::from([(1_u8, 2_u8)]) => Vec<(u8, u8)>);
    asymmetric!(VariantAsNumber: Variants::B => u32);
    let only = [Codec::Bincode];
    refused(&only, vec![SeqAsTuple], "");
    refused(&only, vec![TupleAsSeq], "");
    refused(&BOTH, vec![StrAsSeq], "");
    refused(&BOTH, vec![FloatAsInts], "");
    refused(&only, vec![SignedAsUnsigned], "differs from the encoded one");
    refused(&BOTH, vec![ByteAsBool], "");
    refused(&only, vec![ByteAsWide], "differs from the encoded one");
    refused(&BOTH, vec![OptionAsByte], "");
    refused(&BOTH, vec![Nested], "");
    refused(&BOTH, vec![Shorter], "");
    refused(&BOTH, vec![MapAsSeq], "");
    refused(&BOTH, vec![VariantAsNumber], "");
}

// As a float, an integer of 64 bits may be another number.
#[test]
fn an_integer_that_is_read_as_a_float_is_refused() {
    asymmetric!(IntAsFloat: u64::MAX => f64);
    refused(&[Codec::Messagepack], IntAsFloat, "differs from the encoded one");
}

#[test]
fn a_type_that_writes_different_parts_each_time_is_refused() {
    #[derive(Debug)]
    struct Unsteady(Cell<u8>);
    impl Serialize for Unsteady {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.0.set(self.0.get() + 1);
            let mut pair = serializer.serialize_tuple(2)?;
            match self.0.get() % 2 {
                0 => pair.serialize_element(&1_i16)?,
                _ => pair.serialize_element(&1_u16)?,
            }
            pair.serialize_element(&self.0.get())?;
            pair.end()
        }
    }
    impl<'de> Deserialize<'de> for Unsteady {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            <(i16, u8)>::deserialize(deserializer).map(|pair| Self(Cell::new(pair.1)))
        }
    }
    refused(&[Codec::Bincode], Unsteady(Cell::new(0)), "differs from the encoded one");
}

// L1: these came back as `None`.
#[test]
fn l1_options_of_nothing_are_refused_with_messagepack() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Newtype(Option<u8>);
    let only = [Codec::Messagepack];
    refused(&only, Some(()), "like `None`");
    refused(&only, vec![Some(Some(1)), Some(None::<u8>)], "like `None`");
    refused(&only, Some(Newtype(None)), "like `None`");
    same(&only, vec![Some(Newtype(Some(1))), None]);
    refused(&only, Some(serde_json::Value::Null), "like `None`");
    same(&[Codec::Bincode], Some(Newtype(None)));
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Limits {
    low: Option<f64>,
    high: Option<f64>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flattened {
    name: String,
    #[serde(flatten)]
    limits: Option<Limits>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Overlapping {
    #[serde(flatten)]
    extra: BTreeMap<String, u8>,
    #[serde(flatten)]
    other: BTreeMap<String, u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
struct Halved(u8);

impl From<u8> for Halved {
    fn from(number: u8) -> Self {
        Self(number)
    }
}

impl From<Halved> for u8 {
    fn from(halved: Halved) -> Self {
        halved.0 / 2
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Crossed {
    #[serde(rename(serialize = "b", deserialize = "a"))]
    a: u8,
    #[serde(rename(serialize = "a", deserialize = "b"))]
    b: u8,
}

// H1: the events are equal, but the type makes another value of them.
#[test]
fn h1_value_that_a_type_changes_is_refused() {
    let messagepack = &[Codec::Messagepack];
    let flattened = |limits| Flattened { name: "n".into(), limits };
    same(messagepack, flattened(Some(Limits { low: Some(1.0), high: None })));
    refused(messagepack, flattened(None), "other contents");
    let map = |key: &str| BTreeMap::from([(key.to_owned(), 1)]);
    refused(messagepack, Overlapping { extra: map("p"), other: map("q") }, "");
    same(&BOTH, Halved(0));
    refused(&BOTH, Halved(8), "other contents");
    refused(&BOTH, HashMap::from([(1_u8, Halved(8)), (2, Halved(4))]), "other contents");
    same(messagepack, Crossed { a: 1, b: 1 });
    refused(messagepack, Crossed { a: 1, b: 2 }, "other contents");
}
