#[cloudknot::remote(codec = "messagepack")]
fn nested(values: Vec<Option<Option<f64>>>) -> usize {
    values.len()
}

#[cloudknot::remote(codec = "messagepack")]
fn done(x: f64) -> Result<Option<()>, String> {
    Ok((x > 0.0).then_some(()))
}

fn main() {
    nested(vec![]);
    let _ = done(1.0);
}
