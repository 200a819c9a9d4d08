struct Model {
    rate: f64,
}

impl Model {
    #[cloudknot::remote]
    fn predict(&self, x: f64) -> f64 {
        x * self.rate
    }

    #[cloudknot::remote]
    fn new(rate: f64) -> Self {
        Self { rate }
    }
}

fn main() {
    Model::new(1.0).predict(1.0);
}
