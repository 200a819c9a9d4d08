//! Repeatable random numbers for tests.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the variable with the seed.
const ENV_SEED: &str = "CLOUDKNOT_STRESS_SEED";

/// `SplitMix64`: the only requirement is that a seed repeats the sequence.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Creates the sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    #[allow(clippy::should_implement_trait, reason = "an endless sequence that is not used as an iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number from 0 to `end - 1`.
    ///
    /// # Panics
    /// If `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Returns the seed in `CLOUDKNOT_STRESS_SEED`, or a new one each time. Prints the seed to stderr, even if the test
/// passes, because it allows the test to be repeated.
///
/// # Panics
/// If the variable contains anything other than a number.
pub fn seed() -> u64 {
    let seed = std::env::var(ENV_SEED).map_or_else(|_| now(), |text| text.parse().expect(ENV_SEED));
    // Not with `eprintln!`, whose output a test harness captures.
    let _ = writeln!(std::io::stderr(), "{ENV_SEED}={seed}");
    seed
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set after 1970");
    u64::try_from(now.as_micros()).expect("the microseconds fit into a `u64`")
}
