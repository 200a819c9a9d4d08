#[cloudknot::init]
async fn prepare() {}

fn main() {}
