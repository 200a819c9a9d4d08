#[cloudknot::remote(cpus = 1)]
fn double(x: f64) -> f64 {
    x * 2.0
}

fn main() {
    // Only the argument is rejected; the function is still remote.
    let _: fn(f64) -> f64 = *double;
}
