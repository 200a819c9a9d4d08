//! Types of which the codec can carry no value: found in the traced structure, before anything is stored.
#![allow(dead_code, missing_docs)]

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;

use cloudknot_runtime::codec::Codec;
use cloudknot_runtime::fingerprint::Schema;
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u32),
    Text(String),
}
#[derive(Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Point { x: f64 },
    Empty,
}
#[derive(Deserialize)]
#[serde(tag = "kind", content = "content")]
enum Adjacent {
    Number(u32),
    Text(String),
}
#[derive(Deserialize)]
struct Flat {
    name: String,
    #[serde(flatten)]
    rest: HashMap<String, u32>,
}
#[derive(Deserialize)]
struct FlatStruct {
    name: String,
    #[serde(flatten)]
    rest: Inner,
}
#[derive(Deserialize)]
struct Inner {
    a: u8,
}
#[derive(Deserialize)]
struct Order {
    number: u64,
    lines: Vec<Line>,
}
#[derive(Deserialize)]
enum Line {
    Empty,
    Priced { price: serde_json::Value },
}
#[derive(Deserialize)]
struct Input<T> {
    first: u8,
    second: T,
}
#[derive(Deserialize)]
struct Tree {
    value: f64,
    children: Vec<Tree>,
}

#[track_caller]
fn result<T: DeserializeOwned>(codec: Codec, expected: &str) {
    let unsupported = Schema::of::<(), T>(codec).unsupported.unwrap_or_default();
    assert_eq!(unsupported, expected);
}

/// Checks that bincode cannot carry a result, and that messagepack can.
#[track_caller]
fn needs_messagepack<T: DeserializeOwned>(place: &str) {
    result::<T>(Codec::Bincode, &format!("bincode cannot carry {place}: its type needs a self-describing format"));
    result::<T>(Codec::Messagepack, "");
}

#[track_caller]
fn supported<T: DeserializeOwned>() {
    result::<T>(Codec::Bincode, "");
    result::<T>(Codec::Messagepack, "");
}

// 20 items were computed before the first `Decimal` was refused, which asks for a value of any type.
#[test]
fn self_describing_types_are_unsupported_with_bincode() {
    needs_messagepack::<serde_json::Value>("the result");
    needs_messagepack::<Vec<Option<(u8, Untagged)>>>("the result");
    needs_messagepack::<BTreeMap<String, Tagged>>("the result");
    needs_messagepack::<Flat>("the result");
    needs_messagepack::<FlatStruct>("the result");
    needs_messagepack::<Vec<Order>>("the field `price` of the variant `Priced` of `Line`, in the result");
}

#[test]
fn options_of_nothing_are_unsupported_with_messagepack() {
    #[derive(Deserialize)]
    struct Newtype(Option<u8>);
    #[derive(Deserialize)]
    struct Unit;
    #[derive(Deserialize)]
    struct Outer {
        inner: Option<Newtype>,
    }
    let expected =
        |place| format!("messagepack cannot carry {place}: it encodes `Some(None)` and `Some(())` like `None`");
    result::<Option<()>>(Codec::Messagepack, &expected("the result"));
    result::<Vec<Option<Option<u8>>>>(Codec::Messagepack, &expected("the result"));
    result::<Outer>(Codec::Messagepack, &expected("the field `inner` of `Outer`, in the result"));
    result::<Outer>(Codec::Bincode, "");
    result::<Option<Option<()>>>(Codec::Bincode, "");
    // These are an empty array, not nil.
    supported::<Option<Unit>>();
    supported::<Option<PhantomData<u8>>>();
    supported::<Option<[u8; 0]>>();
}

#[test]
fn the_argument_is_named() {
    let schema = Schema::of::<Input<Vec<Untagged>>, ()>(Codec::Bincode);
    let expected = "bincode cannot carry the argument `second`: its type needs a self-describing format";
    assert_eq!(schema.unsupported.as_deref(), Some(expected));
    let schema = Schema::of::<Input<Order>, serde_json::Value>(Codec::Bincode);
    let expected = "bincode cannot carry the field `price` of the variant `Priced` of `Line`, in the argument `second`: \
                    its type needs a self-describing format";
    assert_eq!(schema.unsupported.as_deref(), Some(expected));
    assert_eq!(Schema::of::<Input<Vec<u8>>, Tree>(Codec::Bincode).unsupported, None);
}

#[test]
fn other_types_are_supported() {
    supported::<(u8, String, Vec<Option<f64>>)>();
    supported::<Tree>();
    supported::<Adjacent>();
    supported::<std::ffi::OsString>();
    supported::<uuid::Uuid>();
    supported::<chrono::DateTime<chrono::Utc>>();
    supported::<ndarray::Array2<f64>>();
    supported::<glam::Mat4>();
    supported::<serde_bytes::ByteBuf>();
    supported::<std::net::SocketAddr>();
    supported::<std::time::SystemTime>();
}
