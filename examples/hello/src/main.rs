//! The smallest program: a function, and a map over it.

/// Returns a greeting for `name`.
#[cloudknot::remote]
fn greet(name: &str) -> String {
    format!("Hello, {name}!")
}

#[cloudknot::main]
async fn main() -> cloudknot::Result<()> {
    let names = ["world", "Ada", "Grace"].map(String::from);
    for greeting in greet.map(names).await? {
        println!("{greeting}");
    }
    Ok(())
}
