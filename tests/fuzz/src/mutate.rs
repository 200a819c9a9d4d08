//! Random changes of valid inputs: of bytes, and of the numbers and brackets in a text.

use crate::random::Random;

/// Numbers at the limits of the types, and texts that parsers can fail on.
const TOKENS: [&str; 28] = [
    "0",
    "1",
    "-1",
    "31",
    "32",
    "64",
    "255",
    "4294967295",
    "4294967296",
    "4294967297",
    "1099511627776",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551584",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "-0.0",
    "0.1",
    "null",
    "true",
    "\"\"",
    "\"\\u0000\"",
    "\"\u{1b}[2J\u{202e}\"",
    "[]",
    "{}",
    "[[[[[[[[[[[[[[[[",
    "{\"a\":{\"a\":{\"a\":{\"a\":",
];

/// Returns a changed copy of a valid input, or random bytes. A few inputs stay valid.
pub(crate) fn mutated(sample: &[u8], is_text: bool, random: &mut Random) -> Vec<u8> {
    if random.below(50) == 0 {
        return (0..random.below(200)).map(|_| random.next().to_le_bytes()[0]).collect();
    }
    let mut bytes = sample.to_vec();
    for _ in 0..random.below(5) {
        if is_text && random.below(3) > 0 {
            replace_value(&mut bytes, random);
        } else {
            change_bytes(&mut bytes, random);
        }
    }
    bytes
}

/// Replaces a number, or inserts a token.
fn replace_value(bytes: &mut Vec<u8>, random: &mut Random) {
    let token = TOKENS[at_most(TOKENS.len() - 1, random)].bytes();
    let start = at_most(bytes.len(), random);
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let from = bytes[start..].iter().position(is_digit).map(|offset| start + offset);
    match from {
        Some(from) => {
            let length = bytes[from..].iter().take_while(|byte| is_digit(byte)).count();
            bytes.splice(from..from + length, token);
        }
        None => drop(bytes.splice(start..start, token)),
    }
}

fn change_bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = at_most(bytes.len(), random);
    let end = bytes.len().min(at + at_most(16, random));
    match random.below(6) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => {
            let copy = bytes[at..end].to_vec();
            let to = at_most(bytes.len(), random);
            bytes.splice(to..to, copy);
        }
        3 => bytes.insert(at, random.next().to_le_bytes()[0]),
        4 => bytes[at..end].fill(random.next().to_le_bytes()[0]),
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

/// Returns a number from 0 to `most`.
fn at_most(most: usize, random: &mut Random) -> usize {
    usize::try_from(random.below(most as u64 + 1)).expect("the number is at most a `usize`")
}
