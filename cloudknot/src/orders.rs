//! Orders: what a program does in place of its `main`, for a command that has built it. `cargo knot` uses them for what needs the
//! types of the functions. Nothing here has types: inputs and values are frames, which the function converts from and to JSON.

use std::error::Error as StdError;

use cloudknot_runtime::codec::{CodecError, PartOrder};
use cloudknot_runtime::contract::{Order, OrderedTask, Refusal, Report};
use cloudknot_runtime::engine;
use cloudknot_runtime::fingerprint::Fingerprint;
use cloudknot_runtime::function::{self, Function, Json};
use cloudknot_runtime::reports::Reports;

use crate::error::{Error, ErrorKind, Result};

mod decode;
mod inputs;
mod json;
mod map;
mod replay;
mod retry;

/// Carries out an order, which is JSON, and reports how it ended.
///
/// # Errors
/// Returns an error that cannot be reported to the command that gave the order.
pub(crate) fn obey(order: &str) -> Result<()> {
    let unusable = |why: Box<dyn StdError + Send + Sync>| {
        Error::new(ErrorKind::Config, "cannot carry out the order of a command").with_source(why)
    };
    let order: Order = serde_json::from_str(order).map_err(|error| unusable(error.into()))?;
    let reports = Reports::open(order.reports.as_deref()).map_err(|error| unusable(error.into()))?;
    let done = match order.task {
        OrderedTask::Map(order) => engine::block_on(map::run(order, &reports)),
        OrderedTask::Retry(order) => engine::block_on(retry::run(order, &reports)),
        OrderedTask::Replay(order) => replay::run(&order, &reports),
        OrderedTask::Decode(order) => decode::run(&order, &reports),
    };
    let last = match done {
        Ok(end) => Report::Ended(end),
        Err(error) => Report::Refused(refusal(&error)),
    };
    send(&reports, &last)
}

fn refusal(error: &Error) -> Refusal {
    let causes = std::iter::successors(error.source(), |&cause| cause.source()).map(ToString::to_string);
    Refusal {
        message: error.to_string(),
        causes: causes.collect(),
        hint: error.hint().map(str::to_owned),
        kind: format!("{:?}", error.kind()),
    }
}

/// Sends a report.
///
/// # Errors
/// Returns an error if the command that gave the order has ended.
fn send(reports: &Reports, report: &Report<'_>) -> Result<()> {
    reports.send(report).map_err(|error| {
        Error::new(ErrorKind::Infrastructure, "cannot report to the command that has started this program")
            .with_source(error)
    })
}

/// Returns the function with this name, or whose path ends so.
fn named(name: &str) -> Result<&'static Function> {
    let ids = |functions: &[&Function]| {
        let ids: Vec<_> = functions.iter().map(|function| format!("`{}`", function.id)).collect();
        ids.join(", ")
    };
    let mut all: Vec<_> = function::all().collect();
    all.sort_by_key(|function| function.id);
    let found: Vec<_> =
        all.iter().copied().filter(|function| function::is_named(&function.id.to_string(), name)).collect();
    match found[..] {
        [function] => Ok(function),
        [] => Err(Error::new(ErrorKind::NotFound, format!("cannot find the remote function `{name}`"))
            .with_hint(format!("the program has {}", ids(&all)))),
        _ => Err(Error::new(
            ErrorKind::NotFound,
            format!("cannot choose a remote function: `{name}` names {} functions", found.len()),
        )
        .with_hint(format!("name more of its path: {}", ids(&found)))),
    }
}

/// Returns the function with this ID, if its types have this fingerprint.
fn of_types(id: &str, fingerprint: Fingerprint) -> Result<&'static Function> {
    let function = function::find(id).map_err(|message| Error::new(ErrorKind::NotFound, message))?;
    if function.schema()?.fingerprint == fingerprint {
        return Ok(function);
    }
    let message = format!("cannot read the run: the types of `{id}` have changed since it was submitted");
    Err(Error::new(ErrorKind::Types, message).with_hint("build the program with the original types"))
}

fn json_of(function: &Function) -> Json {
    function.json.expect("a program that is not a worker has the conversion")
}

/// Returns the value in a frame as JSON.
fn to_json(function: &Function, frame: &[u8]) -> Result<String> {
    (json_of(function).decode)(frame).map_err(|error| {
        Error::new(
            ErrorKind::Input,
            format!("cannot print a value of `{}` as JSON: {}", function.id.name, error.message),
        )
    })
}

/// Appends a frame that is already encoded, unless this has failed. The order of its parts matters only to a map that may be resumed.
fn append(frame: Result<impl AsRef<[u8]>, CodecError>, out: &mut Vec<u8>) -> Result<PartOrder, CodecError> {
    out.extend_from_slice(frame?.as_ref());
    Ok(PartOrder::Fixed)
}

/// Decodes a frame to itself.
#[allow(clippy::unnecessary_wraps, reason = "it has the type of a decoder")]
fn keep(frame: &[u8]) -> Result<Vec<u8>, CodecError> {
    Ok(frame.to_vec())
}
