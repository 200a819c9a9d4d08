//! Time from the start of a worker's process to the first line of its function, with the input fetched from S3 on
//! loopback, compared with a bare program that makes the same request with the same SDK.
//!
//! `cargo bench --profile dev -p cloudknot-tests --features counterparts --bench start`; the measured programs are
//! compiled as for a deploy, whatever the profile of this program. All figures are of one run on one machine.

use std::process::{Command, Stdio};

use cloudknot_runtime::contract::{InputLayout, StoreAt};
use cloudknot_tests::now;
use cloudknot_tests::recorded::{Recorded, types_of};
use cloudknot_tests::s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
use cloudknot_tests::workspaces::worker_of_this_package;

const ROUNDS: usize = 40;

#[tokio::main]
async fn main() {
    let worker = worker_of_this_package("starts", "aws");
    let bare = worker_of_this_package("starts_bare", "bare");
    let types = types_of(&mut Command::new(&worker), "begins");
    let server = S3Server::start().await;
    let store = server.store("").await;
    let url = format!("http://{}", server.address());
    let start = |program: &std::path::Path| {
        let mut command = Command::new(program);
        command.env("AWS_ENDPOINT_URL", &url).env("AWS_REGION", "eu-central-1").stdout(Stdio::piped());
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command
    };

    let (mut worker_times, mut bare_times) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let at = StoreAt::S3 { bucket: BUCKET.into(), prefix: String::new() };
        let recorded = Recorded::new(&store, at, &types, &format!("run-{round}"), &[u64::MAX]).await;
        let InputLayout::Uniform(size) = recorded.task.inputs else { unreachable!("the run has one input") };
        let (name, task) = recorded.env();
        let began = now();
        let status = start(&worker).env(name, task).status().expect("the worker starts");
        assert!(status.success());
        let value = recorded.values::<u64>(&store).await[0];
        worker_times.push(value - began);

        let began = now();
        let output = start(&bare)
            .args([BUCKET, &recorded.keys.inputs(), &size.to_string()])
            .output()
            .expect("the program starts");
        assert!(output.status.success(), "{output:?}");
        let printed = String::from_utf8(output.stdout).expect("the program prints UTF-8");
        bare_times.push(printed.trim().parse::<u64>().expect("the program prints a number") - began);
    }
    let (worker_time, bare_time) = (median(&mut worker_times), median(&mut bare_times));
    println!("process start to the first line of the function, S3 input on loopback    ms (median of {ROUNDS})");
    println!("a bare program with the same SDK                                  {bare_time:>8.2}");
    println!("a worker                                                          {worker_time:>8.2}");
    println!(
        "ratio                                                             {:>8.2}   (expected: at most 1.5)",
        worker_time / bare_time
    );
    println!("Python cloudknot 0.6.1, in its container (measured elsewhere)      310 to 370");
}

/// Returns the median in milliseconds.
fn median(nanos: &mut [u64]) -> f64 {
    nanos.sort_unstable();
    std::time::Duration::from_nanos(nanos[nanos.len() / 2]).as_secs_f64() * 1e3
}
