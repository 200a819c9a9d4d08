//! Worker whose function reports when its first line ran, for the benchmark `start`.

/// Returns the time, in nanoseconds since 1970.
#[cloudknot::remote]
fn begins(_input: u64) -> u64 {
    cloudknot_tests::now()
}

#[cloudknot::main]
fn main() {}
