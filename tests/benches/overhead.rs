//! Overhead of cloudknot per item, compared with other ways to run the same items: a plain loop, rayon's threads, and
//! one process per item of an empty static program.
//!
//! `cargo bench -p cloudknot-tests --bench overhead`; all figures are of one run on one machine.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use cloudknot_runtime::contract::ROW_LEN;
use cloudknot_runtime::item::{Meter, SLOW};
use cloudknot_runtime::measurements::{Measured, Measurements};
use cloudknot_tests::memory::{peak, reset_peak};
use rayon::prelude::*;

/// Does minimal work: 8 bytes in, 8 bytes out.
#[cloudknot::remote]
fn no_op(x: u64) -> u64 {
    x.rotate_left(7)
}

/// Sleeps for a second, if it is to be slow.
#[cloudknot::remote]
fn mixed(slow: bool) -> u64 {
    if slow {
        std::thread::sleep(Duration::from_secs(1));
    }
    slow.into()
}

/// Writes to stderr as fast as it can, until its timeout.
#[cloudknot::remote(timeout = "2s")]
fn flood(_nothing: u8) {
    let line = [b'x'; 256 << 10];
    while std::io::Write::write_all(&mut std::io::stderr(), &line).is_ok() {}
}

const MANY: u64 = 1_000_000;
const SOME: u64 = 10_000;
const FEW: u32 = 1_000;

#[cloudknot::main]
fn main() -> cloudknot::Result<()> {
    cloudknot::set_hook(None);
    let home = tempfile::tempdir().expect("a temporary folder can be created");
    // SAFETY: no other thread has been started yet.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("CLOUDKNOT_HOME", home.path());
    }
    println!("{:<58}{:>12}{:>16}", "", "µs an item", "expected max");
    row(
        "plain loop, 1,000,000 items",
        MANY,
        time(|| (0..MANY).map(|x| no_op(std::hint::black_box(x))).sum::<u64>()),
        "",
    );
    row("rayon, 1,000,000 items", MANY, time(|| (0..MANY).into_par_iter().map(*no_op).sum::<u64>()), "");
    let empty = empty_program(home.path());
    let processes =
        || (0..FEW).for_each(|_| assert!(Command::new(&empty).status().expect("the program runs").success()));
    row("one process per item, empty and static, 1,000 items", FEW.into(), time(processes), "");
    row("cloudknot, chunk(1), 10,000 items", SOME, map(SOME, Some(1))?, "100");
    row("cloudknot, automatic chunks, 10,000 items", SOME, map(SOME, None)?, "10");
    let before = reset_peak();
    let took = map(MANY, None)?;
    let grown = peak().saturating_sub(before);
    row("cloudknot, automatic chunks, 1,000,000 items, streamed", MANY, took, "5");
    measuring();
    println!(
        "\nthe host's memory grew by {} MiB at most while 1,000,000 results were streamed (expected: at most 64)",
        grown >> 10
    );
    slow_among_quick()?;
    flooded()
}

/// Measures the part of the overhead that the record of each item's time and memory takes: without it, the figures above would be
/// lower by this.
fn measuring() {
    let measure = |slow: Duration| {
        let mut meter = Meter::new(slow);
        let mut measured = || {
            let begun = meter.begin();
            meter.end(&begun)
        };
        time(|| (0..SOME).for_each(|_| _ = std::hint::black_box(measured())))
    };
    row("of this, measuring a quick item", SOME, measure(SLOW), "2");
    row("of this, measuring an item of 2 ms or more", SOME, measure(Duration::ZERO), "100");
    let (mut table, now) = (Vec::new(), SystemTime::now());
    let measured = Measured::until_now(now, SLOW);
    let append = || (0..SOME).for_each(|_| Measurements::new((1, 1), &measured, now, now, 0).append(&mut table));
    row("of this, the row of an item in the table", SOME, time(append), "0.2");
    assert_eq!(table.len() as u64, SOME * ROW_LEN as u64);
}

/// Compares 32 slow items among 12,000 quick ones, on 16 processes, with the slow ones alone.
fn slow_among_quick() -> cloudknot::Result<()> {
    const SLOW: usize = 32;
    const QUICK: usize = 6_000;
    let run = |quick: usize| -> cloudknot::Result<f64> {
        let slow = |item| (quick..quick + SLOW).contains(&item);
        let began = Instant::now();
        let slow_items: u64 = mixed.map((0..2 * quick + SLOW).map(slow)).parallel(16).wait()?.into_iter().sum();
        assert_eq!(slow_items, SLOW as u64);
        Ok(began.elapsed().as_secs_f64())
    };
    let (alone, among) = (run(0)?, run(QUICK)?);
    println!(
        "32 items of 1 s on 16 processes take {alone:.1} s, and {among:.1} s among 12,000 quick ones; ratio {:.2} (expected: at most \
         1.5)",
        among / alone
    );
    Ok(())
}

/// Measures the time and the memory that an item takes which floods its log.
fn flooded() -> cloudknot::Result<()> {
    let before = reset_peak();
    let began = Instant::now();
    let outcomes = flood.map([0, 1]).parallel(2).submit().wait()?.outcomes().wait()?;
    assert!(outcomes.iter().all(Result::is_err), "both time out");
    println!(
        "2 items that flood their log, with a timeout of 2 s, end after {:.1} s; the host's memory grows by {} MiB (expected: at \
         most 64)",
        began.elapsed().as_secs_f64(),
        peak().saturating_sub(before) >> 10
    );
    Ok(())
}

/// Measures the time from `map` to the last of the streamed results, and compares each of them.
fn map(items: u64, chunk: Option<u64>) -> cloudknot::Result<Duration> {
    let began = Instant::now();
    let map = no_op.map(0..items);
    let map = if let Some(chunk) = chunk { map.chunk(chunk) } else { map };
    let run = map.submit().wait()?;
    let mut seen = 0;
    for (index, value) in run.results().wait() {
        assert_eq!(value.expect("a no-op does not fail"), (index as u64).rotate_left(7));
        seen += 1;
    }
    assert_eq!(seen, items);
    Ok(began.elapsed())
}

fn time<T>(act: impl FnOnce() -> T) -> Duration {
    let began = Instant::now();
    std::hint::black_box(act());
    began.elapsed()
}

fn row(what: &str, items: u64, took: Duration, expected: &str) {
    #[allow(clippy::cast_precision_loss)]
    let each = took.as_secs_f64() * 1e6 / items as f64;
    println!("{what:<58}{each:>12.3}{expected:>16}");
}

fn empty_program(folder: &std::path::Path) -> std::path::PathBuf {
    let (source, program) = (folder.join("empty.rs"), folder.join("empty"));
    std::fs::write(&source, "fn main() {}").expect("the folder can be written");
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["-O", "-C", "target-feature=+crt-static", "-o"]).arg(&program).arg(&source);
    assert!(rustc.status().expect("rustc starts").success(), "rustc cannot compile an empty program");
    program
}
