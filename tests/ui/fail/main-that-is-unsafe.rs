#[cloudknot::main]
unsafe fn main() {}
