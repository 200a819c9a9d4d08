use std::borrow::Cow;

#[cloudknot::remote]
fn length(text: Option<&str>) -> usize {
    text.map_or(0, str::len)
}

#[cloudknot::remote]
fn total(words: &[&str]) -> usize {
    words.iter().map(|word| word.len()).sum()
}

#[cloudknot::remote]
fn upper(text: Cow<'_, str>) -> String {
    text.to_uppercase()
}

#[cloudknot::remote]
fn count(pairs: Vec<(&str, &[f64])>) -> usize {
    pairs.len()
}

#[cloudknot::remote]
fn forever(text: &'static str) -> usize {
    text.len()
}

fn main() {
    length(None);
    total(&[]);
    upper("a".into());
    count(vec![]);
    forever("a");
}
