/// A model.
#[cloudknot::remote]
pub struct Model {
    pub rate: f64,
}

#[cloudknot::remote]
const RATE: f64 = 1.0;

trait Fit {
    #[cloudknot::remote]
    fn fit(x: f64) -> f64;
}

fn main() {
    let _ = Model { rate: RATE };
}
