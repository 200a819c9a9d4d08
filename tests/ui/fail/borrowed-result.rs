#[cloudknot::remote]
fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

#[cloudknot::remote]
fn words<'a>(text: &'a str) -> Option<Vec<&'a str>> {
    Some(text.split(' ').collect())
}

#[cloudknot::remote]
fn constant() -> &'static str {
    "constant"
}

#[cloudknot::remote]
fn fails(text: &str) -> Result<f64, &str> {
    text.parse().map_err(|_| text)
}

fn main() {
    first_word("a");
    words("a");
    constant();
    let _ = fails("a");
}
