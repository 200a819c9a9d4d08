#[cloudknot::remote(name = "fit model")]
fn space() {}

#[cloudknot::remote(name = "2nd")]
fn digit() {}

#[cloudknot::remote(name = "")]
fn empty() {}

#[cloudknot::remote(name = 'x')]
fn letter() {}

fn main() {}
