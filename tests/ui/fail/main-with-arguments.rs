#[cloudknot::main(flavor = "current_thread", crate = "::cloudknot")]
fn main(arguments: Vec<String>) {
    drop(arguments);
}
