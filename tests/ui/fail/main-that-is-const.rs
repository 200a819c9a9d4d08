#[cloudknot::main]
const fn main() {}
