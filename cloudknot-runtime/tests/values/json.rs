//! Stored values as JSON without their types: equal to what `serde_json` prints, or opaque for a known reason.
#![allow(missing_docs, clippy::needless_pass_by_value, clippy::zero_sized_map_values)]

use std::any::type_name;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use cloudknot_runtime::codec::Codec;
use cloudknot_runtime::fingerprint::json::{JsonError, StoredValue};
use cloudknot_runtime::fingerprint::{Fingerprint, Part, Schema, Structure};
use cloudknot_runtime::frame;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Serialize};

const TYPES: Fingerprint = Fingerprint(7);
const BOTH: [Codec; 2] = [Codec::Bincode, Codec::Messagepack];

/// Converts a value to JSON by way of its frame, with the structure as it is in a record.
pub(crate) fn stored<T: Serialize + DeserializeOwned>(codec: Codec, value: &T) -> Result<String, JsonError> {
    let mut out = Vec::new();
    let _ = frame::encode(codec, TYPES, value, &mut out).unwrap();
    let structure = structure::<T>(codec);
    StoredValue::new(&structure, Part::Output, codec, TYPES, &out)?.to_json()
}

fn structure<T: Serialize + DeserializeOwned>(codec: Codec) -> Structure {
    thread_local! {
        static TRACED: RefCell<HashMap<(&'static str, &'static str), Structure>> = RefCell::default();
    }
    let key = (type_name::<T>(), if codec == Codec::Bincode { "bincode" } else { "messagepack" });
    if let Some(structure) = TRACED.with_borrow(|traced| traced.get(&key).cloned()) {
        return structure;
    }
    let structure = Schema::sampled::<(), T>(codec).structure;
    let record = serde_json::to_string(&structure).unwrap();
    let read: Structure = serde_json::from_str(&record).unwrap();
    assert_eq!(read, structure);
    read.check().unwrap();
    TRACED.with_borrow_mut(|traced| traced.insert(key, read.clone()));
    read
}

/// Types in the tests of values that are opaque, or have opaque values, with the reasons. By their names without paths.
const OPAQUE: [(&str, &str); 10] = [
    // Asks whether people read the encoding.
    ("(Machine, Vec<Machine>)", "`Machine` has another form in JSON"),
    ("IpAddr", "`IpAddr` has another form in JSON"),
    ("Vec<IpAddr>", "`IpAddr` has another form in JSON"),
    ("Vec<SocketAddr>", "`SocketAddr` has another form in JSON"),
    ("Uuid", "`Uuid` has another form in JSON"),
    // JSON has no such keys.
    ("BTreeMap<Key, Vec<f64>>", "has keys of a map that JSON cannot have"),
    ("HashMap<(u32, bool), String>", "has keys of a map that JSON cannot have"),
    ("HashMap<Variants, Vec<Variants>>", "key must be a string"),
    // Accepts only pairs with a certain text, in which it may choose what follows.
    ("Vec<Converted>", "`Converted` cannot be traced"),
    // Written as an enum with its variants in another order.
    ("Converted", "`Converted` is written in another way than it is read"),
];

/// Checks that the JSON of a stored value is that of `serde_json`, or that its type is one of those that are known to be opaque.
#[track_caller]
pub(crate) fn check<T: Serialize + DeserializeOwned>(codec: Codec, value: &T) {
    let name = without_paths(type_name::<T>());
    match stored(codec, value) {
        Ok(json) => assert_eq!(json, serde_json::to_string(value).unwrap(), "{codec} {name}"),
        Err(JsonError::Opaque(reason)) => {
            let reason = without_paths(&reason);
            let is_known = OPAQUE.iter().any(|(opaque, known)| *opaque == name && reason.contains(known));
            assert!(is_known, "{codec} {name}: {reason}");
        }
        Err(error) => panic!("{codec} {name}: {error}"),
    }
}

fn without_paths(text: &str) -> String {
    let mut short = String::new();
    for word in text.split_inclusive(|character: char| !character.is_alphanumeric() && !":_".contains(character)) {
        short.push_str(word.rsplit("::").next().unwrap_or(word));
    }
    short
}

/// Checks that a value has its form in JSON with each of these codecs.
#[track_caller]
fn same<T: Serialize + DeserializeOwned>(codecs: &[Codec], value: T) {
    for codec in codecs {
        let json = stored(*codec, &value).unwrap_or_else(|error| panic!("{codec} {}: {error}", type_name::<T>()));
        assert_eq!(json, serde_json::to_string(&value).unwrap(), "{codec}");
    }
}

