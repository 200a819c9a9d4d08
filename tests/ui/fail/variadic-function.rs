#[cloudknot::remote]
fn sum(first: f64, rest: ...) -> f64 {
    first
}

fn main() {
    sum(1.0);
}
