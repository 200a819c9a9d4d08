#[cloudknot::remote(vcpus)]
fn one() {}

#[cloudknot::remote("2 GiB")]
fn two() {}

#[cloudknot::remote(vcpus = 1 memory = "2 GiB")]
fn three() {}

#[cloudknot::remote(retries = 1, retries = 2)]
fn four() {}

fn main() {}
