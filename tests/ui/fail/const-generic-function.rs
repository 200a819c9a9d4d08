#[cloudknot::remote]
fn sum<const N: usize>(values: [f64; N]) -> f64 {
    values.iter().sum()
}

fn main() {
    sum([1.0]);
}
