#[cloudknot::remote]
fn largest<T: PartialOrd>(values: Vec<T>) -> Option<T> {
    values.into_iter().reduce(|a, b| if a < b { b } else { a })
}

fn main() {
    println!("{:?}", largest(vec![1, 2]));
}
