//! The model of an annotated function, and the errors of a function that cannot be remote. Types are inspected only by
//! spelling.

use proc_macro2::{Group, TokenStream};
use quote::{ToTokens, quote};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{
    Attribute, FnArg, GenericParam, Generics, Ident, Item, Pat, PatType, ReturnType, Safety, Signature, Type,
    Visibility, WherePredicate,
};

use crate::owned;
use crate::refusals::Refusals;

/// An annotated function. Its body is not parsed: the compiler reports errors in the body.
pub(crate) struct AnnotatedFn {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) signature: Signature,
    pub(crate) body: Group,
}

/// A function that can be remote.
pub(crate) struct RemoteFunction {
    pub(crate) name: Ident,
    pub(crate) asyncness: bool,
    /// Lifetimes only.
    pub(crate) generics: Generics,
    /// `true` if a lifetime has bounds: the function then does not coerce to a pointer for all lifetimes.
    pub(crate) bounded: bool,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) output: Output,
}

pub(crate) struct Argument {
    pub(crate) name: Ident,
    /// Type in the function's signature, such as `&str`.
    pub(crate) written: Type,
    /// Type in the input, such as `String`.
    pub(crate) owned: Type,
    /// `true` if the function gets a reference to the value in the input.
    pub(crate) borrowed: bool,
}

/// Return type of a function.
pub(crate) struct Output {
    /// `true` if the signature states the return type.
    pub(crate) explicit: bool,
    pub(crate) written: Type,
    /// If the return type is a `Result`: the types in its angle brackets, as far as they are written.
    pub(crate) result: Option<Vec<Type>>,
}

impl RemoteFunction {
    /// Returns the types of the values that are sent, as they are written: those of the arguments and of the result.
    pub(crate) fn sent_types(&self) -> impl Iterator<Item = &Type> {
        self.arguments.iter().map(|argument| &argument.written).chain(self.output.value())
    }
}

impl Parse for AnnotatedFn {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        Ok(Self {
            attributes: input.call(Attribute::parse_outer)?,
            visibility: input.parse()?,
            signature: input.parse()?,
            body: input.parse()?,
        })
    }
}

impl ToTokens for AnnotatedFn {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let Self { attributes, visibility, signature, body } = self;
        quote!(#(#attributes)* #visibility #signature #body).to_tokens(tokens);
    }
}

/// Parses the item as a function with a body. Any other item is an error.
pub(crate) fn read(item: &TokenStream) -> syn::Result<AnnotatedFn> {
    syn::parse2(item.clone()).map_err(|error| match syn::parse2::<Item>(item.clone()) {
        Ok(Item::Verbatim(_)) => syn::Error::new_spanned(item, "a remote function needs a body"),
        Ok(Item::Fn(_)) | Err(_) => error,
        Ok(other) => syn::Error::new(
            keyword(&other),
            "only a function can be remote; write `#[cloudknot::remote]` above a free `fn`",
        ),
    })
}

// Returns the first token after the attributes and the visibility, which shows the kind of the item.
fn keyword(item: &Item) -> proc_macro2::Span {
    match item {
        Item::Const(item) => item.const_token.span(),
        Item::Enum(item) => item.enum_token.span(),
        Item::Impl(item) => item.impl_token.span(),
        Item::Mod(item) => item.mod_token.span(),
        Item::Static(item) => item.static_token.span(),
        Item::Struct(item) => item.struct_token.span(),
        Item::Trait(item) => item.trait_token.span(),
        other => other.span(),
    }
}

/// Returns the model of the function, and refuses everything that cannot be remote.
pub(crate) fn model(annotated: &AnnotatedFn, refusals: &mut Refusals) -> RemoteFunction {
    let signature = &annotated.signature;
    refuse_qualifiers(signature, refusals);
    let bounded = refuse_generics(&signature.generics, refusals);
    let arguments = signature.inputs.iter().filter_map(|input| argument(input, refusals)).collect();
    RemoteFunction {
        name: signature.ident.clone(),
        asyncness: signature.asyncness.is_some(),
        generics: signature.generics.clone(),
        bounded,
        arguments,
        output: checked_output(&signature.output, refusals),
    }
}

