#[cloudknot::remote]
fn double(#[cfg(unix)] x: f64) -> f64 {
    x * 2.0
}

fn main() {}
