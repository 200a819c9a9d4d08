//! A serializer that writes nothing. It records the events and names of a value, and finds what its codec cannot carry.

use std::cell::Cell;
use std::fmt::{self, Display, Write};

use serde::ser::{self, Serialize, Serializer};
use twox_hash::XxHash3_64;

use super::events::{Event, Events, Overflow, Wire};
use super::names::{Fields, Names};
use super::{Hidden, USE_MESSAGEPACK_ATTRIBUTE};

/// The events and names of a value.
#[derive(Debug)]
pub(super) struct Survey<W> {
    pub(super) events: Events<W>,
    pub(super) names: Names,
    /// Length of the value in bincode's encoding.
    pub(super) size: usize,
    pub(super) hidden: Cell<Hidden>,
    /// `true` between the start of a `Some` and its content.
    after_some: bool,
    /// Hash of the content.
    pub(super) content: Content,
}

/// Hash of the numbers and texts of a value, with the fields and keys that they belong to. A sum, because equal hash maps have
/// their entries in different orders.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Content {
    pub(super) sum: u64,
    /// Hash of the same in the order in which they were written.
    pub(super) ordered: u64,
    /// Hash of the fields and keys around the current position.
    place: u64,
}

impl Content {
    #[inline]
    fn add(&mut self, event: Event, bits: u64) {
        // Not linear, so that other numbers with the same sum give another one.
        let mixed = u128::from(bits ^ self.place ^ event.code()) * 0x9e37_79b9_7f4a_7c15;
        let mixed = fold(mixed);
        self.sum = self.sum.wrapping_add(mixed);
        self.ordered = self.ordered.rotate_left(9).wrapping_add(mixed);
    }

    /// Enters a field or a key with this hash. Returns the outer place.
    #[inline]
    fn enter(&mut self, hash: u64) -> u64 {
        let inner = self.place.rotate_left(23) ^ hash;
        std::mem::replace(&mut self.place, inner)
    }
}

/// Reason for which a value cannot be encoded.
#[derive(Debug)]
pub(super) struct Fault(String);

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

impl ser::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl From<Overflow> for Fault {
    fn from(error: Overflow) -> Self {
        Self(error.to_string())
    }
}

/// Maximum stack that is used to encode a value. The value may not be sent to a thread with a larger stack.
const MAX_STACK: usize = 768 << 10;

/// Returns the survey of a value.
pub(super) fn of<W: Wire, T: Serialize>(value: &T) -> Result<Survey<W>, Fault> {
    let mut survey = Survey {
        events: Events::new(MAX_STACK, true),
        names: Names::new(),
        size: 0,
        hidden: Cell::default(),
        after_some: false,
        content: Content::default(),
    };
    value.serialize(&mut survey)?;
    Ok(survey)
}

impl<W: Wire> Survey<W> {
    #[inline]
    fn leaf(&mut self, event: Event, size: usize, bits: u64) -> Result<(), Fault> {
        self.begins(event)?;
        if W::MESSAGEPACK && matches!(event, Event::UnitStruct | Event::U128 | Event::I128) {
            self.hidden.get_mut().ambiguous = true;
        }
        self.content.add(event, bits);
        self.events.emit(event);
        self.size += size;
        Ok(())
    }

    /// Records that a value begins, which messagepack must distinguish from `None`.
    #[inline]
    fn begins(&mut self, event: Event) -> Result<(), Fault> {
        if W::MESSAGEPACK && std::mem::take(&mut self.after_some) && matches!(event, Event::None | Event::Unit) {
            return Err(Fault(
                "messagepack encodes `Some(None)` and `Some(())` like `None`; use an enum, or the codec bincode".into(),
            ));
        }
        Ok(())
    }

    #[inline]
    fn begin(&mut self, event: Event, size: usize) -> Result<(), Fault> {
        self.begins(event)?;
        self.content.add(event, 0);
        self.size += size;
        Ok(self.events.begin(event)?)
    }

    #[inline]
    fn begin_with_len(&mut self, event: Event, len: Option<usize>) -> Result<Compound<'_, W>, Fault> {
        let size = match len {
            Some(len) => varint_len(len as u64),
            None if W::MESSAGEPACK => 0,
            None => return Err(Fault(super::USE_MESSAGEPACK.into())),
        };
        self.begin(event, size)?;
        Ok(Compound { survey: self, event, key: 0 })
    }

    #[inline]
    fn begin_variant(
        &mut self,
        owner: &'static str,
        index: u32,
        name: &'static str,
        shape: Event,
    ) -> Result<(), Fault> {
        self.names.variant(owner, index, name);
        self.begins(shape)?;
        self.content.add(shape, index.into());
        self.size += varint_len(index.into());
        Ok(self.events.begin_variant(shape)?)
    }

    #[inline]
    fn level<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        self.events.enter()?;
        value.serialize(&mut *self)?;
        self.events.leave();
        Ok(())
    }
}

