#[cloudknot::remote(cpus = 1)]
fn double(x: f64) -> f64 {
    x * 2.0
}

fn main() {
    // What was refused was only the argument: the function is as remote as before.
    let _: fn(f64) -> f64 = *double;
}
