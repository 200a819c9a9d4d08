#[cloudknot::remote]
fn area(shape: &dyn Shape) -> f64 {
    shape.area()
}

#[cloudknot::remote]
fn areas(shapes: Vec<Box<dyn Shape>>) -> f64 {
    shapes.iter().map(|shape| shape.area()).sum()
}

trait Shape {
    fn area(&self) -> f64;
}

fn main() {}
