//! The part of the probe that provides elements, fields, entries and variants one by one, as a type requests them.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::offers::Refusal;
use super::shapes::{Shape, SlotId, TypeNo, VariantKind};
use super::trace::{Choice, Tracer};

/// Maximum number of tuple elements that are traced separately. A longer tuple is treated as an array of one type.
const MAX_TUPLE_LEN: usize = 64;

/// Shapes that named types and variants have in common.
impl Tracer {
    pub(super) fn scalar(&mut self, slot: SlotId, name: &'static str) {
        self.shape(slot, |shape| (*shape == Shape::Scalar(name)).then_some(()), |_| Shape::Scalar(name));
    }

    pub(super) fn tuple<'de, V: Visitor<'de>>(
        &mut self,
        slot: SlotId,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let find = |shape: &Shape| match shape {
            Shape::Tuple(other, slots) if *other == len => Some(slots.clone()),
            _ => None,
        };
        let new =
            |tracer: &mut Self| Shape::Tuple(len, (0..len.min(MAX_TUPLE_LEN)).map(|_| tracer.new_slot()).collect());
        let slots = self.shape(slot, find, new);
        if self.is_exhausted(slot) {
            return Err(Refusal::Blocked);
        }
        let result = visitor.visit_seq(UnnamedFields { tracer: &mut *self, slots, len, next: 0 });
        result.inspect_err(|refusal| self.note_in_fields(slot, None, *refusal))
    }

    pub(super) fn structure<'de, V: Visitor<'de>>(
        &mut self,
        slot: SlotId,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let find = |shape: &Shape| if let Shape::Struct(ty) = shape { Some(*ty) } else { None };
        let ty = self.shape(slot, find, |tracer| Shape::Struct(tracer.new_fields(names)));
        if self.is_exhausted(slot) {
            return Err(Refusal::Blocked);
        }
        self.last_field = None;
        let result = if self.fields(ty).in_order {
            let slots = self.fields(ty).slots.clone();
            visitor.visit_seq(UnnamedFields { tracer: &mut *self, len: slots.len(), slots, next: 0 })
        } else {
            visitor.visit_map(NamedFields { tracer: &mut *self, ty, next: 0, current: 0 })
        };
        result.inspect_err(|refusal| self.note_in_fields(slot, Some(ty), *refusal))
    }
}

/// An empty sequence or map.
pub(super) struct EmptyAccess;

impl<'de> SeqAccess<'de> for EmptyAccess {
    type Error = Refusal;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, _: S) -> Result<Option<S::Value>, Refusal> {
        Ok(None)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(0)
    }
}

impl<'de> MapAccess<'de> for EmptyAccess {
    type Error = Refusal;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, _: S) -> Result<Option<S::Value>, Refusal> {
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, _: S) -> Result<S::Value, Refusal> {
        Err(Refusal::Other)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(0)
    }
}

/// Elements of a sequence, all in the same slot.
pub(super) struct Elements<'t> {
    pub(super) tracer: &'t mut Tracer,
    pub(super) element: SlotId,
    pub(super) remaining: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Refusal;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refusal> {
        let Some(remaining) = self.remaining.checked_sub(1) else { return Ok(None) };
        self.remaining = remaining;
        self.tracer.enter(self.element, seed).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.remaining)
    }
}

/// Elements of a tuple, or fields of a struct that accepts its fields without their names.
pub(super) struct UnnamedFields<'t> {
    pub(super) tracer: &'t mut Tracer,
    pub(super) slots: Vec<SlotId>,
    pub(super) len: usize,
    pub(super) next: usize,
}

impl<'de> SeqAccess<'de> for UnnamedFields<'_> {
    type Error = Refusal;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refusal> {
        if self.next == self.len {
            return Ok(None);
        }
        let slot = self.slots[self.next.min(self.slots.len() - 1)];
        self.next += 1;
        self.tracer.enter(slot, seed).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.len - self.next)
    }
}

