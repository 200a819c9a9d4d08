//! One item in this process, to be looked at with a debugger or by its backtrace. Stores nothing.

use cloudknot_runtime::contract::{OrderEnd, OrderedReplay, Program, Report};
use cloudknot_runtime::engine;
use cloudknot_runtime::failure::ItemError;
use cloudknot_runtime::item;
use cloudknot_runtime::reports::Reports;

use super::{of_types, send, to_json};
use crate::error::{Error, ErrorKind, Result};
use crate::provenance;

/// Runs the item on this thread, after the program's init functions.
pub(super) fn run(order: &OrderedReplay, reports: &Reports) -> Result<OrderEnd> {
    let then = Program { revision: order.revision.clone(), is_clean: order.is_clean, ..Program::default() };
    provenance::prepare();
    engine::block_on(provenance::report_changes(&order.run, &then));
    let function = of_types(&order.function, order.fingerprint)?;
    let input = std::fs::read(&order.input).map_err(|error| {
        let message = format!("cannot read the input of item {} in `{}`", order.item, order.input.display());
        Error::new(ErrorKind::Input, message).with_source(error)
    })?;
    let mut value = Vec::new();
    let item = order.item;
    match item::attempt(function, &input, &mut value) {
        Ok(()) => {
            send(reports, &Report::Value { item, json: &to_json(function, &value)? })?;
            Ok(OrderEnd { ran: 1, succeeded: 1, failed: 0 })
        }
        Err(failure) => {
            let json = serde_json::to_string(&ItemError::new(failure, 1)).expect("an item's error serializes to JSON");
            send(reports, &Report::Failed { item, json: &json })?;
            Ok(OrderEnd { ran: 1, succeeded: 0, failed: 1 })
        }
    }
}
