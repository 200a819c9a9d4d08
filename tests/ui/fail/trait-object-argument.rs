#[cloudknot::remote]
fn area(of: &dyn Shape) -> f64 {
    of.area()
}

#[cloudknot::remote]
fn areas(of: Vec<Box<dyn Shape>>) -> f64 {
    of.iter().map(|shape| shape.area()).sum()
}

trait Shape {
    fn area(&self) -> f64;
}

fn main() {}
