//! The state of tracing: the types as known so far, and the choice of what to try next. Independent of serde, which
//! `probe` handles.
//!
//! A type is traced by deserializing it repeatedly from offered values. Each *pass* takes the branches (mostly variants
//! of enums) that no earlier pass has taken, until none remain. A position in a type is a *slot*, and the kinds of
//! value that the type requested there are its *shapes*: nearly always one, several if the type inspects a value before
//! it decides what follows. Options, sequences and maps end a recursion: each is filled once per pass.
//!
//! A type may refuse a value. The next set of values is then offered to the innermost slot that refused. When no set
//! remains, the slot is *opaque*: it is described by the name of its type, and its container is built without it
//! (`None`, an empty sequence, another variant), so that the rest is still traced.

use std::any::TypeId;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::Part;
use super::offers::Offer;
use super::shapes::{Choices, Fields, Form, Shape, Slot, SlotId, Type, TypeNo, Variant, VariantKind};
use super::unordered::{contains_unordered, is_unordered};
use crate::codec::{Codec, Hidden};

/// Depth from which no option, sequence or map is filled. A later pass reaches the content on a shorter path.
const MAX_FILL_DEPTH: usize = 40;
/// Maximum number of times that a container is filled in one pass while its type is being offered other values.
const MAX_REFILLS: u8 = 16;
/// Maximum number of values offered in total. A bound against types that cannot be traced.
const MAX_ENTERED: usize = 1_000_000;

/// Key that distinguishes named types: two types of the same name may be in different modules.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct TypeKey {
    pub(super) value: TypeId,
    pub(super) name: &'static str,
    pub(super) form: &'static str,
    pub(super) parts: &'static [&'static str],
}

#[derive(Debug)]
pub(super) struct Frame {
    pub(super) seed: TypeId,
    pub(super) slot: SlotId,
    pub(super) type_name: &'static str,
    /// Variant chosen in this slot, until a value of the variant is built.
    pub(super) choice: Option<Choice>,
    /// `true` once the type has declared its name.
    pub(super) named: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) ty: TypeNo,
    pub(super) variant: usize,
    /// `true` once the type has accepted the variant's name.
    pub(super) named: bool,
}

#[derive(Debug, Default)]
pub(super) struct Tracer {
    pub(super) slots: Vec<Slot>,
    pub(super) types: Vec<Type>,
    pub(super) keys: HashMap<TypeKey, TypeNo>,
    pub(super) frames: Vec<Frame>,
    pub(super) offer: Offer,
    /// For each type, the set of values that it accepted after it had refused others.
    pub(super) accepted: HashMap<TypeId, usize>,
    pub(super) opaque_types: HashSet<TypeId>,
    /// `true` once the refusal that ends this pass has been recorded.
    pub(super) refusal_recorded: bool,
    /// Number of facts learned.
    pub(super) learned: usize,
    /// Value of `learned` at the start of this pass.
    learned_before: usize,
    /// Number of consecutive passes that learned nothing.
    pub(super) idle: usize,
    /// Number of slots entered.
    pub(super) entered: usize,
    pub(super) built: usize,
    /// Field whose name was offered last.
    pub(super) last_field: Option<(TypeNo, usize)>,
    pub(super) steps: Steps,
    pub(super) samples: Samples,
    /// Name of a map or set without an order that a type has built.
    pub(super) unordered: Option<&'static str>,
}

/// Receiver of the progress of a trace.
pub trait Observer: Send + Sync {
    /// Called before the tracer traces the type of this part.
    fn begins(&self, part: Part);
    /// Called at each point.
    fn passes(&self, point: u64);
}

/// Points passed so far in this part, and those at which the trace stops.
#[derive(Default)]
pub(super) struct Steps {
    pub(super) point: u64,
    pub(super) ends: BTreeSet<u64>,
    pub(super) observer: Option<Arc<dyn Observer>>,
    /// Receives the tracer when the thread has traced a type, or stops.
    pub(super) finished: Option<Sender<Finished>>,
}

/// Samples of how values are written.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// Codec of the samples; `None` to take none.
    pub(super) codec: Option<Codec>,
    pub(super) all: Vec<Sample>,
    /// Variants that were written, each as the name of its enum, its number and its name.
    pub(super) variants: BTreeSet<(&'static str, u32, &'static str)>,
    /// Number of bytes of all samples.
    pub(super) len: usize,
}

/// A value as it is written.
#[derive(Debug)]
pub(super) struct Sample {
    /// Slot of its type.
    pub(super) root: SlotId,
    pub(super) encoded: Vec<u8>,
    /// JSON of the value as `serde_json` prints it; `None` if JSON does not have such values.
    pub(super) json: Option<String>,
    pub(super) hidden: Hidden,
}

/// Tracer that a thread hands over.
#[derive(Debug)]
pub(super) enum Finished {
    /// Nothing more can be learned about the type.
    Traced(Tracer),
    /// The trace has come to a point at which the type would end the process.
    Stopped(Tracer),
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steps").field("point", &self.point).field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl Tracer {
    /// Records the type of a sequence or map that is being built.
    pub(super) fn note_collection(&mut self, type_name: &'static str) {
        if self.unordered.is_none() && is_unordered(type_name) {
            self.unordered = Some(type_name);
        }
    }

