use serde::{Deserialize, Serialize};

pub struct Point {
    pub x: f64,
}

#[derive(Serialize, Deserialize)]
pub struct Model {
    rate: f64,
}

#[cloudknot::remote]
pub fn scale(by: f64, point: Point, model: &Model) -> f64 {
    by * point.x * model.rate
}

#[cloudknot::remote]
pub fn all(points: &[Point], path: &std::path::Path) -> usize {
    points.len() + path.as_os_str().len()
}

fn main() {
    scale(1.0, Point { x: 1.0 }, &Model { rate: 1.0 });
    all(&[], "".as_ref());
}
