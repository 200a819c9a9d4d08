#[cloudknot::init]
static THREADS: usize = 4;

fn main() {}
