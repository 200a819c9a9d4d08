//! Arrays with more elements than serde supports, as far as the spelling of their lengths shows. The compiler refuses the
//! others, with a note.

use syn::{Expr, GenericArgument, Lit, PathArguments, Type, TypeArray, TypePath};

use crate::owned::peel;
use crate::refusals::Refusals;
use crate::signature::RemoteFunction;
use crate::spaced::spaced;

/// Refuses arrays of more than 32 elements in arguments and results.
pub(crate) fn check(function: &RemoteFunction, refusals: &mut Refusals) {
    let mut found = Vec::new();
    function.sent_types().for_each(|ty| search(ty, &mut found));
    for array in found {
        let elem = spaced(&array.elem);
        refusals.at(
            array,
            format_args!(
                "serde implements its traits only for arrays of up to 32 elements; use `Vec<{elem}>`, or a struct whose \
                 field has #[serde(with = \"serde_arrays\")], from the crate `serde_arrays`"
            ),
        );
    }
}

fn search<'t>(ty: &'t Type, found: &mut Vec<&'t TypeArray>) {
    match peel(ty) {
        Type::Array(array) if is_long(&array.len) => found.push(array),
        Type::Array(array) => search(&array.elem, found),
        Type::Slice(slice) => search(&slice.elem, found),
        Type::Reference(reference) => search(&reference.elem, found),
        Type::Tuple(tuple) => tuple.elems.iter().for_each(|elem| search(elem, found)),
        Type::Path(path) => contents(path).for_each(|content| search(content, found)),
        _ => {}
    }
}

fn is_long(length: &Expr) -> bool {
    match length {
        Expr::Lit(literal) => matches!(&literal.lit, Lit::Int(number) if !matches!(number.base10_parse(), Ok(0..=32))),
        Expr::Group(group) => is_long(&group.expr),
        Expr::Paren(paren) => is_long(&paren.expr),
        _ => false,
    }
}

/// Returns the types of what a type of the standard library holds. Another type may send an array of its parameter in its own
/// way.
fn contents(path: &TypePath) -> impl Iterator<Item = &Type> {
    const CONTAINERS: [&str; 12] = [
        "Arc",
        "BTreeMap",
        "BTreeSet",
        "BinaryHeap",
        "Box",
        "HashMap",
        "HashSet",
        "LinkedList",
        "Option",
        "Rc",
        "Vec",
        "VecDeque",
    ];
    let last = path.path.segments.last().filter(|last| CONTAINERS.iter().any(|name| last.ident == name));
    let arguments = last.and_then(|last| match &last.arguments {
        PathArguments::AngleBracketed(arguments) => Some(&arguments.args),
        _ => None,
    });
    arguments.into_iter().flatten().filter_map(|argument| match argument {
        GenericArgument::Type(content) => Some(content),
        _ => None,
    })
}
