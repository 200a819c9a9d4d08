//! The value that `#[cloudknot::remote]` makes of a function: still callable, and able to map.

use std::fmt;
use std::ops::Deref;

use cloudknot_runtime::codec::CodecError;
use cloudknot_runtime::function::Function;

/// A remote function: call it like the function it is, or map it over many inputs.
///
/// Inputs and results may be of any size that fits into memory twice: once as a value, and once as what is sent or
/// stored. A result of 3 GB, whether bytes, text or numbers, takes 6 GB in the item process while it is made and 6 GB in
/// the program while it is read. Without optimisation each byte costs some fifty nanoseconds on its way, and a
/// `Vec` of small elements more: large values are for `cargo run --release`.
pub struct RemoteFn<Args: 'static, Output: 'static, F: 'static> {
    pointer: F,
    pub(crate) function: &'static Function,
    pub(crate) encode: Encode<Args>,
    pub(crate) decode: Decode<Output>,
}

/// Appends the frame of one input, and reads it back.
pub(crate) type Encode<Args> = fn(Args, &mut Vec<u8>) -> Result<(), CodecError>;
/// The value of one frame.
pub(crate) type Decode<Output> = fn(&[u8]) -> Result<Output, CodecError>;

impl<Args, Output, F> RemoteFn<Args, Output, F> {
    /// What the macro writes.
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
