//! The values that are offered to a type while it is traced. Most types take any value; those that check what they are
//! given (a date, an address, an identifier) are offered one set after another. Knows no types.

use std::fmt;

use serde::de::{self, Unexpected};

/// A type did not take what it was offered. The words of the refusal are of no use to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Other,
    /// Something inside cannot be made.
    Blocked,
    Missing(&'static str),
    Duplicate(&'static str),
    NotAMap,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused while the type was traced")
    }
}

impl std::error::Error for Refusal {}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Other
    }

    fn invalid_type(unexpected: Unexpected<'_>, _: &dyn de::Expected) -> Self {
        if unexpected == Unexpected::Map { Self::NotAMap } else { Self::Other }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::Duplicate(field)
    }
}

/// How many sets there are.
pub(super) const SETS: usize = STRINGS.len() + 3;
/// Every field one more than the one before; every field one less; everything zero, empty or absent.
const RISING: usize = STRINGS.len();
const FALLING: usize = STRINGS.len() + 1;
const NOTHING: usize = STRINGS.len() + 2;

const STRINGS: [&str; 27] = [
    "a",
    "0",
    "2000-01-01T00:00:00Z",
    "2000-01-01",
    "00:00:00",
    "2000-01-01T00:00:00",
    "2000-01-01T00:00:00+00:00[UTC]",
    "00000000-0000-0000-0000-000000000000",
    "127.0.0.1",
    "::1",
    "127.0.0.1:80",
    "http://localhost/",
    "1.0.0",
    "1.5",
    "127.0.0.0/8",
    "00:00:00:00:00:00",
    "PT1S",
    "1s",
    "+00:00",
    "UTC",
    "EUR",
    "en",
    "a@a.aa",
    "text/plain",
    "#000000",
    "true",
    "/",
];
// None is large: a type may reserve memory for as many things as a number says.
const NUMBERS: [i16; 9] = [1, 0, 2, 10, 100, 31, 2000, -1, 3];
const FLOATS: [f32; 5] = [1.0, 0.0, 0.5, -1.0, 100.0];
const CHARS: [char; 4] = ['a', '0', 'A', ' '];
const LENGTHS: [usize; 10] = [0, 1, 4, 8, 16, 32, 2, 12, 20, 64];
static BYTES: [u8; 64] = [b'1'; 64];

/// One set of values, and how many were taken from it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Offer {
    set: usize,
    taken: i16,
    /// The set was chosen because another one was refused.
    pub(super) chosen: bool,
}

impl Offer {
    pub(super) fn of_set(set: usize) -> Self {
        Self { set: set % SETS, taken: 0, chosen: true }
    }

    pub(super) fn set(self) -> usize {
        self.set
    }

    pub(super) fn bool(self) -> bool {
        self.set % 2 == 1 && self.set != NOTHING
    }

    pub(super) fn number(&mut self) -> i16 {
        self.taken = (self.taken + 1) % 100;
        match self.set {
            RISING => self.taken,
            FALLING => 100 - self.taken,
            NOTHING => 0,
            set => NUMBERS[set % NUMBERS.len()],
        }
    }

    pub(super) fn float(&mut self) -> f32 {
        match self.set {
            RISING | FALLING | NOTHING => f32::from(self.number()),
            set => FLOATS[set % FLOATS.len()],
        }
    }

    pub(super) fn char(self) -> char {
        CHARS[self.set % CHARS.len()]
    }

    pub(super) fn string(self) -> &'static str {
        STRINGS.get(self.set).copied().unwrap_or("")
    }

    pub(super) fn bytes(self) -> &'static [u8] {
        if self.set == NOTHING { &[] } else { &BYTES[..LENGTHS[self.set % LENGTHS.len()]] }
    }

    /// How many elements a sequence gets.
    pub(super) fn elements(self) -> usize {
        match self.set {
            RISING | FALLING => 3,
            NOTHING => 0,
            _ => 1,
        }
    }
}
