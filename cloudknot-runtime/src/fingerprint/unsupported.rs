//! Search of the traced structure for parts that the codec can carry in no value, so that a function is refused before
//! its inputs are stored.

use std::collections::HashSet;

use super::shapes::{Fields, Form, Shape, SlotId, TypeNo};
use super::trace::Tracer;
use crate::codec::Codec;

struct Search<'t> {
    tracer: &'t Tracer,
    codec: Codec,
    seen: HashSet<SlotId>,
}

/// Describes the first part of the types that the codec cannot carry.
pub(super) fn find(tracer: &Tracer, input: SlotId, output: SlotId, codec: Codec) -> Option<String> {
    let mut search = Search { tracer, codec, seen: HashSet::new() };
    search.arguments(input).or_else(|| search.slot(output, "the result"))
}

impl Search<'_> {
    /// Searches the input, a struct whose fields are the function's arguments.
    fn arguments(&mut self, input: SlotId) -> Option<String> {
        if let [Shape::Named(ty)] = self.tracer.slots[input].shapes[..]
            && let Form::Fields(content) = self.tracer.types[ty].form
            && let [Shape::Struct(fields)] = self.tracer.slots[content].shapes[..]
        {
            return self.fields(self.tracer.fields(fields), |name| format!("the argument `{name}`"));
        }
        self.slot(input, "the input")
    }

    fn slot(&mut self, slot: SlotId, place: &str) -> Option<String> {
        let slot = self.tracer.slots[slot].enclosing.unwrap_or(slot);
        if !self.seen.insert(slot) {
            return None;
        }
        let tracer = self.tracer;
        let shapes = &tracer.slots[slot].shapes;
        // A type with several shapes may choose another one, as an adjacently tagged enum does.
        if let [only] = &shapes[..]
            && self.codec == Codec::Bincode
            && matches!(only, Shape::Any | Shape::Keyed(_) | Shape::Scalar("ignored" | "name"))
        {
            return Some(format!("bincode cannot carry {place}: its type needs a self-describing format"));
        }
        shapes.iter().find_map(|shape| self.shape(shape, place))
    }

    fn shape(&mut self, shape: &Shape, place: &str) -> Option<String> {
        match shape {
            Shape::Scalar(_) | Shape::Any => None,
            Shape::Option(content) if self.codec == Codec::Messagepack && self.is_nil(*content) => {
                Some(format!("messagepack cannot carry {place}: it encodes `Some(None)` and `Some(())` like `None`"))
            }
            Shape::Option(content) | Shape::Seq(content) => self.slot(*content, place),
            Shape::Map(key, value) => self.slot(*key, place).or_else(|| self.slot(*value, place)),
            Shape::Keyed(entries) => entries.iter().find_map(|(_, value)| self.slot(*value, place)),
            Shape::Tuple(_, slots) => slots.iter().find_map(|slot| self.slot(*slot, place)),
            Shape::Struct(ty) => self.named(*ty, place),
            Shape::Named(ty) => {
                let name = self.tracer.types[*ty].name;
                self.named(*ty, &format!("`{name}`, in {}", outermost(place)))
            }
        }
    }

    fn named(&mut self, ty: TypeNo, place: &str) -> Option<String> {
        let tracer = self.tracer;
        match &tracer.types[ty].form {
            Form::Unit => None,
            Form::Newtype(slot) | Form::Fields(slot) => self.slot(*slot, place),
            Form::Struct(fields) => self.fields(fields, |name| format!("the field `{name}` of {place}")),
            Form::Enum(choices) => choices.variants.iter().find_map(|variant| {
                variant.kind?;
                self.slot(variant.slot, &format!("the variant `{}` of {place}", variant.name))
            }),
        }
    }

    fn fields(&mut self, fields: &Fields, place: impl Fn(&str) -> String) -> Option<String> {
        let named = fields.names.iter().zip(&fields.slots).zip(&fields.alias);
        named.filter(|(_, alias)| !**alias).find_map(|((name, slot), _)| self.slot(*slot, &place(name)))
    }

    /// Returns whether a value in this slot may be nil in messagepack. Newtypes are not encoded.
    fn is_nil(&self, slot: SlotId) -> bool {
        self.tracer.slots[slot].shapes.iter().any(|shape| match shape {
            Shape::Option(_) | Shape::Scalar("()") => true,
            Shape::Named(ty) => matches!(self.tracer.types[*ty].form, Form::Newtype(content) if self.is_nil(content)),
            _ => false,
        })
    }
}

/// Returns the part of a description that follows the types in it: `the result` of ``the field `a` of `A`, in the result``.
fn outermost(place: &str) -> &str {
    place.rsplit_once(", in ").map_or(place, |(_, outermost)| outermost)
}