/// Checks that a value is opaque with each of these codecs, and that the reason contains a text.
#[track_caller]
fn opaque<T: Serialize + DeserializeOwned>(codecs: &[Codec], value: T, expected: &str) {
    for codec in codecs {
        match stored(*codec, &value) {
            Err(JsonError::Opaque(reason)) => {
                assert!(reason.contains(expected), "{codec}: `{reason}` lacks `{expected}`");
            }
            other => panic!("{codec}: {other:?}"),
        }
    }
}

#[test]
fn numbers_have_the_form_of_serde_json() {
    let floats = [0.0, -0.0, 1.0, 0.1, 1e16, 1e-7, f64::MIN_POSITIVE, f64::MAX, 5e-324];
    same(&BOTH, floats.to_vec());
    same(&BOTH, vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
    same(&BOTH, (0.1_f32, 16_777_216_f32, f32::MAX, f32::NAN, vec![f32::MIN_POSITIVE]));
    same(&BOTH, (u128::MAX, i128::MIN, u64::MAX, i64::MIN, 0_u8, -1_i8));
    assert_eq!(stored(Codec::Bincode, &(0.1_f32, f64::NAN)).unwrap(), "[0.1,null]");
}

#[test]
fn texts_are_escaped() {
    same(&BOTH, ("\0\u{1f}\"\\/\u{7f}\u{2028}🦀".to_owned(), '"', '\u{1}', '猫', String::new()));
    same(&BOTH, (serde_bytes::ByteBuf::from(vec![0, 255]), serde_bytes::ByteArray::new([1; 3])));
    same(&BOTH, std::ffi::CString::new("text").unwrap());
}

#[derive(Clone, Serialize, Deserialize)]
struct Unit;
#[derive(Clone, Serialize, Deserialize)]
struct Meters(f64);
#[derive(Clone, Serialize, Deserialize)]
struct Pair(u8, Meters);
#[derive(Clone, Serialize, Deserialize)]
struct Empty {}
#[derive(Clone, Serialize, Deserialize)]
struct Fields {
    first: Unit,
    second: Option<Meters>,
    third: Empty,
    fourth: ((), [(); 2], [u8; 0], [f32; 30], [u8; 3]),
}
#[derive(Clone, Serialize, Deserialize)]
enum Mixed {
    Unit,
    Newtype(u32),
    Nothing(()),
    UnitStruct(Unit),
    Option(Option<Box<Mixed>>),
    Tuple(u8, f64),
    NoTuple(),
    Struct { x: f64, y: Vec<Meters> },
    NoStruct {},
    Map(BTreeMap<i16, Mixed>),
}

fn mixed() -> Vec<Mixed> {
    let inner = || vec![(-1, Mixed::Unit), (300, Mixed::Struct { x: 0.5, y: vec![Meters(1.0)] })];
    vec![
        Mixed::Unit,
        Mixed::Newtype(7),
        Mixed::Nothing(()),
        Mixed::UnitStruct(Unit),
        Mixed::Option(None),
        Mixed::Option(Some(Box::new(Mixed::Tuple(1, 2.5)))),
        Mixed::NoTuple(),
        Mixed::Struct { x: f64::NAN, y: vec![] },
        Mixed::NoStruct {},
        Mixed::Map(inner().into_iter().collect()),
    ]
}

#[test]
fn types_of_all_forms() {
    let fields = |second| Fields {
        first: Unit,
        second,
        third: Empty {},
        fourth: ((), [(); 2], [], std::array::from_fn(|_| 1.5), [1, 2, 3]),
    };
    same(&BOTH, (Unit, Meters(1.0), Pair(1, Meters(f64::NAN)), Empty {}, ()));
    same(&BOTH, vec![fields(None), fields(Some(Meters(2.0)))]);
    same(&BOTH, mixed());
    same(&BOTH, mixed().into_iter().map(Some).collect::<Vec<_>>());
    same(&[Codec::Bincode], vec![Some(Some(Some(1_u8))), Some(Some(None)), Some(None), None]);
    same(&BOTH, (PhantomData::<u8>, vec![(); 3], Vec::<Mixed>::new(), BTreeMap::<String, Mixed>::new()));
    same(&BOTH, std::borrow::Cow::<'static, [u8]>::Owned(vec![1, 2]));
    same(&BOTH, (Duration::new(1, 2), SystemTime::UNIX_EPOCH + Duration::from_nanos(5), 1..3, Ok::<u8, ()>(1)));
}

#[test]
fn arrays_of_more_than_a_few_elements() {
    #[derive(Serialize, Deserialize)]
    struct Block {
        #[serde(with = "serde_bytes")]
        bytes: [u8; 200],
        numbers: [[u16; 32]; 32],
    }
    same(&BOTH, Block { bytes: [7; 200], numbers: [[300; 32]; 32] });
    for last in [0, 7] {
        same(&BOTH, (Long(last), Long(1)));
    }
}

/// Two hundred numbers, as crates for long arrays write them.
struct Long(u16);
impl Serialize for Long {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(200)?;
        for number in 1..200_u16 {
            tuple.serialize_element(&number)?;
        }
        tuple.serialize_element(&self.0)?;
        tuple.end()
    }
}
impl<'de> Deserialize<'de> for Long {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Last;
        impl<'de> Visitor<'de> for Last {
            type Value = Long;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("numbers")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Long, A::Error> {
                let mut last = 0;
                while let Some(number) = seq.next_element()? {
                    last = number;
                }
                Ok(Long(last))
            }
        }
        deserializer.deserialize_tuple(200, Last)
    }
}

