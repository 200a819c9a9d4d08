//! Tests of the traced structure of types.
#![allow(dead_code, missing_docs)]

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ffi::{CString, OsString};
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroI8, NonZeroU64, Wrapping};
use std::ops::{Bound, Range, RangeInclusive};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use cloudknot_runtime::codec::Codec;
use cloudknot_runtime::fingerprint::{Schema, difference};
use serde::de::{self, DeserializeOwned, Deserializer, EnumAccess, SeqAccess, VariantAccess, Visitor};
use serde::{Deserialize, Serialize};

fn schema<T: DeserializeOwned>() -> Schema {
    Schema::of::<(), T>(Codec::Bincode)
}

/// Checks the line of the output, followed by the lines of the named types.
#[track_caller]
fn check<T: DeserializeOwned>(expected: &str) {
    let schema = schema::<T>();
    let text = schema.text.replace("input: ()\noutput: ", "").replace("codec: bincode", "").replace("\n\n", "\n");
    assert_eq!(text.trim_end(), expected);
    assert_eq!(schema, self::schema::<T>(), "a second trace is equal");
}

#[test]
fn unnamed_types() {
    check::<(bool, char, i8, i16, i32)>("(bool, char, i8, i16, i32)");
    check::<(i64, i128, isize, u8)>("(i64, i128, i64, u8)");
    check::<(u16, u32, u64, u128, usize, f32, f64)>("(u16, u32, u64, u128, u64, f32, f64)");
    check::<()>("()");
    check::<String>("string");
    check::<Box<str>>("string");
    check::<Option<f64>>("Option<f64>");
    check::<Option<Option<Option<u8>>>>("Option<Option<Option<u8>>>");
    check::<HashMap<u32, Vec<Option<Option<f64>>>>>("{u32: [Option<Option<f64>>]}");
    check::<BTreeMap<(u8, String), BTreeSet<char>>>("{(u8, string): [char]}");
    check::<VecDeque<Vec<Vec<u8>>>>("[[[u8]]]");
    check::<[f64; 32]>("[f64; 32]");
    check::<[u8; 0]>("()");
    check::<([f64; 4], [f64; 5])>("([f64; 4], [f64; 5])");
    check::<Box<(f64, Box<f64>)>>("(f64, f64)");
}

#[test]
fn types_of_the_standard_library() {
    check::<Duration>("Duration\nstruct Duration { secs: u64, nanos: u32 }");
    check::<SystemTime>("SystemTime\nstruct SystemTime { secs_since_epoch: u64, nanos_since_epoch: u32 }");
    check::<IpAddr>("IpAddr\nenum IpAddr { V4([u8; 4]), V6([u8; 16]) }");
    check::<SocketAddr>("SocketAddr\nenum SocketAddr { V4(([u8; 4], u16)), V6(([u8; 16], u16)) }");
    check::<PathBuf>("string");
    check::<CString>("bytes");
    check::<OsString>("OsString\nenum OsString { Unix([u8]), Windows ? }");
    check::<(NonZeroU64, NonZeroI8)>("(u64, i8)");
    check::<Range<f32>>("Range\nstruct Range { start: f32, end: f32 }");
    check::<RangeInclusive<u8>>("RangeInclusive\nstruct RangeInclusive { start: u8, end: u8 }");
    check::<Bound<u8>>("Bound\nenum Bound { Unbounded, Included(u8), Excluded(u8) }");
    check::<Result<u8, String>>("Result\nenum Result { Ok(u8), Err(string) }");
    check::<(Wrapping<u8>, Reverse<i8>, Cell<u16>, RefCell<i16>)>("(u8, i8, u16, i16)");
    check::<std::marker::PhantomData<u8>>("PhantomData\nstruct PhantomData");
    check::<std::sync::atomic::AtomicU32>("u32");
    check::<std::borrow::Cow<'static, str>>("string");
}

#[derive(Deserialize)]
struct Unit;
#[derive(Deserialize)]
struct Meters(f64);
#[derive(Deserialize)]
struct Pair(u8, Meters);
#[derive(Deserialize)]
struct Quad(u8, u8, u8, u8);
#[derive(Deserialize)]
struct Empty {}
#[derive(Deserialize)]
struct Fields<T> {
    first: T,
    second: Option<Meters>,
    third: Unit,
}
#[derive(Deserialize)]
enum Mixed {
    Unit,
    Newtype(u32),
    Option(Option<Box<Mixed>>),
    Tuple(u8, f64),
    Struct { x: f64, y: Vec<Meters> },
    Inner(Plain),
}
#[derive(Deserialize)]
enum Plain {
    A,
    B,
    C(Pair),
}
#[derive(Deserialize)]
enum Never {}

