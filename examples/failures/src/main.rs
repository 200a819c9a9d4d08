//! Shows that a bad input costs its own item and nothing else: some of the inputs make the function return an error,
//! panic, abort the process or never end.

use std::error::Error;
use std::fmt;
use std::num::ParseFloatError;
use std::thread;
use std::time::Duration;

/// Returns the square root of a number that is given as a string.
#[cloudknot::remote(timeout = "2s")]
fn square_root(text: &str) -> Result<f64, NotANumber> {
    match text {
        // Simulates a fault in a native library, which ends the whole process.
        "abort" => std::process::abort(),
        "hang" => loop {
            thread::sleep(Duration::from_secs(1));
        },
        _ => {}
    }
    let number: f64 = text.parse().map_err(|cause| NotANumber { text: text.to_owned(), cause })?;
    assert!(number >= 0.0, "{number} has no real square root");
    Ok(number.sqrt())
}

#[cloudknot::main]
async fn main() -> cloudknot::Result<()> {
    let texts = ["1", "4", "nine", "-16", "abort", "hang", "49", "64"].map(String::from);

    // `square_root.map(texts).await?` would return one error that names the failed items. A run returns every outcome.
    let run = square_root.map(texts.clone()).submit().await?;
    for (text, outcome) in texts.iter().zip(run.outcomes().await?) {
        match outcome {
            Ok(root) => println!("{text:<6} {root}"),
            Err(error) => {
                println!("{text:<6} {:?}: {}", error.kind(), error.message());
                for cause in error.chain() {
                    println!("{:<6}   caused by: {cause}", "");
                }
                if let Some(location) = error.location() {
                    println!("{:<6}   at {location}", "");
                }
            }
        }
    }
    Ok(())
}

/// Error for a string that is not a number.
#[derive(Debug)]
struct NotANumber {
    text: String,
    cause: ParseFloatError,
}

impl fmt::Display for NotANumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read `{}` as a number", self.text)
    }
}

impl Error for NotANumber {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_numbers_have_roots() {
        assert_eq!(square_root("49").map_err(|error| error.to_string()), Ok(7.0));
    }

    #[test]
    fn error_has_a_cause() {
        let error = square_root("nine").expect_err("not a number");
        assert_eq!(error.to_string(), "cannot read `nine` as a number");
        assert_eq!(error.source().expect("a cause").to_string(), "invalid float literal");
    }

    #[test]
    #[should_panic(expected = "-16 has no real square root")]
    fn negative_number_panics() {
        let _ = square_root("-16");
    }
}