#[test]
fn types_that_contain_themselves() {
    #[derive(Clone, Serialize, Deserialize)]
    struct List {
        value: f64,
        next: Option<Box<List>>,
    }
    #[derive(Clone, Serialize, Deserialize)]
    #[serde(transparent)]
    struct Tree(Vec<Tree>);
    #[derive(Clone, Serialize, Deserialize)]
    enum Json {
        List(Vec<Json>),
        Object(BTreeMap<String, Json>),
        Number(f64),
        Null,
    }
    let list = (0..50).fold(None, |next, value| Some(Box::new(List { value: f64::from(value), next })));
    same(&BOTH, list);
    same(&BOTH, (1_u8, Tree(vec![Tree(vec![]), Tree(vec![Tree(vec![])])])));
    let object = BTreeMap::from([("a".to_owned(), Json::Null), ("b".to_owned(), Json::List(vec![Json::Number(1.0)]))]);
    same(&BOTH, Json::List(vec![Json::Object(object), Json::Null]));
}

#[test]
fn keys_that_json_can_have() {
    #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    enum Name {
        First,
        #[serde(rename = "2nd")]
        Second,
    }
    #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    struct Id(Option<u32>);
    same(&BOTH, BTreeMap::from([(Name::First, 1), (Name::Second, 2)]));
    same(&BOTH, BTreeMap::from([(Id(Some(7)), 1)]));
    same(&BOTH, (BTreeMap::from([(true, 1)]), BTreeMap::from([('"', 1)]), BTreeMap::from([(-1_i8, 1), (5, 2)])));
    same(
        &BOTH,
        (BTreeMap::from([(u128::MAX, 1)]), BTreeMap::from([(u64::MAX, ())]), BTreeMap::from([("k".to_owned(), Unit)])),
    );
    same(&BOTH, HashMap::from([(1_u16, "one".to_owned()), (2, String::new())]));
    opaque(&BOTH, BTreeMap::from([(Id(None), 1)]), "key must be a string");
    opaque(&BOTH, BTreeMap::from([((), 1)]), "keys of a map");
    opaque(&BOTH, BTreeMap::from([(vec![1], 1)]), "keys of a map");
}

#[test]
fn types_with_another_form_for_people() {
    #[derive(Serialize, Deserialize)]
    struct Machine {
        name: String,
        address: Option<IpAddr>,
    }
    let machine = |address| Machine { name: "a".into(), address };
    let schema = Schema::sampled::<Machine, u8>(Codec::Bincode).structure;
    assert_eq!(schema.opaque(Part::Input).unwrap().type_name, "core::net::ip_addr::IpAddr");
    assert_eq!(schema.opaque(Part::Output), None);
    opaque(&BOTH, machine(Some(IpAddr::from([127, 0, 0, 1]))), "`core::net::ip_addr::IpAddr` has another form in JSON");
    // This value does not contain one.
    same(&BOTH, machine(None));
}

/// Has another form for people only where it is written.
#[derive(Deserialize)]
struct Shouts(String);
impl Serialize for Shouts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let loud = serializer.is_human_readable();
        serializer.serialize_str(&if loud { self.0.to_uppercase() } else { self.0.clone() })
    }
}

