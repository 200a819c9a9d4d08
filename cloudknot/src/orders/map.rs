//! A map of inputs that are given as JSON.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _};
use std::sync::{Arc, Mutex, PoisonError};

use cloudknot_runtime::codec::CodecError;
use cloudknot_runtime::contract::{OrderEnd, OrderedInputs, OrderedMap, Report, TableLine};
use cloudknot_runtime::failure::ItemError;
use cloudknot_runtime::function::Function;
use cloudknot_runtime::reports::Reports;

use super::inputs::Arguments;
use super::{append, keep, named, send, to_json};
use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::remote::RemoteFn;
use crate::run::Run;

/// Submits a map, and reports the outcomes in the order of the items.
pub(super) async fn run(order: OrderedMap, reports: &Reports) -> Result<OrderEnd> {
    let function = named(&order.function)?;
    let frames = frames(order.inputs, Arguments::new(function, order.arguments)?)?;
    // The submission ends at the first input that cannot be encoded.
    let first_error: Arc<Mutex<Option<Error>>> = Arc::default();
    let noted = Arc::clone(&first_error);
    let inputs = frames.map(move |frame| {
        frame.map_err(|error| {
            *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            CodecError::damaged("input")
        })
    });
    let remote = RemoteFn::new((), function, append, keep);
    let mut map = remote.map(inputs);
    if let Some(name) = order.name {
        map = map.name(name);
    }
    if order.is_local {
        map = map.on(Backend::local());
    }
    let submitted = map.submit().await;
    let submitted = submitted.map_err(|error| {
        let of_input = first_error.lock().unwrap_or_else(PoisonError::into_inner).take();
        of_input.unwrap_or(error)
    });
    let run = submitted?;
    send(reports, &Report::Run(run.id().to_owned()))?;
    outcomes(&run, function, reports).await
}

/// Reads the inputs one after another, and encodes them.
fn frames(inputs: OrderedInputs, arguments: Arguments) -> Result<Box<dyn Iterator<Item = Result<Vec<u8>>>>> {
    Ok(match inputs {
        OrderedInputs::One(values) => Box::new(std::iter::once_with(move || arguments.of_positions(&values))),
        OrderedInputs::Lines => Box::new(lines().filter_map(move |(number, line)| match line {
            Ok(line) if line.trim().is_empty() => None,
            Ok(line) => Some(arguments.of_line(number, &line)),
            Err(error) => Some(Err(error)),
        })),
        OrderedInputs::Cells(columns) => {
            arguments.check_columns(&columns)?;
            let rows = Rows { lines: lines(), is_over: false };
            Box::new(rows.map(move |row| row.and_then(|(line, cells)| arguments.of_cells(&columns, line, &cells))))
        }
    })
}

/// Rows of a table, with the numbers of their lines.
struct Rows<L> {
    lines: L,
    is_over: bool,
}

impl<L: Iterator<Item = (u64, Result<String>)>> Iterator for Rows<L> {
    type Item = Result<(u64, Vec<String>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let incomplete = || not_read(io::ErrorKind::UnexpectedEof.into());
        let line = self.lines.next().map_or_else(|| Err(incomplete()), |(_, line)| line);
        let parsed = line.and_then(|line| serde_json::from_str(&line).map_err(|error| not_read(error.into())));
        let row = match parsed {
            Ok(TableLine::Row(line, cells)) => return Some(Ok((line, cells))),
            Ok(TableLine::End) => None,
            Ok(TableLine::Failed(why)) => Some(Err(not_read(io::Error::other(why)))),
            Err(error) => Some(Err(error)),
        };
        self.is_over = true;
        row
    }
}

/// Returns the lines of the standard input with their numbers, from 1.
fn lines() -> impl Iterator<Item = (u64, Result<String>)> {
    (1..).zip(io::stdin().lock().lines()).map(|(number, line)| {
        let line = line.map_err(not_read);
        (number, if number == 1 { line.map(|line| line.trim_start_matches('\u{feff}').to_owned()) } else { line })
    })
}

fn not_read(error: io::Error) -> Error {
    Error::new(ErrorKind::Input, "cannot read the inputs").with_source(error).with_hint("nothing was submitted")
}

/// Reports all outcomes. One that is known before those of earlier items is kept until then.
async fn outcomes(run: &Run<Vec<u8>>, function: &'static Function, reports: &Reports) -> Result<OrderEnd> {
    let mut results = run.results();
    let mut early: BTreeMap<usize, Result<Vec<u8>, ItemError>> = BTreeMap::new();
    let mut next = 0;
    while let Some((item, outcome)) = results.next().await {
        early.insert(item, outcome);
        while let Some(outcome) = early.remove(&next) {
            report(next as u64, outcome, function, reports)?;
            next += 1;
        }
    }
    let status = run.finished().await?;
    Ok(OrderEnd { ran: status.items, succeeded: status.succeeded, failed: status.items - status.succeeded })
}

fn report(item: u64, outcome: Result<Vec<u8>, ItemError>, function: &Function, reports: &Reports) -> Result<()> {
    match outcome {
        Ok(frame) => send(reports, &Report::Value { item, json: &to_json(function, &frame)? }),
        Err(error) => {
            let error = serde_json::to_string(&error).expect("an item's error serializes to JSON");
            send(reports, &Report::Failed { item, json: &error })
        }
    }
}
