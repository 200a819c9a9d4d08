//! The walk along the structure of a type and the bytes of its value. Each part of the value is requested from the decoder
//! as its node says, and passed on to the serializer.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::{Conversion, no_node};
use crate::codec::Codec;
use crate::fingerprint::structure::{Content, Field, Node, NodeId, Variant};

/// Node of a value of any type, which is not in the structure.
const ANY: NodeId = NodeId::MAX;
/// Start of the names of fields by which `serde_json` recognises its own types.
const PRIVATE: &str = "$serde_json::private::";

/// Length of a name that counts as a part of the value.
const NAME_LEN: usize = 16;

/// Passes the value of a node to a serializer.
pub(super) fn node<'de, D: Deserializer<'de>, S: Serializer>(
    conversion: &Conversion<'_>,
    id: NodeId,
    from: D,
    to: S,
) -> Result<S::Ok, D::Error> {
    conversion.count(1)?;
    if id == ANY {
        return from.deserialize_any(Visit { conversion, to, parts: Parts::Any });
    }
    let visit = |parts| Visit { conversion, to, parts };
    match conversion.structure.node(id).ok_or_else(no_node)? {
        Node::Bool => from.deserialize_bool(visit(Parts::Any)),
        Node::U8 => from.deserialize_u8(visit(Parts::Any)),
        Node::U16 => from.deserialize_u16(visit(Parts::Any)),
        Node::U32 => from.deserialize_u32(visit(Parts::Any)),
        Node::U64 => from.deserialize_u64(visit(Parts::Any)),
        Node::U128 => from.deserialize_u128(visit(Parts::Any)),
        Node::I8 => from.deserialize_i8(visit(Parts::Any)),
        Node::I16 => from.deserialize_i16(visit(Parts::Any)),
        Node::I32 => from.deserialize_i32(visit(Parts::Any)),
        Node::I64 => from.deserialize_i64(visit(Parts::Any)),
        Node::I128 => from.deserialize_i128(visit(Parts::Any)),
        Node::F32 => from.deserialize_f32(visit(Parts::Any)),
        Node::F64 => from.deserialize_f64(visit(Parts::Any)),
        Node::Char => from.deserialize_char(visit(Parts::Any)),
        Node::String => from.deserialize_str(visit(Parts::Any)),
        Node::Bytes => from.deserialize_bytes(visit(Parts::Bytes)),
        Node::Unit => from.deserialize_unit(visit(Parts::Any)),
        Node::UnitStruct(_) => from.deserialize_unit_struct("", visit(Parts::Any)),
        Node::Any => from.deserialize_any(visit(Parts::Any)),
        Node::Option(content) => from.deserialize_option(visit(Parts::Content(*content))),
        Node::Newtype(_, content) => from.deserialize_newtype_struct("", visit(Parts::Content(*content))),
        Node::Seq(element) => from.deserialize_seq(visit(Parts::Elements(*element))),
        Node::Map(key, value) => from.deserialize_map(visit(Parts::Entries(*key, *value))),
        Node::Keyed(fields) => from.deserialize_map(visit(Parts::Keyed(fields))),
        Node::Tuple(ids) | Node::TupleStruct(_, ids) => from.deserialize_tuple(ids.len(), visit(Parts::Tuple(ids))),
        Node::Array(id, len) => match usize::try_from(*len) {
            Ok(len) => from.deserialize_tuple(len, visit(Parts::Elements(*id))),
            Err(_) => Err(no_node()),
        },
        Node::Struct(_, fields) => from.deserialize_tuple(fields.len(), visit(Parts::Fields(fields))),
        Node::Enum(_, variants) => from.deserialize_enum("", &[], visit(Parts::Variants(variants))),
        Node::Opaque(opaque) => Err(conversion.opaque(opaque)),
    }
}