#[test]
fn forms_for_people_that_the_trace_cannot_see() {
    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(f64),
        Id(uuid::Uuid),
        Nothing(Unit),
        Wide(u8, Vec<u8>),
    }
    opaque(&BOTH, vec![Shouts("a".into())], "has another form in JSON");
    let only = [Codec::Messagepack];
    same(&only, vec![Untagged::Number(1.5)]);
    same(&only, Untagged::Wide(1, vec![]));
    opaque(&only, vec![Untagged::Id(uuid::Uuid::nil())], "has another form in JSON");
    // An empty array in messagepack, and null in JSON.
    opaque(&only, Untagged::Nothing(Unit), "a struct without fields");
    opaque(&only, (Untagged::Wide(1, vec![]), Unit), "an empty sequence");
    same(&only, (Untagged::Wide(1, vec![2]), Unit, 5_u128));
}

#[test]
fn names_by_which_a_type_is_written() {
    #[derive(Serialize, Deserialize)]
    struct Renamed {
        #[serde(rename = "one", alias = "uno", alias = "a")]
        first: u8,
        #[serde(rename(serialize = "two", deserialize = "second"), alias = "two", alias = "zwei")]
        second: u8,
    }
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Cased {
        first_field: u8,
        #[serde(default, alias = "a")]
        second_field: Option<u8>,
    }
    #[derive(Serialize, Deserialize)]
    enum Units {
        #[serde(alias = "a", alias = "z")]
        Alpha,
        #[serde(rename(serialize = "beta", deserialize = "Beta"), alias = "beta")]
        Beta,
        Gamma,
        #[serde(other)]
        Other,
    }
    same(&BOTH, Cased { first_field: 1, second_field: None });
    same(&[Codec::Messagepack], Renamed { first: 1, second: 2 });
    opaque(&[Codec::Bincode], Renamed { first: 1, second: 2 }, "written in another way than it is read");
    same(&[Codec::Messagepack], vec![Units::Alpha, Units::Beta, Units::Gamma, Units::Other]);
    same(&[Codec::Bincode], vec![Units::Alpha, Units::Gamma, Units::Other]);
}

#[test]
fn self_describing_types() {
    #[derive(Serialize, Deserialize)]
    struct Flat {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        skipped: Option<u8>,
        #[serde(flatten)]
        inner: Inner,
        #[serde(flatten)]
        rest: BTreeMap<String, serde_json::Value>,
    }
    #[derive(Serialize, Deserialize)]
    struct Inner {
        wide: f32,
        list: Vec<u8>,
    }
    #[derive(Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Empty,
        Point { x: f32, y: Option<u8> },
    }
    #[derive(Serialize, Deserialize)]
    #[serde(tag = "kind", content = "content")]
    enum Adjacent {
        Empty,
        Number(u8),
        Fields { a: f32 },
    }
    let json = serde_json::json!({"z": [1, -2, 2.5, null, "x", true, u64::MAX], "a": {"c": {}, "d": []}, "": ""});
    let flat = |skipped| Flat {
        name: "n".into(),
        skipped,
        inner: Inner { wide: 0.1, list: vec![] },
        rest: BTreeMap::from([("z".into(), json.clone()), ("a".into(), serde_json::Value::Null)]),
    };
    let only = [Codec::Messagepack];
    same(&only, json.clone());
    same(&only, vec![flat(None), flat(Some(1))]);
    same(&only, vec![Tagged::Empty, Tagged::Point { x: 0.1, y: None }]);
    same(&only, vec![Adjacent::Empty, Adjacent::Number(1), Adjacent::Fields { a: 0.1 }]);
    same(&only, serde_json::json!([{"1": 2}, [[]], {}]));
    // With a feature of serde_json, its numbers are structs with this field.
    opaque(&only, serde_json::json!([{"$serde_json::private::Number": "1"}]), "private");
}

#[test]
fn empty_and_large_values() {
    same(&BOTH, ());
    same(&BOTH, vec![0.1; 20_000]);
    same(&BOTH, vec![(); 100_000]);
    same(&BOTH, "é".repeat(1_000_000));
    same(&BOTH, (0..2_000).map(|key| (key, key.to_string())).collect::<HashMap<u32, String>>());
}

