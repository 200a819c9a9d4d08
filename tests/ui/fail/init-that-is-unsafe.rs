#[cloudknot::init]
unsafe fn prepare() {}

fn main() {}
