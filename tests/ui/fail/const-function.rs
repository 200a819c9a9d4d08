#[cloudknot::remote]
const fn double(x: u8) -> u8 {
    x * 2
}

fn main() {
    double(1);
}