#[test]
fn input_has_the_names_of_the_arguments() {
    #[derive(Serialize, Deserialize)]
    struct Input {
        steps: u32,
        start: Option<(f64, f64)>,
    }
    let schema = Schema::sampled::<Input, ()>(Codec::Bincode);
    assert_eq!(schema.structure.arguments().collect::<Vec<_>>(), ["steps", "start"]);
    let mut out = Vec::new();
    let input = Input { steps: 2, start: Some((0.5, 1.5)) };
    let _ = frame::encode(Codec::Bincode, TYPES, &input, &mut out).unwrap();
    let value = StoredValue::new(&schema.structure, Part::Input, Codec::Bincode, TYPES, &out).unwrap();
    assert_eq!(value.to_json().unwrap(), r#"{"steps":2,"start":[0.5,1.5]}"#);
    assert_eq!(serde_json::to_string_pretty(&value).unwrap(), serde_json::to_string_pretty(&input).unwrap());
}

/// Returns a frame around arbitrary bytes.
fn forged(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let _ = frame::encode(codec, TYPES, &(), &mut out).unwrap();
    out.truncate(frame::HEADER_LEN);
    out.extend_from_slice(bytes);
    out[16..24].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    out[24..32].copy_from_slice(&twox_hash::XxHash3_64::oneshot_with_seed(TYPES.0, bytes).to_le_bytes());
    out
}

#[track_caller]
fn refused(structure: &Structure, codec: Codec, bytes: &[u8], expected: &str) {
    let frame = forged(codec, bytes);
    let error = StoredValue::new(structure, Part::Output, codec, TYPES, &frame).unwrap().to_json().unwrap_err();
    assert!(error.to_string().contains(expected), "`{error}` lacks `{expected}`");
}

#[test]
fn hostile_values_are_refused() {
    let of = |codec| (structure::<Vec<()>>(codec), structure::<Vec<Mixed>>(codec));
    let (units, mixed) = of(Codec::Bincode);
    // 2^45 elements.
    let mut endless = vec![253];
    endless.extend_from_slice(&(1_u64 << 45).to_le_bytes());
    refused(&units, Codec::Bincode, &endless, "too many parts without content");
    refused(&mixed, Codec::Bincode, &endless, "UnexpectedEnd");
    refused(&mixed, Codec::Bincode, &[1, 200], "no variant 200");
    refused(&mixed, Codec::Bincode, &[0, 0], "1 bytes remain");
    let (units, mixed) = of(Codec::Messagepack);
    refused(&units, Codec::Messagepack, &[0xdd, 255, 255, 255, 255, 0xc0], "decode");
    refused(&mixed, Codec::Messagepack, &[0x91, 0xa1, b'x'], "no variant `x`");
    refused(&structure::<serde_json::Value>(Codec::Messagepack), Codec::Messagepack, &[0x91; 1_000], "128 levels");
}

#[test]
fn hostile_structures_are_refused() {
    let read = |json: &str| serde_json::from_str::<Structure>(json).unwrap();
    for invalid in [
        r#"{"nodes":[],"input":0,"output":0}"#,
        r#"{"nodes":["u8"],"input":0,"output":1}"#,
        r#"{"nodes":["u8",{"option":2}],"input":0,"output":1}"#,
        r#"{"nodes":["u8",{"enum":["E",[["A",{"struct":[["f",9]]}]]]}],"input":0,"output":1}"#,
    ] {
        let structure = read(invalid);
        assert!(structure.check().unwrap_err().contains("refers to node"), "{invalid}");
        refused(&structure, Codec::Bincode, &[1, 0, 0], "");
    }
    let mut expected = "128 levels";
    for (nodes, bytes) in [
        (r#"{"newtype":["N",0]}"#, vec![]),
        (r#"{"tuple":[0,0]}"#, vec![]),
        (r#"{"struct":["S",[["a",0],["b",0]]]}"#, vec![]),
        (r#"{"array":[0,18446744073709551615]}"#, vec![]),
        (r#"{"option":0}"#, vec![1; 1_000]),
        (r#"{"seq":0}"#, vec![1; 1_000]),
        (r#"{"map":[1,0]},"u8""#, vec![1; 1_000]),
        (r#"{"array":[1,18446744073709551615]},"unit""#, vec![]),
    ] {
        if nodes.contains("unit") {
            expected = "too many parts";
        }
        let structure = read(&format!(r#"{{"nodes":[{nodes}],"input":0,"output":0}}"#));
        structure.check().unwrap();
        assert_eq!(structure.opaque(Part::Output), None);
        refused(&structure, Codec::Bincode, &bytes, expected);
    }
}

#[test]
fn damaged_frames_are_refused() {
    let structure = structure::<Vec<f64>>(Codec::Bincode);
    let mut out = Vec::new();
    let _ = frame::encode(Codec::Bincode, TYPES, &vec![0.5], &mut out).unwrap();
    for (codec, types, expected) in
        [(Codec::Messagepack, TYPES, "encoded with bincode"), (Codec::Bincode, Fingerprint(8), "other types")]
    {
        let error = StoredValue::new(&structure, Part::Output, codec, types, &out).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    // That a type has another form for people is covered by the checksum.
    out[6] ^= 1;
    let error = StoredValue::new(&structure, Part::Output, Codec::Bincode, TYPES, &out).unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
}