/// Parts of a value, as its node describes them.
#[derive(Clone, Copy)]
enum Parts<'a> {
    /// Parts of any type, or none.
    Any,
    Bytes,
    Content(NodeId),
    Elements(NodeId),
    Entries(NodeId, NodeId),
    Keyed(&'a [Field]),
    Tuple(&'a [NodeId]),
    Fields(&'a [Field]),
    Variants(&'a [Variant]),
}

/// Visitor of a value, which passes it to a serializer.
struct Visit<'a, S> {
    conversion: &'a Conversion<'a>,
    to: S,
    parts: Parts<'a>,
}

macro_rules! leaves {
    ($($visit:ident($type:ty) $serialize:ident;)*) => {
        $(
            #[inline]
            fn $visit<E: Error>(self, value: $type) -> Result<S::Ok, E> {
                self.to.$serialize(value).map_err(|error| self.conversion.not_serialized(error))
            }
        )*
    };
}

impl<'de, S: Serializer> Visitor<'de> for Visit<'_, S> {
    type Value = S::Ok;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of the recorded type")
    }

    leaves! {
        visit_bool(bool) serialize_bool;
        visit_u8(u8) serialize_u8;
        visit_u16(u16) serialize_u16;
        visit_u32(u32) serialize_u32;
        visit_u64(u64) serialize_u64;
        visit_u128(u128) serialize_u128;
        visit_i8(i8) serialize_i8;
        visit_i16(i16) serialize_i16;
        visit_i32(i32) serialize_i32;
        visit_i64(i64) serialize_i64;
        visit_i128(i128) serialize_i128;
        visit_f32(f32) serialize_f32;
        visit_f64(f64) serialize_f64;
        visit_char(char) serialize_char;
        visit_str(&str) serialize_str;
    }

    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<S::Ok, E> {
        // messagepack encodes numbers of 128 bits as bytes.
        if self.conversion.ambiguous && !matches!(self.parts, Parts::Bytes) {
            return Err(self.conversion.opaque("it has bytes, or a number of 128 bits, in a part of any type"));
        }
        self.to.serialize_bytes(value).map_err(|error| self.conversion.not_serialized(error))
    }

    fn visit_unit<E: Error>(self) -> Result<S::Ok, E> {
        self.to.serialize_unit().map_err(|error| self.conversion.not_serialized(error))
    }

    fn visit_none<E: Error>(self) -> Result<S::Ok, E> {
        self.to.serialize_none().map_err(|error| self.conversion.not_serialized(error))
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<S::Ok, D::Error> {
        node(self.conversion, self.parts.content(), from, self.to)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<S::Ok, D::Error> {
        node(self.conversion, self.parts.content(), from, self.to)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, from: A) -> Result<S::Ok, A::Error> {
        match self.parts {
            // bincode has no names.
            Parts::Fields(fields) if self.conversion.codec == Codec::Bincode => self.fields(fields, from),
            Parts::Tuple(ids) => self.tuple(ids, from),
            Parts::Elements(id) => self.elements(id, from),
            _ => self.elements(ANY, from),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, from: A) -> Result<S::Ok, A::Error> {
        match self.parts {
            Parts::Entries(key, value) => self.entries(key, value, from),
            Parts::Fields(fields) => self.keyed(fields, None, from),
            Parts::Keyed(fields) => self.keyed(fields, Some(ANY), from),
            _ => self.keyed(&[], Some(ANY), from),
        }
    }

    fn visit_enum<A: EnumAccess<'de>>(self, from: A) -> Result<S::Ok, A::Error> {
        let Parts::Variants(variants) = self.parts else { return Err(no_node()) };
        let (Variant(name, content), access) = from.variant_seed(VariantSeed(variants))?;
        let conversion = self.conversion;
        conversion.count(name.len() / NAME_LEN)?;
        if matches!(content, Content::Unit) {
            access.unit_variant()?;
            return self.to.serialize_str(name).map_err(|error| conversion.not_serialized(error));
        }
        if matches!(content, Content::Unknown) {
            return Err(
                conversion.opaque(format_args!("the variant `{name}` was never built while its type was traced"))
            );
        }
        let mut map = self.to.serialize_map(Some(1)).map_err(|error| conversion.not_serialized(error))?;
        map.serialize_key(name).map_err(|error| conversion.not_serialized(error))?;
        match content {
            Content::Newtype(id) => access.newtype_variant_seed(ValueSeed { conversion, id: *id, map: &mut map })?,
            _ => map
                .serialize_value(&PendingVariant { conversion, content, access: Cell::new(Some(access)) })
                .map_err(|error| conversion.not_serialized(error))?,
        }
        map.end().map_err(|error| conversion.not_serialized(error))
    }
}

impl Parts<'_> {
    /// Returns the node of the only part.
    fn content(&self) -> NodeId {
        match self {
            Self::Content(id) => *id,
            _ => ANY,
        }
    }
}

impl<S: Serializer> Visit<'_, S> {
    fn elements<'de, A: SeqAccess<'de>>(self, id: NodeId, mut from: A) -> Result<S::Ok, A::Error> {
        let conversion = self.conversion;
        let mut seq = self.to.serialize_seq(None).map_err(|error| conversion.not_serialized(error))?;
        let mut is_empty = true;
        while from.next_element_seed(ElementSeed { conversion, id, seq: &mut seq })?.is_some() {
            is_empty = false;
        }
        // messagepack encodes a struct without fields as an empty sequence.
        if is_empty && id == ANY && conversion.ambiguous {
            return Err(
                conversion.opaque("it has an empty sequence, or a struct without fields, in a part of any type")
            );
        }
        seq.end().map_err(|error| conversion.not_serialized(error))
    }

    fn tuple<'de, A: SeqAccess<'de>>(self, ids: &[NodeId], mut from: A) -> Result<S::Ok, A::Error> {
        let conversion = self.conversion;
        let mut seq = self.to.serialize_seq(Some(ids.len())).map_err(|error| conversion.not_serialized(error))?;
        for id in ids {
            let element = from.next_element_seed(ElementSeed { conversion, id: *id, seq: &mut seq })?;
            element.ok_or_else(|| A::Error::custom("a tuple has too few elements"))?;
        }
        seq.end().map_err(|error| conversion.not_serialized(error))
    }

    /// Passes on the fields of a struct, which are in order.
    fn fields<'de, A: SeqAccess<'de>>(self, fields: &[Field], mut from: A) -> Result<S::Ok, A::Error> {
        let conversion = self.conversion;
        let mut map = self.to.serialize_map(Some(fields.len())).map_err(|error| conversion.not_serialized(error))?;
        for Field(name, id) in fields {
            conversion.count(name.len() / NAME_LEN)?;
            map.serialize_key(name).map_err(|error| conversion.not_serialized(error))?;
            let value = from.next_element_seed(ValueSeed { conversion, id: *id, map: &mut map })?;
            value.ok_or_else(|| A::Error::custom("a struct has too few fields"))?;
        }
        map.end().map_err(|error| conversion.not_serialized(error))
    }

    fn entries<'de, A: MapAccess<'de>>(self, key: NodeId, value: NodeId, mut from: A) -> Result<S::Ok, A::Error> {
        let conversion = self.conversion;
        let mut map = self.to.serialize_map(None).map_err(|error| conversion.not_serialized(error))?;
        while from.next_key_seed(KeySeed { conversion, id: key, map: &mut map })?.is_some() {
            from.next_value_seed(ValueSeed { conversion, id: value, map: &mut map })?;
        }
        map.end().map_err(|error| conversion.not_serialized(error))
    }

    /// Passes on the entries of a map whose keys are names of fields. `other` is the node of the values of other keys.
    fn keyed<'de, A: MapAccess<'de>>(
        self,
        fields: &[Field],
        other: Option<NodeId>,
        mut from: A,
    ) -> Result<S::Ok, A::Error> {
        let conversion = self.conversion;
        let mut map = self.to.serialize_map(None).map_err(|error| conversion.not_serialized(error))?;
        while let Some(id) = from.next_key_seed(NameSeed { conversion, fields, other, map: &mut map })? {
            from.next_value_seed(ValueSeed { conversion, id, map: &mut map })?;
        }
        map.end().map_err(|error| conversion.not_serialized(error))
    }
}

