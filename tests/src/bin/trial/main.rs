//! Program with remote functions that do everything a function can do. Its first argument is a scenario. It prints
//! facts, one per line, for the tests to read.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cloudknot::{Error, ItemError, Run};
use cloudknot_tests::trial::{Behavior, Fact, ItemFailure, RetrySpec, Spec, counted, files, print};
use serde::{Deserialize, Serialize};

mod carried;
#[cfg(feature = "counterparts")]
mod dropped;
mod misdeeds;
mod surroundings;
mod unordered;

/// The numbers of the init functions that have run in this process, as the digits of a number.
static INITIALIZED: AtomicU64 = AtomicU64::new(0);

fn initialized(number: u64) {
    let _ = INITIALIZED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |numbers| Some(10 * numbers + number));
}

mod second {
    /// Behaves as the variable `TRIAL_INIT` specifies, if it is set.
    #[cloudknot::init]
    fn init() -> Result<(), super::Oops> {
        super::initialized(2);
        let Ok(behavior) = std::env::var("TRIAL_INIT") else { return Ok(()) };
        super::perform(serde_json::from_str(&behavior).expect("the variable is a behavior")).map(drop)
    }
}

mod first {
    #[cloudknot::init]
    fn init() {
        super::initialized(1);
    }
}

/// Behaves as its input specifies.
#[cloudknot::remote]
fn work(input: Behavior) -> Result<u64, Oops> {
    perform(input)
}

#[derive(Debug)]
struct Oops(String, Option<Box<Self>>);

impl std::fmt::Display for Oops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Oops {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.1.as_deref().map(|cause| cause as _)
    }
}

fn perform(input: Behavior) -> Result<u64, Oops> {
    let sleep = |milliseconds| std::thread::sleep(Duration::from_millis(milliseconds));
    match input {
        Behavior::Double(number) => return Ok(2 * number),
        Behavior::Panic(message) => a_function_that_panics(&message),
        Behavior::PanicInThread => std::thread::spawn(|| panic!("in a thread")).join().unwrap(),
        Behavior::PanicPassedOn => {
            let panicked = std::thread::spawn(|| panic!("passed on")).join();
            panicked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        Behavior::Caught(number) => {
            let caught = std::panic::catch_unwind(|| panic!("caught"));
            return Ok(number + u64::from(caught.is_err()));
        }
        Behavior::Fail(causes) => {
            let chain = causes.into_iter().rev().fold(None, |cause, text| Some(Oops(text, cause.map(Box::new))));
            return chain.map_or(Ok(0), Err);
        }
        Behavior::Abort => std::process::abort(),
        Behavior::Segfault => segfault(),
        Behavior::Overflow => return Ok(overflow(1)),
        Behavior::Exit(code) => std::process::exit(code),
        Behavior::Kill => raise(rustix::process::Signal::KILL),
        Behavior::Allocate => return Ok(vec![1_u8; 1 << 60].len() as u64),
        Behavior::Sleep(milliseconds, value) => {
            sleep(milliseconds);
            return Ok(value);
        }
        Behavior::Print(out, err, next) => {
            print!("{out}");
            eprint!("{err}");
            return perform(*next);
        }
        Behavior::Count(file, number, milliseconds) => {
            append(&file, number);
            sleep(milliseconds);
            return Ok(number);
        }
        Behavior::Wait(file, number, go_on) => {
            append(&file, number);
            return perform(Behavior::After(go_on, Box::new(Behavior::Sleep(0, number))));
        }
        Behavior::After(file, next) => {
            while !file.exists() {
                sleep(10);
            }
            return perform(*next);
        }
        Behavior::Until(file, number, attempts) => {
            append(&file, number);
            let attempt = counted(&file).into_iter().filter(|&counted| counted == number).count();
            return if attempt < attempts { Err(Oops(format!("attempt {attempt} fails"), None)) } else { Ok(number) };
        }
        Behavior::Env(name) => {
            let value = std::env::var(&name).map_err(|error| Oops(format!("`{name}`: {error}"), None))?;
            return value.parse().map_err(|_| Oops(format!("`{value}` is not a number"), None));
        }
        Behavior::Initialized => return Ok(INITIALIZED.load(Ordering::Relaxed)),
        Behavior::Fork => fork_and_die(),
        Behavior::Child => {
            let status = std::process::Command::new("sleep").arg("1000").status();
            return Err(Oops(format!("the child ended: {status:?}"), None));
        }
        Behavior::DieLater => {
            std::thread::spawn(move || {
                sleep(1_000);
                std::process::abort();
            });
            return Ok(1);
        }
        Behavior::Nested => {
            let refused = work.map([Behavior::Double(1)]).wait().map_err(|error| format!("{:?}", error.kind()));
            return Ok(u64::from(refused == Err("Nested".into())));
        }
        Behavior::Misdeed(misdeed) => return misdeeds::commit(misdeed),
        Behavior::Deadline => {
            let end = cloudknot::deadline().ok_or_else(|| Oops("no deadline".into(), None))?;
            let remaining = end.saturating_duration_since(std::time::Instant::now()).as_millis();
            return Ok(remaining.try_into().expect("the time fits into a `u64`"));
        }
    }
    Ok(0)
}

fn a_function_that_panics(message: &str) {
    panic!("{message}")
}

#[allow(unsafe_code)]
fn segfault() {
    // SAFETY: none; the fault is the purpose. The address is in no page, and the process ends here.
    unsafe { std::ptr::without_provenance_mut::<u64>(0x1000).write_volatile(1) }
}

#[allow(unconditional_recursion)]
fn overflow(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 1024]);
    overflow(depth + 1) + room[7]
}

