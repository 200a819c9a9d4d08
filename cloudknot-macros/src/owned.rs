//! The owned forms of types: the type that an input holds for an argument, and a check that the type may be sent, as far
//! as its spelling shows. The compiler checks that a type can be serialized, in the code that `expand` generates.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{GenericArgument, Ident, Lifetime, PathArguments, PathSegment, Type, TypePath, TypeReference, parse_quote};

use crate::refusals::Refusals;
use crate::spaced::spaced;

/// Returns the type that an input holds for an argument of this type, and whether the function borrows from it.
pub(crate) fn of_argument(name: &Ident, written: &Type, refusals: &mut Refusals) -> (Type, bool) {
    let Type::Reference(reference) = peel(written) else {
        check(written, Place::Argument { name, sigil: "" }, refusals);
        return (written.clone(), false);
    };
    let owned = owned_form(&reference.elem, Spelling::Code);
    if reference.mutability.is_some() {
        let form = spaced(readable(written.clone()));
        refusals.at(
            reference,
            format_args!(
                "an input is a copy, so changes to it would be lost; write `mut {name}: {form}` and return the changed value"
            ),
        );
    } else if is_static(reference) {
        let elem = &reference.elem;
        refusals
            .at(written, format_args!("an input lives only as long as its item; write `{name}: &{}`", spaced(elem)));
    } else {
        check(&reference.elem, Place::Argument { name, sigil: "&" }, refusals);
    }
    (owned, true)
}

/// Checks a type whose values are returned.
pub(crate) fn check_value(written: &Type, refusals: &mut Refusals) {
    check(written, Place::Value, refusals);
}

/// Checks a type whose errors are returned. It need not be serializable, since only its messages are sent.
pub(crate) fn check_error(written: &Type, refusals: &mut Refusals) {
    check(written, Place::Error, refusals);
}

/// Returns the type without the invisible groups of `macro_rules!` and without parentheses.
pub(crate) fn peel(written: &Type) -> &Type {
    match written {
        Type::Group(group) => peel(&group.elem),
        Type::Paren(paren) => peel(&paren.elem),
        other => other,
    }
}

fn is_static(reference: &TypeReference) -> bool {
    reference.lifetime.as_ref().is_some_and(|lifetime| lifetime.ident == "static")
}

#[derive(Clone, Copy)]
enum Place<'a> {
    /// An argument with this name; the inspected type follows `sigil`.
    Argument {
        name: &'a Ident,
        sigil: &'static str,
    },
    Value,
    Error,
}

fn check(written: &Type, place: Place<'_>, refusals: &mut Refusals) {
    let mut owned = written.clone();
    let mut rewriter = OwnedRewriter { place, found: Vec::new() };
    rewriter.visit_type_mut(&mut owned);
    let suggestion = match place {
        Place::Argument { name, sigil } => format!("write `{name}: {sigil}{}`", spaced(&owned)),
        Place::Value | Place::Error => format!("write `{}`", spaced(&owned)),
    };
    // One message for all borrows is enough: the suggestion has none.
    let mut reported_borrow = false;
    for (tokens, found) in rewriter.found {
        if found == Unsupported::Borrow && std::mem::replace(&mut reported_borrow, true) {
            continue;
        }
        refusals.at(tokens, found.message(place, &suggestion));
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Unsupported {
    Borrow,
    TraitObject,
    ImplTrait,
    SelfType,
    Never,
}

impl Unsupported {
    fn message(self, place: Place<'_>, suggestion: &str) -> String {
        match (self, place) {
            (Self::Borrow, Place::Argument { .. }) => {
                format!("an argument may be a reference, but must not contain one; {suggestion}")
            }
            (Self::Borrow, _) => format!("a result comes from another machine, so it must be owned; {suggestion}"),
            (Self::TraitObject, _) => {
                "a trait object cannot be sent to another machine; name the type, or write an enum of the possible types"
                    .to_owned()
            }
            (Self::ImplTrait, _) => {
                "a remote function has one type for each argument and result; name it, as in `Vec<f64>` for \
                 `impl Iterator<Item = f64>`"
                    .to_owned()
            }
            (Self::SelfType, _) => {
                "a remote function cannot be in an `impl` block; move it out and name the type".to_owned()
            }
            (Self::Never, _) => {
                "a remote function must return; leave the return type out".to_owned()
            }
        }
    }
}

fn readable(mut ty: Type) -> Type {
    OwnedRewriter { place: Place::Value, found: Vec::new() }.visit_type_mut(&mut ty);
    ty
}

/// Rewrites a type, for a message, to one that owns everything it holds, and records the parts that are refused.
struct OwnedRewriter<'a> {
    place: Place<'a>,
    found: Vec<(TokenStream, Unsupported)>,
}

impl OwnedRewriter<'_> {
    fn note(&mut self, tokens: impl ToTokens, found: Unsupported) {
        self.found.push((tokens.into_token_stream(), found));
    }

    fn may_be_anything(&self) -> bool {
        matches!(self.place, Place::Error)
    }
}

