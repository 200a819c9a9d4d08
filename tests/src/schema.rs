//! The schema of the JSON that the commands about runs print, `docs/operating.schema.json`.

use std::path::Path;
use std::sync::LazyLock;

use boon::{Compiler, Schemas};
use serde_json::Value;

/// Address under which the schema is compiled. Nothing is requested from it.
const ADDRESS: &str = "https://cloudknot.example/operating.schema.json";

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operating.schema.json");
    let text = std::fs::read_to_string(path).expect("the schema can be read");
    serde_json::from_str(&text).expect("the schema is JSON")
});

/// Checks that a command of this name may print this JSON: that the definition of this name in the schema describes it.
///
/// # Panics
/// If it does not, or if there is no such definition.
#[track_caller]
pub fn check(command: &str, printed: &Value) {
    let mut compiler = Compiler::new();
    compiler.add_resource(ADDRESS, SCHEMA.clone()).expect("the schema has an address");
    let mut schemas = Schemas::new();
    let found = compiler.compile(&format!("{ADDRESS}#/$defs/{command}"), &mut schemas);
    let definition = found.unwrap_or_else(|error| panic!("the schema of `{command}`: {error}"));
    if let Err(error) = schemas.validate(printed, definition) {
        panic!("`cargo knot {command} --json` printed what its schema does not describe: {error:#}\n{printed}");
    }
}
