//! Types whose entries have no fixed order: found in the traced structure, or when a value is read back.
#![allow(dead_code, missing_docs)]

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};

use cloudknot_runtime::codec::{Codec, PartOrder};
use cloudknot_runtime::fingerprint::{Fingerprint, Schema};
use cloudknot_runtime::frame;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const BOTH: [Codec; 2] = [Codec::Bincode, Codec::Messagepack];

#[derive(Serialize, Deserialize)]
struct Fields<T> {
    name: String,
    parts: Option<Vec<(u8, T)>>,
}
#[derive(Serialize, Deserialize)]
enum Recursive<T> {
    Node(Vec<Self>),
    Leaf { content: T },
}
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Wrapped<T>(T);
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "Vec<(u32, u32)>", into = "Vec<(u32, u32)>")]
struct Converted(HashMap<u32, u32>);

impl From<Vec<(u32, u32)>> for Converted {
    fn from(entries: Vec<(u32, u32)>) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl From<Converted> for Vec<(u32, u32)> {
    fn from(converted: Converted) -> Self {
        converted.0.into_iter().collect()
    }
}

#[derive(Serialize, Deserialize)]
struct Flat<T> {
    number: u32,
    #[serde(flatten)]
    rest: T,
}
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged<T> {
    Number(u32),
    Map(T),
}

#[track_caller]
fn traced<T: DeserializeOwned>(expected: Option<&str>) {
    for codec in BOTH {
        let unordered = Schema::of::<T, ()>(codec).unordered;
        assert_eq!(unordered.as_deref(), expected, "{codec}: {}", std::any::type_name::<T>());
    }
}

#[test]
fn unordered_types_are_found_in_the_structure() {
    let map = Some("HashMap<String, u8>");
    traced::<HashMap<String, u8>>(map);
    traced::<HashSet<(u8, u8)>>(Some("HashSet<(u8, u8)>"));
    traced::<(u8, Box<HashMap<String, u8>>)>(map);
    traced::<Fields<HashMap<String, u8>>>(map);
    traced::<Recursive<HashMap<String, u8>>>(map);
    traced::<Wrapped<HashMap<String, u8>>>(map);
    traced::<BTreeMap<u8, HashMap<String, u8>>>(map);
    traced::<Result<u8, HashMap<String, u8>>>(map);
}

#[test]
fn ordered_types_are_not() {
    traced::<()>(None);
    traced::<Vec<u8>>(None);
    traced::<(VecDeque<u8>, BinaryHeap<u8>, [String; 3])>(None);
    traced::<(BTreeMap<String, u8>, BTreeSet<u8>)>(None);
    traced::<Fields<BTreeMap<String, u8>>>(None);
    traced::<Recursive<BTreeSet<u8>>>(None);
    traced::<Flat<BTreeMap<String, u8>>>(None);
    traced::<Untagged<BTreeMap<u8, u8>>>(None);
}

/// Results may have any order.
#[test]
fn only_the_input_counts() {
    assert_eq!(Schema::of::<u8, HashMap<u8, u8>>(Codec::Bincode).unordered, None);
}

fn order<T: Serialize + DeserializeOwned + Send>(codec: Codec, value: &T) -> PartOrder {
    let mut out = Vec::new();
    let written = frame::encode(codec, Fingerprint(7), value, &mut out).unwrap();
    frame::read_back::<T, T>(codec, &out, &written).unwrap()
}

#[test]
fn order_of_a_value_shows_when_it_is_read_back() {
    // Two maps of 20 entries have the same order by chance once in 10^18 times.
    let random = |codec: Codec, value: PartOrder| assert_eq!(value, PartOrder::Random, "{codec}");
    let fixed = |codec: Codec, value: PartOrder| assert_eq!(value, PartOrder::Fixed, "{codec}");
    let entries = || (0..20_u32).map(|number| (number, number % 3));
    let named = || entries().map(|(key, value)| (key.to_string(), value));
    for codec in BOTH {
        random(codec, order(codec, &entries().collect::<HashMap<_, _>>()));
        random(codec, order(codec, &entries().collect::<HashSet<_>>()));
        random(codec, order(codec, &Converted(entries().collect())));
        fixed(codec, order(codec, &entries().collect::<BTreeMap<_, _>>()));
        fixed(codec, order(codec, &entries().rev().collect::<Vec<_>>()));
        fixed(codec, order(codec, &entries().map(|(key, value)| (value, key)).collect::<BinaryHeap<_>>()));
        fixed(codec, order(codec, &HashMap::from([(1, 2)])));
    }
    let codec = Codec::Messagepack;
    random(codec, order(codec, &Flat { number: 1, rest: named().collect::<HashMap<_, _>>() }));
    random(codec, order(codec, &Untagged::Map(named().collect::<HashMap<_, _>>())));
    fixed(codec, order(codec, &Flat { number: 1, rest: named().collect::<BTreeMap<_, _>>() }));
    fixed(codec, order(codec, &Untagged::Map(named().collect::<BTreeMap<_, _>>())));
}