#[test]
fn named_types() {
    check::<Unit>("Unit\nstruct Unit");
    check::<Meters>("Meters\nstruct Meters(f64)");
    check::<Pair>("Pair\nstruct Pair(u8, Meters)\nstruct Meters(f64)");
    check::<Quad>("Quad\nstruct Quad(u8, u8, u8, u8)");
    check::<Empty>("Empty\nstruct Empty {}");
    check::<Fields<u8>>(
        "Fields\nstruct Fields { first: u8, second: Option<Meters>, third: Unit }\nstruct Meters(f64)\nstruct Unit",
    );
    check::<Vec<Mixed>>(
        "[Mixed]\nenum Mixed { Unit, Newtype(u32), Option(Option<Mixed>), Tuple(u8, f64), Struct { x: f64, y: [Meters] }, \
         Inner(Plain) }\nstruct Meters(f64)\nenum Plain { A, B, C(Pair) }\nstruct Pair(u8, Meters)",
    );
    check::<(Plain, Option<Plain>)>(
        "(Plain, Option<Plain>)\nenum Plain { A, B, C(Pair) }\nstruct Pair(u8, Meters)\nstruct Meters(f64)",
    );
    check::<Option<Never>>("Option<Never>\nenum Never {  }");
}

#[test]
fn same_named_types_are_numbered() {
    check::<(Fields<u8>, Fields<Fields<String>>)>(
        "(Fields, Fields#2)\nstruct Fields { first: u8, second: Option<Meters>, third: Unit }\n\
         struct Fields#2 { first: Fields#3, second: Option<Meters>, third: Unit }\nstruct Meters(f64)\nstruct Unit\n\
         struct Fields#3 { first: string, second: Option<Meters>, third: Unit }",
    );
    check::<(Range<u8>, Range<f64>)>(
        "(Range, Range#2)\nstruct Range { start: u8, end: u8 }\nstruct Range#2 { start: f64, end: f64 }",
    );
}