fn raise(signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::getpid(), signal).expect("a process may end itself");
}

#[allow(unsafe_code)]
fn fork_and_die() {
    // SAFETY: the child only sleeps, which is permitted after a fork of a multithreaded program.
    if unsafe { libc::fork() } == 0 {
        // SAFETY: as above.
        unsafe {
            libc::sleep(1000);
            libc::_exit(0);
        }
    }
    raise(rustix::process::Signal::KILL);
}

fn append(file: &Path, number: u64) {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(file);
    // In one write, so that the numbers of several processes do not mix.
    file.and_then(|mut file| file.write_all(format!("{number}\n").as_bytes())).expect("the file can be written");
}

/// Waits asynchronously, then returns the number.
#[cloudknot::remote(retries = 1, timeout = "1h")]
async fn later(milliseconds: u64, number: u64) -> Result<u64, String> {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    let number = tokio::spawn(async move { number }).await.map_err(|error| error.to_string())?;
    if number == 0 { Err("the number is zero".into()) } else { Ok(number) }
}

/// Fills this many MiB. Backends that limit memory give it 128 MiB.
#[cloudknot::remote(memory = "128 MiB")]
fn hungry(mebibytes: usize) -> u64 {
    let filled = std::hint::black_box(vec![1_u8; mebibytes << 20]);
    filled.iter().step_by(1 << 20).map(|&byte| u64::from(byte)).sum()
}

/// Returns the CPU quota of this process in thousandths of a CPU; fails if there is none.
#[cloudknot::remote(vcpus = 0.25)]
fn quota(_nothing: u8) -> Result<u64, String> {
    let read =
        |file: &str| std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(file)).map_err(|_| file.to_owned());
    // Version 2 of control groups, or version 1.
    let limit = read("cpu.max")
        .or_else(|_| Ok::<_, String>(read("cpu/cpu.cfs_quota_us")? + " " + &read("cpu/cpu.cfs_period_us")?))?;
    let numbers: Result<Vec<u64>, _> = limit.split_whitespace().map(str::parse).collect();
    match numbers.as_deref() {
        Ok([quota, period]) => Ok(1_000 * quota / period),
        _ => Err(limit),
    }
}

/// Function other than [`work`].
#[cloudknot::remote]
fn other(number: u64) -> u64 {
    number
}

/// Returns `length` copies of the last character of `text`. A string, because a `Vec<u8>` is slow without
/// optimization.
#[cloudknot::remote]
fn stretch(text: &str, length: usize) -> String {
    text.chars().last().map(String::from).unwrap_or_default().repeat(length)
}

