//! One item: from the frame of its input to the frame of its value. Knows the function; does not know where its
//! input came from.

use serde::{Serialize, de::DeserializeOwned};

use crate::codec;
use crate::failure::{Failure, ItemErrorKind};
use crate::function::Function;

/// What the macro's `call` does: decodes the input, runs the function, encodes its value and reads it back.
pub fn serve<I: DeserializeOwned, O: Serialize + DeserializeOwned>(
    function: &'static Function,
    input: &[u8],
    value: &mut Vec<u8>,
    run: fn(I) -> Result<O, Failure>,
) -> Result<(), Failure> {
    let fingerprint = function.schema().fingerprint;
    let codec = |error: codec::CodecError| Failure::new(ItemErrorKind::Codec, error.to_string());
    let input = codec::decode::<I>(function.codec, fingerprint, input).map_err(codec)?;
    let output = run(input)?;
    let start = value.len();
    codec::encode(function.codec, fingerprint, &output, value).map_err(codec)?;
    drop(output);
    codec::decode::<O>(function.codec, fingerprint, &value[start..]).map_err(codec)?;
    Ok(())
}

/// Runs the future of an async remote function to its end.
pub fn block_on<F: Future>(future: F) -> F::Output {
    static RUNTIME: std::sync::LazyLock<tokio::runtime::Runtime> = std::sync::LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("cloudknot-async")
            .build()
            .expect("a runtime for async remote functions starts")
    });
    RUNTIME.block_on(future)
}
