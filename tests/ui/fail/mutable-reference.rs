#[cloudknot::remote]
fn sort(values: &mut Vec<u8>) {
    values.sort();
}

#[cloudknot::remote]
fn fill(values: &mut [f64], with: f64) {
    values.fill(with);
}

fn main() {
    sort(&mut vec![]);
    fill(&mut [0.0], 1.0);
}
