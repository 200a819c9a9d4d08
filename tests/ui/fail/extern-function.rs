#[cloudknot::remote]
extern "C" fn double(x: f64) -> f64 {
    x * 2.0
}

fn main() {
    double(1.0);
}
