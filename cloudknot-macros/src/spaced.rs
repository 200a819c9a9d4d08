//! Formatting of Rust tokens with conventional spaces.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::ToTokens;

/// Formats the tokens of a type with conventional spaces (`to_string` puts a space around each token).
pub(crate) fn spaced(tokens: impl ToTokens) -> String {
    let mut formatter = Formatter::default();
    formatter.all(tokens.into_token_stream());
    formatter.written
}

#[derive(Default)]
struct Formatter {
    written: String,
    /// `true` if `written` ends with a word, so that another word needs a space before it.
    word: bool,
}

impl Formatter {
    fn all(&mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(ident) => self.word(&ident.to_string()),
                TokenTree::Literal(literal) => self.word(&literal.to_string()),
                TokenTree::Group(group) => self.group(group.delimiter(), group.stream()),
                TokenTree::Punct(first) => {
                    let mut sign = String::from(first.as_char());
                    let joint = first.spacing() == Spacing::Joint && matches!(first.as_char(), ':' | '-');
                    if let Some(TokenTree::Punct(second)) = tokens.next_if(|_| joint) {
                        sign.push(second.as_char());
                    }
                    self.sign(&sign);
                }
            }
        }
    }

    fn word(&mut self, word: &str) {
        self.space_after_word();
        self.written.push_str(word);
        self.word = true;
    }

    fn group(&mut self, delimiter: Delimiter, inside: TokenStream) {
        let (open, close) = match delimiter {
            Delimiter::Parenthesis => ("(", ")"),
            Delimiter::Bracket => ("[", "]"),
            Delimiter::Brace => ("{ ", " }"),
            Delimiter::None => return self.all(inside),
        };
        if delimiter != Delimiter::Parenthesis {
            self.space_after_word();
        }
        self.written.push_str(open);
        self.word = false;
        self.all(inside);
        self.written.truncate(self.written.trim_end().len());
        self.written.push_str(close);
        self.word = true;
    }

    fn sign(&mut self, sign: &str) {
        match sign {
            "," | ";" | ":" => {
                self.written.push_str(sign);
                self.written.push(' ');
            }
            "->" | "+" | "=" => {
                self.space_after_word();
                self.written.push_str(sign);
                self.written.push(' ');
            }
            "&" | "'" | "*" => {
                self.space_after_word();
                self.written.push_str(sign);
            }
            _ => self.written.push_str(sign),
        }
        self.word = sign == ">";
    }

    fn space_after_word(&mut self) {
        if self.word {
            self.written.push(' ');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::spaced;

    fn check(written: &str) {
        let tokens: proc_macro2::TokenStream = written.parse().expect("the case is valid Rust");
        assert_eq!(spaced(tokens), written);
    }

    #[test]
    fn types_have_conventional_spaces() {
        check("Vec<f64>");
        check("&str");
        check("&'a [f64]");
        check("(f64, &str)");
        check("HashMap<String, Vec<Option<u8>>>");
        check("[f64; 3]");
        check("[u8; { N + 1 }]");
        check("std::io::Result<()>");
        check("<Vec<f64> as IntoIterator>::Item");
        check("fn(f64, f64) -> f64");
        check("Box<dyn Fn(f64) -> f64 + Send + 'static>");
        check("*const u8");
        check("<'a, 'b: 'a>");
        check("&mut Vec<u8>");
        check("impl Iterator<Item = f64>");
    }
}
