#[cloudknot::remote(gpus = -1, retries = -1)]
fn negative() {}

#[cloudknot::remote(gpus = 0.5, retries = "two")]
fn other_kinds() {}

#[cloudknot::remote(gpus = 4294967296, retries = 4294967296)]
fn overflow() {}

fn main() {}
