#[cloudknot::remote(vcpus = 0)]
fn zero() {}

#[cloudknot::remote(vcpus = -1)]
fn negative() {}

#[cloudknot::remote(vcpus = "2")]
fn string() {}

#[cloudknot::remote(vcpus = 1e999)]
fn infinite() {}

const CPUS: u32 = 2;

#[cloudknot::remote(vcpus = CPUS)]
fn constant() {}

fn main() {}
