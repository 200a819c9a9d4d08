//! A retry of a run by its program as it is now: in a new round, or in a new run on another backend.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cloudknot_runtime::codec::CodecError;
use cloudknot_runtime::contract::{OrderEnd, OrderedRetry, Report};
use cloudknot_runtime::function::{self, Function};
use cloudknot_runtime::reports::Reports;

use super::{append, keep, send};
use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::pending::Pending;
use crate::provenance;
use crate::record::read;
use crate::remote::RemoteFn;
use crate::run::{self, Run};

/// Number of bytes of inputs that are read at once.
const READ_LEN: u64 = 1 << 20;

/// Retries a run. Waits until the round has ended; for a new run only if the order says so.
pub(super) async fn run(order: OrderedRetry, reports: &Reports) -> Result<OrderEnd> {
    let function = function::find(&order.function).map_err(|message| Error::new(ErrorKind::NotFound, message))?;
    let backend = match &order.home {
        Some(home) => Backend::folder(home.clone()),
        None => Backend::named(&order.backend, "--on")?,
    };
    provenance::prepare();
    let run = run::look(&order.run, function, keep, backend).await?;
    run.report_changed_source().await;
    match &order.on {
        Some(on) => on_another(&order, &run, function, Backend::named(on, "--on")?, reports).await,
        None => in_a_round(order, &run, reports).await,
    }
}

async fn in_a_round(order: OrderedRetry, run: &Run<Vec<u8>>, reports: &Reports) -> Result<OrderEnd> {
    let mut retry = run.retry_failed();
    if let Some(items) = order.items {
        retry = retry.items(items.into_iter().flatten());
    }
    if let Some(memory) = order.memory {
        retry = retry.memory(memory);
    }
    if let Some(timeout) = order.timeout_ms {
        retry = retry.timeout(Duration::from_millis(timeout));
    }
    if let Some(retries) = order.retries {
        retry = retry.retries(retries);
    }
    let again = retry.into_future().await?;
    send(reports, &Report::Run(again.id().to_owned()))?;
    let status = again.finished().await?;
    let ran = if again.round() == run.round() { 0 } else { again.scheduled() };
    Ok(OrderEnd { ran, succeeded: status.succeeded, failed: status.items - status.succeeded })
}

/// Submits a new run of the items, whose frames are copied as they are.
async fn on_another(
    order: &OrderedRetry,
    run: &Run<Vec<u8>>,
    function: &'static Function,
    backend: Backend,
    reports: &Reports,
) -> Result<OrderEnd> {
    let items: Option<BTreeSet<u64>> = order.items.as_ref().map(|items| items.iter().cloned().flatten().collect());
    let ranges = run.to_retry(items.as_ref())?;
    if ranges.is_empty() {
        return Ok(OrderEnd::default());
    }
    let inputs =
        Inputs { run: run.again(), ranges: ranges.clone().into(), read: VecDeque::new(), error: Arc::default() };
    let error = Arc::clone(&inputs.error);
    let mut map = RemoteFn::new((), function, append, keep).map(inputs);
    map = map.of_parent(&run.record().manifest, ranges).on(backend);
    if let Some(memory) = &order.memory {
        map = map.memory(memory);
    }
    if let Some(timeout) = order.timeout_ms {
        map = map.timeout(Duration::from_millis(timeout));
    }
    if let Some(retries) = order.retries {
        map = map.retries(retries);
    }
    let submitted = map.submit().await;
    let not_read = error.lock().unwrap_or_else(PoisonError::into_inner).take();
    let submitted = not_read.map_or(submitted, Err)?;
    send(reports, &Report::Run(submitted.id().to_owned()))?;
    let status = if order.waits { submitted.finished().await? } else { submitted.status() };
    Ok(OrderEnd { ran: status.items, succeeded: status.succeeded, failed: status.items - status.succeeded })
}

/// Frames of a run's inputs, read as they are requested. Ends at an error, which is kept.
struct Inputs {
    run: Run<Vec<u8>>,
    /// Items that are still to be read.
    ranges: VecDeque<Range<u64>>,
    read: VecDeque<Bytes>,
    error: Arc<Mutex<Option<Error>>>,
}

impl Iterator for Inputs {
    type Item = Result<Bytes, CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.read.is_empty() {
            let range = self.ranges.pop_front()?;
            let (run, wanted) = (self.run.again(), range.clone());
            let read = Pending::new(async move { read::inputs(run.record(), &wanted, READ_LEN).await });
            match read.wait() {
                Ok((frames, next)) => {
                    self.read.extend(frames);
                    if next < range.end {
                        self.ranges.push_front(next..range.end);
                    }
                }
                Err(error) => {
                    *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return Some(Err(CodecError::damaged("inputs")));
                }
            }
        }
        self.read.pop_front().map(Ok)
    }
}