/// A sequence, map, tuple or struct whose content is being recorded.
pub(super) struct Compound<'s, W> {
    survey: &'s mut Survey<W>,
    event: Event,
    /// Hash of the last key of a map, or number of the elements of a tuple.
    key: u64,
}

/// The same for a struct.
pub(super) struct Structure<'s, W> {
    survey: &'s mut Survey<W>,
    event: Event,
    owner: &'static str,
    fields: Fields,
}

macro_rules! leaves {
    ($($method:ident($type:ty) $event:ident |$value:ident| $size:expr, $bits:expr;)*) => {
        $(
            #[inline]
            fn $method(self, $value: $type) -> Result<(), Fault> {
                self.leaf(Event::$event, $size, $bits)
            }
        )*
    };
}

impl<'s, W: Wire> Serializer for &'s mut Survey<W> {
    type Ok = ();
    type Error = Fault;
    type SerializeSeq = Compound<'s, W>;
    type SerializeTuple = Compound<'s, W>;
    type SerializeTupleStruct = Compound<'s, W>;
    type SerializeTupleVariant = Compound<'s, W>;
    type SerializeMap = Compound<'s, W>;
    type SerializeStruct = Structure<'s, W>;
    type SerializeStructVariant = Structure<'s, W>;

    leaves! {
        serialize_bool(bool) Bool |value| 1, value.into();
        serialize_u8(u8) U8 |value| 1, value.into();
        serialize_u16(u16) Unsigned |value| varint_len(value.into()), value.into();
        serialize_u32(u32) Unsigned |value| varint_len(value.into()), value.into();
        serialize_u64(u64) Unsigned |value| varint_len(value), value;
        serialize_u128(u128) U128 |value| wide_varint_len(value), fold(value);
        serialize_i8(i8) I8 |value| 1, zigzag(value.into());
        serialize_i16(i16) Signed |value| varint_len(zigzag(value.into())), zigzag(value.into());
        serialize_i32(i32) Signed |value| varint_len(zigzag(value.into())), zigzag(value.into());
        serialize_i64(i64) Signed |value| varint_len(zigzag(value)), zigzag(value);
        serialize_i128(i128) I128 |value| wide_varint_len(wide_zigzag(value)), fold(wide_zigzag(value));
        serialize_f32(f32) F32 |value| 4, value.to_bits().into();
        serialize_f64(f64) F64 |value| 8, value.to_bits();
        serialize_char(char) Char |value| value.len_utf8(), u32::from(value).into();
        serialize_str(&str) Str |value| blob_len(value.len()), hash(value.as_bytes());
        serialize_bytes(&[u8]) Bytes |value| blob_len(value.len()), hash(value);
        serialize_unit_struct(&'static str) UnitStruct |_name| 0, 0;
    }

    #[inline]
    fn serialize_none(self) -> Result<(), Fault> {
        self.leaf(Event::None, 1, 0)
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Fault> {
        self.leaf(Event::Some, 1, 0)?;
        self.after_some = true;
        self.level(value)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), Fault> {
        self.leaf(Event::Unit, 0, 0)
    }

    #[inline]
    fn serialize_unit_variant(self, owner: &'static str, index: u32, name: &'static str) -> Result<(), Fault> {
        self.names.variant(owner, index, name);
        self.leaf(Event::UnitVariant, varint_len(index.into()), index.into())
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Fault> {
        self.level(value)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        owner: &'static str,
        index: u32,
        name: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        self.begin_variant(owner, index, name, Event::NewtypeVariant)?;
        value.serialize(&mut *self)?;
        self.events.end_variant(Event::NewtypeVariant);
        Ok(())
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Compound<'s, W>, Fault> {
        self.begin_with_len(Event::Seq, len)
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Compound<'s, W>, Fault> {
        self.begin_with_len(Event::Map, len)
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Compound<'s, W>, Fault> {
        self.begin(Event::Tuple, 0)?;
        Ok(Compound { survey: self, event: Event::Tuple, key: 0 })
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Compound<'s, W>, Fault> {
        self.serialize_tuple(len)
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        owner: &'static str,
        index: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Compound<'s, W>, Fault> {
        self.begin_variant(owner, index, name, Event::TupleVariant)?;
        Ok(Compound { survey: self, event: Event::TupleVariant, key: 0 })
    }

    #[inline]
    fn serialize_struct(self, owner: &'static str, _: usize) -> Result<Structure<'s, W>, Fault> {
        self.begin(Event::Struct, 0)?;
        Ok(Structure { survey: self, event: Event::Struct, owner, fields: Fields::of(owner) })
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        owner: &'static str,
        index: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Structure<'s, W>, Fault> {
        self.begin_variant(owner, index, name, Event::StructVariant)?;
        Ok(Structure { survey: self, event: Event::StructVariant, owner, fields: Fields::of(owner) })
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), Fault> {
        let mut text = String::new();
        write!(text, "{value}").map_err(|_| Fault("a `Display` implementation returned an error".into()))?;
        self.serialize_str(&text)
    }

    // Both codecs return `false`, too.
    fn is_human_readable(&self) -> bool {
        self.hidden.set(Hidden { readable: true, ..self.hidden.get() });
        false
    }
}

impl<W: Wire> Compound<'_, W> {
    #[inline]
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        value.serialize(&mut *self.survey)
    }

    #[inline]
    fn numbered<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        self.key += 1;
        self.keyed(value)
    }

    #[inline]
    fn key<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        let before = self.survey.content.sum;
        value.serialize(&mut *self.survey)?;
        self.key = self.survey.content.sum.wrapping_sub(before);
        Ok(())
    }

