//! Generates the static that a remote function becomes. The input has been checked before.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, Ident, Type};

use crate::arguments::{self, Arguments, Codec};
use crate::arrays;
use crate::carried;
use crate::describe;
use crate::library::Library;
use crate::owned::peel;
use crate::refusals::Refusals;
use crate::signature::{self, AnnotatedFn, Argument, Output, RemoteFunction};

/// Expands `#[remote(arguments)] item`.
pub(crate) fn remote(library: Library, arguments: TokenStream, item: &TokenStream) -> TokenStream {
    let mut refusals = Refusals::default();
    let arguments = arguments::parse(library, arguments, &mut refusals);
    let annotated = match signature::read(item) {
        Ok(annotated) => annotated,
        Err(error) => {
            refusals.add(error);
            let refused = refusals.into_tokens();
            return quote!(#refused #item);
        }
    };
    let mut signature_refusals = Refusals::default();
    let function = signature::model(&annotated, &mut signature_refusals);
    carried::check(arguments.codec, &function, &mut signature_refusals);
    arrays::check(&function, &mut signature_refusals);
    // A function that was refused can still be called, so that one mistake gives one message.
    let expanded =
        if signature_refusals.is_empty() { expand(&arguments, &annotated, &function) } else { quote!(#annotated) };
    let refused = [refusals, signature_refusals].into_iter().map(Refusals::into_tokens);
    quote!(#(#refused)* #expanded)
}

fn expand(arguments: &Arguments, annotated: &AnnotatedFn, function: &RemoteFunction) -> TokenStream {
    let (outer, inner): (Vec<_>, Vec<_>) = annotated.attributes.iter().partition(|attribute| is_outer(attribute));
    let AnnotatedFn { visibility, signature, body, .. } = annotated;
    let (name, library) = (&function.name, &arguments.library);
    let ty = static_type(library, function);
    let items = glue(arguments, function);
    let record = record(arguments, function);
    let (pointer, wrapper) = pointer(library, function);
    quote! {
        #(#outer)*
        #[allow(non_upper_case_globals)]
        #visibility static #name: #ty = {
            #(#inner)* #signature #body
            #items
            #record
            #wrapper
            #library::RemoteFn::new(
                #pointer,
                &__FUNCTION,
                #library::__private::encode::<__Remote>,
                #library::__private::decode::<__Remote>,
            )
        };
    }
}

/// Returns whether an attribute stays on the generated item that other code sees. Lint levels on it also apply to the code
/// inside.
pub(crate) fn is_outer(attribute: &Attribute) -> bool {
    const OUTER: [&str; 8] = ["doc", "cfg", "deprecated", "allow", "warn", "deny", "forbid", "expect"];
    OUTER.iter().any(|name| attribute.path().is_ident(name))
}

fn static_type(library: &Library, function: &RemoteFunction) -> TokenStream {
    let args = args(function);
    let output = value_type(library, function);
    let parameters = pointer_parameters(function);
    let returned = pointer_output(library, function);
    let lifetimes = (function.asyncness && borrows(function)).then(|| quote!(for<'f>));
    quote!(#library::RemoteFn<#args, #output, #lifetimes fn(#(#parameters),*) #returned>)
}

/// Generates the companion items of the function: its types by name, the type of its input, and its call.
fn glue(Arguments { library, codec, .. }: &Arguments, function: &RemoteFunction) -> TokenStream {
    let codec = codec_name(*codec);
    let names = function.arguments.iter().map(|argument| at_call_site(&argument.name));
    let names: Vec<_> = names.collect();
    let numbers: Vec<_> = (0..names.len()).collect();
    let owned = function.arguments.iter().map(|argument| &argument.owned);
    let args = args(function);
    let output = value_type(library, function);
    let (input_type, input_item, input) = if names.is_empty() {
        (quote!(()), None, quote!(args))
    } else {
        (quote!(__Input<Self>), Some(input_item(library, &names, &numbers)), input_value(library, &names))
    };
    let run = run(library, function, &names);
    let failing = failing(library, &quote!(__Remote), &function.output);
    let infallible = infallible(library, function);
    quote! {
        enum __Remote {}
        #(
            impl #library::__private::Argument<#numbers> for __Remote {
                type Owned = #owned;
            }
        )*
        #failing
        #infallible
        #input_item
        impl #library::__private::Remote for __Remote {
            type Encoding = #library::__private::#codec;
            type Args = #args;
            type Input = #input_type;
            type Output = #output;
            fn function() -> &'static #library::__private::Function {
                &__FUNCTION
            }
            fn input(args: Self::Args) -> Self::Input {
                #input
            }
            #run
        }
    }
}

// Generic, so that its derives hold for any types: a type that cannot be sent is then refused once, at the argument.
fn input_item(library: &Library, names: &[Ident], numbers: &[usize]) -> TokenStream {
    let serde = library.path_of("__private::serde");
    quote! {
        #[derive(#library::__private::serde::Serialize, #library::__private::serde::Deserialize)]
        #[serde(crate = #serde, bound = "", rename = "Input")]
        struct __Input<T: #(#library::__private::Argument<#numbers>)+*> {
            #(#names: #library::__private::SerdeAdapter<<T as #library::__private::Argument<#numbers>>::Owned>,)*
        }
    }
}