#[derive(Deserialize)]
struct List {
    value: f64,
    next: Option<Box<List>>,
}
#[derive(Deserialize)]
struct Node {
    children: Vec<Node>,
    by_name: HashMap<String, Node>,
    parent: Other,
}
#[derive(Deserialize)]
enum Other {
    Again(Box<Node>),
    Deeper(Box<Other>),
    Both(Box<Other>, Box<Node>),
    None,
}
#[derive(Deserialize)]
enum Expr {
    Add(Box<Expr>, Box<Expr>),
    Call { name: String, arguments: Vec<Expr>, mode: CallMode },
    Not(Box<Expr>),
    Neg(Box<Expr>),
    If(Box<(Expr, Expr, Expr)>),
    Bin(Op, Box<Expr>),
    Literal(f64),
}
#[derive(Deserialize)]
enum Op {
    Plus,
    Minus,
    Custom(Box<Expr>),
}
#[derive(Deserialize)]
enum CallMode {
    Now,
    Later(Duration),
}
#[derive(Deserialize)]
#[serde(transparent)]
struct Tree(Vec<Tree>);
#[derive(Deserialize)]
enum Endless {
    A(Box<Endless>),
    B(Box<Endless>, u8),
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Ping(Vec<Pong>);
#[derive(Deserialize)]
#[serde(transparent)]
struct Pong(Option<Box<Ping>>, #[serde(skip)] u8);
#[derive(Deserialize)]
enum Json {
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
    Number(f64),
    Null,
}

#[test]
fn recursive_types() {
    check::<Ping>("[Pong]\ntype Pong = Option<[Pong]>");
    check::<Json>("Json\nenum Json { List([Json]), Object({string: Json}), Number(f64), Null }");
    check::<List>("List\nstruct List { value: f64, next: Option<List> }");
    check::<Node>(
        "Node\nstruct Node { children: [Node], by_name: {string: Node}, parent: Other }\n\
         enum Other { Again(Node), Deeper(Other), Both(Other, Node), None }",
    );
    check::<Expr>(
        "Expr\nenum Expr { Add(Expr, Expr), Call { name: string, arguments: [Expr], mode: CallMode }, Not(Expr), \
         Neg(Expr), If((Expr, Expr, Expr)), Bin(Op, Expr), Literal(f64) }\n\
         enum CallMode { Now, Later(Duration) }\nenum Op { Plus, Minus, Custom(Expr) }\n\
         struct Duration { secs: u64, nanos: u32 }",
    );
    check::<Tree>("Tree\ntype Tree = [Tree]");
    check::<(u8, Tree)>("(u8, Tree)\ntype Tree = [Tree]");
    // No value of this type can exist, so the field after the first `Endless` is never reached.
    check::<Endless>("Endless\nenum Endless { A(Endless), B(Endless, ?) }");
}

#[derive(Deserialize)]
#[serde(rename = "Settings", deny_unknown_fields, rename_all = "camelCase")]
struct Attributes {
    first_field: u8,
    #[serde(rename = "other", alias = "older", alias = "zoo")]
    second: u8,
    #[serde(skip)]
    third: u8,
    #[serde(default)]
    fourth: Option<u8>,
    #[serde(with = "as_text")]
    fifth: u64,
    #[serde(default = "seven", deserialize_with = "even")]
    sixth: u8,
    seventh: Cents,
    eighth: FromPair,
    ninth: Transparent,
}
#[derive(Deserialize)]
#[serde(try_from = "u32")]
struct Cents(u32);
#[derive(Deserialize)]
#[serde(from = "(u8, u8)")]
struct FromPair(u16);
#[derive(Deserialize)]
#[serde(transparent)]
struct Transparent {
    inner: Vec<u8>,
}
impl TryFrom<u32> for Cents {
    type Error = String;
    fn try_from(value: u32) -> Result<Self, String> {
        if value.is_multiple_of(100) && value > 0 { Ok(Self(value)) } else { Err("not whole".into()) }
    }
}
impl From<(u8, u8)> for FromPair {
    fn from(pair: (u8, u8)) -> Self {
        Self(pair.0.into())
    }
}
fn seven() -> u8 {
    7
}
fn even<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let number = u8::deserialize(deserializer)?;
    if number % 2 == 0 { Ok(number) } else { Err(de::Error::custom("odd")) }
}
mod as_text {
    use serde::{Deserialize, Deserializer, de::Error};
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(Error::custom)
    }
}

#[test]
fn serde_attributes() {
    check::<Attributes>(
        "Settings\nstruct Settings { firstField: u8, other: u8, fourth: Option<u8>, fifth: string, sixth: u8, \
         seventh: u32, eighth: (u8, u8), ninth: [u8] }",
    );
}

#[derive(Deserialize)]
#[serde(tag = "kind", content = "value")]
enum Adjacent {
    One(u32),
    Two(String),
    Three,
    Four { x: f64 },
}
#[derive(Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(f64),
    Text(String),
}
#[derive(Deserialize)]
struct Flattened {
    name: String,
    count: u32,
    #[serde(flatten)]
    rest: HashMap<String, u32>,
}

#[test]
fn self_describing_types() {
    check::<serde_json::Value>("self-describing");
    check::<Vec<Untagged>>("[self-describing]");
    check::<Adjacent>(
        "Adjacent\nstruct Adjacent { kind: Adjacent#2, value: u32 | string | self-describing }\n\
         enum Adjacent#2 { One, Two, Three, Four }",
    );
    check::<Flattened>("{ name: string, count: u32, .. }");
}

/// A struct that accepts its fields only in order, as some hand-written implementations do.
struct InOrder(u8, String);
impl<'de> Deserialize<'de> for InOrder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = InOrder;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("two fields")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<InOrder, A::Error> {
                let missing = || de::Error::invalid_length(2, &self);
                Ok(InOrder(
                    seq.next_element()?.ok_or_else(missing)?,
                    seq.next_element()?.ok_or_else(|| de::Error::invalid_length(2, &"two"))?,
                ))
            }
        }
        deserializer.deserialize_struct("InOrder", &["left", "right"], Fields)
    }
}

