use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub struct Result {
    pub score: f64,
}

#[cloudknot::remote]
fn score(x: f64) -> Result {
    Result { score: x }
}

fn main() {
    score(1.0);
}
