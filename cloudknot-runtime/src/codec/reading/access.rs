//! The visitors and accesses that pass the recording deserializer on to the parts of a value.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::{Event, Reading, Watched, Wire};

/// Seed of a part of a value.
struct Part<'r, S, W> {
    seed: S,
    reading: &'r mut Reading<W>,
}

impl<'de, S: DeserializeSeed<'de>, W: Wire> DeserializeSeed<'de> for Part<'_, S, W> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.seed.deserialize(Watched { inner, reading: self.reading })
    }
}

/// Visitor of a value with content, or of a value of any type.
pub(super) struct Watch<'r, V, W> {
    pub(super) visitor: V,
    pub(super) reading: &'r mut Reading<W>,
    /// Event of a sequence; `None` for the content of a variant, which has begun already.
    pub(super) seq: Option<Event>,
}

macro_rules! leaves {
    ($($method:ident($type:ty) $event:ident;)*) => {
        $(
            #[inline]
            fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
                self.reading.events.emit(Event::$event);
                self.visitor.$method(value)
            }
        )*
    };
}

impl<V, W: Wire> Watch<'_, V, W> {
    #[inline]
    fn begin<E: Error>(&mut self, event: Event) -> Result<(), E> {
        match self.seq {
            Some(_) => self.reading.events.begin(event).map_err(E::custom),
            None => Ok(()),
        }
    }

    /// Passes the deserializer of the only part to the visitor.
    #[inline]
    fn level<'de, D: Deserializer<'de>>(
        self,
        inner: D,
        visit: impl FnOnce(V, Watched<'_, D, W>) -> Result<V::Value, D::Error>,
    ) -> Result<V::Value, D::Error>
    where
        V: Visitor<'de>,
    {
        self.reading.events.enter().map_err(D::Error::custom)?;
        let value = visit(self.visitor, Watched { inner, reading: &mut *self.reading })?;
        self.reading.events.leave();
        Ok(value)
    }
}

impl<'de, V: Visitor<'de>, W: Wire> Visitor<'de> for Watch<'_, V, W> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    leaves! {
        visit_bool(bool) Bool;
        visit_u8(u8) U8;
        visit_u16(u16) Unsigned;
        visit_u32(u32) Unsigned;
        visit_u64(u64) Unsigned;
        visit_u128(u128) U128;
        visit_i8(i8) I8;
        visit_i16(i16) Signed;
        visit_i32(i32) Signed;
        visit_i64(i64) Signed;
        visit_i128(i128) I128;
        visit_f32(f32) F32;
        visit_f64(f64) F64;
        visit_char(char) Char;
        visit_str(&str) Str;
        visit_borrowed_str(&'de str) Str;
        visit_string(String) Str;
        visit_bytes(&[u8]) Bytes;
        visit_borrowed_bytes(&'de [u8]) Bytes;
        visit_byte_buf(Vec<u8>) Bytes;
    }

    #[inline]
    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.reading.events.emit(Event::Unit);
        self.visitor.visit_unit()
    }

    #[inline]
    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.reading.events.emit(Event::None);
        self.visitor.visit_none()
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.reading.events.emit(Event::Some);
        self.level(inner, |visitor, inner| visitor.visit_some(inner))
    }

    #[inline]
    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.level(inner, |visitor, inner| visitor.visit_newtype_struct(inner))
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(mut self, inner: A) -> Result<V::Value, A::Error> {
        self.begin(self.seq.unwrap_or(Event::Seq))?;
        let value = self.visitor.visit_seq(Parts { inner, reading: &mut *self.reading })?;
        if self.seq.is_some() {
            self.reading.events.end();
        }
        Ok(value)
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(mut self, inner: A) -> Result<V::Value, A::Error> {
        self.begin(Event::Map)?;
        let value = self.visitor.visit_map(Parts { inner, reading: &mut *self.reading })?;
        if self.seq.is_some() {
            self.reading.events.end();
        }
        Ok(value)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(Choice { inner, reading: self.reading, name: "" })
    }
}

/// Elements of a sequence, or entries of a map.
struct Parts<'r, A, W> {
    inner: A,
    reading: &'r mut Reading<W>,
}

impl<'de, A: SeqAccess<'de>, W: Wire> SeqAccess<'de> for Parts<'_, A, W> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(Part { seed, reading: &mut *self.reading })
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>, W: Wire> MapAccess<'de> for Parts<'_, A, W> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_key_seed(Part { seed, reading: &mut *self.reading })
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Part { seed, reading: &mut *self.reading })
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// Visitor of an enum.
pub(super) struct WatchEnum<'r, V, W> {
    pub(super) visitor: V,
    pub(super) reading: &'r mut Reading<W>,
    /// Name of the enum.
    pub(super) name: &'static str,
}

impl<'de, V: Visitor<'de>, W: Wire> Visitor<'de> for WatchEnum<'_, V, W> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    #[inline]
    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(Choice { inner, reading: self.reading, name: self.name })
    }
}

/// The variant of an enum, then its content.
struct Choice<'r, A, W> {
    inner: A,
    reading: &'r mut Reading<W>,
    name: &'static str,
}

impl<'de, 'r, A: EnumAccess<'de>, W: Wire> EnumAccess<'de> for Choice<'r, A, W> {
    type Error = A::Error;
    type Variant = Choice<'r, A::Variant, W>;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, inner) = self.inner.variant_seed(seed)?;
        Ok((value, Choice { inner, reading: self.reading, name: self.name }))
    }
}

impl<A, W: Wire> Choice<'_, A, W> {
    #[inline]
    fn content<T, E: Error>(
        self,
        shape: Event,
        content: impl FnOnce(A, &mut Reading<W>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.reading.events.begin_variant(shape).map_err(E::custom)?;
        let value = content(self.inner, self.reading)?;
        self.reading.events.end_variant(shape);
        Ok(value)
    }
}

impl<'de, A: VariantAccess<'de>, W: Wire> VariantAccess<'de> for Choice<'_, A, W> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.reading.events.emit(Event::UnitVariant);
        self.inner.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.content(Event::NewtypeVariant, |inner, reading| inner.newtype_variant_seed(Part { seed, reading }))
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.content(Event::TupleVariant, |inner, reading| {
            inner.tuple_variant(len, Watch { visitor, reading, seq: None })
        })
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        if let Some(lists) = &mut self.reading.lists {
            lists.fields(self.name, fields);
        }
        self.content(Event::StructVariant, |inner, reading| {
            inner.struct_variant(fields, Watch { visitor, reading, seq: None })
        })
    }
}
