//! The values that are offered to a type while it is traced. Most types accept any value. Types that validate their
//! input (a date, an address, an identifier) are offered one set of values after another. This module does not depend
//! on particular types.

use std::fmt;

use serde::de::{self, Unexpected};

/// Error of a type that did not accept the offered value. The error message is of no use to the tracer and is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Other,
    /// A component cannot be built.
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

/// Number of sets of values.
pub(super) const SETS: usize = STRINGS.len() + 3;
/// Set in which each field is one more than the field before.
const RISING: usize = STRINGS.len();
/// Set in which each field is one less than the field before.
const FALLING: usize = STRINGS.len() + 1;
/// Set in which everything is zero, empty or absent.
const NOTHING: usize = STRINGS.len() + 2;

/// A word that names nothing: no file, no host, no variable. Fixed, because every machine must offer the same.
pub(super) const WORD: &str = "qzvkwxjhbf";

// A type may use what it is offered, as a path or as an address. Nothing may have these names: the addresses and domains are
// reserved for documentation (RFC 5737, 3849, 7042 and 2606), and the paths contain the word. The short ones are no paths
// of a root folder, in which types are traced.
const STRINGS: [&str; 27] = [
    WORD,
    "0",
    "2000-01-01T00:00:00Z",
    "2000-01-01",
    "00:00:00",
    "2000-01-01T00:00:00",
    "2000-01-01T00:00:00+00:00[UTC]",
    "00000000-0000-0000-0000-000000000000",
    "192.0.2.1",
    "2001:db8::1",
    "192.0.2.1:9",
    "http://x.invalid/",
    "1.0.0",
    "1.5",
    "192.0.2.0/24",
    "00:00:5E:00:53:01",
    "PT1S",
    "1s",
    "+00:00",
    "UTC",
    "EUR",
    "en",
    "x@x.invalid",
    "text/plain",
    "#000000",
    "true",
    "/qzvkwxjhbf/qzvkwxjhbf",
];
// No number is large, because a type may use a number as a length and reserve that much memory.
const NUMBERS: [i16; 9] = [1, 0, 2, 10, 100, 31, 2000, -1, 3];
const FLOATS: [f32; 5] = [1.0, 0.0, 0.5, -1.0, 100.0];
const CHARS: [char; 4] = ['a', '0', 'A', ' '];
const LENGTHS: [usize; 10] = [0, 1, 4, 8, 16, 32, 2, 12, 20, 64];
static BYTES: [u8; 64] = [b'1'; 64];

/// Set of values, and the number of values taken from it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Offer {
    set: usize,
    taken: i16,
    /// `true` if the set was chosen because another one was refused.
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

    /// Returns the number of elements of a sequence.
    pub(super) fn elements(self) -> usize {
        match self.set {
            RISING | FALLING => 3,
            NOTHING => 0,
            _ => 1,
        }
    }
}
