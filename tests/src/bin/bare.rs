//! Program without `#[cloudknot::main]`: items run in this process, and the library prints nothing.

#[cloudknot::remote]
fn half(number: u64) -> Result<u64, String> {
    match number {
        0 => panic!("nothing to halve"),
        number if number % 2 == 1 => Err(format!("{number} is odd")),
        number => Ok(number / 2),
    }
}

fn main() {
    let run = half.map([84, 1, 0]).retries(1).submit().wait().expect("the folder can be written");
    let outcomes = run.outcomes().wait().expect("the run ends");
    let lines: Vec<_> =
        outcomes.iter().map(|outcome| outcome.as_ref().map_or_else(ToString::to_string, u64::to_string)).collect();
    println!("{}", lines.join("; "));
}
