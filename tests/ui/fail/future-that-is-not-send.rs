use std::rc::Rc;

#[cloudknot::remote]
async fn count(n: u8) -> usize {
    let shared = Rc::new(n);
    std::future::ready(()).await;
    Rc::strong_count(&shared)
}

fn main() {
    drop(count(1));
}