/// A part of a value that is decoded when it is serialized.
struct Pending<'a, D> {
    conversion: &'a Conversion<'a>,
    id: NodeId,
    from: Cell<Option<D>>,
}

impl<'de, D: Deserializer<'de>> Serialize for Pending<'_, D> {
    #[inline]
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let from = self.from.take().ok_or_else(|| serde::ser::Error::custom(TWICE))?;
        node(self.conversion, self.id, from, to).map_err(|error| self.conversion.not_decoded(error))
    }
}

const TWICE: &str = "a part of a stored value can be serialized only once";

/// The fields of a variant, which are decoded when they are serialized.
struct PendingVariant<'a, A> {
    conversion: &'a Conversion<'a>,
    content: &'a Content,
    access: Cell<Option<A>>,
}

impl<'de, A: VariantAccess<'de>> Serialize for PendingVariant<'_, A> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let access = self.access.take().ok_or_else(|| serde::ser::Error::custom(TWICE))?;
        let (len, parts) = match self.content {
            Content::Tuple(ids) => (ids.len(), Parts::Tuple(ids)),
            Content::Struct(fields) => (fields.len(), Parts::Fields(fields)),
            _ => (0, Parts::Any),
        };
        access
            .tuple_variant(len, Visit { conversion: self.conversion, to, parts })
            .map_err(|error| self.conversion.not_decoded(error))
    }
}