    #[inline]
    fn keyed<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        let outer = self.survey.content.enter(self.key);
        value.serialize(&mut *self.survey)?;
        self.survey.content.place = outer;
        Ok(())
    }

    #[inline]
    fn finish(self) {
        match self.event {
            Event::TupleVariant => self.survey.events.end_variant(self.event),
            _ => self.survey.events.end(),
        }
    }
}

macro_rules! compound {
    ($($trait:ident { $($method:ident: $record:ident),* })*) => {
        $(
            impl<W: Wire> ser::$trait for Compound<'_, W> {
                type Ok = ();
                type Error = Fault;

                $(
                    #[inline]
                    fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
                        self.$record(value)
                    }
                )*

                #[inline]
                fn end(self) -> Result<(), Fault> {
                    self.finish();
                    Ok(())
                }
            }
        )*
    };
}

compound! {
    SerializeSeq { serialize_element: element }
    SerializeTuple { serialize_element: numbered }
    SerializeTupleStruct { serialize_field: numbered }
    SerializeTupleVariant { serialize_field: numbered }
    SerializeMap { serialize_key: key, serialize_value: keyed }
}

impl<W: Wire> Structure<'_, W> {
    #[inline]
    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Fault> {
        if W::MESSAGEPACK {
            self.survey.events.emit(Event::Str);
        } else {
            self.fields.push(name, &mut self.survey.names);
        }
        // The name's address is that of the type, for the value and for its decoded copy.
        let outer = self.survey.content.enter(name.as_ptr().addr() as u64);
        value.serialize(&mut *self.survey)?;
        self.survey.content.place = outer;
        Ok(())
    }

    fn omit(&mut self, name: &'static str) -> Result<(), Fault> {
        if W::MESSAGEPACK {
            self.survey.names.omitted(self.owner, name);
            return Ok(());
        }
        let owner = self.owner;
        Err(Fault(format!(
            "the field `{name}` of `{owner}` is left out of some values (`skip_serializing_if`), which bincode cannot \
             express; {USE_MESSAGEPACK_ATTRIBUTE}"
        )))
    }

    #[inline]
    fn finish(self) {
        if !W::MESSAGEPACK {
            self.survey.names.fields(&self.fields);
        }
        match self.event {
            Event::StructVariant => self.survey.events.end_variant(self.event),
            _ => self.survey.events.end(),
        }
    }
}

macro_rules! structure {
    ($($trait:ident)*) => {
        $(
            impl<W: Wire> ser::$trait for Structure<'_, W> {
                type Ok = ();
                type Error = Fault;

                #[inline]
                fn serialize_field<T: Serialize + ?Sized>(
                    &mut self,
                    name: &'static str,
                    value: &T,
                ) -> Result<(), Fault> {
                    self.field(name, value)
                }

                fn skip_field(&mut self, name: &'static str) -> Result<(), Fault> {
                    self.omit(name)
                }

                #[inline]
                fn end(self) -> Result<(), Fault> {
                    self.finish();
                    Ok(())
                }
            }
        )*
    };
}

structure! { SerializeStruct SerializeStructVariant }

/// Returns the length of a number in bincode's variable-length encoding.
#[inline]
fn varint_len(number: u64) -> usize {
    match number {
        0..=250 => 1,
        251..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

#[inline]
fn wide_varint_len(number: u128) -> usize {
    u64::try_from(number).map_or(17, varint_len)
}

#[inline]
fn wide_zigzag(number: i128) -> u128 {
    (number << 1 ^ number >> 127).cast_unsigned()
}

/// Returns a number of 64 bits that depends on all bits of this one.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the upper half is added")]
fn fold(number: u128) -> u64 {
    number as u64 ^ (number >> 64) as u64
}

#[inline]
fn hash(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

#[inline]
fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63).cast_unsigned()
}

#[inline]
fn blob_len(len: usize) -> usize {
    varint_len(len as u64) + len
}
