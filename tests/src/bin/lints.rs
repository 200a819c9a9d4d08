//! Code that the attributes generate, under the strictest lints: clippy checks it, and the tests run it.

#![forbid(unsafe_code)]
#![deny(warnings, missing_docs, unreachable_pub, unused_qualifications)]
#![deny(elided_lifetimes_in_paths, missing_debug_implementations, unused_results, let_underscore_drop)]
#![deny(clippy::all, clippy::pedantic, clippy::nursery)]

/// Adds two numbers.
#[cloudknot::remote(vcpus = 0.5, memory = "2 GiB", gpus = 1, retries = 2, timeout = "15m", codec = "messagepack")]
pub fn add(a: f64, b: f64) -> f64 {
    a + b
}

/// Borrows its arguments.
#[cloudknot::remote]
pub fn borrow<'long: 'short, 'short>(long: &'long str, short: &'short [f64], all: &[u64; 3]) -> u64 {
    all.iter().sum::<u64>() + (long.len() + short.len()) as u64
}

/// Parses a number.
///
/// # Errors
/// Returns an error if the string is not a number.
#[cloudknot::remote]
pub fn parse(text: &str) -> Result<f64, std::num::ParseFloatError> {
    text.parse()
}

/// Waits, then repeats the string.
///
/// # Errors
/// Never.
#[cloudknot::remote]
pub async fn wait(text: &str, times: u8) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    std::future::ready(()).await;
    Ok(text.repeat(times.into()))
}

#[cloudknot::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    assert!(add(1.0, 2.0) > 2.0);
    assert_eq!(borrow("ab", &[], &[1, 2, 3]), 8);
    assert!(parse("1").is_ok());
    assert_eq!(wait("ab", 2).await?, "abab");
    Ok(())
}
