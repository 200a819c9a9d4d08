//! Encodes the inputs of a map one after another, and writes them to the store whenever the buffer is full.

use std::sync::Arc;

use bytes::Bytes;
use cloudknot_runtime::codec::PartOrder;
use cloudknot_runtime::contract::{InputLayout, InputsHasher, MAX_ITEMS};
use cloudknot_runtime::engine;
use cloudknot_runtime::store::{BoxFuture, Store, Writer};

use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::remote::Encode;

/// Number of bytes that are buffered before they are written.
pub(super) const BUFFER_LEN: usize = 1 << 20;

/// The inputs that have been read so far.
pub(super) struct Recording {
    pub(super) backend: Option<Backend>,
    pub(super) store: Option<Arc<dyn Store>>,
    pub(super) run: String,
    pub(super) buffer: Vec<u8>,
    pub(super) items: u64,
    /// Number of bytes of all frames, written and buffered.
    pub(super) bytes: u64,
    /// Length of each frame, as long as all frames have the same length.
    pub(super) size: u64,
    /// Start of each frame and end of the last one, once the lengths differ.
    pub(super) offsets: Option<Vec<u64>>,
    /// Hash of the inputs.
    pub(super) hasher: InputsHasher,
    /// Order of the inputs: random if that of any input is.
    pub(super) order: PartOrder,
}

impl Recording {
    pub(super) fn new() -> Self {
        Self {
            backend: None,
            store: None,
            run: String::new(),
            buffer: Vec::new(),
            items: 0,
            bytes: 0,
            size: 0,
            offsets: None,
            hasher: InputsHasher::default(),
            order: PartOrder::Fixed,
        }
    }

    /// Encodes an input and appends it to the buffer.
    pub(super) fn append<Args>(&mut self, input: Args, encode: Encode<Args>) -> Result<()> {
        if self.items == MAX_ITEMS {
            return Err(Error::new(ErrorKind::Input, format!("cannot submit: a run has at most {MAX_ITEMS} items"))
                .with_hint("let each item work on several inputs, or submit several runs"));
        }
        let start = self.buffer.len();
        let order = encode(input, &mut self.buffer).map_err(|error| {
            Error::new(ErrorKind::Input, format!("cannot submit: input {} cannot be sent to a worker", self.items))
                .with_source(error)
        })?;
        if order == PartOrder::Random {
            self.order = order;
        }
        self.hasher.add(&self.buffer[start..]);
        let size = (self.buffer.len() - start) as u64;
        if self.items == 0 {
            self.size = size;
        }
        if let Some(offsets) = &mut self.offsets {
            offsets.push(self.bytes + size);
        } else if size != self.size {
            let uniform = (0..=self.items).map(|item| item * self.size);
            self.offsets = Some(uniform.chain([self.bytes + size]).collect());
        }
        self.items += 1;
        self.bytes += size;
        Ok(())
    }

    pub(super) fn layout(&self) -> InputLayout {
        if self.offsets.is_some() { InputLayout::Offsets(self.bytes) } else { InputLayout::Uniform(self.size) }
    }

    /// Writes the buffer to the store, and empties it.
    pub(super) fn write(&mut self, mut writer: Box<dyn Writer>) -> BoxFuture<'static, Result<Box<dyn Writer>>> {
        let bytes = Bytes::from(std::mem::replace(&mut self.buffer, Vec::with_capacity(BUFFER_LEN)));
        inside(async move {
            writer.write(bytes).await?;
            Ok(writer)
        })
    }
}

/// Makes the timers and sockets of this crate's runtime available to the future, on any executor.
pub(super) fn inside<T>(future: impl Future<Output = Result<T>> + Send + 'static) -> BoxFuture<'static, Result<T>> {
    Box::pin(engine::inside(Box::pin(future)))
}