    /// Returns the type of a map or set without an order that was traced so far, or of a type that may have one in it and cannot be
    /// traced.
    pub(super) fn unordered_type(&self) -> Option<&'static str> {
        let mut untraced = self.slots.iter().filter_map(|slot| slot.opaque);
        self.unordered.or_else(|| untraced.find(|name| contains_unordered(name)))
    }

    pub(super) fn new_slot(&mut self) -> SlotId {
        self.slots.push(Slot::default());
        self.slots.len() - 1
    }

    pub(super) fn begin_pass(&mut self) {
        self.learned_before = self.learned;
        self.frames.clear();
        self.offer = Offer::default();
        self.refusal_recorded = false;
        for slot in &mut self.slots {
            slot.open = false;
            slot.filled = 0;
        }
        for declared in &mut self.types {
            if let Form::Enum(choices) = &mut declared.form {
                for variant in &mut choices.variants {
                    variant.in_progress = 0;
                    variant.entered_in_pass = false;
                }
            }
        }
    }

    /// Returns whether this pass has learned something.
    pub(super) fn has_learned(&self) -> bool {
        self.learned != self.learned_before
    }

    /// Returns whether enough values were offered to give up.
    pub(super) fn is_exhaustive(&self) -> bool {
        self.entered >= MAX_ENTERED
    }

    /// Enters a slot. If the slot needs a separate offer, starts that offer and returns the outer one.
    pub(super) fn begin_slot(&mut self, type_id: TypeId, type_name: &'static str, slot: SlotId) -> Option<Offer> {
        let first = !std::mem::replace(&mut self.slots[slot].entered, true);
        if first {
            self.learned += 1;
            self.slots[slot].type_name = type_name;
            self.slots[slot].first_set = self.accepted.get(&type_id).copied();
            self.slots[slot].type_is_opaque = self.opaque_types.contains(&type_id);
        }
        let this = &self.slots[slot];
        if this.refusals == 0 && this.first_set.is_none() {
            return None;
        }
        let set = this.first_set.unwrap_or(0) + this.refusals;
        Some(std::mem::replace(&mut self.offer, Offer::of_set(set)))
    }

    // Without this, a type that contains itself and has no name known to serde (`#[serde(transparent)]`, a hand-written
    // sequence) would be a new slot at each depth.
    pub(super) fn enclosing_slot(&mut self, type_id: TypeId, slot: SlotId) -> SlotId {
        if let Some(enclosing) = self.slots[slot].enclosing {
            return enclosing;
        }
        if self.slots[slot].entered {
            return slot;
        }
        let nameless = self.frames.iter().rev().take_while(|frame| !frame.named);
        let enclosing =
            nameless.filter(|frame| frame.seed == type_id && frame.slot != slot).last().map(|frame| frame.slot);
        if enclosing.is_some() {
            self.learned += 1;
            self.slots[slot].enclosing = enclosing;
        }
        enclosing.unwrap_or(slot)
    }

    /// Records that the type that is being built has declared its name.
    pub(super) fn mark_named(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.named = true;
        }
    }

    /// Returns whether no value can be built in this slot and no attempt can learn more about it.
    pub(super) fn is_exhausted(&self, slot: SlotId) -> bool {
        let slot = self.slots[slot].enclosing.unwrap_or(slot);
        self.slots[slot].unbuildable && !self.slots[slot].pending
    }

    pub(super) fn unbuildable(&self, slot: SlotId) -> bool {
        self.slots[self.slots[slot].enclosing.unwrap_or(slot)].unbuildable
    }

    /// Returns whether the container of this content is to be filled. If so, the container is open until `close`.
    pub(super) fn open(&mut self, content: SlotId) -> bool {
        let max_fills = if self.offer.chosen { MAX_REFILLS } else { 1 };
        let closed = self.is_exhausted(content) || self.frames.len() >= MAX_FILL_DEPTH;
        let slot = &mut self.slots[content];
        if closed || slot.open || slot.filled >= max_fills {
            return false;
        }
        slot.open = true;
        slot.filled += 1;
        true
    }

    pub(super) fn close(&mut self, content: SlotId) {
        self.slots[content].open = false;
    }

    /// Returns the shape in a slot that `find` recognises. The shape is created if it is missing.
    pub(super) fn shape<R>(
        &mut self,
        slot: SlotId,
        find: impl Fn(&Shape) -> Option<R>,
        new: impl FnOnce(&mut Self) -> Shape,
    ) -> R {
        if let Some(found) = self.slots[slot].shapes.iter().find_map(&find) {
            return found;
        }
        let shape = new(self);
        self.learned += 1;
        let found = find(&shape).expect("`find` matches the shape that `new` creates");
        self.slots[slot].shapes.push(shape);
        self.pass_point();
        found
    }

    pub(super) fn declare(&mut self, key: TypeKey, new: impl FnOnce(&mut Self) -> Form) -> TypeNo {
        if let Some(number) = self.keys.get(&key) {
            return *number;
        }
        let form = new(self);
        self.types.push(Type { name: key.name, form });
        self.keys.insert(key, self.types.len() - 1);
        self.types.len() - 1
    }

    pub(super) fn new_fields(&mut self, names: &[&'static str]) -> TypeNo {
        let slots = names.iter().map(|_| self.new_slot()).collect();
        let fields = Fields { names: names.to_vec(), slots, alias: vec![false; names.len()], in_order: false };
        self.types.push(Type { name: "", form: Form::Struct(fields) });
        self.types.len() - 1
    }

    pub(super) fn new_choices(&mut self, names: &[&'static str]) -> Choices {
        let variant = |name: &&'static str| Variant {
            name,
            kind: None,
            slot: self.new_slot(),
            refused: false,
            built: None,
            entries: 0,
            in_progress: 0,
            entered_in_pass: false,
        };
        Choices { variants: names.iter().map(variant).collect(), by_number: false }
    }

    pub(super) fn fields(&self, ty: TypeNo) -> &Fields {
        match &self.types[ty].form {
            Form::Struct(fields) => fields,
            other => unreachable!("not a struct: {other:?}"),
        }
    }

    pub(super) fn fields_mut(&mut self, ty: TypeNo) -> &mut Fields {
        match &mut self.types[ty].form {
            Form::Struct(fields) => fields,
            other => unreachable!("not a struct: {other:?}"),
        }
    }

    pub(super) fn choices(&self, ty: TypeNo) -> &Choices {
        match &self.types[ty].form {
            Form::Enum(choices) => choices,
            other => unreachable!("not an enum: {other:?}"),
        }
    }

    pub(super) fn variant_mut(&mut self, ty: TypeNo, variant: usize) -> &mut Variant {
        match &mut self.types[ty].form {
            Form::Enum(choices) => &mut choices.variants[variant],
            other => unreachable!("not an enum: {other:?}"),
        }
    }

    /// Returns the variant to choose: one never seen; else one with content never seen; else the first that could be
    /// built (it ends, because it was built from variants that ended before it); else the one least often in progress.
    pub(super) fn choose(&self, ty: TypeNo) -> Option<usize> {
        let all = || self.choices(ty).variants.iter().enumerate().filter(|(_, variant)| !variant.refused);
        let pending = |variant: &Variant| self.slots[variant.slot].pending;
        let usable = |variant: &Variant| !self.unbuildable(variant.slot);
        let built = || all().filter(|(_, variant)| usable(variant) && variant.built.is_some());
        let new = || all().find(|(_, variant)| variant.kind.is_none() && variant.in_progress == 0);
        let again = || {
            all()
                .filter(|(_, variant)| pending(variant) && variant.in_progress == 0 && !variant.entered_in_pass)
                .min_by_key(|(_, variant)| (!usable(variant), variant.entries))
        };
        let first_built = || {
            let others: Vec<_> = built().filter(|(_, variant)| variant.in_progress == 0).collect();
            if self.offer.chosen && !others.is_empty() {
                return Some(others[self.offer.set() % others.len()]);
            }
            built().min_by_key(|(_, variant)| variant.built)
        };
        let least = || all().filter(|(_, variant)| usable(variant)).min_by_key(|(_, variant)| variant.in_progress);
        let is_deep = self.frames.len() >= MAX_FILL_DEPTH;
        let found = if is_deep { first_built().or_else(new) } else { new().or_else(again).or_else(first_built) };
        found.or_else(least).map(|(index, _)| index)
    }

    pub(super) fn begin_variant(&mut self, choice: Choice) {
        let variant = self.variant_mut(choice.ty, choice.variant);
        variant.in_progress += 1;
        variant.entries += 1;
        variant.entered_in_pass = true;
        self.set_choice(Some(choice));
        self.pass_point();
    }

    pub(super) fn variant_kind(&mut self, choice: Choice, kind: VariantKind) {
        let variant = self.variant_mut(choice.ty, choice.variant);
        if variant.kind.replace(kind).is_none() {
            self.learned += 1;
        }
        self.pass_point();
    }

    pub(super) fn variant_built(&mut self, choice: Choice) {
        self.built += 1;
        let order = self.built;
        self.variant_mut(choice.ty, choice.variant).built.get_or_insert(order);
        self.set_choice(None);
        self.pass_point();
    }

    pub(super) fn end_variant(&mut self, choice: Choice, built: bool) {
        self.variant_mut(choice.ty, choice.variant).in_progress -= 1;
        if built && self.choices(choice.ty).variants[choice.variant].kind.is_none() {
            self.variant_kind(choice, VariantKind::Unit);
            self.variant_built(choice);
        }
    }

    pub(super) fn set_choice(&mut self, choice: Option<Choice>) {
        if let Some(frame) = self.frames.last_mut() {
            frame.choice = choice;
        }
    }
}
