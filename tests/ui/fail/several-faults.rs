#[cloudknot::remote(vcpus = 0, memory = "2 GB", colour = "red")]
unsafe fn fit<T>(model: &mut Vec<f64>, _: u8, names: Vec<&str>) -> Box<dyn ToString> {
    Box::new("all of these are reported at once")
}

fn main() {}
