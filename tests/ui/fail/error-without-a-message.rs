#[derive(Debug)]
pub enum Fault {
    Negative,
}

#[cloudknot::remote]
pub fn root(x: f64) -> Result<f64, Fault> {
    if x < 0.0 { Err(Fault::Negative) } else { Ok(x.sqrt()) }
}

fn main() {
    let _ = root(1.0);
}
