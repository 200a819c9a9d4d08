//! A deserializer that records the requests of a type and offers the values that the tracer has chosen. This module
//! handles serde; the tracer chooses what to offer and what to learn from a refusal.

use std::any::{TypeId, type_name};
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Visitor};

use super::access::{ChosenVariant, Elements, EmptyAccess, Entries, KeyedEntries};
use super::offers::{Refusal, WORD};
use super::shapes::{Form, Shape, SlotId, TypeNo};
use super::trace::{Choice, Frame, Tracer, TypeKey};

/// Depth at which a pass is abandoned. The pass has still seen variants that the next pass need not try.
const MAX_DEPTH: usize = 96;

/// Deserializer of the value in one slot.
pub(super) struct Probe<'t> {
    pub(super) tracer: &'t mut Tracer,
    pub(super) slot: SlotId,
}

impl Tracer {
    /// Deserializes the value in a slot.
    pub(super) fn enter<'de, S: DeserializeSeed<'de>>(&mut self, slot: SlotId, seed: S) -> Result<S::Value, Refusal> {
        let name = type_name::<S::Value>();
        self.enter_as(slot, typeid::of::<S>(), name, |probe| seed.deserialize(probe))
    }

    /// Deserializes the value in a slot where serde has no seed. `type_id` and `type_name` identify the slot's type.
    pub(super) fn enter_as<R>(
        &mut self,
        slot: SlotId,
        type_id: TypeId,
        type_name: &'static str,
        deserialize: impl FnOnce(Probe<'_>) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        let slot = self.enclosing_slot(type_id, slot);
        self.entered += 1;
        let is_abandoned = self.frames.len() >= MAX_DEPTH || self.is_exhaustive();
        if is_abandoned || self.is_exhausted(slot) {
            self.refusal_recorded |= is_abandoned;
            self.pass_point();
            return Err(Refusal::Blocked);
        }
        let outer = self.begin_slot(type_id, type_name, slot);
        self.frames.push(Frame { seed: type_id, slot, type_name, choice: None, named: false });
        self.pass_point();
        let result = deserialize(Probe { tracer: self, slot });
        match &result {
            Err(refusal) if !self.refusal_recorded => self.note(*refusal),
            Err(_) => {}
            Ok(_) => {
                self.slots[slot].built = true;
                if outer.is_some() {
                    self.accepted.insert(type_id, self.offer.set());
                }
            }
        }
        self.frames.pop();
        if let Some(outer) = outer {
            self.offer = outer;
        }
        self.pass_point();
        result
    }
}

/// Marker for the type inside the one that the visitor `V` creates.
struct Inside<V>(PhantomData<V>);

macro_rules! scalars {
    ($($deserialize:ident $visit:ident $name:literal $offer:ident $value:expr;)*) => {
        $(fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
            self.tracer.scalar(self.slot, $name);
            let $offer = &mut self.tracer.offer;
            visitor.$visit($value)
        })*
    };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Refusal;

