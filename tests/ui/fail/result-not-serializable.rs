pub struct Point {
    pub x: f64,
}

#[cloudknot::remote]
pub fn point(x: f64) -> Point {
    Point { x }
}

#[cloudknot::remote]
pub fn points(x: f64) -> Result<Vec<Point>, String> {
    Ok(vec![Point { x }])
}

#[cloudknot::remote]
pub async fn later(x: f64) -> std::io::Result<Point> {
    Ok(Point { x })
}

fn main() {
    point(1.0);
    let _ = points(1.0);
    drop(later(1.0));
}
