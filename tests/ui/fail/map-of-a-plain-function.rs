fn double(x: f64) -> f64 {
    x * 2.0
}

fn main() {
    let _ = double.map([1.0, 2.0]);
}