/// An enum that accepts its variants only by number.
enum Numbered {
    Zero,
    One(u8),
}
impl<'de> Deserialize<'de> for Numbered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number(u32);
        impl<'de> Deserialize<'de> for Number {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                u32::deserialize(deserializer).map(Self)
            }
        }
        struct Variants;
        impl<'de> Visitor<'de> for Variants {
            type Value = Numbered;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a variant")
            }
            fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Numbered, A::Error> {
                match data.variant()? {
                    (Number(0), variant) => variant.unit_variant().map(|()| Numbered::Zero),
                    (Number(1), variant) => variant.newtype_variant().map(Numbered::One),
                    (Number(other), _) => Err(de::Error::custom(other)),
                }
            }
        }
        deserializer.deserialize_enum("Numbered", &["Zero", "One"], Variants)
    }
}

/// Defines a type that validates its value while it is deserialized.
macro_rules! validated {
    ($name:ident, $from:ty, |$value:ident| $good:expr) => {
        struct $name;
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let $value = <$from>::deserialize(deserializer)?;
                if $good { Ok(Self) } else { Err(de::Error::custom("refused")) }
            }
        }
    };
}

validated!(Stamp, String, |text| text.starts_with("2000-01-01T") && text.ends_with('Z'));
validated!(Id, Bytes, |bytes| bytes.0 == 16);
validated!(Address, String, |text| text.parse::<IpAddr>().is_ok());
validated!(Interval, Ends, |ends| ends.start < ends.end);
validated!(Descending, Ends, |ends| ends.start > ends.end);
validated!(Triangle, Vec<f64>, |corners| corners.len() == 3);
validated!(Filled, Option<u8>, |number| number.is_some());
validated!(Secret, String, |text| text == "nobody will ever guess this");
validated!(LateVariant, Plain, |plain| matches!(plain, Plain::C(_)));

struct Bytes(usize);
impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Length;
        impl Visitor<'_> for Length {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.len()))
            }
        }
        deserializer.deserialize_bytes(Length)
    }
}
#[derive(Deserialize)]
struct Ends {
    start: u32,
    end: u32,
}

#[test]
fn hand_written_types_are_offered_valid_values() {
    check::<InOrder>("InOrder\nstruct InOrder { left: u8, right: string }");
    check::<(Numbered, u8)>("(Numbered, u8)\nenum Numbered { Zero, One(u8) }");
    check::<(Stamp, Id, Address)>("(string, bytes, string)");
    check::<(Interval, Descending, u8)>("(Ends, Ends, u8)\nstruct Ends { start: u32, end: u32 }");
    check::<(Triangle, Filled, Filled, LateVariant, u8)>(
        "([f64], Option<u8>, Option<u8>, Plain, u8)\nenum Plain { A, B, C(Pair) }\nstruct Pair(u8, Meters)\n\
         struct Meters(f64)",
    );
}

#[derive(Deserialize)]
struct HoldsSecrets {
    before: u8,
    secret: Secret,
    after: Plain,
    #[serde(default)]
    more: Option<Secret>,
    list: Vec<Secret>,
    last: Option<f64>,
}
#[derive(Deserialize)]
enum MaybeSecret {
    Yes(Secret),
    Both(u8, Secret, u16),
    Named { a: Secret, b: Plain },
    No(f64),
}

#[test]
fn untraceable_type_is_opaque() {
    let secret = "opaque values::fingerprint::Secret (string)";
    check::<Secret>(secret);
    check::<Option<Secret>>(&format!("Option<{secret}>"));
    let plain = "enum Plain { A, B, C(Pair) }\nstruct Pair(u8, Meters)\nstruct Meters(f64)";
    check::<HoldsSecrets>(&format!(
        "HoldsSecrets\nstruct HoldsSecrets {{ before: u8, secret: {secret}, after: Plain, more: Option<{secret}>, \
         list: [{secret}], last: Option<f64> }}\n{plain}"
    ));
    check::<Vec<MaybeSecret>>(&format!(
        "[MaybeSecret]\nenum MaybeSecret {{ Yes({secret}), Both(u8, {secret}, ?), Named {{ a: {secret}, b: Plain }}, \
         No(f64) }}\n{plain}"
    ));
    check::<(u8, Secret, u16)>(&format!("(u8, {secret}, ?)"));
    check::<(Vec<HoldsSecrets>, u16)>(&format!(
        "([HoldsSecrets], u16)\nstruct HoldsSecrets {{ before: u8, secret: {secret}, after: Plain, \
         more: Option<{secret}>, list: [{secret}], last: Option<f64> }}\n{plain}"
    ));
}

