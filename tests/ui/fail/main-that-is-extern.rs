#[cloudknot::main]
extern "C" fn main() {}
