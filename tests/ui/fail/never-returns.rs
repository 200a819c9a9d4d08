#[cloudknot::remote]
fn serve(port: u16) -> ! {
    loop {
        println!("{port}");
    }
}

fn main() {}