macro_rules! seeds {
    ($($seed:ident $field:ident: $trait:ident $serialize:ident;)*) => {
        $(
            struct $seed<'a, 's, C> {
                conversion: &'a Conversion<'a>,
                id: NodeId,
                $field: &'s mut C,
            }

            impl<'de, C: $trait> DeserializeSeed<'de> for $seed<'_, '_, C> {
                type Value = ();

                #[inline]
                fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
                    let pending = Pending { conversion: self.conversion, id: self.id, from: Cell::new(Some(from)) };
                    self.$field.$serialize(&pending).map_err(|error| self.conversion.not_serialized(error))
                }
            }
        )*
    };
}

seeds! {
    ElementSeed seq: SerializeSeq serialize_element;
    KeySeed map: SerializeMap serialize_key;
    ValueSeed map: SerializeMap serialize_value;
}

/// Seed of a key that may be the name of a field. Passes the key on, and returns the node of its value.
struct NameSeed<'a, 's, M> {
    conversion: &'a Conversion<'a>,
    fields: &'a [Field],
    other: Option<NodeId>,
    map: &'s mut M,
}

impl<M: SerializeMap> NameSeed<'_, '_, M> {
    fn pass<T: Serialize + ?Sized, E: Error>(self, key: &T, id: Option<NodeId>) -> Result<NodeId, E> {
        let Some(id) = id else {
            return Err(self.conversion.opaque("a struct has a field by a name that it is not read by"));
        };
        self.map.serialize_key(key).map_err(|error| self.conversion.not_serialized(error))?;
        Ok(id)
    }
}

macro_rules! keys {
    ($($visit:ident($type:ty);)*) => {
        $(
            fn $visit<E: Error>(self, key: $type) -> Result<NodeId, E> {
                let other = self.other;
                self.pass(&key, other)
            }
        )*
    };
}

impl<'de, M: SerializeMap> DeserializeSeed<'de> for NameSeed<'_, '_, M> {
    type Value = NodeId;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<NodeId, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de, M: SerializeMap> Visitor<'de> for NameSeed<'_, '_, M> {
    type Value = NodeId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that JSON can have")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<NodeId, E> {
        if key.starts_with(PRIVATE) {
            return Err(self
                .conversion
                .opaque(format_args!("serde_json does not print a map with the key `{key}` as a map")));
        }
        let named = self.fields.iter().find(|field| field.0 == key).map(|field| field.1);
        let other = self.other;
        self.pass(key, named.or(other))
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<NodeId, E> {
        Err(self.conversion.opaque(NO_KEY))
    }

    fn visit_unit<E: Error>(self) -> Result<NodeId, E> {
        Err(self.conversion.opaque(NO_KEY))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<NodeId, A::Error> {
        Err(self.conversion.opaque(NO_KEY))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<NodeId, A::Error> {
        Err(self.conversion.opaque(NO_KEY))
    }

    keys! {
        visit_bool(bool);
        visit_u8(u8);
        visit_u16(u16);
        visit_u32(u32);
        visit_u64(u64);
        visit_i8(i8);
        visit_i16(i16);
        visit_i32(i32);
        visit_i64(i64);
        visit_f32(f32);
        visit_f64(f64);
    }
}

const NO_KEY: &str = "a map has keys that JSON cannot have";

/// Seed of a variant's name or number.
struct VariantSeed<'a>(&'a [Variant]);

impl<'de, 'a> DeserializeSeed<'de> for VariantSeed<'a> {
    type Value = &'a Variant;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<&'a Variant, D::Error> {
        from.deserialize_identifier(self)
    }
}

impl<'a> Visitor<'_> for VariantSeed<'a> {
    type Value = &'a Variant;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a variant of the recorded type")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<&'a Variant, E> {
        let variant = usize::try_from(number).ok().and_then(|number| self.0.get(number));
        variant.ok_or_else(|| E::custom(format_args!("the type has no variant {number}")))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<&'a Variant, E> {
        let variant = self.0.iter().find(|variant| variant.0 == name);
        variant.ok_or_else(|| E::custom(format_args!("the type has no variant `{name}`")))
    }
}
