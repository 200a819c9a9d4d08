//! The attributes of cloudknot. They only write paths into `cloudknot::__private`.
use proc_macro::TokenStream;

/// (to come)
#[proc_macro_attribute]
pub fn remote(_: TokenStream, item: TokenStream) -> TokenStream {
    item
}

/// (to come)
#[proc_macro_attribute]
pub fn main(_: TokenStream, item: TokenStream) -> TokenStream {
    item
}
