use std::io;

#[cloudknot::init]
fn number() -> u8 {
    7
}

#[cloudknot::init]
fn result() -> io::Result<String> {
    Ok(String::new())
}

type Alias = Result<(), String>;

#[cloudknot::init]
fn alias() -> Alias {
    Ok(())
}

fn main() {}