    scalars! {
        deserialize_bool visit_bool "bool" offer offer.bool();
        deserialize_i8 visit_i8 "i8" offer low_byte(offer.number()).cast_signed();
        deserialize_i16 visit_i16 "i16" offer offer.number();
        deserialize_i32 visit_i32 "i32" offer offer.number().into();
        deserialize_i64 visit_i64 "i64" offer offer.number().into();
        deserialize_i128 visit_i128 "i128" offer offer.number().into();
        deserialize_u8 visit_u8 "u8" offer low_byte(offer.number());
        deserialize_u16 visit_u16 "u16" offer offer.number().unsigned_abs();
        deserialize_u32 visit_u32 "u32" offer offer.number().unsigned_abs().into();
        deserialize_u64 visit_u64 "u64" offer offer.number().unsigned_abs().into();
        deserialize_u128 visit_u128 "u128" offer offer.number().unsigned_abs().into();
        deserialize_f32 visit_f32 "f32" offer offer.float();
        deserialize_f64 visit_f64 "f64" offer offer.float().into();
        deserialize_char visit_char "char" offer offer.char();
        deserialize_str visit_borrowed_str "string" offer offer.string();
        deserialize_string visit_borrowed_str "string" offer offer.string();
        deserialize_bytes visit_borrowed_bytes "bytes" offer offer.bytes();
        deserialize_byte_buf visit_borrowed_bytes "bytes" offer offer.bytes();
        deserialize_identifier visit_borrowed_str "name" offer offer.string();
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.tracer.scalar(self.slot, "()");
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.tracer.scalar(self.slot, "ignored");
        visitor.visit_unit()
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.tracer.shape(self.slot, |shape| matches!(shape, Shape::Any).then_some(()), |_| Shape::Any);
        let offer = &mut self.tracer.offer;
        match offer.set() % 7 {
            0 => visitor.visit_unit(),
            1 => visitor.visit_u64(1),
            2 => visitor.visit_borrowed_str(WORD),
            3 => visitor.visit_f64(1.5),
            4 => visitor.visit_bool(true),
            5 => visitor.visit_seq(EmptyAccess),
            _ => visitor.visit_map(EmptyAccess),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let find = |shape: &Shape| if let Shape::Option(content) = shape { Some(*content) } else { None };
        let content = self.tracer.shape(self.slot, find, |tracer| Shape::Option(tracer.new_slot()));
        let absent = self.tracer.offer.chosen && self.tracer.offer.elements() == 0;
        if absent || !self.tracer.open(content) {
            return visitor.visit_none();
        }
        let name = type_name::<V::Value>();
        let name = name.strip_prefix("core::option::Option<").and_then(|name| name.strip_suffix('>')).unwrap_or(name);
        let type_id = typeid::of::<Inside<V>>();
        let result = self.tracer.enter_as(content, type_id, name, |probe| visitor.visit_some(probe));
        self.tracer.close(content);
        result
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(mut self, name: &'static str, visitor: V) -> Result<V::Value, Refusal> {
        self.declare_named::<V>(name, "unit", &[], |_| Form::Unit);
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let slot = self.declare_named::<V>(name, "newtype", &[], |tracer| Form::Newtype(tracer.new_slot())).1;
        let type_id = typeid::of::<Inside<V>>();
        self.tracer.enter_as(slot, type_id, type_name::<V::Value>(), |probe| visitor.visit_newtype_struct(probe))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.tracer.note_collection(type_name::<V::Value>());
        let find = |shape: &Shape| if let Shape::Seq(element) = shape { Some(*element) } else { None };
        let element = self.tracer.shape(self.slot, find, |tracer| Shape::Seq(tracer.new_slot()));
        let count = self.tracer.offer.elements();
        if count == 0 || !self.tracer.open(element) {
            return visitor.visit_seq(EmptyAccess);
        }
        let Self { tracer, .. } = self;
        let result = visitor.visit_seq(Elements { tracer: &mut *tracer, element, remaining: count });
        tracer.close(element);
        result
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refusal> {
        self.tracer.tuple(self.slot, len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let slot = self.declare_named::<V>(name, "tuple", &[], |tracer| Form::Fields(tracer.new_slot())).1;
        self.tracer.tuple(slot, len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.tracer.note_collection(type_name::<V::Value>());
        let find = |shape: &Shape| if let Shape::Keyed(keys) = shape { Some(keys.clone()) } else { None };
        if let Some(keys) = self.tracer.slots[self.slot].shapes.iter().find_map(find) {
            return visitor.visit_map(KeyedEntries { tracer: self.tracer, entries: keys, next: 0 });
        }
        let find = |shape: &Shape| if let Shape::Map(key, value) = shape { Some((*key, *value)) } else { None };
        let (key, value) =
            self.tracer.shape(self.slot, find, |tracer| Shape::Map(tracer.new_slot(), tracer.new_slot()));
        let count = self.tracer.offer.elements();
        if count == 0 || self.tracer.is_exhausted(key) || !self.tracer.open(value) {
            return visitor.visit_map(EmptyAccess);
        }
        let Self { tracer, .. } = self;
        let result = visitor.visit_map(Entries { tracer: &mut *tracer, key, value, remaining: count });
        tracer.close(value);
        result
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let slot = self.declare_named::<V>(name, "struct", fields, |tracer| Form::Fields(tracer.new_slot())).1;
        self.tracer.structure(slot, fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let (ty, _) =
            self.declare_named::<V>(name, "enum", variants, |tracer| Form::Enum(tracer.new_choices(variants)));
        let Some(variant) = self.tracer.choose(ty) else { return Err(Refusal::Blocked) };
        let choice = Choice { ty, variant, named: false };
        let Self { tracer, .. } = self;
        tracer.begin_variant(choice);
        let result = visitor.visit_enum(ChosenVariant { tracer: &mut *tracer, choice });
        tracer.end_variant(choice, result.is_ok());
        result
    }

    // Both codecs return `false`, too.
    fn is_human_readable(&self) -> bool {
        self.tracer.slots[self.slot].asks_readable.set(true);
        false
    }
}

impl Probe<'_> {
    /// Records a named type. Returns its number and the slot of its content, if it has one (an enum has none).
    fn declare_named<'de, V: Visitor<'de>>(
        &mut self,
        name: &'static str,
        form: &'static str,
        parts: &'static [&'static str],
        new: impl FnOnce(&mut Tracer) -> Form,
    ) -> (TypeNo, SlotId) {
        let key = TypeKey { value: typeid::of::<V::Value>(), name, form, parts };
        let ty = self.tracer.declare(key, new);
        self.tracer.mark_named();
        let find = |shape: &Shape| (*shape == Shape::Named(ty)).then_some(());
        self.tracer.shape(self.slot, find, |_| Shape::Named(ty));
        match self.tracer.types[ty].form {
            Form::Newtype(slot) | Form::Fields(slot) => (ty, slot),
            _ => (ty, self.slot),
        }
    }
}

fn low_byte(number: i16) -> u8 {
    number.unsigned_abs().to_le_bytes()[0]
}
