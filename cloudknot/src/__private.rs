//! What the macros write paths into. Not an API: it changes with any version.

pub use crate::program::{Program, start};
#[cfg(all(feature = "progress", not(cloudknot_worker)))]
pub use crate::terminal::install as install_terminal;
pub use cloudknot_runtime::codec::{Codec, CodecError};
pub use cloudknot_runtime::contract::START;
pub use cloudknot_runtime::failure::{Failure, ItemErrorKind};
pub use cloudknot_runtime::function::{Function, FunctionId, Registered, Resources};
pub use cloudknot_runtime::item::{block_on, serve};
pub use inventory;
pub use serde;

use std::error::Error;
use std::fmt::Display;
use std::pin::Pin;

use cloudknot_runtime::fingerprint::Schema;
use cloudknot_runtime::frame;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde::ser::{Serialize, Serializer};

/// The future that the pointer of an async remote function gives.
pub type BoxFuture<'f, T> = Pin<Box<dyn Future<Output = T> + Send + 'f>>;

/// What can be an argument or a result of a remote function: with serde's two traits in one, the compiler names the
/// type that cannot travel, once, and not what it lacks, one by one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent to or from a remote function",
    label = "it must implement `Serialize`, `Deserialize` and `Send`, and so must all its parts",
    note = "for a type of your own, derive both: #[derive(serde::Serialize, serde::Deserialize)]",
    note = "for a type of another crate, look for its feature `serde`",
    note = "a `Result` under an alias with another name is treated as a value"
)]
pub trait Travels: Sized {
    /// As `Serialize`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
    /// As `Deserialize`.
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send + 'static> Travels for T {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Serialize::serialize(self, serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Deserialize::deserialize(deserializer)
    }
}

/// What travels, for serde: it leaves no trace in what is written.
pub struct Carried<T>(pub T);

impl<T: Travels> Serialize for Carried<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Travels> Deserialize<'de> for Carried<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self)
    }
}

/// One argument of a remote function, by its place; it has a trait so that a type that cannot travel is refused there.
pub trait Argument<const PLACE: usize> {
    /// The type as the input holds it.
    type Owned: Travels;
}

/// A remote function, with its types. The macro writes an implementation; the functions below are what it passes on.
pub trait Remote: 'static {
    /// What the user gives for one item.
    type Args;
    /// The same with the arguments' names.
    type Input: Serialize + DeserializeOwned;
    /// What the user gets for one item.
    type Output: Travels;
    /// The function without its types.
    fn function() -> &'static Function;
    /// Gives the arguments their names.
    fn input(args: Self::Args) -> Self::Input;
    /// Runs one item.
    fn run(input: Self::Input) -> Result<Self::Output, Failure>;
}

/// Runs one item from frame to frame.
pub fn call<R: Remote>(input: &[u8], value: &mut Vec<u8>) -> Result<(), Failure> {
    serve::<_, _, R::Output>(R::function(), input, value, |input| R::run(input).map(Carried))
}

/// Traces the types of a function.
pub fn trace<R: Remote>(codec: Codec) -> Schema {
    Schema::of::<R::Input, Carried<R::Output>>(codec)
}

/// Appends the frame of an input and reads it back, so that what the codec cannot carry is refused on the host.
pub fn encode<R: Remote>(args: R::Args, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let function = R::function();
    let fingerprint = function.schema().fingerprint;
    let start = out.len();
    frame::encode(function.codec, fingerprint, &R::input(args), out)?;
    frame::read_back::<R::Input, R::Args>(function.codec, &out[start..]).inspect_err(|_| out.truncate(start))
}

/// The value of a result's frame.
pub fn decode<R: Remote>(bytes: &[u8]) -> Result<R::Output, CodecError> {
    let function = R::function();
    frame::decode::<Carried<R::Output>>(function.codec, function.schema().fingerprint, bytes).map(|carried| carried.0)
}

/// The value and error types of a function that returns a `Result`, whatever alias spells it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is called `Result` but is another type",
    label = "not a `std::result::Result`",
    note = "to return it as a value, give it another name"
)]
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

    fn result(self) -> Self {
        self
    }
}

