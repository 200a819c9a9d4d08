//! The attributes of cloudknot. They only write paths into `cloudknot::__private`, and know none of our other crates.
//!
//! The files are the pipeline: `arguments` reads what stands in the attribute's parentheses (amounts by `cloudknot-quantity`),
//! `signature` models the function and refuses what cannot be remote (with `owned`, type by type), `expand` writes the
//! static, `describe` what others read of it without running it. `entry` is `#[main]`. Refusals are collected, so that
//! all of them are shown at once.

mod arguments;
mod describe;
mod entry;
mod expand;
mod owned;
mod refusals;
mod signature;
#[cfg(test)]
mod snapshots;
mod spaced;

use proc_macro::TokenStream;

/// Makes a function remote; the documentation is at `cloudknot::remote`.
#[proc_macro_attribute]
pub fn remote(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::remote(arguments.into(), &item.into()).into()
}

/// Makes a program's `main` able to be its own worker; the documentation is at `cloudknot::main`.
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entry::main(arguments.into(), &item.into()).into()
}
