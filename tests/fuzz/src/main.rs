//! Reads millions of damaged records and frames, as the library does: no panic, no abort, and no more memory than what was
//! read can explain. Optimised by the profile `fuzz`, with checks of overflow.
//!
//! `cargo run --profile fuzz -p cloudknot-tests-fuzz -- --seconds 30`, or `--inputs 10000000`. `CLOUDKNOT_STRESS_SEED` repeats
//! the inputs of a run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

mod mutate;
#[path = "../../src/random.rs"]
#[allow(unreachable_pub, reason = "the other tests share this module")]
mod random;
mod targets;

use random::Random;
use targets::Target;

/// Condition that ends the program.
#[derive(Debug, Clone, Copy)]
enum Limit {
    Time(Duration),
    Inputs(u64),
}

/// State shared by the threads.
#[derive(Debug, Default)]
struct Progress {
    inputs: AtomicU64,
    failed: AtomicBool,
}

fn main() -> ExitCode {
    let Some(limit) = limit() else {
        eprintln!("usage: --seconds <number> | --inputs <number>");
        return ExitCode::from(2);
    };
    let (seed, began, progress) = (random::seed(), Instant::now(), Progress::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (progress, random) = (&progress, Random::new(seed.wrapping_add(thread as u64)));
            scope.spawn(move || run(limit, began, progress, random));
        }
    });
    let inputs = progress.inputs.load(Ordering::Relaxed);
    println!("{inputs} inputs in {} s with the seed {seed}", began.elapsed().as_secs());
    if progress.failed.load(Ordering::Relaxed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn limit() -> Option<Limit> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [option, number] = &arguments[..] else { return None };
    let number = number.parse().ok()?;
    match option.as_str() {
        "--seconds" => Some(Limit::Time(Duration::from_secs(number))),
        "--inputs" => Some(Limit::Inputs(number)),
        _ => None,
    }
}

fn run(limit: Limit, began: Instant, progress: &Progress, mut random: Random) {
    let targets = targets::all();
    while !progress.failed.load(Ordering::Relaxed) {
        let done = progress.inputs.fetch_add(targets.len() as u64, Ordering::Relaxed);
        match limit {
            Limit::Time(time) if began.elapsed() >= time => return,
            Limit::Inputs(inputs) if done >= inputs => return,
            _ => {}
        }
        for target in &targets {
            let sample = &target.samples[usize::try_from(random.below(target.samples.len() as u64)).unwrap_or(0)];
            let input = mutate::mutated(sample, target.is_text, &mut random);
            if let Err(reason) = check(target, &input) {
                println!("{}: {reason}, for the input {}", target.name, input.escape_ascii());
                progress.failed.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Reads the input, and checks what was allocated meanwhile.
fn check(target: &Target, input: &[u8]) -> Result<(), String> {
    let mut result = Ok(());
    let allocated = allocation_counter::measure(|| {
        result = catch_unwind(AssertUnwindSafe(|| (target.read)(input)));
    });
    result.map_err(|_| "a panic".to_owned())?;
    let most = target.base_bytes + target.bytes_per_byte * input.len() as u64;
    if allocated.bytes_max > most {
        return Err(format!("{} bytes of memory for {} bytes, more than {most}", allocated.bytes_max, input.len()));
    }
    Ok(())
}
