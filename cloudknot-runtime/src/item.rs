//! One item, from the frame of its input to the frame of its value, and the item process that runs one after another.
//! Knows the function; does not know where its input came from or where the value goes.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use serde::{Serialize, de::DeserializeOwned};

use crate::codec::CodecError;
use crate::contract::{self, Reply, Request};
use crate::failure::{Failure, ItemErrorKind};
use crate::function::{self, Function};
use crate::{engine, frame};

/// What the macro's `call` does: decodes the input, runs the function, encodes its value and reads it back.
///
/// `Of` is what the value is made of.
pub fn serve<I: DeserializeOwned, O: Serialize + DeserializeOwned, Of>(
    function: &'static Function,
    input: &[u8],
    value: &mut Vec<u8>,
    run: fn(I) -> Result<O, Failure>,
) -> Result<(), Failure> {
    let fingerprint = function.schema().fingerprint;
    let codec = |what: &str| {
        let what = what.to_owned();
        move |error: CodecError| Failure::new(ItemErrorKind::Codec, format!("{what}: {error}"))
    };
    let input = frame::decode::<I>(function.codec, fingerprint, input).map_err(codec("its input"))?;
    let output = run(input)?;
    let start = value.len();
    frame::encode(function.codec, fingerprint, &output, value).map_err(codec("its result"))?;
    // Dropped first, so that the value and what is read back are not both in memory for longer than one of them.
    drop(output);
    frame::read_back::<O, Of>(function.codec, &value[start..]).map_err(codec("its result"))
}

/// Runs the future of an async remote function to its end.
pub fn block_on<F: Future>(future: F) -> F::Output {
    engine::block_on(future)
}

/// Runs one item on this thread; a panic becomes a failure with its place and backtrace.
pub fn attempt(function: &'static Function, input: &[u8], value: &mut Vec<u8>) -> Result<(), Failure> {
    listen_to_panics();
    let start = value.len();
    let outer = RUNNING.replace(true);
    // An item before may have had a panic and caught it.
    PANIC.set(None);
    let result = catch_unwind(AssertUnwindSafe(|| function.call(input, value)));
    RUNNING.set(outer);
    let result = result.unwrap_or_else(|payload| Err(panicked(payload.as_ref())));
    if result.is_err() {
        value.truncate(start);
    }
    result
}

/// Whether this thread, or this whole process, is running an item.
pub fn is_running() -> bool {
    RUNNING.get() || ITEM_PROCESS.load(Ordering::Relaxed)
}

/// When the attempt that this item process is at will be ended; `None` where nothing ends it, or this is no item process.
pub fn deadline() -> Option<Instant> {
    *DEADLINE.lock().unwrap_or_else(PoisonError::into_inner)
}

static DEADLINE: Mutex<Option<Instant>> = Mutex::new(None);

static ITEM_PROCESS: AtomicBool = AtomicBool::new(false);

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<Option<Failure>> = const { RefCell::new(None) };
}

/// The last panic of a thread that the function started: it may travel to the item's thread without its place.
static ELSEWHERE: Mutex<Option<Failure>> = Mutex::new(None);

fn listen_to_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if RUNNING.get() && cfg!(panic = "unwind") {
                // It is reported as the item's failure, so it is not printed here as well.
                PANIC.set(Some(describe(info)));
            } else {
                if ITEM_PROCESS.load(Ordering::Relaxed)
                    && let Ok(mut elsewhere) = ELSEWHERE.lock()
                {
                    *elsewhere = Some(describe(info));
                }
                previous(info);
            }
        }));
    });
}

fn describe(info: &PanicHookInfo<'_>) -> Failure {
    let mut failure = Failure::new(ItemErrorKind::Panicked, message(info.payload()));
    failure.place = info.location().map(ToString::to_string);
    failure.backtrace = Some(of_the_function(&Backtrace::force_capture().to_string()));
    failure
}

fn panicked(payload: &(dyn Any + Send)) -> Failure {
    let message = message(payload);
    let here = PANIC.take();
    let elsewhere = || ELSEWHERE.lock().ok()?.take();
    let of_this = |failure: &Failure| failure.message == message;
    // What the function caught and what it passed on from another thread can be told apart by the message alone.
    here.filter(of_this)
        .or_else(|| elsewhere().filter(of_this))
        .unwrap_or_else(|| Failure::new(ItemErrorKind::Panicked, message.clone()))
}

fn message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

