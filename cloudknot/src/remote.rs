//! The value that `#[cloudknot::remote]` creates from a function: it can still be called, and can be mapped over many
//! inputs.

use std::fmt;
use std::ops::Deref;

use cloudknot_runtime::codec::{CodecError, PartOrder};
use cloudknot_runtime::function::Function;

/// A remote function. Call it like the original function, or map it over many inputs.
///
/// Inputs and results may have any size that fits into memory twice: once as a value, and once in the encoded form that is
/// sent or stored. A result of 3 GB, whether bytes, strings or numbers, takes 6 GB in the item process while it is
/// encoded and 6 GB in the program while it is read. Without optimization, each byte takes about fifty nanoseconds to
/// transfer, and a `Vec` of small elements takes longer: use `cargo run --release` for large values.
pub struct RemoteFn<Args: 'static, Output: 'static, F: 'static> {
    pointer: F,
    pub(crate) function: &'static Function,
    pub(crate) encode: Encode<Args>,
    pub(crate) decode: Decode<Output>,
}

/// Function that appends the frame of one input, and reads it back as a check. Returns the order of the input.
pub(crate) type Encode<Args> = fn(Args, &mut Vec<u8>) -> Result<PartOrder, CodecError>;
/// Function that decodes the value of one frame.
pub(crate) type Decode<Output> = fn(&[u8]) -> Result<Output, CodecError>;

impl<Args, Output, F> RemoteFn<Args, Output, F> {
    /// Creates the value; called by the code that the macro generates.
    #[doc(hidden)]
    pub const fn new(pointer: F, function: &'static Function, encode: Encode<Args>, decode: Decode<Output>) -> Self {
        Self { pointer, function, encode, decode }
    }
}

impl<Args, Output, F> Deref for RemoteFn<Args, Output, F> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.pointer
    }
}

impl<Args, Output, F> fmt::Debug for RemoteFn<Args, Output, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteFn({})", self.function.id)
    }
}