/// Returns `length` copies of `byte`.
#[cloudknot::remote]
fn bytes(byte: u8, length: usize) -> Vec<u8> {
    vec![byte; length]
}

/// Returns `length` copies of `number`.
#[cloudknot::remote]
fn floats(number: f64, length: usize) -> Vec<f64> {
    vec![number; length]
}

/// Returns its second argument. The number 13 cannot be serialized, as input or as output.
#[cloudknot::remote]
fn picky(_input: Unlucky, output: u32) -> Unlucky {
    Unlucky(output)
}

#[derive(Debug, Deserialize)]
struct Unlucky(u32);

impl Serialize for Unlucky {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == 13 {
            return Err(serde::ser::Error::custom("13 is unlucky"));
        }
        serializer.serialize_newtype_struct("Unlucky", &self.0)
    }
}

#[cloudknot::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["map", spec] => print_outcomes(&submit(spec)?.await?).await?,
        ["stream", spec] => print_results(&submit(spec)?.await?).await,
        ["values", spec] => print_values(map(spec)?.await),
        ["values-elsewhere", folder, spec] => {
            std::env::set_current_dir(folder)?;
            print_values(map(spec)?.await);
        }
        // Each in its own task; the second one blocks its thread.
        ["spawned", spec] => {
            let (awaited, waited) = (map(spec)?, map(spec)?);
            print_values(tokio::spawn(async move { awaited.await }).await?);
            print_values(tokio::spawn(async move { waited.wait() }).await?);
        }
        // As in a user's program, to show what `main` prints for an error.
        ["plain", spec] => println!("{:?}", map(spec)?.await?),
        ["first", spec] => {
            if let Some((index, outcome)) = submit(spec)?.await?.results().next().await {
                print_outcome(index, outcome);
            }
        }
        ["attach", run] => print_attached(work.attach(run).await).await?,
        ["attach-stream", run] => print_results(&work.attach(run).await?).await,
        ["attach-other", run] => print_attached(other.attach(run).await).await?,
        ["retry", run] => {
            let run = work.attach(run).await?;
            run.finished().await?;
            print_outcomes(&run.retry_failed().await?).await?;
        }
        ["retry", run, spec] => {
            let run = work.attach(run).await?;
            print_attached(retry(&run, spec)?.await).await?;
        }
        ["cancel", run] => {
            let run = work.attach(run).await?;
            run.cancel().await?;
            print_status(&run);
        }
        #[cfg(feature = "counterparts")]
        ["maps-dropped", spec, record, seed] => dropped::maps(spec, Path::new(record), seed).await?,
        #[cfg(feature = "counterparts")]
        ["cancels-dropped", spec, started, go_on, seed] => {
            dropped::cancels(spec, Path::new(started), Path::new(go_on), seed).await?;
        }
        ["cancel-item", run, item] => {
            let done = work.attach(run).await?.cancel_item(item.parse()?).await;
            done.unwrap_or_else(|error| print_error(&error));
        }
        ["jobs", run] => {
            for job in work.attach(run).await?.jobs().await? {
                let codes: Vec<_> = job.attempts.iter().map(|attempt| attempt.exit_code).collect();
                print(&Fact::Found(format!(
                    "{:?} {} {codes:?} {}",
                    job.items,
                    job.status,
                    job.log_url.unwrap_or_default()
                )));
            }
        }
        ["measurements", run] => {
            for measured in work.look(run).await?.measurements().await? {
                let measured = measured.map(|measured| (measured.measurements, (*measured.machine).clone()));
                print(&Fact::Found(serde_json::to_string(&measured)?));
            }
        }
        ["status", spec, go_on] => status(submit(spec)?.await?, Path::new(go_on)).await?,
        ["cancel-own", spec, started] => cancel_own(submit(spec)?.await?, Path::new(started)).await?,
        ["call", number] => print(&Fact::Found(work.call(Behavior::Double(number.parse()?)).await?.to_string())),
        ["later"] => print_outcomes(&later.map([(5, 1), (1, 2), (0, 0)]).submit().await?).await?,
        #[cfg(feature = "counterparts")]
        ["on-docker"] => print_outcomes(&other.map([5, 6]).on(cloudknot::Backend::docker()).submit().await?).await?,
        ["hungry"] => print_outcomes(&hungry.map([1, 512, 2]).submit().await?).await?,
        ["quota"] => print_outcomes(&quota.map([0]).submit().await?).await?,
        ["others", items] => many_others(items.parse()?, None)?,
        ["others", items, chunk] => many_others(items.parse()?, Some(chunk.parse()?))?,
        ["sizes"] => sizes(None)?,
        ["sizes", chunk] => sizes(Some(chunk.parse()?))?,
        ["big", length] => big(length.parse()?)?,
        ["fill", items, length] => {
            fill(stretch.map(to_fill(items.parse()?, length.parse()?)).chunk(1).submit().await).await?;
        }
        ["fill-inputs", length] => fill(stretch.map([("x".repeat(length.parse()?), 1)]).submit().await).await?,
        ["fill-on", run] => fill(stretch.attach(run).await).await?,
        ["huge", "text", length] => huge(stretch.call(("x".into(), length.parse()?)).await?.as_bytes(), &b'x'),
        ["huge", "bytes", length] => huge(&bytes.call((7, length.parse()?)).await?, &7),
        ["huge", "floats", length] => huge(&floats.call((0.5, length.parse()?)).await?, &0.5),
        ["panicking-inputs"] => panicking_inputs(),
        ["unlucky-input"] => {
            print_values(picky.map((0..20_000).map(|number| (Unlucky(number % 14), 1))).await.map(|_| Vec::new()));
        }
        ["unlucky-output"] => unlucky_output().await?,
        ["carried"] => carried::all()?,
        ["unordered", ref arguments @ ..] => unordered::map(arguments),
        ["surroundings", ref files @ ..] => surroundings::print_all(files).await?,
        ["hook"] => panicking_hook(),
        _ => return Err("no such scenario".into()),
    }
    Ok(())
}

