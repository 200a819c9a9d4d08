//! Values that are easily corrupted. Each is sent to an item process and back, and has to be identical to the bit.

use std::collections::{BTreeMap, HashMap};

use cloudknot_tests::trial::{Fact, print};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    One(Box<Self>),
    Pair(Box<Self>, Box<Self>),
    Named { left: Option<Box<Self>>, label: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
enum Key {
    Number(i64),
    Pair(u8, Option<bool>),
    Unit,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Empty(Vec<u8>, Vec<Vec<String>>, String, BTreeMap<u8, u8>, ());

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Plain {
    empty: Empty,
    trees: Vec<Tree>,
    by_key: BTreeMap<Key, Vec<char>>,
    by_tuple: HashMap<(u8, char), Tree>,
    wide: (u128, i128, u64, i64),
    // `None` and `Some(None)` are easily confused.
    #[allow(clippy::option_option)]
    maybe: Vec<Option<Option<u8>>>,
    nested: Result<Option<()>, String>,
}

/// Returns its arguments. The numbers are separate because they are compared by their bits: a NaN equals nothing.
#[cloudknot::remote]
fn echo(plain: Plain, doubles: Vec<f64>, singles: Vec<f32>) -> (Plain, Vec<f64>, Vec<f32>) {
    (plain, doubles, singles)
}

fn plain(number: u8) -> Plain {
    let leaf = || Box::new(Tree::Leaf);
    let named = Tree::Named { left: Some(Box::new(Tree::One(leaf()))), label: "ä\0\u{10ffff}".into() };
    Plain {
        empty: Empty(Vec::new(), vec![Vec::new(), vec![String::new()]], String::new(), BTreeMap::new(), ()),
        trees: vec![Tree::Leaf, Tree::Pair(Box::new(named.clone()), leaf())],
        by_key: [(Key::Number(i64::MIN), vec!['x']), (Key::Pair(number, None), vec![]), (Key::Unit, vec!['\0', 'ß'])]
            .into(),
        by_tuple: [((number, 'k'), named), ((0, '\u{1f980}'), Tree::Leaf)].into(),
        wide: (u128::MAX - u128::from(number), i128::MIN, u64::MAX, i64::MIN),
        maybe: vec![None, Some(None), Some(Some(number))],
        nested: if number.is_multiple_of(2) { Ok(Some(())) } else { Err(String::new()) },
    }
}

/// Bits of numbers that are NaN or resemble others: NaN with and without payload and sign, both zeros, subnormal.
const DOUBLES: [u64; 8] = [
    0x7ff8_0000_0000_0000,
    0x7ff8_0000_dead_beef,
    0xfff8_0000_0000_0001,
    0x7ff0_0000_0000_0001,
    0x8000_0000_0000_0000,
    0,
    1,
    0x7ff0_0000_0000_0000,
];
const SINGLES: [u32; 5] = [0x7fc0_0000, 0xffc1_2345, 0x8000_0000, 1, 0x7f80_0001];

pub(crate) fn all() -> cloudknot::Result<()> {
    let doubles: Vec<f64> = DOUBLES.into_iter().map(f64::from_bits).collect();
    let singles: Vec<f32> = SINGLES.into_iter().map(f32::from_bits).collect();
    let inputs = (0..3).map(|number| (plain(number), doubles.clone(), singles.clone()));
    let run = echo.map(inputs).submit().wait()?;
    for (number, (echoed, doubles, singles)) in (0..).zip(run.values().wait()?) {
        assert_eq!(echoed, plain(number));
        assert_eq!(doubles.into_iter().map(f64::to_bits).collect::<Vec<_>>(), DOUBLES);
        assert_eq!(singles.into_iter().map(f32::to_bits).collect::<Vec<_>>(), SINGLES);
        print(&Fact::Found(format!("item {number} is the same")));
    }
    Ok(())
}