struct Panics;
impl<'de> Deserialize<'de> for Panics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse::<u8>().expect("a number");
        Ok(Self)
    }
}
struct Constant;
impl<'de> Deserialize<'de> for Constant {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Self)
    }
}
struct Lenient;
impl<'de> Deserialize<'de> for Lenient {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let _: Result<(u8, Secret), _> = Deserialize::deserialize(deserializer);
        Ok(Self)
    }
}

#[test]
fn unusual_implementations_are_traced() {
    check::<(Option<Panics>, u8)>("(Option<opaque values::fingerprint::Panics (string)>, u8)");
    check::<Constant>("nothing");
    check::<(Lenient, u8)>("((u8, opaque values::fingerprint::Secret (string)), u8)");
}

#[test]
fn fingerprint_depends_on_input_fields_and_codec() {
    #[derive(Deserialize)]
    struct Input {
        b: f64,
    }
    #[derive(Deserialize)]
    struct Renamed {
        b: f64,
    }
    #[derive(Deserialize)]
    struct Other {
        c: f64,
    }
    let fingerprint = |schema: Schema| schema.fingerprint;
    let input = fingerprint(Schema::of::<Input, ()>(Codec::Bincode));
    assert_eq!(input, fingerprint(Schema::of::<Renamed, ()>(Codec::Bincode)));
    assert_ne!(input, fingerprint(Schema::of::<Other, ()>(Codec::Bincode)));
    assert_ne!(input, fingerprint(Schema::of::<Input, ()>(Codec::Messagepack)));
    assert_ne!(
        fingerprint(Schema::of::<(), Input>(Codec::Bincode)),
        fingerprint(Schema::of::<(), Renamed>(Codec::Bincode))
    );
    assert_eq!(
        Schema::of::<Empty, Vec<Meters>>(Codec::Messagepack).text,
        "input: {}\noutput: [Meters]\ncodec: messagepack\nstruct Meters(f64)"
    );
}

#[test]
fn module_path_is_ignored() {
    mod first {
        #[derive(serde::Deserialize)]
        pub(crate) struct Same {
            pub(crate) a: u8,
        }
    }
    mod second {
        #[derive(serde::Deserialize)]
        pub(crate) struct Same {
            pub(crate) a: u8,
        }
    }
    assert_eq!(schema::<first::Same>(), schema::<second::Same>());
    check::<(first::Same, second::Same)>("(Same, Same#2)\nstruct Same { a: u8 }\nstruct Same#2 { a: u8 }");
}

// The cost of a type with many optional fields of the type itself must not grow with the permutations of the fields.
#[test]
fn each_recursive_field_is_traced_once() {
    macro_rules! web {
        ($($field:ident)*) => {
            #[derive(Deserialize)]
            struct Web { $($field: Option<Box<Web>>,)* refused: Option<Secret> }
        };
    }
    web!(a b c d e f g h i j k l m n o p q r s t u v w x y z);
    let text = schema::<Web>().text;
    assert!(text.contains("z: Option<Web>, refused: Option<opaque"), "{text}");
}

#[test]
fn long_chain_of_types_is_traced_to_its_end() {
    macro_rules! chain {
        ($first:ident $second:ident $($rest:ident)*) => {
            #[derive(Deserialize)]
            struct $first { next: Option<Box<$second>> }
            chain!($second $($rest)*);
        };
        ($last:ident) => {
            #[derive(Deserialize)]
            struct $last { end: u128 }
        };
    }
    chain!(A B C D E F G H I J K L M N O P Q R S);
    assert!(schema::<A>().text.ends_with("struct S { end: u128 }"), "{}", schema::<A>().text);
}

#[derive(Serialize, Deserialize)]
struct Before {
    a: u8,
}

#[test]
fn difference_lists_changed_lines() {
    let old = "input: { a: u8 }\noutput: Star\ncodec: bincode\nstruct Star { mass: f32 }\nenum Gone { A }";
    let new = "input: { a: u8 }\noutput: Star\ncodec: bincode\nstruct Star { mass: f64 }\nstruct New";
    assert_eq!(
        difference(old, new),
        "- struct Star { mass: f32 }\n+ struct Star { mass: f64 }\n- enum Gone { A }\n+ struct New"
    );
    assert_eq!(difference(new, new), "");
    let schema = Schema::of::<Before, f64>(Codec::Bincode);
    assert_eq!(schema.difference(&schema.text), "");
    assert_eq!(schema.difference("input: { a: u8 }\noutput: f32\ncodec: bincode"), "- output: f32\n+ output: f64");
}
