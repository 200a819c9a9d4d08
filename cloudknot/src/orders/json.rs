//! Splits JSON texts into the texts of their parts, which stay as they are.

use serde::de::IgnoredAny;

/// A JSON text, and the texts in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape<'a> {
    /// The names in an object, with their values.
    Object(Vec<(String, &'a str)>),
    /// The elements of an array.
    Array(Vec<&'a str>),
    /// Anything else.
    Other,
}

/// Returns whether a text is one JSON value.
pub(super) fn check(text: &str) -> serde_json::Result<()> {
    serde_json::from_str::<IgnoredAny>(text).map(drop)
}

/// Splits a JSON text.
///
/// # Errors
/// Returns an error if the text is not JSON.
pub(super) fn split(text: &str) -> serde_json::Result<Shape<'_>> {
    check(text)?;
    let text = text.trim();
    let mut parts = Parts(text.get(1..).unwrap_or_default());
    match text.as_bytes()[0] {
        b'[' => {
            let mut elements = Vec::new();
            while parts.has_next() {
                elements.push(parts.next()?);
            }
            Ok(Shape::Array(elements))
        }
        b'{' => {
            let mut members = Vec::new();
            while parts.has_next() {
                let name = serde_json::from_str(parts.next()?)?;
                parts.skip();
                members.push((name, parts.next()?));
            }
            Ok(Shape::Object(members))
        }
        _ => Ok(Shape::Other),
    }
}

/// The rest of an array or an object, whose syntax has been checked.
struct Parts<'a>(&'a str);

impl<'a> Parts<'a> {
    /// Skips white space and separators.
    fn skip(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t', '\n', '\r', ',', ':']);
    }

    fn has_next(&mut self) -> bool {
        self.skip();
        !self.0.starts_with([']', '}'])
    }

    fn next(&mut self) -> serde_json::Result<&'a str> {
        let mut values = serde_json::Deserializer::from_str(self.0).into_iter::<IgnoredAny>();
        values.next().transpose()?;
        let (value, rest) = self.0.split_at(values.byte_offset());
        self.0 = rest;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_split_and_kept() {
        let object = |members: &[(&str, &'static str)]| {
            Shape::Object(members.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect())
        };
        for (text, expected) in [
            ("[]", Shape::Array(vec![])),
            (" [1, 2.50,\"a,]\" , [3,4],{\"b\":1}] ", Shape::Array(vec!["1", "2.50", "\"a,]\"", "[3,4]", "{\"b\":1}"])),
            ("{}", object(&[])),
            (
                r#"{ "x" : 1e3 ,"a:\"b" :{"y":[ ]}, "z":null}"#,
                object(&[("x", "1e3"), ("a:\"b", "{\"y\":[ ]}"), ("z", "null")]),
            ),
            ("17", Shape::Other),
            ("\"[1]\"", Shape::Other),
        ] {
            assert_eq!(split(text).ok(), Some(expected), "{text}");
        }
        for text in ["", "[", "[1 2]", "{\"a\" 1}", "{a: 1}", "1 2", "é", "[1],"] {
            assert!(split(text).is_err(), "{text}");
        }
    }
}
