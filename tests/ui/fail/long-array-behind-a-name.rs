const LENGTH: usize = 64;

type Row = [f64; 64];

#[cloudknot::remote]
fn constant(x: [f64; LENGTH]) -> f64 {
    x[0]
}

#[cloudknot::remote]
fn alias() -> Row {
    [0.0; 64]
}

fn main() {}
