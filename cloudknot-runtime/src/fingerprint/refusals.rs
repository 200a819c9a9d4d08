//! Reactions to a type that refuses the offered value: offer another value, choose another variant, or omit the type.
//! The reason for the refusal is unknown, because types report it only as a message.

use std::any::TypeId;

use super::offers::{self, Refusal};
use super::shapes::{Form, Shape, SlotId, TypeNo};
use super::trace::{Choice, Tracer};

impl Tracer {
    pub(super) fn note_panic(&mut self) {
        // A type that panics is not offered anything else: where panics abort, each one costs a process.
        if let Some(frame) = self.frames.last() {
            let (slot, type_id, name) = (frame.slot, frame.seed, frame.type_name);
            self.make_opaque(slot, type_id, name);
        }
    }

    /// Records the refusal of the innermost type that is being built.
    pub(super) fn note(&mut self, refusal: Refusal) {
        self.refusal_recorded = true;
        let frame = self.frames.last().expect("an entered slot has a frame");
        let (slot, type_id, name, choice) = (frame.slot, frame.seed, frame.type_name, frame.choice);
        if refusal == Refusal::Blocked {
            return self.make_unbuildable(slot);
        }
        if let Refusal::Missing(field) = refusal
            && self.learn_key(slot, field)
        {
            return;
        }
        if let Some(choice) = choice {
            return self.refuse_variant(choice);
        }
        self.slots[slot].refusals += 1;
        self.learned += 1;
        if self.slots[slot].refusals >= offers::SETS || self.slots[slot].type_is_opaque {
            self.make_opaque(slot, type_id, name);
        }
    }

    /// Records a refusal if only the fields of a struct or tuple explain it.
    pub(super) fn note_in_fields(&mut self, slot: SlotId, ty: Option<TypeNo>, refusal: Refusal) {
        if self.refusal_recorded {
            return;
        }
        match (refusal, ty, self.last_field) {
            (Refusal::Blocked, ..) => self.make_unbuildable(slot),
            (Refusal::Missing(name), Some(ty), _) if self.omitted(ty, name) => self.make_unbuildable(slot),
            (Refusal::Duplicate(name), Some(ty), Some((last, field))) if last == ty && field > 0 => {
                self.learned += 1;
                let fields = self.fields_mut(ty);
                fields.alias[field] = true;
                let before = (0..field).rev().find(|&other| !fields.alias[other]).unwrap_or(0);
                fields.names[before] = name;
            }
            (Refusal::NotAMap, Some(ty), _) if !self.fields(ty).in_order => {
                self.learned += 1;
                self.fields_mut(ty).in_order = true;
            }
            _ => return,
        }
        self.refusal_recorded = true;
        self.pass_point();
    }

    /// Returns whether the tracer omitted this field because its value cannot be built.
    fn omitted(&self, ty: TypeNo, name: &str) -> bool {
        let fields = self.fields(ty);
        fields.names.iter().zip(&fields.slots).any(|(other, slot)| *other == name && self.unbuildable(*slot))
    }

    fn learn_key(&mut self, slot: SlotId, name: &'static str) -> bool {
        if !self.slots[slot].shapes.iter().any(|shape| matches!(shape, Shape::Map(..) | Shape::Keyed(_))) {
            return false;
        }
        let value = self.new_slot();
        let shapes = &mut self.slots[slot].shapes;
        shapes.retain(|shape| !matches!(shape, Shape::Map(..)));
        match shapes.iter_mut().find_map(|shape| if let Shape::Keyed(keys) = shape { Some(keys) } else { None }) {
            Some(keys) if keys.iter().any(|(other, _)| *other == name) => return false,
            Some(keys) => keys.push((name, value)),
            None => shapes.push(Shape::Keyed(vec![(name, value)])),
        }
        self.learned += 1;
        true
    }

    fn refuse_variant(&mut self, choice: Choice) {
        self.learned += 1;
        if let Form::Enum(choices) = &mut self.types[choice.ty].form {
            if !choice.named && !choices.by_number {
                choices.by_number = true;
                return;
            }
            choices.variants[choice.variant].refused = true;
        }
    }

    fn make_opaque(&mut self, slot: SlotId, type_id: TypeId, name: &'static str) {
        self.opaque_types.insert(type_id);
        self.slots[slot].opaque = Some(name);
        self.make_unbuildable(slot);
    }

    fn make_unbuildable(&mut self, slot: SlotId) {
        if !std::mem::replace(&mut self.slots[slot].unbuildable, true) {
            self.learned += 1;
        }
    }
}
