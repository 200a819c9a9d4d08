use std::collections::HashMap;

#[cloudknot::remote]
fn argument(x: [f64; 64]) -> f64 {
    x[0]
}

#[cloudknot::remote]
fn nested(rows: &[[u8; 33]], pairs: Vec<(u8, Option<[f32; 1_000]>)>, names: HashMap<String, Box<[[u8; 100]; 2]>>) {
    let _ = (rows, pairs, names);
}

#[cloudknot::remote]
fn result() -> Result<[(u32, f64); 64], String> {
    Ok([(0, 0.0); 64])
}

#[cloudknot::remote]
fn short_enough(rows: [[f64; 32]; 32]) -> [[f64; 32]; 32] {
    rows
}

fn main() {
    argument([0.0; 64]);
}
