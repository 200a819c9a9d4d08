//! Parsers for amounts with units, such as `2 GiB` and `1h 30m`. The attributes use them at compile time, the settings
//! at run time.
//!
//! This crate has no stable API: programs use `cloudknot`, which depends on exactly this version.

/// Parses an amount of memory or disk space (a number and `MiB` or `GiB`) into MiB.
///
/// ```
/// assert_eq!(cloudknot_quantity::memory_mib("1.5 GiB"), Ok(1536));
/// ```
///
/// # Errors
/// Returns an error if the string is malformed, or the amount is zero or not a whole number of MiB.
pub fn memory_mib(text: &str) -> Result<u64, String> {
    const EXAMPLES: &str = "\"512 MiB\" or \"2 GiB\"";
    let (number, unit) = split(text.trim());
    let mib_per_unit = match unit {
        "MiB" => 1,
        "GiB" => 1024,
        "" => return Err(format!("invalid amount `{text}`: must have a unit, as in {EXAMPLES}")),
        other => {
            let suggestion = similar_memory_unit(other).map(|unit| format!("; did you mean `{unit}`?"));
            let suggestion = suggestion.unwrap_or_default();
            return Err(format!("invalid amount `{text}`: the unit must be `MiB` or `GiB`{suggestion}"));
        }
    };
    let mib = scaled(number, mib_per_unit).map_err(|error| error.message("amount", text, "MiB", EXAMPLES))?;
    if mib == 0 {
        return Err(format!("invalid amount `{text}`: must be above zero; omit it for the default"));
    }
    Ok(mib)
}

/// Parses a duration (whole numbers of `h`, `m` and `s`, from the largest unit to the smallest) into seconds.
///
/// ```
/// assert_eq!(cloudknot_quantity::seconds("1h 30m"), Ok(5400));
/// ```
///
/// # Errors
/// Returns an error if the string is malformed, or the duration is zero.
pub fn seconds(text: &str) -> Result<u64, String> {
    const EXAMPLES: &str = "\"5s\", \"15m\" or \"1h 30m\"";
    const UNITS: &str = "hours, minutes or seconds";
    let mut total: u64 = 0;
    let mut smallest = u64::MAX;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (number, tail) = split(rest);
        let end = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (unit, after) = tail.split_at(end);
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "" => return Err(format!("invalid duration `{text}`: each number must have a unit, as in {EXAMPLES}")),
            _ => return Err(format!("invalid duration `{text}`: the unit must be `h`, `m` or `s`, as in {EXAMPLES}")),
        };
        if seconds >= smallest {
            return Err(format!("invalid duration `{text}`: units must go from the largest to the smallest"));
        }
        smallest = seconds;
        let part: u64 = whole(number).map_err(|error| error.message("duration", text, UNITS, EXAMPLES))?;
        let sum = part.checked_mul(seconds).and_then(|part| total.checked_add(part));
        total = sum.ok_or_else(|| NumberError::TooLarge.message("duration", text, UNITS, EXAMPLES))?;
        rest = after.trim_start();
    }
    if total == 0 {
        return Err(format!("invalid duration `{text}`: must be longer than zero; omit it for no limit"));
    }
    Ok(total)
}

enum NumberError {
    Malformed,
    Fraction,
    TooLarge,
}

impl NumberError {
    fn message(self, quantity: &str, text: &str, unit: &str, examples: &str) -> String {
        let requirement = match self {
            Self::Malformed => format!("must start with a number, as in {examples}"),
            Self::Fraction => format!("must be a whole number of {unit}"),
            Self::TooLarge => "must have fewer digits".to_owned(),
        };
        format!("invalid {quantity} `{text}`: {requirement}")
    }
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    (number, rest.trim_start())
}

fn whole(number: &str) -> Result<u64, NumberError> {
    if number.contains('.') {
        return Err(NumberError::Fraction);
    }
    let digits = number.replace('_', "");
    if digits.is_empty() {
        return Err(NumberError::Malformed);
    }
    digits.parse().map_err(|_| NumberError::TooLarge)
}

