//! Types that the function's codec cannot carry, as far as their spelling shows. The rest is found in the traced types,
//! when a map is submitted.

use syn::visit_mut::{self, VisitMut};
use syn::{GenericArgument, PathArguments, PathSegment, Type, TypePath};

use crate::arguments::Codec;
use crate::owned::peel;
use crate::refusals::Refusals;
use crate::signature::RemoteFunction;

/// Refuses arguments and results that this codec cannot carry.
pub(crate) fn check(codec: Codec, function: &RemoteFunction, refusals: &mut Refusals) {
    for written in function.sent_types() {
        Search { codec, refusals }.visit_type_mut(&mut written.clone());
    }
}

struct Search<'r> {
    codec: Codec,
    refusals: &'r mut Refusals,
}

impl VisitMut for Search<'_> {
    fn visit_type_path_mut(&mut self, path: &mut TypePath) {
        match self.codec {
            Codec::Bincode if is_json(path) => self.refusals.at(
                &*path,
                "bincode cannot carry this type, which needs a self-describing format; use \
                 #[cloudknot::remote(codec = \"messagepack\")]",
            ),
            Codec::Messagepack if is_option_of_nothing(path) => self.refusals.at(
                &*path,
                "messagepack encodes `Some(None)` and `Some(())` like `None`; use an enum, or leave `codec` out for \
                 bincode",
            ),
            _ => visit_mut::visit_type_path_mut(self, path),
        }
    }
}

/// Returns whether this is a type of `serde_json`, by its path.
fn is_json(path: &TypePath) -> bool {
    let mut segments = path.path.segments.iter().rev();
    let (Some(name), Some(module)) = (segments.next(), segments.next()) else { return false };
    module.ident == "serde_json" && ["Value", "Map", "Number"].iter().any(|other| name.ident == other)
}

/// Returns whether this is `Option<()>` or `Option<Option<_>>`.
fn is_option_of_nothing(path: &TypePath) -> bool {
    match option_content(path).map(peel) {
        Some(Type::Tuple(tuple)) => tuple.elems.is_empty(),
        Some(Type::Path(inner)) => option_content(inner).is_some(),
        _ => false,
    }
}

fn option_content(path: &TypePath) -> Option<&Type> {
    let PathSegment { ident, arguments: PathArguments::AngleBracketed(arguments) } = path.path.segments.last()? else {
        return None;
    };
    match arguments.args.first()? {
        GenericArgument::Type(content) if ident == "Option" => Some(content),
        _ => None,
    }
}
