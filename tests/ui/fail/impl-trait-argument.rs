#[cloudknot::remote]
fn sum(values: impl Iterator<Item = f64>) -> f64 {
    values.sum()
}

fn main() {
    sum([1.0].into_iter());
}
