//! The attributes of cloudknot. The generated code contains only paths into `cloudknot`, mostly into
//! `cloudknot::__private`, and none into the other crates of the project.
//!
//! The files form a pipeline: `library` finds the path of cloudknot, `arguments` parses the attribute's arguments (amounts
//! with `cloudknot-quantity`), `signature` models the function and refuses what cannot be remote (with `owned`, type by type;
//! `carried` and `arrays` know what serde and the codec refuse), `expand` generates the static, and `describe` the strings that
//! can be read without running it. `entry` is `#[main]`, with the package's `features`, and `init` is `#[init]`. Refusals are collected, so that all of them
//! are shown at once.

mod arguments;
mod arrays;
mod carried;
mod describe;
mod entry;
mod expand;
mod features;
mod init;
mod library;
mod owned;
mod refusals;
mod signature;
#[cfg(test)]
mod snapshots;
mod spaced;

use proc_macro::TokenStream;

use crate::library::Library;

/// Makes a function remote; the documentation is at `cloudknot::remote`.
#[proc_macro_attribute]
pub fn remote(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::remote(Library::of_package(), arguments.into(), &item.into()).into()
}

/// Lets a program run as its own worker; the documentation is at `cloudknot::main`.
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entry::main(Library::of_package(), arguments.into(), &item.into()).into()
}

/// Lets a function prepare each item process; the documentation is at `cloudknot::init`.
#[proc_macro_attribute]
pub fn init(arguments: TokenStream, item: TokenStream) -> TokenStream {
    init::init(Library::of_package(), arguments.into(), &item.into()).into()
}
