//! Values as JSON, by the types of this program.

use std::io::{self, Read as _};

use cloudknot_runtime::contract::{OrderEnd, OrderedDecode, Report, Request};
use cloudknot_runtime::reports::Reports;

use super::{of_types, send, to_json};
use crate::error::{Error, ErrorKind, Result};

/// Prints each value whose frame comes on the standard input, until its end.
pub(super) fn run(order: &OrderedDecode, reports: &Reports) -> Result<OrderEnd> {
    let function = of_types(&order.function, order.fingerprint)?;
    let mut input = io::stdin().lock();
    let mut end = OrderEnd::default();
    let not_read = |error: io::Error| Error::new(ErrorKind::Input, "cannot read the values").with_source(error);
    while let Some(Request::Run { item, length }) = Request::read(&mut input).map_err(not_read)? {
        let mut frame = Vec::new();
        (&mut input).take(length).read_to_end(&mut frame).map_err(not_read)?;
        send(reports, &Report::Value { item, json: &to_json(function, &frame)? })?;
        end.succeeded += 1;
    }
    Ok(end)
}
