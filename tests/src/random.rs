//! Random numbers for tests that draw at random and have to be repeatable.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// The variable that names the seed.
const ENV_SEED: &str = "CLOUDKNOT_STRESS_SEED";

/// `SplitMix64`: all that is asked of it is that a seed repeats it.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and nobody iterates over it")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to the one before `end`.
    ///
    /// # Panics
    /// If `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// The seed that `CLOUDKNOT_STRESS_SEED` names, or another one each time. Printed on stderr, also where the test passes: it is
/// what the test can be repeated by.
///
/// # Panics
/// If the variable holds something other than a number.
pub fn seed() -> u64 {
    let seed = std::env::var(ENV_SEED).map_or_else(|_| now(), |text| text.parse().expect(ENV_SEED));
    // Not by `eprintln!`, which a test harness captures.
    let _ = writeln!(std::io::stderr(), "{ENV_SEED}={seed}");
    seed
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(now.as_micros()).expect("it is before the year 586912")
}