fn refuse_qualifiers(signature: &Signature, refusals: &mut Refusals) {
    if let Some(constness) = &signature.constness {
        refusals.at(constness, "a remote function cannot be `const`; leave `const` out");
    }
    if let Safety::Unsafe(safety) = &signature.safety {
        refusals.at(
            safety,
            "an unsafe function cannot be remote, because no caller on the worker upholds its safety conditions; annotate a \
             safe function that wraps it",
        );
    }
    if let Some(abi) = &signature.abi {
        refusals.at(abi, "a remote function is an ordinary Rust function; leave `extern` out");
    }
    if let Some(variadic) = &signature.variadic {
        refusals.at(variadic, "a remote function has a fixed number of arguments; write one of type `Vec<T>`");
    }
}

// Returns whether the lifetimes have bounds.
fn refuse_generics(generics: &Generics, refusals: &mut Refusals) -> bool {
    let mut bounded = false;
    for parameter in &generics.params {
        match parameter {
            GenericParam::Lifetime(lifetime) => bounded |= !lifetime.bounds.is_empty(),
            GenericParam::Type(ty) => refusals.at(
                &ty.ident,
                format_args!(
                    "a worker cannot choose `{}`; name the type, or write one remote function for each type \
                     around a generic one",
                    ty.ident
                ),
            ),
            GenericParam::Const(constant) => refusals.at(
                &constant.ident,
                format_args!("a worker cannot choose `{0}`; make `{0}` an argument, or name its value", constant.ident),
            ),
        }
    }
    for predicate in generics.where_clause.iter().flat_map(|bounds| &bounds.predicates) {
        match predicate {
            WherePredicate::Lifetime(_) => bounded = true,
            // If there is a type parameter, it has already been refused.
            _ if generics.type_params().next().is_some() => {}
            other => refusals.at(other, "a remote function has no type parameters to bound; leave this out"),
        }
    }
    bounded
}

fn argument(input: &FnArg, refusals: &mut Refusals) -> Option<Argument> {
    let typed = match input {
        FnArg::Typed(typed) => typed,
        FnArg::Receiver(receiver) => {
            refusals.at(
                receiver.self_token,
                "a remote function has no `self`; write a free function that takes the value: `this: &TheType`",
            );
            return None;
        }
    };
    if let Some(cfg) = typed.attrs.iter().find(|a| a.path().is_ident("cfg") || a.path().is_ident("cfg_attr")) {
        refusals.at(cfg, "an argument cannot depend on a cfg; write two functions, each with its own");
    }
    let name = name(typed, refusals)?;
    let (owned, borrowed) = owned::of_argument(&name, &typed.ty, refusals);
    Some(Argument { name, written: (*typed.ty).clone(), owned, borrowed })
}

fn name(typed: &PatType, refusals: &mut Refusals) -> Option<Ident> {
    if let Pat::Ident(pattern) = &*typed.pat
        && pattern.by_ref.is_none()
        && pattern.subpat.is_none()
    {
        return Some(pattern.ident.clone());
    }
    let message = match &*typed.pat {
        Pat::Wild(_) => "an argument of a remote function needs a name; write `_unused` if it is not used",
        Pat::Ident(_) => "an argument of a remote function must be a plain identifier; destructure it in the body",
        _ => "an argument of a remote function needs a name; write `pair: (f64, f64)` and destructure it in the body",
    };
    refusals.at(&typed.pat, message);
    None
}

/// Returns the model of a return type.
pub(crate) fn output(output: &ReturnType) -> Output {
    match output {
        ReturnType::Default => Output { explicit: false, written: owned::unit(), result: None },
        ReturnType::Type(_, written) => {
            Output { explicit: true, written: (**written).clone(), result: owned::result_arguments(written) }
        }
    }
}

fn checked_output(written: &ReturnType, refusals: &mut Refusals) -> Output {
    let output = output(written);
    match output.result.as_deref() {
        None => owned::check_value(&output.written, refusals),
        Some(arguments) => {
            arguments.iter().take(1).for_each(|value| owned::check_value(value, refusals));
            output.check_error(refusals);
        }
    }
    output
}

impl Output {
    /// Returns the type of the value, as far as it is written.
    pub(crate) fn value(&self) -> Option<&Type> {
        match &self.result {
            Some(arguments) => arguments.first(),
            None => Some(&self.written),
        }
    }

    /// Refuses an error type that cannot be named.
    pub(crate) fn check_error(&self, refusals: &mut Refusals) {
        self.result.iter().flatten().skip(1).for_each(|error| owned::check_error(error, refusals));
    }
}
