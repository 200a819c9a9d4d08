//! Makes the structure from what was traced.

use std::collections::{HashMap, HashSet};

use super::{Content, Field, Node, NodeId, Opaque, OpaqueReason, Structure, Variant};
use crate::codec::Codec;
use crate::fingerprint::render::readable;
use crate::fingerprint::shapes::{self, Fields, Form, Shape, SlotId, TypeNo, VariantKind};
use crate::fingerprint::trace::Tracer;

/// Number of equal elements from which a tuple is an array.
const MIN_ARRAY_LEN: usize = 4;
/// Maximum depth of options and newtypes around the key of a map.
const MAX_KEY_DEPTH: usize = 16;

struct Builder<'t> {
    tracer: &'t Tracer,
    codec: Codec,
    nodes: Vec<Node>,
    /// Slots that contain themselves and have no name known to serde.
    recursive: HashSet<SlotId>,
    slots: HashMap<SlotId, NodeId>,
    types: HashMap<TypeNo, NodeId>,
    /// Nodes that all types with the same content share.
    shared: HashMap<Node, NodeId>,
}

/// Builds the structure of the types in these two slots.
pub(in crate::fingerprint) fn build(tracer: &Tracer, input: SlotId, output: SlotId, codec: Codec) -> Structure {
    let is_named = |slot: &SlotId| matches!(tracer.slots[*slot].shapes[..], [Shape::Named(_)]);
    let enclosing = tracer.slots.iter().filter_map(|slot| slot.enclosing);
    let mut builder = Builder {
        tracer,
        codec,
        nodes: Vec::new(),
        recursive: enclosing.filter(|slot| !is_named(slot)).collect(),
        slots: HashMap::new(),
        types: HashMap::new(),
        shared: HashMap::new(),
    };
    let (input, output) = (builder.slot(input), builder.slot(output));
    Structure { nodes: builder.nodes, input, output }
}

