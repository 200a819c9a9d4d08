//! Parsers for amounts with units, as people write them: `2 GiB`, `1h 30m`. The attributes use them at compile time, the
//! settings at run time.
//!
//! This crate has no stable API: programs use `cloudknot`, which depends on exactly this version.

/// Parses an amount of memory (a number and `MiB` or `GiB`) into MiB.
///
/// ```
/// assert_eq!(cloudknot_quantity::memory_mib("1.5 GiB"), Ok(1536));
/// ```
///
/// # Errors
/// Returns an error if the text has another form, or the amount is zero or not a whole number of MiB. The message shows
/// the form.
pub fn memory_mib(text: &str) -> Result<u64, String> {
    const FORM: &str = "write a number and `MiB` or `GiB`, as in \"512 MiB\" or \"2 GiB\"";
    let (number, unit) = split(text.trim());
    let mib_per_unit = match unit {
        "MiB" => 1,
        "GiB" => 1024,
        "" => return Err(format!("`{text}` has no unit; {FORM}")),
        other => {
            let meant = meant_memory_unit(other).map(|unit| format!(" (`{unit}`?)")).unwrap_or_default();
            return Err(format!("`{other}` is not a unit of memory here{meant}; {FORM}"));
        }
    };
    let mib = scaled(number, mib_per_unit).map_err(|error| error.about(text, "MiB", FORM))?;
    if mib == 0 {
        return Err(format!("the memory must be above zero; leave `memory` out for the default, or {FORM}"));
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
/// Returns an error if the text has another form, or the duration is zero. The message shows the form.
pub fn seconds(text: &str) -> Result<u64, String> {
    const FORM: &str = "write a whole number and `s`, `m` or `h`, as in \"5s\", \"15m\" or \"1h 30m\"";
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
            "" => return Err(format!("`{text}` has a number without a unit; {FORM}")),
            other => return Err(format!("`{other}` is not a unit of time here; {FORM}")),
        };
        if seconds >= smallest {
            return Err(format!("in `{text}` the units do not go from the largest to the smallest; {FORM}"));
        }
        smallest = seconds;
        let part: u64 = whole(number).map_err(|error| error.about(text, "seconds", FORM))?;
        let sum = part.checked_mul(seconds).and_then(|part| total.checked_add(part));
        total = sum.ok_or_else(|| NotANumber::TooLarge.about(text, "seconds", FORM))?;
        rest = after.trim_start();
    }
    if total == 0 {
        return Err(format!("a timeout must be longer than zero; leave `timeout` out for no limit, or {FORM}"));
    }
    Ok(total)
}

enum NotANumber {
    Malformed,
    Fraction,
    TooLarge,
}

impl NotANumber {
    fn about(self, text: &str, unit: &str, form: &str) -> String {
        match self {
            Self::Malformed => format!("`{text}` does not begin with a number; {form}"),
            Self::Fraction => format!("`{text}` is not a whole number of {unit}; {form}"),
            Self::TooLarge => format!("`{text}` is more than can be counted in {unit}; {form}"),
        }
    }
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    (number, rest.trim_start())
}

fn whole(number: &str) -> Result<u64, NotANumber> {
    if number.contains('.') {
        return Err(NotANumber::Fraction);
    }
    let digits = number.replace('_', "");
    if digits.is_empty() {
        return Err(NotANumber::Malformed);
    }
    digits.parse().map_err(|_| NotANumber::TooLarge)
}

// Uses only integers: the product has to be exact, and a floating-point product would be rounded.
fn scaled(number: &str, by: u64) -> Result<u64, NotANumber> {
    let Some((before, after)) = number.split_once('.') else {
        return whole(number)?.checked_mul(by).ok_or(NotANumber::TooLarge);
    };
    if after.contains('.') || after.is_empty() {
        return Err(NotANumber::Malformed);
    }
    let places = u32::try_from(after.len()).map_err(|_| NotANumber::TooLarge)?;
    let denominator = 10u64.checked_pow(places).ok_or(NotANumber::TooLarge)?;
    let numerator = whole(after)?.checked_mul(by).ok_or(NotANumber::TooLarge)?;
    if !numerator.is_multiple_of(denominator) {
        return Err(NotANumber::Fraction);
    }
    let units = whole(before)?.checked_mul(by).ok_or(NotANumber::TooLarge)?;
    units.checked_add(numerator / denominator).ok_or(NotANumber::TooLarge)
}

fn meant_memory_unit(unit: &str) -> Option<&'static str> {
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
        check_memory("2048", Err("has no unit"));
        check_memory("2 GB", Err("(`GiB`?)"));
        check_memory("2 parsecs", Err("`parsecs` is not a unit of memory"));
        check_memory("0 GiB", Err("above zero"));
        check_memory("-1 GiB", Err("is not a unit of memory"));
        check_memory("GiB", Err("does not begin with a number"));
        check_memory("0.3 MiB", Err("not a whole number of MiB"));
        check_memory("1.2.3 GiB", Err("does not begin with a number"));
        check_memory("18446744073709551615 GiB", Err("more than can be counted"));
        check_memory("99999999999999999999 MiB", Err("more than can be counted"));
        check_memory("", Err("has no unit"));
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
        check_seconds("90", Err("without a unit"));
        check_seconds("2d", Err("`d` is not a unit of time"));
        check_seconds("5 minutes", Err("`minutes` is not a unit of time"));
        check_seconds("30m 1h", Err("from the largest to the smallest"));
        check_seconds("1m 1m", Err("from the largest to the smallest"));
        check_seconds("1.5h", Err("not a whole number"));
        check_seconds("h", Err("does not begin with a number"));
        check_seconds("-5s", Err("without a unit"));
        check_seconds("18446744073709551615h", Err("more than can be counted"));
        check_seconds("99999999999999999999s", Err("more than can be counted"));
    }
}