type Inputs = std::vec::IntoIter<Behavior>;

fn map(spec: &str) -> serde_json::Result<cloudknot::Map<Inputs, Behavior, u64>> {
    let spec: Spec = serde_json::from_str(spec)?;
    let mut map = work.map(spec.inputs);
    map = if let Some(chunk) = spec.chunk { map.chunk(chunk) } else { map };
    map = if let Some(parallel) = spec.parallel { map.parallel(parallel) } else { map };
    map = if let Some(retries) = spec.retries { map.retries(retries) } else { map };
    map = if let Some(timeout) = spec.timeout_ms { map.timeout(Duration::from_millis(timeout)) } else { map };
    map = if let Some(most) = spec.max_failures { map.max_failures(most) } else { map };
    map = if let Some(items) = spec.recycle { map.recycle(items) } else { map };
    map = if let Some(vcpus) = spec.vcpus { map.vcpus(vcpus) } else { map };
    map = if let Some(memory) = spec.memory { map.memory(memory) } else { map };
    map = if let Some(memory) = spec.memory_on_retry { map.memory_on_retry(memory) } else { map };
    map = if let Some(gpus) = spec.gpus { map.gpus(gpus) } else { map };
    map = if spec.independent { map.independent() } else { map };
    map = if let Some(name) = spec.name { map.name(name) } else { map };
    map = if spec.resume { map.resume() } else { map };
    map = if spec.fresh { map.fresh() } else { map };
    map = spec.env.into_iter().fold(map, |map, (name, value)| map.env(name, value));
    Ok(spec.tags.into_iter().fold(map, |map, (name, value)| map.tag(name, value)))
}

fn retry(run: &Run<u64>, spec: &str) -> serde_json::Result<cloudknot::Retry<u64>> {
    let spec: RetrySpec = serde_json::from_str(spec)?;
    let mut retry = run.retry_failed();
    retry = if let Some(items) = spec.items { retry.items(items) } else { retry };
    retry = if let Some(memory) = spec.memory { retry.memory(memory) } else { retry };
    retry = if let Some(timeout) = spec.timeout_ms { retry.timeout(Duration::from_millis(timeout)) } else { retry };
    retry = if let Some(retries) = spec.retries { retry.retries(retries) } else { retry };
    Ok(if spec.old_code { retry.old_code() } else { retry })
}