fn input_value(library: &Library, names: &[Ident]) -> TokenStream {
    if let [only] = names {
        return quote!(__Input { #only: #library::__private::SerdeAdapter(args) });
    }
    let positions = (0..names.len()).map(syn::Index::from);
    quote!(__Input { #(#names: #library::__private::SerdeAdapter(args.#positions),)* })
}

fn run(library: &Library, function: &RemoteFunction, names: &[Ident]) -> TokenStream {
    let name = &function.name;
    let values = function.arguments.iter().zip(names).map(|(argument, name)| {
        let reference = argument.borrowed.then(|| quote!(&));
        quote!(#reference input.#name.0)
    });
    let mut outcome = quote!(#name(#(#values),*));
    if function.asyncness {
        outcome = quote!(#library::__private::block_on(#outcome));
    }
    outcome = if function.output.result.is_some() {
        quote!(#library::__outcome!(#outcome))
    } else {
        quote!(::core::result::Result::Ok(#outcome))
    };
    let input = if names.is_empty() { quote!((): Self::Input) } else { quote!(input: Self::Input) };
    quote! {
        fn run(
            #input,
        ) -> ::core::result::Result<Self::Output, #library::__private::Failure> {
            #outcome
        }
    }
}

/// Names the error type in an item of the type `this`, so that a type without a message is refused where it is written.
pub(crate) fn failing(library: &Library, this: &TokenStream, output: &Output) -> Option<TokenStream> {
    let arguments = output.result.as_ref()?;
    let returned = &output.written;
    let at = arguments.get(1).unwrap_or(returned).span().resolved_at(Span::call_site());
    let located = library.at(at);
    let error = quote_spanned!(at=> <#returned as #located::__private::Fallible>::Error);
    Some(quote! {
        impl #library::__private::Failing for #this {
            type Error = #error;
        }
    })
}

// A return type that is not spelled `Result` may be one under another name, whose errors would count as values.
fn infallible(library: &Library, function: &RemoteFunction) -> Option<TokenStream> {
    let output = &function.output;
    if output.result.is_some() || !output.explicit {
        return None;
    }
    let returned = &output.written;
    let at = returned.span().resolved_at(Span::call_site());
    let library = library.at(at);
    Some(quote_spanned! {at=>
        const _: () = #library::__private::returns_a_value::<
            #library::__private::IsResult<{
                use #library::__private::NotAResult as _;
                #library::__private::Returned::<#returned>::IS_RESULT
            }>,
        >();
    })
}

/// Generates the static that the registry holds, and its entry in the registry.
fn record(arguments: &Arguments, function: &RemoteFunction) -> TokenStream {
    let name = arguments.name.clone().unwrap_or_else(|| function.name.unraw().to_string());
    let signature = describe::signature(function);
    let description = describe::description(&name, &signature, arguments);
    let codec = codec_name(arguments.codec);
    let library = &arguments.library;
    let resources = resources(arguments);
    let names = function.arguments.iter().map(|argument| argument.name.unraw().to_string());
    quote! {
        static __FUNCTION: #library::__private::Function = #library::__private::Function::new(
            #library::__private::FunctionId {
                package: ::core::env!("CARGO_PKG_NAME"),
                module: ::core::module_path!(),
                name: #name,
            },
            #signature,
            #library::__private::Codec::#codec,
            #resources,
            #library::__private::json::<__Remote>(&[#(#names),*]),
            #library::__private::call::<__Remote>,
            #library::__private::trace::<__Remote>,
        );
        #library::__register!(__FUNCTION, #description);
    }
}

/// Returns the name of a codec, which a type and a value have.
fn codec_name(codec: Codec) -> TokenStream {
    match codec {
        Codec::Bincode => quote!(Bincode),
        Codec::Messagepack => quote!(Messagepack),
    }
}

fn resources(arguments: &Arguments) -> TokenStream {
    let Arguments { library, gpus, retries, .. } = arguments;
    let vcpus = option(arguments.vcpus.map(|vcpus| quote!(#vcpus)));
    let memory_mib = option(arguments.memory_mib.map(|mib| quote!(#mib)));
    let timeout = arguments.timeout_seconds.map(|seconds| quote!(::core::time::Duration::from_secs(#seconds)));
    let timeout = option(timeout);
    let recycle = option(arguments.recycle.map(|items| quote!(#items)));
    quote! {
        #library::__private::Resources {
            vcpus: #vcpus,
            memory_mib: #memory_mib,
            gpus: #gpus,
            retries: #retries,
            timeout: #timeout,
            recycle: #recycle,
        }
    }
}

fn option(value: Option<TokenStream>) -> TokenStream {
    value.map_or_else(|| quote!(::core::option::Option::None), |value| quote!(::core::option::Option::Some(#value)))
}

/// Returns the target of the static's deref: the function itself, or a wrapper if the function's type does not fit.
fn pointer(library: &Library, function: &RemoteFunction) -> (TokenStream, Option<TokenStream>) {
    let name = &function.name;
    if !function.asyncness && !function.bounded {
        return (quote!(#name), None);
    }
    let parameters = pointer_parameters(function);
    let returned = pointer_output(library, function);
    let names: Vec<_> = (0..parameters.len()).map(|at| format_ident!("__{at}")).collect();
    let lifetimes = (function.asyncness && borrows(function)).then(|| quote!(<'f>));
    let call = quote!(#name(#(#names),*));
    let body = if function.asyncness {
        // The span makes the compiler report a future that is not `Send` at the function's name.
        let at = name.span().resolved_at(Span::call_site());
        quote_spanned!(at=> ::std::boxed::Box::pin(#call))
    } else {
        call
    };
    let wrapper = quote! {
        fn __pointer #lifetimes(#(#names: #parameters),*) #returned {
            #body
        }
    };
    (quote!(__pointer), Some(wrapper))
}

// Every reference gets a separate lifetime or, in an async function, the lifetime of the future.
fn pointer_parameters(function: &RemoteFunction) -> Vec<TokenStream> {
    let lifetime = function.asyncness.then(|| quote!('f));
    let parameter = |Argument { written, .. }: &Argument| {
        let Type::Reference(reference) = peel(written) else { return quote!(#written) };
        let (and, elem) = (&reference.and_token, &reference.elem);
        quote!(#and #lifetime #elem)
    };
    function.arguments.iter().map(parameter).collect()
}

fn pointer_output(library: &Library, function: &RemoteFunction) -> Option<TokenStream> {
    let returned = &function.output.written;
    if !function.asyncness {
        return function.output.explicit.then(|| quote!(-> #returned));
    }
    let lifetime = if borrows(function) { quote!('f) } else { quote!('static) };
    Some(quote!(-> #library::__private::BoxFuture<#lifetime, #returned>))
}

fn borrows(function: &RemoteFunction) -> bool {
    function.arguments.iter().any(|argument| argument.borrowed)
}

/// Returns the type of one item of a map: the type of the only argument, or a tuple of all.
fn args(function: &RemoteFunction) -> TokenStream {
    let owned: Vec<_> = function.arguments.iter().map(|argument| &argument.owned).collect();
    if let [only] = owned[..] { quote!(#only) } else { quote!((#(#owned),*)) }
}

/// Returns the type of the value that a map returns for one item.
fn value_type(library: &Library, function: &RemoteFunction) -> TokenStream {
    let returned = &function.output.written;
    let Some(arguments) = &function.output.result else { return quote!(#returned) };
    let at = arguments.first().unwrap_or(returned).span().resolved_at(Span::call_site());
    let library = library.at(at);
    quote_spanned!(at=> <#returned as #library::__private::Fallible>::Value)
}

// Keeps the user's location but marks the name as generated, so that the compiler lints only the user's code, once.
fn at_call_site(name: &Ident) -> Ident {
    let mut name = name.clone();
    name.set_span(name.span().resolved_at(Span::call_site()));
    name
}
