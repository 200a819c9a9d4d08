//! The path of cloudknot in the generated code: the only place that decides it.

use proc_macro_crate::{Error, FoundCrate};
use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Ident, LitStr, Path};

const NAME: &str = "cloudknot";

/// Path of cloudknot, as the code around the annotated item names it.
#[derive(Clone)]
pub(crate) struct Library(TokenStream);

impl Library {
    /// Returns the path by which the package that is compiled can name cloudknot: that of its dependency, under whatever
    /// name, or else that of a name in the scope of the item, which another crate provides (`use lab::cloudknot;`).
    pub(crate) fn of_package() -> Self {
        match proc_macro_crate::crate_name(NAME) {
            Ok(FoundCrate::Name(name)) => Self::dependency(&name),
            Err(Error::CrateNotFound { .. }) => Self(in_scope(NAME)),
            // cloudknot itself, whose examples, tests and doctests have it as a dependency; or there is no `Cargo.toml` to read,
            // as in a build without cargo.
            Ok(FoundCrate::Itself) | Err(_) => Self::dependency(NAME),
        }
    }

    /// Returns the path of a dependency with this name.
    pub(crate) fn dependency(name: &str) -> Self {
        let name = in_scope(name);
        Self(quote!(::#name))
    }

    /// Returns the path in the attribute's `crate = "…"`.
    pub(crate) fn written(string: &LitStr) -> syn::Result<Self> {
        let path = string.parse_with(Path::parse_mod_style).map_err(|_| {
            let form = "a path, as in crate = \"lab::cloudknot\"";
            syn::Error::new_spanned(string, format_args!("invalid `crate`: must be {form}"))
        })?;
        Ok(Self(spanned(path.into_token_stream(), string.span())))
    }

    /// Returns the path with this location, for generated code whose errors are reported there.
    pub(crate) fn at(&self, location: Span) -> Self {
        Self(spanned(self.0.clone(), location))
    }

    /// Returns the path of an item of cloudknot, such as `__private::serde`, as a string.
    pub(crate) fn path_of(&self, item: &str) -> String {
        format!("{}::{item}", self.0.to_string().replace(' ', ""))
    }
}

impl ToTokens for Library {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        self.0.to_tokens(tokens);
    }
}

fn in_scope(name: &str) -> TokenStream {
    Ident::new(name, Span::call_site()).into_token_stream()
}

// Marks the path as generated, so that the compiler lints only the user's code.
fn spanned(path: TokenStream, location: Span) -> TokenStream {
    let at = location.resolved_at(Span::call_site());
    let respanned = path.into_iter().map(|mut token| {
        TokenTree::set_span(&mut token, at);
        token
    });
    respanned.collect()
}