fn submit(spec: &str) -> serde_json::Result<cloudknot::Submit<Inputs, Behavior, u64>> {
    Ok(map(spec)?.submit())
}

async fn print_outcomes(run: &Run<u64>) -> cloudknot::Result<()> {
    print(&Fact::Run(run.id().to_owned()));
    for (index, outcome) in run.outcomes().await?.into_iter().enumerate() {
        print_outcome(index, outcome);
    }
    print_status(run);
    Ok(())
}

async fn print_results(run: &Run<u64>) {
    print(&Fact::Run(run.id().to_owned()));
    let mut results = run.results();
    while let Some((index, outcome)) = results.next().await {
        print_outcome(index, outcome);
    }
    print_status(run);
}

async fn print_attached(run: cloudknot::Result<Run<u64>>) -> cloudknot::Result<()> {
    match run {
        Ok(run) => print_outcomes(&run).await?,
        Err(error) => print_error(&error),
    }
    Ok(())
}

fn print_values(values: cloudknot::Result<Vec<u64>>) {
    match values {
        Ok(values) => values.into_iter().enumerate().for_each(|(index, value)| print(&Fact::Value(index, value))),
        Err(error) => print_error(&error),
    }
}

fn print_error(error: &Error) {
    print(&Fact::Error(format!("{:?}", error.kind()), format!("{error:?}")));
    for (index, error) in error.failed() {
        print_outcome(usize::try_from(*index).expect("an index fits into a `usize`"), Err(error.clone()));
    }
}

fn print_outcome(index: usize, outcome: Result<u64, ItemError>) {
    print(&match outcome {
        Ok(value) => Fact::Value(index, value),
        Err(error) => Fact::Failed(
            index,
            Box::new(ItemFailure {
                kind: format!("{:?}", error.kind()),
                message: error.message().to_owned(),
                chain: error.chain().to_vec(),
                location: error.location().map(str::to_owned),
                backtrace: error.backtrace().map(str::to_owned),
                attempt: error.attempt(),
                exit_code: error.exit_code(),
                signal: error.signal(),
                log: error.log().to_owned(),
            }),
        ),
    });
}

fn print_status(run: &Run<u64>) {
    let status = run.status();
    assert_eq!(
        status.items,
        status.succeeded + status.failed + status.running + status.waiting + status.unfinished,
        "each item is in one state: {status:?}"
    );
    let counts = [status.succeeded, status.failed, status.running, status.waiting, status.unfinished];
    print(&Fact::Status(counts, status.finished));
}

/// Prints the status during the run, creates the file that its items wait for, and prints the status at the end and the
/// number of outcomes that can be read twice.
async fn status(run: Run<u64>, go_on: &Path) -> cloudknot::Result<()> {
    let mut results = run.results();
    let first = results.next().await;
    print_status(&run);
    assert!(first.is_some(), "no result arrived while others ran");
    std::fs::write(go_on, "").expect("the file can be written");
    run.finished().await?;
    print_status(&run);
    print(&Fact::Found(format!("{} twice", run.outcomes().await?.len().min(run.outcomes().await?.len()))));
    Ok(())
}

/// Cancels the run once two items have written to the file.
async fn cancel_own(run: Run<u64>, started: &Path) -> cloudknot::Result<()> {
    while counted(started).len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    run.cancel().await?;
    print_outcomes(&run).await
}

/// Maps this many cheap items, streams their results and prints their number. Fails if a value is wrong.
fn many_others(items: u64, chunk: Option<u64>) -> cloudknot::Result<()> {
    let map = other.map(0..items);
    let run = if let Some(chunk) = chunk { map.chunk(chunk) } else { map }.submit().wait()?;
    let mut seen = vec![false; usize::try_from(items).expect("the number of items fits into a `usize`")];
    for (index, value) in run.results().wait() {
        assert_eq!(value.expect("the function does not fail"), index as u64);
        assert!(!std::mem::replace(&mut seen[index], true), "item {index} was returned twice");
    }
    print(&Fact::Run(run.id().to_owned()));
    print(&Fact::Found(seen.iter().filter(|seen| **seen).count().to_string()));
    Ok(())
}

