#[cloudknot::main]
fn main<T>() {}