impl VisitMut for OwnedRewriter<'_> {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        match peel(ty) {
            Type::Reference(reference) if !(is_static(reference) && self.may_be_anything()) => {
                self.note(reference, Unsupported::Borrow);
                *ty = owned_form(&reference.elem, Spelling::Message);
            }
            Type::TraitObject(object) if !self.may_be_anything() => self.note(object, Unsupported::TraitObject),
            Type::ImplTrait(impl_trait) => return self.note(impl_trait, Unsupported::ImplTrait),
            Type::Never(never) => self.note(never, Unsupported::Never),
            // The types inside these are not sent: the compiler refuses these types as a whole.
            Type::FnPtr(_) | Type::Ptr(_) | Type::Macro(_) => return,
            _ => {}
        }
        visit_mut::visit_type_mut(self, ty);
    }

    fn visit_type_path_mut(&mut self, path: &mut TypePath) {
        if let Some(first) = path.path.segments.first().filter(|first| path.qself.is_none() && first.ident == "Self") {
            self.note(&first.ident, Unsupported::SelfType);
        }
        visit_mut::visit_type_path_mut(self, path);
    }

    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if lifetime.ident != "static" {
            self.note(&*lifetime, Unsupported::Borrow);
            lifetime.ident = Ident::new("static", lifetime.ident.span());
        }
    }
}

/// Target of the rewrite: generated code needs unshadowable names, messages do not.
#[derive(Clone, Copy)]
enum Spelling {
    Code,
    Message,
}

/// Returns the type that owns a value of this type: the type itself, unless it only ever occurs behind a reference.
fn owned_form(borrowed: &Type, spelling: Spelling) -> Type {
    let at = borrowed.span().resolved_at(Span::call_site());
    let elem = match peel(borrowed) {
        Type::Slice(slice) => {
            let elem = &slice.elem;
            return match spelling {
                Spelling::Code => parse(quote_spanned!(at=> ::std::vec::Vec<#elem>)),
                Spelling::Message => parse(quote!(Vec<#elem>)),
            };
        }
        Type::Path(path) if path.qself.is_none() => path,
        _ => return borrowed.clone(),
    };
    let Some(PathSegment { ident, arguments: PathArguments::None }) = elem.path.segments.last() else {
        return borrowed.clone();
    };
    match (ident.to_string().as_str(), spelling) {
        ("str", Spelling::Code) => parse(quote_spanned!(at=> ::std::string::String)),
        // A type of the user may have one of these names too: `ToOwned` then gives that type itself.
        ("Path" | "OsStr" | "CStr", Spelling::Code) => {
            parse(quote_spanned!(at=> <#elem as ::std::borrow::ToOwned>::Owned))
        }
        ("str", Spelling::Message) => parse(quote!(String)),
        ("Path", Spelling::Message) => parse(quote!(PathBuf)),
        ("OsStr", Spelling::Message) => parse(quote!(OsString)),
        ("CStr", Spelling::Message) => parse(quote!(CString)),
        _ => borrowed.clone(),
    }
}

fn parse(tokens: TokenStream) -> Type {
    syn::parse2(tokens).expect("the tokens are a type")
}

/// Returns the value and error types in a path that ends in `Result`; `None` if it ends in something else.
pub(crate) fn result_arguments(written: &Type) -> Option<Vec<Type>> {
    let Type::Path(path) = peel(written) else { return None };
    let last = path.path.segments.last().filter(|last| last.ident == "Result")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return Some(Vec::new()) };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty.clone()),
        _ => None,
    });
    Some(types.collect())
}

/// Returns the unit type, for a function that returns nothing.
pub(crate) fn unit() -> Type {
    parse_quote!(())
}
