#[cloudknot::remote]
fn distance((x, y): (f64, f64), _: u8, ref z: f64) -> f64 {
    x.hypot(y).hypot(*z)
}

fn main() {
    distance((1.0, 2.0), 0, 1.0);
}
