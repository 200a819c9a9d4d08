//! Search for slots with content that no pass has seen yet. Runs between passes, so that the next pass visits them.

use super::shapes::{Form, Shape, SlotId, TypeNo, VariantKind};
use super::trace::Tracer;

impl Tracer {
    pub(super) fn find_pending(&mut self) {
        for slot in &mut self.slots {
            slot.pending = false;
        }
        let mut changed = true;
        while changed {
            changed = false;
            for slot in (0..self.slots.len()).rev() {
                if !self.slots[slot].pending && self.is_pending(slot) {
                    self.slots[slot].pending = true;
                    changed = true;
                }
            }
        }
    }

    fn is_pending(&self, slot: SlotId) -> bool {
        let this = &self.slots[slot];
        if let Some(enclosing) = this.enclosing {
            return self.slots[enclosing].pending;
        }
        if !this.entered && this.shapes.is_empty() {
            return !this.unbuildable;
        }
        if this.refusals > 0 && !this.built && !this.unbuildable {
            return true;
        }
        this.shapes.iter().any(|shape| match shape {
            Shape::Scalar(_) | Shape::Any => false,
            Shape::Option(content) | Shape::Seq(content) => self.slots[*content].pending,
            Shape::Map(key, value) => self.slots[*key].pending || self.slots[*value].pending,
            Shape::Keyed(keys) => keys.iter().any(|(_, value)| self.slots[*value].pending),
            Shape::Tuple(_, slots) => self.pending_in_order(slots),
            Shape::Struct(ty) | Shape::Named(ty) => self.type_pending(*ty),
        })
    }

    fn type_pending(&self, ty: TypeNo) -> bool {
        match &self.types[ty].form {
            Form::Unit => false,
            Form::Newtype(slot) | Form::Fields(slot) => self.slots[*slot].pending,
            Form::Struct(fields) if fields.in_order => self.pending_in_order(&fields.slots),
            Form::Struct(fields) => {
                fields.slots.iter().zip(&fields.alias).any(|(slot, alias)| !alias && self.slots[*slot].pending)
            }
            Form::Enum(choices) => choices.variants.iter().any(|variant| match variant.kind {
                _ if variant.refused => false,
                None => true,
                Some(VariantKind::Unit) => false,
                Some(_) => self.slots[variant.slot].pending,
            }),
        }
    }

    /// Returns whether an element is pending. Elements that follow one that cannot be built are never reached.
    fn pending_in_order(&self, slots: &[SlotId]) -> bool {
        for slot in slots {
            if self.slots[*slot].pending {
                return true;
            }
            if self.unbuildable(*slot) {
                return false;
            }
        }
        false
    }
}
