#[cloudknot::remote(codec = "json")]
fn unknown() {}

#[cloudknot::remote(codec = messagepack)]
fn word() {}

fn main() {}
