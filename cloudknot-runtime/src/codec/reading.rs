//! A deserializer around that of a codec. It records what a type asks for, and limits the depth of a value. `access` is
//! its half for values with content.

mod access;

use serde::de::{DeserializeSeed, Deserializer, Visitor};

use self::access::Watch;
use super::events::{Event, Events, Wire};
use super::names::Lists;

/// The events and names of a value that is read.
#[derive(Debug)]
pub(super) struct Reading<W> {
    pub(super) events: Events<W>,
    /// `true` once a type has ignored a part of the value.
    pub(super) ignored: bool,
    /// The lists of names that types gave; `None` if nothing is compared.
    pub(super) lists: Option<Box<Lists>>,
}

impl<W: Wire> Reading<W> {
    pub(super) fn new(max_stack: usize, compared: bool) -> Self {
        let lists = compared.then(|| Box::new(Lists::new()));
        Self { events: Events::new(max_stack, compared), ignored: false, lists }
    }
}

/// Seed of a whole value.
pub(super) struct Whole<'r, S, W> {
    pub(super) seed: S,
    pub(super) reading: &'r mut Reading<W>,
}

impl<'de, S: DeserializeSeed<'de>, W: Wire> DeserializeSeed<'de> for Whole<'_, S, W> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.seed.deserialize(Watched { inner, reading: self.reading })
    }
}

/// Deserializer of a value, or of a part of it.
struct Watched<'r, D, W> {
    inner: D,
    reading: &'r mut Reading<W>,
}

macro_rules! leaves {
    ($($method:ident $inner:ident $event:ident;)*) => {
        $(
            #[inline]
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
                self.reading.events.emit(Event::$event);
                self.inner.$inner(visitor)
            }
        )*
    };
}

impl<'r, D, W: Wire> Watched<'r, D, W> {
    #[inline]
    fn watch<V>(self, visitor: V, seq: Event) -> (D, Watch<'r, V, W>) {
        (self.inner, Watch { visitor, reading: self.reading, seq: Some(seq) })
    }
}

impl<'de, D: Deserializer<'de>, W: Wire> Deserializer<'de> for Watched<'_, D, W> {
    type Error = D::Error;

    leaves! {
        deserialize_bool deserialize_bool Bool;
        deserialize_u8 deserialize_u8 U8;
        deserialize_u16 deserialize_u16 Unsigned;
        deserialize_u32 deserialize_u32 Unsigned;
        deserialize_u64 deserialize_u64 Unsigned;
        deserialize_u128 deserialize_u128 U128;
        deserialize_i8 deserialize_i8 I8;
        deserialize_i16 deserialize_i16 Signed;
        deserialize_i32 deserialize_i32 Signed;
        deserialize_i64 deserialize_i64 Signed;
        deserialize_i128 deserialize_i128 I128;
        deserialize_f32 deserialize_f32 F32;
        deserialize_f64 deserialize_f64 F64;
        deserialize_char deserialize_char Char;
        deserialize_str deserialize_str Str;
        // bincode allocates an owned value before it reads it, whatever its length; a borrowed one is a part of the input.
        deserialize_string deserialize_str Str;
        deserialize_bytes deserialize_bytes Bytes;
        deserialize_byte_buf deserialize_bytes Bytes;
        deserialize_identifier deserialize_identifier Str;
        deserialize_unit deserialize_unit Unit;
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.reading.events.emit(Event::UnitStruct);
        self.inner.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let (inner, watch) = self.watch(visitor, Event::Seq);
        inner.deserialize_any(watch)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.reading.ignored = true;
        self.inner.deserialize_ignored_any(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let (inner, watch) = self.watch(visitor, Event::Seq);
        inner.deserialize_option(watch)
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        let (inner, watch) = self.watch(visitor, Event::Seq);
        inner.deserialize_newtype_struct(name, watch)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let (inner, watch) = self.watch(visitor, Event::Seq);
        inner.deserialize_seq(watch)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        let (inner, watch) = self.watch(visitor, Event::Tuple);
        inner.deserialize_tuple(len, watch)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let (inner, watch) = self.watch(visitor, Event::Tuple);
        inner.deserialize_tuple_struct(name, len, watch)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let (inner, watch) = self.watch(visitor, Event::Seq);
        inner.deserialize_map(watch)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        if let Some(lists) = &mut self.reading.lists {
            lists.fields(name, fields);
        }
        let (inner, watch) = self.watch(visitor, Event::Tuple);
        inner.deserialize_struct(name, fields, watch)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        if let Some(lists) = &mut self.reading.lists {
            lists.variants(name, variants);
        }
        let watch = access::WatchEnum { visitor, reading: self.reading, name };
        self.inner.deserialize_enum(name, variants, watch)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}
