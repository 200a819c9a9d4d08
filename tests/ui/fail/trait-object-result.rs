#[cloudknot::remote]
fn boxed(x: f64) -> Box<dyn std::fmt::Display> {
    Box::new(x)
}

fn main() {
    boxed(1.0).to_string();
}
