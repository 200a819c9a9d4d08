//! What is known of types: slots, their shapes, and the named types. Knows nothing of how it was learned.

pub(super) type SlotId = usize;
pub(super) type TypeNo = usize;

#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is learned at another moment")]
pub(super) struct Slot {
    pub(super) shapes: Vec<Shape>,
    /// Whether anything was ever deserialized here.
    pub(super) entered: bool,
    /// The name of the type that was deserialized here first.
    pub(super) type_name: &'static str,
    /// The slot further out that has the same type: this one is only a way back to it.
    pub(super) same: Option<SlotId>,
    /// The name of the type here, once it has refused everything.
    pub(super) opaque: Option<&'static str>,
    /// No value can be made here, for what is in it is opaque.
    pub(super) unbuildable: bool,
    /// Whether a value was ever made here.
    pub(super) made: bool,
    pub(super) refusals: usize,
    pub(super) first_set: Option<usize>,
    pub(super) hopeless_type: bool,
    /// A variant somewhere in it was not seen yet. Computed between passes.
    pub(super) pending: bool,
    // Of the container that this is the content of, in this pass:
    pub(super) open: bool,
    pub(super) filled: u8,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Scalar(&'static str),
    /// The type asked for whatever is there.
    Any,
    Option(SlotId),
    Seq(SlotId),
    Map(SlotId, SlotId),
    /// A map in whose keys a type looks for the names of its fields, as `flatten` does.
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
    /// The slot has the shape of the fields.
    Fields(SlotId),
    Struct(Fields),
    Enum(Choices),
}

#[derive(Debug)]
pub(super) struct Fields {
    pub(super) names: Vec<&'static str>,
    pub(super) slots: Vec<SlotId>,
    /// This name is another one for the field before it.
    pub(super) alias: Vec<bool>,
    /// The type takes its fields in order only, without names.
    pub(super) in_order: bool,
}

#[derive(Debug)]
pub(super) struct Choices {
    pub(super) variants: Vec<Variant>,
    /// The type takes its variants by number only.
    pub(super) by_number: bool,
}

#[derive(Debug)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) kind: Option<VariantKind>,
    pub(super) slot: SlotId,
    pub(super) refused: bool,
    /// When it was first made, counted in variants.
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
