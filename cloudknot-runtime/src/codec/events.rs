//! The events of a value: what serde is told while the value is written, and what it is asked while it is read. Equal
//! events on equal bytes give equal values.

use std::fmt;
use std::marker::PhantomData;

/// Maximum depth of a value. Sequences, maps, structs, tuples, options, newtypes and variants with content each count
/// as a level.
pub(super) const MAX_DEPTH: u32 = 128;

/// Kind of a value, or the end of one with content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Bool,
    U8,
    I8,
    Unsigned,
    Signed,
    U128,
    I128,
    F32,
    F64,
    Char,
    Str,
    Bytes,
    Unit,
    UnitStruct,
    None,
    Some,
    Seq,
    Map,
    Tuple,
    Struct,
    UnitVariant,
    NewtypeVariant,
    TupleVariant,
    StructVariant,
    End,
}

/// Codec, as a type: it determines which kinds of values its bytes distinguish.
pub(super) trait Wire: Copy {
    /// `true` for messagepack, which is self-describing; `false` for bincode.
    const MESSAGEPACK: bool;
}

/// The codec [`Codec::Bincode`](super::Codec::Bincode), as a type.
#[derive(Debug, Clone, Copy)]
pub struct Bincode;

/// The codec [`Codec::Messagepack`](super::Codec::Messagepack), as a type.
#[derive(Debug, Clone, Copy)]
pub struct Messagepack;

impl Wire for Bincode {
    const MESSAGEPACK: bool = false;
}

impl Wire for Messagepack {
    const MESSAGEPACK: bool = true;
}

impl Event {
    /// Returns the event that stands for all events which this codec encodes alike; `None` if it has no bytes and its
    /// content tells it.
    #[inline]
    fn on_wire<W: Wire>(self) -> Option<Self> {
        if W::MESSAGEPACK { self.in_messagepack() } else { Some(self.in_bincode()) }
    }

    #[inline]
    fn in_bincode(self) -> Self {
        match self {
            Self::Bytes => Self::Str,
            Self::U128 => Self::Unsigned,
            Self::I128 => Self::Signed,
            Self::UnitStruct => Self::Unit,
            Self::Struct => Self::Tuple,
            other => other,
        }
    }

    #[inline]
    fn in_messagepack(self) -> Option<Self> {
        Some(match self {
            Self::Some => return None,
            Self::U8 | Self::I8 | Self::Signed => Self::Unsigned,
            Self::U128 | Self::I128 => Self::Bytes,
            Self::Char | Self::UnitVariant => Self::Str,
            Self::None => Self::Unit,
            Self::Tuple => Self::Seq,
            Self::Struct => Self::Map,
            other => other,
        })
    }

    // Any distinct numbers will do.
    #[inline]
    pub(super) fn code(self) -> u64 {
        (self as u64 + 1).wrapping_mul(0xd1b5_4a32_d192_ed03)
    }
}

/// Running hash of events, and the depth at which they occur.
#[derive(Debug)]
pub(super) struct Events<W> {
    hash: u64,
    depth: u32,
    /// Address of the stack at the beginning.
    stack: usize,
    max_stack: usize,
    /// `false` if the hash is not needed: a value that is only decoded.
    hashed: bool,
    pub(super) overflow: Option<Overflow>,
    wire: PhantomData<W>,
}

/// Limit that a value exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overflow {
    Depth,
    Stack,
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = match self {
            Self::Depth => format!("it is nested more than {MAX_DEPTH} levels deep"),
            Self::Stack => "its nested parts take too much of the stack".to_owned(),
        };
        write!(f, "{limit}; flatten the type: keep the nodes in a `Vec`, and refer to them by their index")
    }
}

impl<W: Wire> Events<W> {
    pub(super) fn new(max_stack: usize, hashed: bool) -> Self {
        Self { hash: 0, depth: 0, stack: stack_address(), max_stack, hashed, overflow: None, wire: PhantomData }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    // A polynomial, because the compiler folds the events of a struct of numbers into one multiplication and addition.
    #[inline]
    pub(super) fn emit(&mut self, event: Event) {
        if self.hashed
            && let Some(event) = event.on_wire::<W>()
        {
            self.hash = self.hash.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(event.code());
        }
    }

    /// Enters a level.
    #[inline]
    pub(super) fn enter(&mut self) -> Result<(), Overflow> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(*self.overflow.insert(Overflow::Depth));
        }
        if self.stack.abs_diff(stack_address()) > self.max_stack {
            return Err(*self.overflow.insert(Overflow::Stack));
        }
        Ok(())
    }

    #[inline]
    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Begins a value with content.
    #[inline]
    pub(super) fn begin(&mut self, event: Event) -> Result<(), Overflow> {
        self.emit(event);
        self.enter()
    }

    #[inline]
    pub(super) fn end(&mut self) {
        self.leave();
        self.emit(Event::End);
    }

    /// Begins a variant with content. messagepack encodes it as a map of one entry.
    #[inline]
    pub(super) fn begin_variant(&mut self, shape: Event) -> Result<(), Overflow> {
        if !W::MESSAGEPACK {
            return self.begin(shape);
        }
        self.emit(Event::Map);
        self.emit(Event::Str);
        match shape {
            Event::TupleVariant => self.emit(Event::Seq),
            Event::StructVariant => self.emit(Event::Map),
            _ => {}
        }
        self.enter()
    }

    #[inline]
    pub(super) fn end_variant(&mut self, shape: Event) {
        self.end();
        if W::MESSAGEPACK && shape != Event::NewtypeVariant {
            self.emit(Event::End);
        }
    }
}

/// Returns the address of a local variable, which shows how much of the stack is used.
#[inline]
fn stack_address() -> usize {
    let here = 0_u8;
    std::ptr::from_ref(&here).addr()
}
