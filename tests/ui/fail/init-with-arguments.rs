#[cloudknot::init(name = "first")]
fn prepare(threads: usize) {
    let _ = threads;
}

struct Model;

impl Model {
    #[cloudknot::init]
    fn prepare(&self) {}
}

fn main() {}