impl Builder<'_> {
    fn slot(&mut self, slot: SlotId) -> NodeId {
        let slot = self.tracer.slots[slot].enclosing.unwrap_or(slot);
        if !self.recursive.contains(&slot) {
            return self.content(slot);
        }
        if let Some(id) = self.slots.get(&slot) {
            return *id;
        }
        let id = self.reserve();
        self.slots.insert(slot, id);
        let content = self.content(slot);
        self.nodes[id as usize] = self.nodes[content as usize].clone();
        id
    }

    fn content(&mut self, slot: SlotId) -> NodeId {
        let tracer = self.tracer;
        let this = &tracer.slots[slot];
        if this.asks_readable.get() {
            return self.opaque(slot, OpaqueReason::Readable);
        }
        if this.opaque.is_some() {
            return self.untraced(slot);
        }
        match &this.shapes[..] {
            [] => self.untraced(slot),
            [Shape::Named(ty)] => self.named(*ty, slot),
            [shape] => self.shape(shape, slot),
            _ => self.any(slot),
        }
    }

    fn shape(&mut self, shape: &Shape, slot: SlotId) -> NodeId {
        let node = match shape {
            Shape::Scalar(name) => match scalar(name) {
                Some(node) => node,
                None => return self.any(slot),
            },
            Shape::Any => return self.any(slot),
            Shape::Option(content) => Node::Option(self.slot(*content)),
            Shape::Seq(element) => Node::Seq(self.slot(*element)),
            Shape::Map(key, value) => {
                let (key, value) = (self.slot(*key), self.slot(*value));
                if !self.can_be_key(key, MAX_KEY_DEPTH) {
                    return self.opaque(slot, OpaqueReason::Keys);
                }
                Node::Map(key, value)
            }
            Shape::Keyed(_) if self.codec == Codec::Bincode => return self.any(slot),
            Shape::Keyed(entries) => {
                Node::Keyed(entries.iter().map(|(name, slot)| Field((*name).to_owned(), self.slot(*slot))).collect())
            }
            Shape::Tuple(len, slots) => match self.tuple(*len, slots) {
                Some(node) => node,
                None => return self.any(slot),
            },
            Shape::Struct(ty) => Node::Struct(String::new(), self.fields(self.tracer.fields(*ty))),
            Shape::Named(ty) => return self.named(*ty, slot),
        };
        self.share(node)
    }

    fn named(&mut self, ty: TypeNo, slot: SlotId) -> NodeId {
        if let Some(id) = self.types.get(&ty) {
            return *id;
        }
        let id = self.reserve();
        self.types.insert(ty, id);
        let declared = &self.tracer.types[ty];
        let name = declared.name.to_owned();
        let node = match &declared.form {
            Form::Unit => Node::UnitStruct(name),
            Form::Newtype(content) => Node::Newtype(name, self.slot(*content)),
            Form::Fields(content) => match self.parts(*content) {
                Content::Tuple(elements) => Node::TupleStruct(name, elements),
                Content::Struct(fields) => Node::Struct(name, fields),
                // Longer than the tuples that are traced in full, such as an array.
                _ if !self.tracer.slots[*content].shapes.is_empty() => Node::Newtype(name, self.slot(*content)),
                _ if self.codec == Codec::Messagepack => Node::Any,
                _ => Node::Opaque(self.opaque_type(slot, OpaqueReason::Untraced)),
            },
            Form::Struct(fields) => Node::Struct(name, self.fields(fields)),
            Form::Enum(choices) => {
                let variants = choices.variants.iter().map(|variant| self.variant(variant)).collect();
                let variants = self.by_number(&name, variants);
                Node::Enum(name, variants)
            }
        };
        self.nodes[id as usize] = node;
        id
    }

    fn variant(&mut self, variant: &shapes::Variant) -> Variant {
        let content = match variant.kind {
            Some(VariantKind::Unit) => Content::Unit,
            Some(VariantKind::Newtype) => Content::Newtype(self.slot(variant.slot)),
            Some(VariantKind::Fields) => self.parts(variant.slot),
            None => Content::Unknown,
        };
        Variant(variant.name.to_owned(), content)
    }

    /// Returns the variants by their numbers in the encoding. The list of names by which they are read has other names for some of
    /// them, so that a place in the list is only an upper bound of a number.
    fn by_number(&self, owner: &str, list: Vec<Variant>) -> Vec<Variant> {
        let samples = &self.tracer.samples;
        if self.codec == Codec::Messagepack || samples.codec.is_none() {
            return list;
        }
        let written = || samples.variants.iter().filter(|(other, ..)| *other == owner);
        // Each variant has a name in the list, so that up to a variant in its own place, all are in theirs.
        let in_place = |(_, number, name): &&(_, u32, &str)| list.get(*number as usize).is_some_and(|at| at.0 == *name);
        let in_place = written().filter(in_place).map(|(_, number, _)| *number as usize).max();
        let by_number = |number: usize| {
            if in_place.is_some_and(|last| number <= last) {
                return list[number].clone();
            }
            let mut names = written().filter(|(_, other, _)| *other as usize == number).map(|(.., name)| *name);
            match (names.next().and_then(|name| list.iter().find(|variant| variant.0 == name)), names.next()) {
                (Some(variant), None) => variant.clone(),
                _ => Variant(String::new(), Content::Unknown),
            }
        };
        (0..list.len()).map(by_number).collect()
    }

    /// Returns the fields in a slot that follow a name.
    fn parts(&mut self, slot: SlotId) -> Content {
        let tracer = self.tracer;
        match &tracer.slots[slot].shapes[..] {
            [Shape::Tuple(len, slots)] if *len == slots.len() => {
                Content::Tuple(slots.iter().map(|slot| self.slot(*slot)).collect())
            }
            [Shape::Struct(ty)] => Content::Struct(self.fields(tracer.fields(*ty))),
            _ => Content::Unknown,
        }
    }

    fn fields(&mut self, fields: &Fields) -> Vec<Field> {
        let mut built: Vec<Field> = Vec::new();
        for ((name, slot), alias) in fields.names.iter().zip(&fields.slots).zip(&fields.alias) {
            // The encoding has the name that the type writes, which may be any of those that it reads.
            let node = match built.last() {
                Some(Field(_, node)) if *alias && self.codec == Codec::Messagepack => *node,
                Some(_) if *alias => continue,
                _ => self.slot(*slot),
            };
            built.push(Field((*name).to_owned(), node));
        }
        built
    }

    /// Returns the node of a tuple; `None` if not all of its elements were traced.
    fn tuple(&mut self, len: usize, slots: &[SlotId]) -> Option<Node> {
        let elements: Vec<NodeId> = slots.iter().map(|slot| self.slot(*slot)).collect();
        match elements.first() {
            Some(first) if len >= MIN_ARRAY_LEN && elements.iter().all(|element| element == first) => {
                Some(Node::Array(*first, len as u64))
            }
            _ => (len == elements.len()).then_some(Node::Tuple(elements)),
        }
    }

    /// Returns the node of a value whose kind only a self-describing encoding shows.
    fn any(&mut self, slot: SlotId) -> NodeId {
        match self.codec {
            Codec::Bincode => self.opaque(slot, OpaqueReason::Ambiguous),
            Codec::Messagepack => self.share(Node::Any),
        }
    }

    /// Returns the node of a type that refused all offers, or was not reached. A type that asks for a number or a text has seen all
    /// of its encoding when it refuses; in a self-describing encoding, nothing need be known.
    fn untraced(&mut self, slot: SlotId) -> NodeId {
        let known = match self.tracer.slots[slot].shapes[..] {
            [Shape::Scalar(name)] => scalar(name),
            _ => None,
        };
        match (known, self.codec) {
            (Some(node), _) => self.share(node),
            (None, Codec::Bincode) => self.opaque(slot, OpaqueReason::Untraced),
            (None, Codec::Messagepack) => self.share(Node::Any),
        }
    }

    fn opaque(&mut self, slot: SlotId, reason: OpaqueReason) -> NodeId {
        let opaque = self.opaque_type(slot, reason);
        self.share(Node::Opaque(opaque))
    }

    fn opaque_type(&self, slot: SlotId, reason: OpaqueReason) -> Opaque {
        let this = &self.tracer.slots[slot];
        let name = match this.opaque.unwrap_or(this.type_name) {
            "" => "a part that was not reached",
            name => readable(name),
        };
        Opaque { type_name: name.to_owned(), reason }
    }

    /// Returns whether JSON may have such keys of a map. Whether it has them may depend on the value.
    fn can_be_key(&self, id: NodeId, depth: usize) -> bool {
        match &self.nodes[id as usize] {
            Node::Option(content) | Node::Newtype(_, content) => depth == 0 || self.can_be_key(*content, depth - 1),
            Node::Enum(_, variants) => variants.iter().any(|variant| variant.1 == Content::Unit),
            Node::Bytes
            | Node::Unit
            | Node::Seq(_)
            | Node::Map(..)
            | Node::Keyed(_)
            | Node::Tuple(_)
            | Node::Array(..)
            | Node::UnitStruct(_)
            | Node::TupleStruct(..)
            | Node::Struct(..) => false,
            _ => true,
        }
    }

    fn share(&mut self, node: Node) -> NodeId {
        if let Some(id) = self.shared.get(&node) {
            return *id;
        }
        let id = self.push(node.clone());
        self.shared.insert(node, id);
        id
    }

    /// Returns the node of a type that may contain itself. It is filled in later.
    fn reserve(&mut self) -> NodeId {
        self.push(Node::Any)
    }

    fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId::try_from(self.nodes.len() - 1).expect("the number of traced slots is limited")
    }
}

fn scalar(name: &str) -> Option<Node> {
    Some(match name {
        "bool" => Node::Bool,
        "u8" => Node::U8,
        "u16" => Node::U16,
        "u32" => Node::U32,
        "u64" => Node::U64,
        "u128" => Node::U128,
        "i8" => Node::I8,
        "i16" => Node::I16,
        "i32" => Node::I32,
        "i64" => Node::I64,
        "i128" => Node::I128,
        "f32" => Node::F32,
        "f64" => Node::F64,
        "char" => Node::Char,
        "string" => Node::String,
        "bytes" => Node::Bytes,
        "()" => Node::Unit,
        _ => return None,
    })
}