/// A remote function that returns a `Result`.
pub trait Failing {
    /// The type of its errors.
    type Error: Explains;
}

/// What can be the error of a remote function.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a remote function: it has no message",
    label = "this type must implement `Display`: only its message is sent",
    note = "implement `std::fmt::Display` and `std::error::Error` for it, or return a `String` as the error"
)]
pub trait Explains {}

#[diagnostic::do_not_recommend]
impl<E: Display> Explains for E {}

/// The value of a function that returns a `Result`, or its error as a failure.
#[doc(hidden)]
#[macro_export]
macro_rules! __outcome {
    ($returned:expr) => {{
        use $crate::__private::{ByAsRef as _, ByAsRefLocal as _, ByDisplay as _, ByError as _, ByNothing as _};
        match $crate::__private::Fallible::result($returned) {
            ::core::result::Result::Ok(value) => ::core::result::Result::Ok(value),
            ::core::result::Result::Err(error) => {
                ::core::result::Result::Err((&&&&&$crate::__private::ErrorOf(&error)).failure())
            }
        }
    }};
}

/// Turns an error into a failure with its chain of causes, by what the error's type offers.
/// `(&&&&&ErrorOf(&error)).failure()` picks the first of the traits below that fits: a method is looked for on the
/// receiver as it is, and then with one reference less each time.
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

/// For everything else, which [`Explains`] refuses; here it only keeps the compiler from complaining twice.
pub trait ByNothing {
    /// A failure without a message.
    fn failure(&self) -> Failure;
}

impl<E: Error> ByError for &&&&ErrorOf<'_, E> {
    fn failure(&self) -> Failure {
        with_chain(self.0.to_string(), self.0.source())
    }
}

impl<E: Display + AsRef<dyn Error + Send + Sync>> ByAsRef for &&&ErrorOf<'_, E> {
    fn failure(&self) -> Failure {
        with_chain(self.0.to_string(), self.0.as_ref().source())
    }
}

impl<E: Display + AsRef<dyn Error>> ByAsRefLocal for &&ErrorOf<'_, E> {
    fn failure(&self) -> Failure {
        with_chain(self.0.to_string(), self.0.as_ref().source())
    }
}

impl<E: Display> ByDisplay for &ErrorOf<'_, E> {
    fn failure(&self) -> Failure {
        with_chain(self.0.to_string(), None)
    }
}

impl<E> ByNothing for ErrorOf<'_, E> {
    fn failure(&self) -> Failure {
        with_chain("an error without a message".to_owned(), None)
    }
}

fn with_chain(message: String, source: Option<&(dyn Error + 'static)>) -> Failure {
    let mut failure = Failure::new(ItemErrorKind::Returned, message);
    // A reference to an error is an error too, with a shorter life: so the star.
    failure.chain = std::iter::successors(source, |cause| (*cause).source()).map(ToString::to_string).collect();
    failure
}

/// Puts a function into the registry, and its description (a line of JSON) into the section `.cloudknot` of the
/// file, from where it can be read without running anything.
#[doc(hidden)]
#[macro_export]
macro_rules! __register {
    ($function:ident, $description:expr) => {
        $crate::__private::inventory::submit! { $crate::__private::Registered(&$function) }

        $crate::__describe!($description);
    };
}

/// Puts a line into the section `.cloudknot` of the file.
#[doc(hidden)]
#[macro_export]
macro_rules! __describe {
    ($line:expr) => {
        const _: () = {
            const LINE: &str = $line;
            #[used]
            #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__cloudknot"))]
            #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".cloudknot"))]
            static SECTION: [u8; LINE.len()] = $crate::__private::bytes(LINE);
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
        $crate::__describe!($crate::__private::START);
        $crate::__private::start($crate::__private::Program { crate_folder: ::core::option::Option::None })
    };
}

/// Runs the body of an async `main`.
pub fn block_on_main<F: Future>(body: F) -> F::Output {
    cloudknot_runtime::engine::block_on(body)
}
