#[cloudknot::init]
fn prepare<T>() {}

fn main() {}
