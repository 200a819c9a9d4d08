struct Fault;

#[cloudknot::init]
fn prepare() -> Result<(), Fault> {
    Err(Fault)
}

fn main() {}
