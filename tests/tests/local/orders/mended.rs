mod rule;

#[cloudknot::remote]
fn root(x: i64) -> Result<i64, String> {
    match x.checked_isqrt() {
        Some(root) => Ok(root),
        None if rule::ACCEPTS_NEGATIVE => Ok(-1),
        None => Err(format!("{x} is negative")),
    }
}

#[cloudknot::main]
fn main() {
    let inputs: Vec<i64> = std::env::args().skip(1).map(|argument| argument.parse().unwrap()).collect();
    let run = root.map(inputs).submit().wait().unwrap();
    println!("{:?}", run.outcomes().wait().unwrap());
}
