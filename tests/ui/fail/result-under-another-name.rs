type Fallible<T> = Result<T, String>;

#[cloudknot::remote]
fn parse(text: &str) -> Fallible<i64> {
    text.parse().map_err(|_| "not a number".to_owned())
}

#[cloudknot::remote]
async fn parse_later(text: String) -> Fallible<i64> {
    text.parse().map_err(|_| "not a number".to_owned())
}

fn main() {
    let _ = parse("1");
    let _ = parse_later("1".to_owned());
}
