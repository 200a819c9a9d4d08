//! `#[cloudknot::init]`: a function that runs in each item process before its first item.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{Attribute, Signature, Type};

use crate::arguments;
use crate::expand::failing;
use crate::library::Library;
use crate::owned::peel;
use crate::refusals::Refusals;
use crate::signature::{self, AnnotatedFn, Output};

/// Expands `#[init] item`: keeps the function, and registers it.
pub(crate) fn init(library: Library, arguments: TokenStream, item: &TokenStream) -> TokenStream {
    let mut refusals = Refusals::default();
    let library = arguments::parse_library(library, arguments, &mut refusals);
    let Ok(annotated) = syn::parse2::<AnnotatedFn>(item.clone()) else {
        refusals.at(item, "`#[cloudknot::init]` belongs on a free `fn` without arguments");
        let refused = refusals.into_tokens();
        return quote!(#refused #item);
    };
    let output = signature::output(&annotated.signature.output);
    refuse(&annotated.signature, &output, &mut refusals);
    let registered = refusals.is_empty().then(|| register(&library, &annotated, &output));
    let refused = refusals.into_tokens();
    quote!(#refused #annotated #registered)
}

fn refuse(signature: &Signature, output: &Output, refusals: &mut Refusals) {
    if let Some(asyncness) = &signature.asyncness {
        refusals
            .at(asyncness, "an init function cannot be `async`; leave `async` out, and block on futures in the body");
    }
    if let syn::Safety::Unsafe(safety) = &signature.safety {
        refusals.at(safety, "an init function cannot be `unsafe`; write `unsafe` blocks in the body");
    }
    if let Some(first) = signature.inputs.first() {
        refusals.at(first, "an init function cannot have arguments; read settings in the body: `std::env::var(..)`");
    }
    if let Some(first) = signature.generics.params.first() {
        refusals.at(first, "an init function cannot be generic; leave this out");
    }
    output.check_error(refusals);
    if let Some(value) = output.value().filter(|value| !is_unit(value)) {
        refusals.at(
            value,
            "the result of an init function is not kept; return nothing or `Result<(), E>`, and set a static",
        );
    }
}

fn is_unit(ty: &Type) -> bool {
    matches!(peel(ty), Type::Tuple(tuple) if tuple.elems.is_empty())
}

fn register(library: &Library, annotated: &AnnotatedFn, output: &Output) -> TokenStream {
    let cfgs = annotated.attributes.iter().filter(|attribute| is_cfg(attribute));
    let ident = &annotated.signature.ident;
    let name = ident.unraw().to_string();
    let this = quote!(__Init);
    let failing = failing(library, &this, output).map(|failing| quote!(enum #this {} #failing));
    let ran = if output.result.is_some() {
        quote!(#library::__outcome!(#ident()))
    } else {
        quote!(::core::result::Result::Ok(#ident()))
    };
    quote! {
        #(#cfgs)*
        const _: () = {
            #failing
            fn __run() -> ::core::result::Result<(), #library::__private::Failure> {
                #ran
            }
            #library::__private::inventory::submit! {
                #library::__private::Init { module: ::core::module_path!(), name: #name, run: __run }
            }
        };
    }
}

fn is_cfg(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
}
