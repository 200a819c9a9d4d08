//! The arguments in the parentheses of `#[remote(...)]`. Independent of the function.

use std::fmt::Display;

use proc_macro2::TokenStream;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Expr, Ident, Lit, LitInt, LitStr, Token, UnOp};

use crate::library::Library;
use crate::refusals::Refusals;

const NAMES: &str =
    "the arguments are `name`, `vcpus`, `memory`, `gpus`, `retries`, `timeout`, `recycle`, `codec`, `crate`";

/// Arguments of the attribute. Those that are not given have their defaults.
pub(crate) struct Arguments {
    /// Path of cloudknot in the generated code.
    pub(crate) library: Library,
    /// Name of the remote function, if it differs from that of the `fn`.
    pub(crate) name: Option<String>,
    pub(crate) vcpus: Option<f64>,
    pub(crate) memory_mib: Option<u64>,
    pub(crate) gpus: u32,
    /// Number of times that a failed item is retried.
    pub(crate) retries: u32,
    /// Timeout of one attempt, in seconds.
    pub(crate) timeout_seconds: Option<u64>,
    /// Number of items after which an item process is replaced.
    pub(crate) recycle: Option<u32>,
    /// Codec of the function's values.
    pub(crate) codec: Codec,
}

/// Codec of `cloudknot-runtime`, by the name that the user writes.
#[derive(Clone, Copy)]
pub(crate) enum Codec {
    Bincode,
    Messagepack,
}

/// Parses the arguments. An argument that is refused keeps its default; that of `crate` is this library.
pub(crate) fn parse(library: Library, tokens: TokenStream, refusals: &mut Refusals) -> Arguments {
    let mut arguments = Arguments::new(library);
    set_each(tokens, NAMES, refusals, |key, value| arguments.set(key, value));
    arguments
}

/// Parses the arguments of an attribute that only has `crate`, and returns the path of cloudknot.
pub(crate) fn parse_library(mut library: Library, tokens: TokenStream, refusals: &mut Refusals) -> Library {
    const NAMES: &str = "the only argument is `crate`, as in crate = \"lab::cloudknot\"";
    set_each(tokens, NAMES, refusals, |key, written| {
        if key != "crate" {
            return Err(unknown(key, NAMES));
        }
        library = Value { key, written }.library()?;
        Ok(())
    });
    library
}

fn set_each(
    tokens: TokenStream,
    names: &'static str,
    refusals: &mut Refusals,
    mut set: impl FnMut(&Ident, &Expr) -> syn::Result<()>,
) {
    let settings = match (|input: ParseStream<'_>| Setting::parse_all(input, names)).parse2(tokens) {
        Ok(settings) => settings,
        Err(error) => return refusals.add(error),
    };
    let mut seen = Vec::new();
    for Setting { key, value } in settings {
        if seen.contains(&key) {
            refusals.at(&key, format_args!("duplicate argument `{key}`; keep one of them"));
            continue;
        }
        if let Err(error) = set(&key, &value) {
            refusals.add(error);
        }
        seen.push(key);
    }
}

impl Arguments {
    fn new(library: Library) -> Self {
        Self {
            library,
            name: None,
            vcpus: None,
            memory_mib: None,
            gpus: 0,
            retries: 0,
            timeout_seconds: None,
            recycle: None,
            codec: Codec::Bincode,
        }
    }

    fn set(&mut self, key: &Ident, value: &Expr) -> syn::Result<()> {
        let value = Value { key, written: value };
        match key.to_string().as_str() {
            "name" => self.name = Some(value.name()?),
            "vcpus" => self.vcpus = Some(value.vcpus()?),
            "memory" => {
                let string = value.string("a string with a unit, as in memory = \"2 GiB\"")?;
                self.memory_mib =
                    Some(cloudknot_quantity::memory_mib(&string.value()).map_err(|error| refused(&string, error))?);
            }
            "gpus" => self.gpus = value.count("a whole number, as in gpus = 1")?,
            "retries" => self.retries = value.count("a whole number, as in retries = 2")?,
            "timeout" => {
                let string = value.string("a string with a unit, as in timeout = \"15m\"")?;
                self.timeout_seconds =
                    Some(cloudknot_quantity::seconds(&string.value()).map_err(|error| refused(&string, error))?);
            }
            "recycle" => match value.count("a whole number, as in recycle = 100")? {
                0 => return Err(value.must_be("at least 1")),
                items => self.recycle = Some(items),
            },
            "codec" => self.codec = value.codec()?,
            "crate" => self.library = value.library()?,
            _ => return Err(unknown(key, NAMES)),
        }
        Ok(())
    }
}

