//! Maps over types whose entries have no fixed order, and over one that has.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use cloudknot_tests::trial::{Fact, print};
use serde::{Deserialize, Serialize};

use super::print_error;

/// A type whose hash map serde does not see.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "Vec<(u32, u32)>", into = "Vec<(u32, u32)>")]
struct Hidden(HashMap<u32, u32>);

impl From<Vec<(u32, u32)>> for Hidden {
    fn from(entries: Vec<(u32, u32)>) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl From<Hidden> for Vec<(u32, u32)> {
    fn from(hidden: Hidden) -> Self {
        hidden.0.into_iter().collect()
    }
}

/// A type with a hash map in a part of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Nested {
    Leaf,
    Branch(Vec<Option<HashMap<u32, u32>>>),
}

/// Keeps the run open: its items never end.
fn hold() -> u32 {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[cloudknot::remote]
fn hold_plain(_map: HashMap<u32, u32>) -> u32 {
    hold()
}

#[cloudknot::remote]
fn hold_hidden(_hidden: Hidden) -> u32 {
    hold()
}

#[cloudknot::remote]
fn hold_nested(_nested: Nested) -> u32 {
    hold()
}

#[cloudknot::remote]
fn hold_ordered(_map: BTreeMap<u32, u32>) -> u32 {
    hold()
}

/// Submits a map that is to be resumed, under a name if there is one, and prints the ID of its run.
pub(crate) fn map(arguments: &[&str]) {
    let (kind, name) = (arguments[0], arguments.get(1));
    let entries = || (0..20).map(|number| (number, 1));
    macro_rules! submit {
        ($map:expr) => {{
            let map = $map.resume();
            if let Some(name) = name { map.name(*name) } else { map }.submit().wait().map(|run| run.id().to_owned())
        }};
    }
    let run = match kind {
        "plain" => submit!(hold_plain.map([entries().collect()])),
        "hidden" => submit!(hold_hidden.map([Hidden([(0, 1)].into()), Hidden(entries().collect())])),
        "nested" => submit!(hold_nested.map([Nested::Leaf, Nested::Branch(vec![Some(entries().collect())])])),
        _ => submit!(hold_ordered.map([entries().collect()])),
    };
    match run {
        Ok(run) => print(&Fact::Run(run)),
        Err(error) => print_error(&error),
    }
}
