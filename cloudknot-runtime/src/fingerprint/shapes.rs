//! The traced structure of types: slots, their shapes, and the named types. Independent of the tracing.

use std::cell::Cell;

pub(super) type SlotId = usize;
pub(super) type TypeNo = usize;

#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "the flags are independent")]
pub(super) struct Slot {
    pub(super) shapes: Vec<Shape>,
    /// `true` once a value has been requested from this slot.
    pub(super) entered: bool,
    /// Name of the type that was first deserialized from this slot.
    pub(super) type_name: &'static str,
    /// Enclosing slot of the same type, if there is one: this slot is then only a recursion into it.
    pub(super) enclosing: Option<SlotId>,
    /// Name of the type in this slot, once the type has refused all offers.
    pub(super) opaque: Option<&'static str>,
    /// `true` if no value can be built in this slot, because the content is opaque.
    pub(super) unbuildable: bool,
    /// `true` once the type has asked whether people read the encoding: it may then have two forms.
    pub(super) asks_readable: Cell<bool>,
    /// `true` once a value has been built in this slot.
    pub(super) built: bool,
    pub(super) refusals: usize,
    pub(super) first_set: Option<usize>,
    /// `true` if the type was known to be opaque when the slot was first entered.
    pub(super) type_is_opaque: bool,
    /// `true` if the slot has content that no pass has seen yet. Computed between passes.
    pub(super) pending: bool,
    // State of the container with this content, in the current pass:
    pub(super) open: bool,
    pub(super) filled: u8,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Scalar(&'static str),
    /// The type requested a value of any type.
    Any,
    Option(SlotId),
    Seq(SlotId),
    Map(SlotId, SlotId),
    /// A map whose keys a type searches for the names of its fields, as `flatten` does.
    Keyed(Vec<(&'static str, SlotId)>),
    Tuple(usize, Vec<SlotId>),
    Struct(TypeNo),
    Named(TypeNo),
}

/// A named type, or the fields of a struct or of a struct variant.
#[derive(Debug)]
pub(super) struct Type {
    pub(super) name: &'static str,
    pub(super) form: Form,
}

#[derive(Debug)]
pub(super) enum Form {
    Unit,
    Newtype(SlotId),
    /// Slot with the shape of the fields.
    Fields(SlotId),
    Struct(Fields),
    Enum(Choices),
}

#[derive(Debug)]
pub(super) struct Fields {
    pub(super) names: Vec<&'static str>,
    pub(super) slots: Vec<SlotId>,
    /// For each name, `true` if it is another name for the field before it.
    pub(super) alias: Vec<bool>,
    /// `true` if the type accepts its fields only in order, without names.
    pub(super) in_order: bool,
}

#[derive(Debug)]
pub(super) struct Choices {
    pub(super) variants: Vec<Variant>,
    /// `true` if the type accepts its variants only by number.
    pub(super) by_number: bool,
}

#[derive(Debug)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) kind: Option<VariantKind>,
    pub(super) slot: SlotId,
    pub(super) refused: bool,
    /// Point at which the variant was first built, as the number of variants built so far.
    pub(super) built: Option<usize>,
    pub(super) entries: usize,
    pub(super) in_progress: usize,
    pub(super) entered_in_pass: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum VariantKind {
    Unit,
    Newtype,
    Fields,
}
