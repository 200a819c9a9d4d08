//! The inputs of a map on their way into the store: encoded one after another, and written when a buffer is full.

use std::sync::Arc;

use bytes::Bytes;
use cloudknot_runtime::contract::InputLayout;
use cloudknot_runtime::engine;
use cloudknot_runtime::store::{BoxFuture, Store, Writer};

use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::remote::Encode;

/// How much is gathered before it is written.
pub(super) const BUFFER: usize = 1 << 20;

/// What has been read of the inputs.
#[derive(Default)]
pub(super) struct Recording {
    pub(super) backend: Option<Backend>,
    pub(super) store: Option<Arc<dyn Store>>,
    pub(super) run: String,
    pub(super) buffer: Vec<u8>,
    pub(super) items: u64,
    /// How many bytes of frames there are, written and buffered.
    pub(super) bytes: u64,
    /// The length of each frame, as long as all have the same.
    pub(super) size: u64,
    /// Where each frame begins, once they do not.
    pub(super) offsets: Option<Vec<u64>>,
}

impl Recording {
    /// Appends an input.
    pub(super) fn take<Args>(&mut self, input: Args, encode: Encode<Args>) -> Result<()> {
        let begin = self.buffer.len();
        encode(input, &mut self.buffer).map_err(|error| {
            Error::new(
                ErrorKind::Input,
                format!("failed to submit: input {} cannot be carried to a worker", self.items),
            )
            .with_source(error)
        })?;
        let size = (self.buffer.len() - begin) as u64;
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

    /// Writes the buffer.
    pub(super) fn write(&mut self, mut writer: Box<dyn Writer>) -> BoxFuture<'static, Result<Box<dyn Writer>>> {
        let bytes = Bytes::from(std::mem::replace(&mut self.buffer, Vec::with_capacity(BUFFER)));
        inside(async move {
            writer.write(bytes).await?;
            Ok(writer)
        })
    }
}

/// Runs the future on the runtime of this crate.
pub(super) fn inside<T>(future: impl Future<Output = Result<T>> + Send + 'static) -> BoxFuture<'static, Result<T>> {
    Box::pin(engine::inside(Box::pin(future)))
}
