//! Text for a terminal: that of others (messages of items, records of runs, responses of services), and numbers.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Returns the text with its control characters in the form of Rust's escapes (`\u{1b}`), except for newlines and tabs. Otherwise
/// a message could move the cursor, change the title of the window, or hide parts of itself.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_control) {
        return text.into();
    }
    let mut printable = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_control(c) {
            write!(printable, "{}", c.escape_default()).expect("writing to a `String` does not fail");
        } else {
            printable.push(c);
        }
    }
    printable.into()
}

/// Returns a number with its thousands separated.
///
/// ```
/// assert_eq!(cloudknot_runtime::text::number(1_234_567), "1,234,567");
/// ```
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Returns `true` for the characters that change how a terminal shows the rest: the control characters of ASCII and Latin-1,
/// separators of lines, and those that change the direction of text.
fn is_control(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        c => c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::printable;

    /// L8: the message of an item is data.
    #[test]
    fn control_characters_are_escaped() {
        for (text, shown) in [
            ("two\nlines\tand a tab: größe, 日本語, 👩‍🔬", "two\nlines\tand a tab: größe, 日本語, 👩‍🔬"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("50 %\rdone", "50 %\\rdone"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("a\u{202e}cba\u{2069}", "a\\u{202e}cba\\u{2069}"),
            ("\u{8}\u{7f}\0", "\\u{8}\\u{7f}\\u{0}"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }
}