/// The frames between the machinery of panics and ours. A frame begins with its number: `  12: name`.
fn of_the_function(backtrace: &str) -> String {
    let mut frames: Vec<String> = Vec::new();
    for line in backtrace.lines() {
        let begins = line.split_once(": ").is_some_and(|(number, _)| number.trim().parse::<u32>().is_ok());
        match frames.last_mut() {
            Some(frame) if !begins => {
                frame.push('\n');
                frame.push_str(line);
            }
            _ => frames.push(line.to_owned()),
        }
    }
    let is_machinery =
        |frame: &String| ["rust_begin_unwind", "core::panicking::"].iter().any(|name| frame.contains(name));
    let begun = frames.iter().position(is_machinery).unwrap_or(0);
    let first = begun + frames[begun..].iter().take_while(|frame| is_machinery(frame)).count();
    let ours = frames.iter().position(|frame| frame.contains("cloudknot_runtime::item::serve"));
    let last = ours.filter(|&at| at > first).unwrap_or(frames.len());
    frames[first..last].join("\n")
}

/// The item process: takes items from its standard input and answers on its standard output until the input ends.
///
/// What the function prints goes to stderr; what it reads is empty.
/// The order is what [`contract::ENV_ITEM_PROCESS`] says: an [`ItemProcess`](contract::ItemProcess) in JSON.
pub fn item_process(order: &str) -> ! {
    ITEM_PROCESS.store(true, Ordering::Relaxed);
    let order = match serde_json::from_str(order) {
        Ok(order) => order,
        Err(error) => {
            eprintln!("error: cannot read `{}`: {error}", contract::ENV_ITEM_PROCESS);
            eprintln!("  hint: cloudknot sets this variable itself; unset it");
            std::process::exit(2)
        }
    };
    let code = match serve_items(&order) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("cloudknot: the item process lost its supervisor: {error}");
            1
        }
    };
    std::process::exit(code)
}

fn serve_items(order: &contract::ItemProcess) -> std::io::Result<()> {
    die_with_supervisor();
    let (input, mut output) = take_standard_streams()?;
    let mut input = BufReader::with_capacity(64 * 1024, input);
    let function = match function_for(order) {
        Ok(function) => function,
        Err(message) => return output.write_all(&Reply::Refused(message).to_bytes()),
    };
    output.write_all(&Reply::Ready.to_bytes())?;
    let timeout = order.timeout_ms.map(Duration::from_millis);
    let mut frame = Vec::new();
    let mut answer = Vec::new();
    while let Some(request) = Request::read(&mut input)? {
        (&mut input).take(request.length).read_to_end(&mut frame)?;
        if let Some(timeout) = timeout {
            *DEADLINE.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now().checked_add(timeout);
        }
        let begun = contract::begin_value(&mut answer, request.item);
        match attempt(function, &frame, &mut answer) {
            Ok(()) => contract::end_value(&mut answer, begun),
            Err(failure) => {
                answer.clear();
                answer.extend(Reply::Failed(request.item, failure).to_bytes());
            }
        }
        // The function's last words are in the log before its answer is: what it printed may be without a newline.
        std::io::stdout().flush()?;
        output.write_all(&answer)?;
        // What a large item took is not kept for small ones.
        for buffer in [&mut frame, &mut answer] {
            buffer.clear();
            buffer.shrink_to(contract::LARGE);
        }
    }
    Ok(())
}

fn function_for(order: &contract::ItemProcess) -> Result<&'static Function, String> {
    let function = function::find(&order.function)?;
    let here = function.schema();
    if here.fingerprint == order.fingerprint {
        return Ok(function);
    }
    Err(format!(
        "`{}` has types {} here, but the run was submitted with types {}; deploy again",
        order.function, here.fingerprint, order.fingerprint
    ))
}

/// Takes the pipes for ourselves, so that what the function prints or reads cannot get between the messages.
fn take_standard_streams() -> std::io::Result<(File, File)> {
    let input = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let output = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    Ok((input.into(), output.into()))
}

#[cfg(target_os = "linux")]
fn die_with_supervisor() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Signal, set_parent_process_death_signal};
    // Without these an item process would work on for nobody, and might outlive its supervisor in a lack of memory.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // The supervisor may have died before: then nobody reads what is answered here any more.
    let stdout = rustix::stdio::stdout();
    let mut output = [PollFd::from_borrowed_fd(stdout, PollFlags::empty())];
    if poll(&mut output, Some(&Timespec::default())).is_ok() && output[0].revents().contains(PollFlags::ERR) {
        std::process::exit(1);
    }
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

// Elsewhere it ends when its input does, after the item that it is working on.
#[cfg(not(target_os = "linux"))]
fn die_with_supervisor() {}
