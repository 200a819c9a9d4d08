#[cloudknot::remote(memory = "2 GB")]
fn decimal() {}

#[cloudknot::remote(memory = "2048")]
fn without_unit() {}

#[cloudknot::remote(memory = 2048)]
fn number() {}

#[cloudknot::remote(memory = "0 MiB")]
fn zero() {}

#[cloudknot::remote(memory = "0.3 MiB")]
fn fraction() {}

#[cloudknot::remote(memory = "99999999999999999999 GiB")]
fn overflow() {}

fn main() {}
