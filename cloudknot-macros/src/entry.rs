//! `#[cloudknot::main]`: a `main` that first checks whether the program was started as a worker.

use proc_macro2::TokenStream;
use quote::quote;
use syn::Attribute;

use crate::arguments;
use crate::expand::is_outer;
use crate::features;
use crate::library::Library;
use crate::refusals::Refusals;
use crate::signature::AnnotatedFn;

/// Expands `#[main] item`: nests the user's `main` in one that starts the worker first.
pub(crate) fn main(library: Library, arguments: TokenStream, item: &TokenStream) -> TokenStream {
    let mut refusals = Refusals::default();
    let library = arguments::parse_library(library, arguments, &mut refusals);
    let Ok(annotated) = syn::parse2::<AnnotatedFn>(item.clone()) else {
        refusals.at(item, "`#[cloudknot::main]` belongs on the program's `fn main()`");
        let refused = refusals.into_tokens();
        return quote!(#refused #item);
    };
    refuse(&annotated, &mut refusals);
    if refusals.is_empty() {
        return expand(&library, &annotated);
    }
    let refused = refusals.into_tokens();
    if annotated.signature.ident != "main" {
        return quote!(#refused #annotated);
    }
    // A `main` that the compiler accepts, so that the mistake is reported only once.
    let AnnotatedFn { signature, body, .. } = &annotated;
    quote! {
        #refused
        fn main() {
            #[allow(dead_code)]
            #signature #body
        }
    }
}

fn refuse(annotated: &AnnotatedFn, refusals: &mut Refusals) {
    let signature = &annotated.signature;
    if signature.ident != "main" {
        refusals.at(
            &signature.ident,
            format_args!("`#[cloudknot::main]` belongs on the program's `main`, not on `{}`", signature.ident),
        );
    }
    if let Some(first) = signature.inputs.first() {
        refusals.at(first, "`main` cannot have arguments; read the command line in the body: `std::env::args()`");
    }
    if let Some(first) = signature.generics.params.first() {
        refusals.at(first, "`main` cannot be generic; leave this out");
    }
    if let Some(constness) = &signature.constness {
        refusals.at(constness, "`main` cannot be `const`; leave `const` out");
    }
    if let syn::Safety::Unsafe(safety) = &signature.safety {
        refusals.at(safety, "`main` cannot be `unsafe`; leave `unsafe` out");
    }
    if let Some(abi) = &signature.abi {
        refusals.at(abi, "`main` cannot be `extern`; leave `extern` out");
    }
}

fn expand(library: &Library, annotated: &AnnotatedFn) -> TokenStream {
    let AnnotatedFn { attributes, visibility, signature, body } = annotated;
    let (outer, inner): (Vec<_>, Vec<_>) = attributes.iter().partition(|attribute| is_outer(attribute));
    let output = &signature.output;
    let features = features::of_package();
    let has_runtime = inner.iter().any(|attribute| is_runtime(attribute));
    let call = if signature.asyncness.is_some() && !has_runtime {
        quote!(#library::__private::block_on_main(main()))
    } else {
        quote!(main())
    };
    quote! {
        #(#outer)*
        #visibility fn main() #output {
            #(#inner)*
            #signature #body
            #library::__start!(#features);
            #call
        }
    }
}

// `#[tokio::main]`, `#[async_std::main]`, `#[actix_web::main]`, under any path: all of them end in `main`.
fn is_runtime(attribute: &Attribute) -> bool {
    attribute.path().segments.last().is_some_and(|last| last.ident == "main")
}
