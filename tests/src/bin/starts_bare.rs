//! Baseline for `starts`: a program that makes the same request with the same SDK, and then prints the time.
//! Compiled like a worker, so it contains what identifies a worker.

use cloudknot_runtime::store::s3::loader;

mod worker {
    #[cloudknot::remote]
    fn nothing() {}

    #[cloudknot::main]
    #[allow(dead_code, reason = "only its presence matters")]
    fn main() {}
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("the arguments are a bucket, a key and a number of bytes");
    let (bucket, key, bytes) = (next(), next(), next().parse::<usize>().expect("the size is a number"));
    let config = loader().load().await;
    let settings = aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build();
    let client = aws_sdk_s3::Client::from_conf(settings);
    let response = client
        .get_object()
        .bucket(bucket)
        .key(key)
        .range(format!("bytes=0-{}", bytes - 1))
        .send()
        .await
        .expect("the input exists");
    let input = response.body.collect().await.expect("the input can be read").into_bytes();
    println!("{}", cloudknot_tests::now());
    assert_eq!(input.len(), bytes);
}
