//! What the macros write paths into. Not an API: it changes with any version.

pub use crate::program::{Program, start};
pub use cloudknot_runtime::codec::{Codec, CodecError};
pub use cloudknot_runtime::failure::{Failure, ItemErrorKind};
pub use cloudknot_runtime::function::{Function, FunctionId, Registered, Resources};
pub use cloudknot_runtime::item::{block_on, serve};
pub use inventory;
pub use serde;

use cloudknot_runtime::codec;
use cloudknot_runtime::fingerprint::Schema;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Traces the types of a function.
pub fn trace<I: DeserializeOwned, O: DeserializeOwned>(codec: Codec) -> Schema {
    Schema::of::<I, O>(codec)
}

/// Appends the frame of an input and reads it back, so that what the codec cannot carry is refused on the host.
pub fn encode_input<I: Serialize + DeserializeOwned>(
    function: &'static Function,
    input: &I,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let fingerprint = function.schema().fingerprint;
    let start = out.len();
    codec::encode(function.codec, fingerprint, input, out)?;
    codec::decode::<I>(function.codec, fingerprint, &out[start..])?;
    Ok(())
}

/// The value of a result's frame.
pub fn decode_output<O: DeserializeOwned>(function: &'static Function, frame: &[u8]) -> Result<O, CodecError> {
    codec::decode(function.codec, function.schema().fingerprint, frame)
}

/// What can be an argument or a result of a remote function.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel to or from a remote function",
    label = "this type has to implement serde's `Serialize` and `Deserialize`",
    note = "derive both: #[derive(serde::Serialize, serde::Deserialize)]"
)]
pub trait Travels: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> Travels for T {}

/// The value type of a function that returns a `Result`, whatever alias spells it.
pub trait Fallible {
    /// What it gives when all goes well.
    type Value;
    /// What it gives when not.
    type Error;
    /// As the `Result` it is.
    fn result(self) -> Result<Self::Value, Self::Error>;
}

impl<T, E> Fallible for Result<T, E> {
    type Value = T;
    type Error = E;

    fn result(self) -> Result<T, E> {
        self
    }
}

/// Turns an error into a failure with its chain of causes, by what the error's type offers.
/// `(&&&&ErrorOf(&error)).failure()` picks the first of the traits below that fits.
pub struct ErrorOf<'a, E>(pub &'a E);

/// For types that are errors.
pub trait ByError {
    /// The failure with its chain.
    fn failure(&self) -> Failure;
}

/// For boxed errors and for those of `anyhow` and `eyre`, which are not errors themselves.
pub trait ByAsRef {
    /// The failure with its chain.
    fn failure(&self) -> Failure;
}

/// For boxed errors that are not `Send`.
pub trait ByAsRefLocal {
    /// The failure with its chain.
    fn failure(&self) -> Failure;
}

/// For everything that can be displayed.
pub trait ByDisplay {
    /// The failure, without a chain.
    fn failure(&self) -> Failure;
}

impl<E: std::error::Error> ByError for &&&ErrorOf<'_, E> {
    fn failure(&self) -> Failure {
        with_chain(self.0.to_string(), self.0.source())
    }
}

impl<E: std::fmt::Display + AsRef<dyn std::error::Error + Send + Sync>> ByAsRef for &&ErrorOf<'_, E> {
    fn failure(&self) -> Failure {
        with_chain(self.0.to_string(), self.0.as_ref().source())
    }
}

impl<E: std::fmt::Display + AsRef<dyn std::error::Error>> ByAsRefLocal for &ErrorOf<'_, E> {
    fn failure(&self) -> Failure {
        with_chain(self.0.to_string(), self.0.as_ref().source())
    }
}

impl<E: std::fmt::Display> ByDisplay for ErrorOf<'_, E> {
    fn failure(&self) -> Failure {
        with_chain(self.0.to_string(), None)
    }
}

fn with_chain(message: String, source: Option<&(dyn std::error::Error + 'static)>) -> Failure {
    let mut failure = Failure::new(ItemErrorKind::Returned, message);
    failure.chain = std::iter::successors(source, |cause| cause.source()).map(ToString::to_string).collect();
    failure
}

/// Puts a function into the registry, and its description (a line of JSON) into the section `.cloudknot` of the
/// file, from where it can be read without running anything.
#[doc(hidden)]
#[macro_export]
macro_rules! __register {
    ($function:ident, $description:expr) => {
        $crate::__private::inventory::submit! { $crate::__private::Registered(&$function) }

        const _: () = {
            const DESCRIPTION: &str = $description;
            #[used]
            #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__cloudknot"))]
            #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".cloudknot"))]
            static SECTION: [u8; DESCRIPTION.len()] = $crate::__private::bytes(DESCRIPTION);
        };
    };
}

/// The bytes of a text, as a constant without a pointer (a pointer would be a relocation in the section).
pub const fn bytes<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    while at < N {
        bytes[at] = text.as_bytes()[at];
        at += 1;
    }
    bytes
}

/// What the generated `main` does first: becomes an item process if this program was started as one.
#[cfg(not(cloudknot_worker))]
#[doc(hidden)]
#[macro_export]
macro_rules! __start {
    () => {
        $crate::__private::start($crate::__private::Program { crate_folder: ::core::option_env!("CARGO_MANIFEST_DIR") })
    };
}

/// The same in a worker, which must not know where it was compiled: the same worker, the same bytes.
#[cfg(cloudknot_worker)]
#[doc(hidden)]
#[macro_export]
macro_rules! __start {
    () => {
        $crate::__private::start($crate::__private::Program { crate_folder: ::core::option::Option::None })
    };
}

/// Runs the body of an async `main`.
pub fn block_on_main<F: Future>(body: F) -> F::Output {
    cloudknot_runtime::engine::block_on(body)
}
