use serde_json::json;

#[cloudknot::remote]
fn first(values: &[serde_json::Value]) -> Option<serde_json::Value> {
    values.first().cloned()
}

#[cloudknot::remote]
fn wrap(x: f64) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    Err(json!(x).to_string())
}

fn main() {
    first(&[json!(1)]);
    let _ = wrap(1.0);
}