struct Setting {
    key: Ident,
    value: Expr,
}

impl Setting {
    fn parse_all(input: ParseStream<'_>, names: &str) -> syn::Result<Vec<Self>> {
        let mut settings = Vec::new();
        while !input.is_empty() {
            settings.push(Self::parse(input, names)?);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(settings)
    }

    fn parse(input: ParseStream<'_>, names: &str) -> syn::Result<Self> {
        if !input.peek(Ident::peek_any) {
            return Err(input.error(format_args!("expected an argument and its value; {names}")));
        }
        let key = input.call(Ident::parse_any)?;
        if !input.peek(Token![=]) {
            return Err(refused(&key, format_args!("`{key}` needs a value: {key} = …")));
        }
        input.parse::<Token![=]>()?;
        Ok(Self { key, value: input.parse()? })
    }
}

/// Value of one argument, to be parsed as the argument's type.
struct Value<'a> {
    key: &'a Ident,
    written: &'a Expr,
}

impl Value<'_> {
    fn name(&self) -> syn::Result<String> {
        let string = self.string("a string, as in name = \"fit_again\"")?;
        let name = string.value();
        let is_allowed = |(at, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit());
        if name.is_empty() || !name.chars().enumerate().all(is_allowed) {
            let form = "one or more ASCII letters, digits or `_`, and must not start with a digit";
            return Err(refused(&string, format_args!("invalid name `{name}`: must be {form}")));
        }
        Ok(name)
    }

    fn vcpus(&self) -> syn::Result<f64> {
        const FORM: &str = "a number above zero, as in vcpus = 1 or vcpus = 0.5";
        let vcpus: f64 = match self.literal(FORM)? {
            Lit::Int(number) => number.base10_parse()?,
            Lit::Float(number) => number.base10_parse()?,
            _ => return Err(self.must_be(FORM)),
        };
        if vcpus > 0.0 && vcpus.is_finite() { Ok(vcpus) } else { Err(self.must_be(FORM)) }
    }

    fn count(&self, form: &str) -> syn::Result<u32> {
        let Lit::Int(number) = self.literal(form)? else { return Err(self.must_be(form)) };
        count_of(number)
            .ok_or_else(|| refused(number, format_args!("invalid `{}`: must be at most {}", self.key, u32::MAX)))
    }

    fn codec(&self) -> syn::Result<Codec> {
        const FORM: &str = "\"bincode\" or \"messagepack\"";
        let string = self.string(FORM)?;
        match string.value().as_str() {
            "bincode" => Ok(Codec::Bincode),
            "messagepack" => Ok(Codec::Messagepack),
            unknown => Err(refused(&string, format_args!("unknown codec `{unknown}`: must be {FORM}"))),
        }
    }

    fn library(&self) -> syn::Result<Library> {
        Library::written(&self.string("the path of cloudknot as a string, as in crate = \"lab::cloudknot\"")?)
    }

    fn string(&self, form: &str) -> syn::Result<LitStr> {
        match self.literal(form)? {
            Lit::Str(string) => Ok(string.clone()),
            _ => Err(self.must_be(form)),
        }
    }

    fn literal(&self, form: &str) -> syn::Result<&Lit> {
        let mut written = self.written;
        loop {
            match written {
                Expr::Lit(literal) => return Ok(&literal.lit),
                // An expression passed on by a `macro_rules!` macro is wrapped in an invisible group.
                Expr::Group(group) => written = &group.expr,
                Expr::Unary(unary) if matches!(unary.op, UnOp::Neg(_)) => {
                    return Err(refused(self.written, format_args!("invalid `{}`: must not be negative", self.key)));
                }
                _ => return Err(self.must_be(form)),
            }
        }
    }

    fn must_be(&self, form: &str) -> syn::Error {
        refused(self.written, format_args!("invalid `{}`: must be {form}", self.key))
    }
}

fn count_of(number: &LitInt) -> Option<u32> {
    number.base10_parse().ok()
}

fn unknown(key: &Ident, names: &str) -> syn::Error {
    refused(key, format_args!("unknown argument `{key}`; {names}"))
}

fn refused(tokens: impl quote::ToTokens, message: impl Display) -> syn::Error {
    syn::Error::new_spanned(tokens, message)
}
