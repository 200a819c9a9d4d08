#[cloudknot::remote(crate = lab::cloudknot)]
fn one() {}

#[cloudknot::remote(crate = "lab cloudknot")]
fn two() {}

#[cloudknot::remote(crate = "")]
fn three() {}

#[cloudknot::remote(crate = "lab::cloudknot::<u8>")]
fn four() {}

#[cloudknot::main(crate = 5)]
fn main() {}
