#[cloudknot::main(flavor = "current_thread")]
fn main(arguments: Vec<String>) {
    drop(arguments);
}