/// Fields of a struct: first those that can be built, then those that cannot, so that their content is traced as well.
pub(super) struct NamedFields<'t> {
    pub(super) tracer: &'t mut Tracer,
    pub(super) ty: TypeNo,
    /// Index of the next field; counts through the fields twice.
    pub(super) next: usize,
    pub(super) current: usize,
}

impl<'de> MapAccess<'de> for NamedFields<'_> {
    type Error = Refusal;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refusal> {
        let fields = self.tracer.fields(self.ty);
        let count = fields.slots.len();
        while self.next < 2 * count {
            let (again, field) = (self.next >= count, self.next % count);
            self.next += 1;
            let slot = fields.slots[field];
            let due = self.tracer.unbuildable(slot) == again && !self.tracer.is_exhausted(slot);
            if due && !fields.alias[field] {
                let name = fields.names[field];
                self.current = field;
                self.tracer.last_field = Some((self.ty, field));
                return seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some);
            }
        }
        self.tracer.last_field = None;
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refusal> {
        self.tracer.last_field = None;
        let slot = self.tracer.fields(self.ty).slots[self.current];
        self.tracer.enter(slot, seed)
    }
}

/// Entries of a map: all keys in one slot, all values in another.
pub(super) struct Entries<'t> {
    pub(super) tracer: &'t mut Tracer,
    pub(super) key: SlotId,
    pub(super) value: SlotId,
    pub(super) remaining: usize,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Refusal;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refusal> {
        let Some(remaining) = self.remaining.checked_sub(1) else { return Ok(None) };
        self.remaining = remaining;
        self.tracer.enter(self.key, seed).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refusal> {
        self.tracer.enter(self.value, seed)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.remaining)
    }
}

/// Entries of a map in which a type looks up names. The names are known because the type reported them as missing.
pub(super) struct KeyedEntries<'t> {
    pub(super) tracer: &'t mut Tracer,
    pub(super) entries: Vec<(&'static str, SlotId)>,
    pub(super) next: usize,
}

impl<'de> MapAccess<'de> for KeyedEntries<'_> {
    type Error = Refusal;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refusal> {
        let Some((name, _)) = self.entries.get(self.next) else { return Ok(None) };
        self.next += 1;
        seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refusal> {
        self.tracer.enter(self.entries[self.next - 1].1, seed)
    }
}

/// The variant that the tracer chose.
pub(super) struct ChosenVariant<'t> {
    pub(super) tracer: &'t mut Tracer,
    pub(super) choice: Choice,
}

impl<'de> EnumAccess<'de> for ChosenVariant<'_> {
    type Error = Refusal;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(mut self, seed: S) -> Result<(S::Value, Self), Refusal> {
        let choices = self.tracer.choices(self.choice.ty);
        let name = if choices.by_number {
            let number = u32::try_from(self.choice.variant).map_err(|_| Refusal::Other)?;
            seed.deserialize(number.into_deserializer())?
        } else {
            seed.deserialize(BorrowedStrDeserializer::new(choices.variants[self.choice.variant].name))?
        };
        self.choice.named = true;
        self.tracer.set_choice(Some(self.choice));
        Ok((name, self))
    }
}

impl ChosenVariant<'_> {
    fn build<R>(
        self,
        kind: VariantKind,
        deserialize: impl FnOnce(&mut Tracer, SlotId) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        self.tracer.variant_kind(self.choice, kind);
        let slot = self.tracer.choices(self.choice.ty).variants[self.choice.variant].slot;
        let built = deserialize(self.tracer, slot)?;
        self.tracer.variant_built(self.choice);
        Ok(built)
    }
}

impl<'de> VariantAccess<'de> for ChosenVariant<'_> {
    type Error = Refusal;

    fn unit_variant(self) -> Result<(), Refusal> {
        self.build(VariantKind::Unit, |_, _| Ok(()))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Refusal> {
        self.build(VariantKind::Newtype, |tracer, slot| tracer.enter(slot, seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refusal> {
        self.build(VariantKind::Fields, |tracer, slot| tracer.tuple(slot, len, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Refusal> {
        self.build(VariantKind::Fields, |tracer, slot| tracer.structure(slot, fields, visitor))
    }
}
