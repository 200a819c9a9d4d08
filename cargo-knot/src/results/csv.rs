//! A table of results as CSV.

use std::io::Write;

use cloudknot::ItemError;
use serde::de::IgnoredAny;
use serde_json::Deserializer;

use crate::failure::Failure;

/// Column of values that are no objects.
const VALUE: &str = "value";
/// Columns that each table has. A field of this name has the column `value.item`, or `value.error`.
const ITEM: &str = "item";
const ERROR: &str = "error";

/// Results as rows of a table. The columns are the fields of all values, in the order in which they are found first, so no row can be
/// written before the last one is known.
#[derive(Debug, Default)]
pub(super) struct Table {
    columns: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    item: u64,
    /// Cells by column.
    cells: Vec<(usize, String)>,
    error: String,
}

impl Table {
    /// Appends a value, as JSON text. An object has a cell for each of its fields.
    pub(super) fn value(&mut self, item: u64, value: &str) {
        let fields = fields(value).unwrap_or_else(|| vec![(VALUE.to_owned(), value)]);
        let cells = fields.into_iter().map(|(name, value)| (self.column(name), cell(value))).collect();
        self.rows.push(Row { item, cells, error: String::new() });
    }

    pub(super) fn error(&mut self, item: u64, error: &ItemError) {
        self.rows.push(Row { item, cells: Vec::new(), error: error.to_string() });
    }

    /// Returns the index of the column of a field.
    fn column(&mut self, field: String) -> usize {
        let name = if [ITEM, ERROR].contains(&field.as_str()) { format!("{VALUE}.{field}") } else { field };
        let known = self.columns.iter().position(|column| *column == name);
        known.unwrap_or_else(|| {
            self.columns.push(name);
            self.columns.len() - 1
        })
    }

    /// Writes the table with a heading.
    pub(super) fn write(mut self, out: impl Write) -> Result<(), Failure> {
        if self.columns.is_empty() {
            self.columns.push(VALUE.to_owned());
        }
        let mut writer = csv::Writer::from_writer(out);
        let write = |writer: &mut csv::Writer<_>, item: &str, cells: &[String], error: &str| {
            let cells = cells.iter().map(String::as_str);
            writer.write_record(std::iter::once(item).chain(cells).chain([error]))
        };
        let written = (|| {
            write(&mut writer, ITEM, &self.columns, ERROR)?;
            for row in self.rows {
                let mut cells = vec![String::new(); self.columns.len()];
                row.cells.into_iter().for_each(|(column, cell)| cells[column] = cell);
                write(&mut writer, &row.item.to_string(), &cells, &row.error)?;
            }
            Ok(writer.flush()?)
        })();
        // The conversion of the crate hides that the reader of the output has ended.
        written.map_err(|error: csv::Error| match error.into_kind() {
            csv::ErrorKind::Io(error) => error.into(),
            kind => std::io::Error::other(format!("{kind:?}")).into(),
        })
    }
}

/// Returns the fields of a JSON object, in order, each with its JSON text; `None` for another value.
fn fields(json: &str) -> Option<Vec<(String, &str)>> {
    let mut rest = json.strip_prefix('{')?;
    let mut fields = Vec::new();
    while !rest.starts_with('}') {
        let mut name = Deserializer::from_str(rest).into_iter::<String>();
        let key = name.next()?.ok()?;
        let value = rest[name.byte_offset()..].strip_prefix(':')?;
        let mut ignored = Deserializer::from_str(value).into_iter::<IgnoredAny>();
        ignored.next()?.ok()?;
        let (value, after) = value.split_at(ignored.byte_offset());
        fields.push((key, value));
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    Some(fields)
}

/// Returns the cell of a value: a string without quotes, nothing for null, and other values as JSON.
fn cell(json: &str) -> String {
    if json == "null" {
        return String::new();
    }
    serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[&str], expected: &str) {
        let mut table = Table::default();
        (0..).zip(values).for_each(|(item, value)| table.value(item, value));
        let mut out = Vec::new();
        assert!(table.write(&mut out).is_ok());
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn fields_are_columns() {
        check(&[], "item,value,error\n");
        check(
            &["1.5", "\"a,\\\"b\\\"\"", "null", "[1,2]"],
            "item,value,error\n0,1.5,\n1,\"a,\"\"b\"\"\",\n2,,\n3,\"[1,2]\",\n",
        );
        let stars = ["{\"name\":\"Vega\",\"at\":{\"x\":1,\"a\":2}}", "{}", "{\"mass\":2,\"name\":\"\"}"];
        check(&["{\"error\":0.5,\"item\":7}"], "item,value.error,value.item,error\n0,0.5,7,\n");
        check(&stars, "item,name,at,mass,error\n0,Vega,\"{\"\"x\"\":1,\"\"a\"\":2}\",,\n1,,,,\n2,,,2,\n");
    }
}
