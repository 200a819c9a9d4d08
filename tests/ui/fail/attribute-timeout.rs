#[cloudknot::remote(timeout = "15")]
fn without_unit() {}

#[cloudknot::remote(timeout = "15 min")]
fn other_unit() {}

#[cloudknot::remote(timeout = 15)]
fn number() {}

#[cloudknot::remote(timeout = "0s")]
fn zero() {}

#[cloudknot::remote(timeout = "30m 1h")]
fn order() {}

#[cloudknot::remote(timeout = "9999999999999999999h")]
fn overflow() {}

fn main() {}