// Uses only integers: the product has to be exact, and a floating-point product would be rounded.
fn scaled(number: &str, by: u64) -> Result<u64, NumberError> {
    let Some((before, after)) = number.split_once('.') else {
        return whole(number)?.checked_mul(by).ok_or(NumberError::TooLarge);
    };
    if after.contains('.') || after.is_empty() {
        return Err(NumberError::Malformed);
    }
    let places = u32::try_from(after.len()).map_err(|_| NumberError::TooLarge)?;
    let denominator = 10u64.checked_pow(places).ok_or(NumberError::TooLarge)?;
    let numerator = whole(after)?.checked_mul(by).ok_or(NumberError::TooLarge)?;
    if !numerator.is_multiple_of(denominator) {
        return Err(NumberError::Fraction);
    }
    let units = whole(before)?.checked_mul(by).ok_or(NumberError::TooLarge)?;
    units.checked_add(numerator / denominator).ok_or(NumberError::TooLarge)
}

fn similar_memory_unit(unit: &str) -> Option<&'static str> {
    match unit.to_ascii_lowercase().as_str() {
        "m" | "mb" | "mib" => Some("MiB"),
        "g" | "gb" | "gib" => Some("GiB"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{memory_mib, seconds};

    fn check_memory(text: &str, expected: Result<u64, &str>) {
        match (memory_mib(text), expected) {
            (Ok(mib), Ok(expected)) => assert_eq!(mib, expected, "{text}"),
            (Err(message), Err(expected)) => assert!(message.contains(expected), "{text}: {message}"),
            (got, expected) => panic!("{text}: {got:?}, not {expected:?}"),
        }
    }

    fn check_seconds(text: &str, expected: Result<u64, &str>) {
        match (seconds(text), expected) {
            (Ok(seconds), Ok(expected)) => assert_eq!(seconds, expected, "{text}"),
            (Err(message), Err(expected)) => assert!(message.contains(expected), "{text}: {message}"),
            (got, expected) => panic!("{text}: {got:?}, not {expected:?}"),
        }
    }

    #[test]
    fn memory_is_counted_in_mib() {
        check_memory("512 MiB", Ok(512));
        check_memory("2GiB", Ok(2048));
        check_memory("1.5 GiB", Ok(1536));
        check_memory("1_024 MiB", Ok(1024));
        check_memory("2048", Err("must have a unit"));
        check_memory("2 GB", Err("did you mean `GiB`?"));
        check_memory("2 parsecs", Err("the unit must be `MiB` or `GiB`"));
        check_memory("0 GiB", Err("above zero"));
        check_memory("-1 GiB", Err("the unit must be"));
        check_memory("GiB", Err("must start with a number"));
        check_memory("0.3 MiB", Err("must be a whole number of MiB"));
        check_memory("1.2.3 GiB", Err("must start with a number"));
        check_memory("18446744073709551615 GiB", Err("must have fewer digits"));
        check_memory("99999999999999999999 MiB", Err("must have fewer digits"));
        check_memory("", Err("must have a unit"));
    }

    #[test]
    fn time_is_counted_in_seconds() {
        check_seconds("5s", Ok(5));
        check_seconds("15m", Ok(900));
        check_seconds("2 h", Ok(7200));
        check_seconds("1h 30m", Ok(5400));
        check_seconds("1h30m5s", Ok(5405));
        check_seconds("0s", Err("longer than zero"));
        check_seconds("", Err("longer than zero"));
        check_seconds("90", Err("must have a unit"));
        check_seconds("2d", Err("the unit must be `h`, `m` or `s`"));
        check_seconds("5 minutes", Err("the unit must be `h`, `m` or `s`"));
        check_seconds("30m 1h", Err("from the largest to the smallest"));
        check_seconds("1m 1m", Err("from the largest to the smallest"));
        check_seconds("1.5h", Err("must be a whole number of hours"));
        check_seconds("h", Err("must start with a number"));
        check_seconds("-5s", Err("must have a unit"));
        check_seconds("18446744073709551615h", Err("must have fewer digits"));
        check_seconds("99999999999999999999s", Err("must have fewer digits"));
    }
}