/// Maps inputs and results of all sizes, each different from the one before.
fn sizes(chunk: Option<u64>) -> cloudknot::Result<()> {
    let length =
        |item: u64| usize::try_from(item.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 46).expect("the length is small");
    let letter = |item: u64| char::from(b'a' + item.to_le_bytes()[0] % 26).to_string();
    let inputs = (0..300).map(|item| (letter(item).repeat(length(item)), length(item + 1)));
    let map = stretch.map(inputs);
    let stretched = if let Some(chunk) = chunk { map.chunk(chunk) } else { map }.wait()?;
    for (item, stretched) in (0..).zip(&stretched) {
        let expected = if length(item) == 0 { String::new() } else { letter(item).repeat(length(item + 1)) };
        assert!(*stretched == expected, "item {item}");
    }
    print(&Fact::Found(stretched.len().to_string()));
    Ok(())
}

fn big(length: usize) -> cloudknot::Result<()> {
    let texts = ["a", "b", "c"];
    let inputs = texts.map(|text| (text.repeat(length), length + 1));
    for (text, value) in texts.into_iter().zip(stretch.map(inputs).wait()?) {
        assert!(value == text.repeat(length + 1), "of {text}");
        print(&Fact::Found(value.len().to_string()));
    }
    Ok(())
}

fn to_fill(items: usize, length: usize) -> impl Iterator<Item = (String, usize)> {
    (0..items).map(move |_| ("x".to_owned(), length))
}

/// Prints the lengths of the values.
async fn fill(run: cloudknot::Result<Run<String>>) -> cloudknot::Result<()> {
    let run = match run {
        Ok(run) => run,
        Err(error) => {
            print_error(&error);
            return Ok(());
        }
    };
    print(&Fact::Run(run.id().to_owned()));
    let outcomes = run.outcomes().await?;
    print_values(run.values().await.map(|_| Vec::new()));
    for (index, outcome) in outcomes.into_iter().enumerate() {
        if let Ok(value) = outcome {
            print(&Fact::Value(index, value.len() as u64));
        }
    }
    Ok(())
}

fn huge<T: PartialEq>(value: &[T], each: &T) {
    // A checksum has verified each byte; this checks that the values are the right ones.
    assert!(value.iter().step_by(1 << 16).chain(value.last()).all(|value| value == each), "a value differs");
    print(&Fact::Found(value.len().to_string()));
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    print(&Fact::Found(status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM: ?").to_owned()));
}

/// Maps over an iterator that panics after more inputs than fit into the buffers in memory.
fn panicking_inputs() {
    let inputs = (0..200_000).map(|number: u64| if number == 199_999 { panic!("no more inputs") } else { number });
    let panicked = std::panic::catch_unwind(|| other.map(inputs).submit().wait());
    let message = panicked.map_or_else(|panic| panic.downcast_ref().copied().unwrap_or("?"), |_| "no panic");
    print(&Fact::Found(message.to_owned()));
    let home = std::env::var_os("CLOUDKNOT_HOME").expect("the tests set CLOUDKNOT_HOME");
    for file in files(Path::new(&home)) {
        print(&Fact::Found(file.display().to_string()));
    }
}

async fn unlucky_output() -> cloudknot::Result<()> {
    let run = picky.map([1, 13, 2].map(|number| (Unlucky(0), number))).submit().await?;
    print(&Fact::Run(run.id().to_owned()));
    for (index, outcome) in run.outcomes().await?.into_iter().enumerate() {
        print_outcome(index, outcome.map(|value| value.0.into()));
    }
    Ok(())
}

struct Panicking;

impl cloudknot::Hook for Panicking {
    fn report(&self, _: &cloudknot::Event<'_>) {
        panic!("a hook panics");
    }
}

fn panicking_hook() {
    cloudknot::set_hook(Some(Box::new(Panicking)));
    print_values(work.map([Behavior::Double(1), Behavior::Double(2)]).wait());
}
