//! A retry on AWS Batch by the record alone: the deployed worker has the function.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::Code;
use crate::error::{Error, ErrorKind, Result};
use crate::look::{Items, Look};
use crate::pending::{Pending, wait};
use crate::record::ledger::Ledger;
use crate::run::retry::Options;

/// A retry of the items of a run that have no value. Does nothing until it is awaited or waited for. See [`Look::retry`].
#[derive(Debug, Clone)]
#[must_use = "a retry does nothing until it is awaited"]
pub struct Retry {
    look: Look,
    options: Options,
}

/// A round of a retry that was submitted.
#[derive(Debug)]
pub struct Retried {
    look: Look,
    /// The round; `None` if there was nothing to retry.
    ledger: Option<Arc<Ledger>>,
}

impl Retry {
    pub(super) fn new(look: Look) -> Self {
        Self { look, options: Options::default() }
    }

    /// Retries only these items, in place of all that have no value. The others stay as they are, and a later retry can run them.
    ///
    /// # Errors
    /// `Config` if the run has fewer items, or its record cannot be read.
    pub fn items(mut self, items: &Items) -> Result<Self> {
        self.options.items = Some(self.look.select(items)?.into_iter().flatten().collect());
        Ok(self)
    }

    /// Same as [`crate::Retry::memory`].
    pub fn memory(mut self, memory: impl Into<String>) -> Self {
        self.options.memory = Some(memory.into());
        self
    }

    /// Same as [`crate::Retry::timeout`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Same as [`crate::Retry::retries`].
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = Some(retries);
        self
    }

    /// Same as [`crate::Retry::old_code`].
    pub fn old_code(mut self) -> Self {
        self.options.code = Code::Old;
        self
    }

    /// Waits on this thread until all jobs of the retry are submitted.
    ///
    /// # Errors
    /// Those of [`crate::Retry::wait`], and `Config` if the run has not ended or is not on AWS Batch.
    pub fn wait(self) -> Result<Retried> {
        wait(self.into_future())
    }

    async fn begin(self) -> Result<Retried> {
        let Self { look, options } = self;
        let record = look.opened.readable()?;
        if record.ledger.record.batch().is_none() {
            let backend = &record.ledger.record.manifest.backend;
            let message = format!(
                "cannot retry run {} without its program: the backend `{backend}` runs the items in it",
                look.id()
            );
            return Err(Error::new(ErrorKind::Config, message).with_hint(
                "`cargo knot retry` builds and starts the program; in it, `retry_failed()` retries the run",
            ));
        }
        if !record.state.is_end() {
            let message = format!("cannot retry run {}: it has not ended", look.id());
            return Err(Error::new(ErrorKind::Config, message)
                .with_hint("wait for its end, or cancel it: values that are stored are kept"));
        }
        let ledger = options.begin_deployed(&record.ledger, &look.opened.found.backend).await?;
        Ok(Retried { look, ledger })
    }
}

impl IntoFuture for Retry {
    type Output = Result<Retried>;
    type IntoFuture = Pending<Retried>;

    fn into_future(self) -> Pending<Retried> {
        Pending::new(self.begin())
    }
}

impl Retried {
    /// Returns the number of items that are retried; 0 if every item has a value.
    pub fn items(&self) -> u64 {
        self.ledger.as_ref().map_or(0, |ledger| ledger.record.scheduled.len())
    }

    /// Follows the round until it has ended, and looks at the run again. The jobs go on if this is dropped.
    pub fn finished(&self) -> Pending<Look> {
        let (look, ledger) = (self.look.clone(), self.ledger.clone());
        Pending::new(async move {
            if let Some(ledger) = ledger {
                ledger.finished().await;
            }
            look.again().await
        })
    }
}
