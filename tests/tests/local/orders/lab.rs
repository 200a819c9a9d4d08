use std::net::IpAddr;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

mod first {
    #[cloudknot::remote]
    pub fn same() -> u8 {
        1
    }
}

mod second {
    #[cloudknot::remote]
    pub fn same() -> u8 {
        2
    }
}

static INITIALIZED: OnceLock<u32> = OnceLock::new();

#[cloudknot::init]
fn initialize() {
    INITIALIZED.get_or_init(|| 7);
}

#[derive(Debug, Serialize, Deserialize)]
struct Model {
    weights: Vec<f64>,
    name: Option<String>,
}

#[cloudknot::remote]
fn scale(x: f64, by: f64) -> f64 {
    println!("scaling {x}");
    x * by
}

#[cloudknot::remote]
fn label(name: &str, number: Option<f64>, model: Model) -> String {
    format!("{name}|{number:?}|{:?}|{:?}", model.weights, model.name)
}

#[cloudknot::remote]
fn sum(xs: Vec<u32>) -> u32 {
    xs.iter().sum()
}

#[cloudknot::remote]
fn greet(name: String) -> String {
    format!("hello {name}")
}

#[cloudknot::remote]
fn sized(size: usize) -> Model {
    Model { weights: vec![0.5; size], name: None }
}

#[cloudknot::remote]
fn address(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}

#[cloudknot::remote]
fn surroundings(item: u32) -> Result<String, String> {
    println!("item {item} prints");
    let variable = std::env::var("SURROUNDINGS").unwrap_or_default();
    match item {
        13 => panic!("item {item} is unlucky"),
        14 => Err("item 14 fails".to_owned()),
        _ => Ok(format!("{variable} {:?}", INITIALIZED.get())),
    }
}

#[cloudknot::main]
fn main() {
    println!("the program's own work");
    let map = surroundings.map([12, 13, 14]).env("SURROUNDINGS", "of the run");
    println!("{}", map.submit().wait().unwrap().outcomes().wait().unwrap().len());
}
