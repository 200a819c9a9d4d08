//! Runs an item, from the frame of its input to the frame of its value, and the item process that runs one item after
//! another. Handles the function, independently of the origin of the input and the destination of the value.

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

/// Decodes the input, runs the function, encodes its value and reads it back. Implements the `call` of a [`Function`].
///
/// `Of` is the type of the function's value, which `O` may wrap.
pub fn serve<I: DeserializeOwned, O: Serialize + DeserializeOwned, Of>(
    function: &'static Function,
    input: &[u8],
    value: &mut Vec<u8>,
    run: fn(I) -> Result<O, Failure>,
) -> Result<(), Failure> {
    let fingerprint = function.schema().fingerprint;
    let codec = |subject: &'static str| {
        move |error: CodecError| Failure::new(ItemErrorKind::Codec, format!("{subject}: {error}"))
    };
    let input = frame::decode::<I>(function.codec, fingerprint, input).map_err(codec("input"))?;
    let output = run(input)?;
    let start = value.len();
    frame::encode(function.codec, fingerprint, &output, value).map_err(codec("result"))?;
    // Dropped first, so that the value and its decoded copy are never in memory at once.
    drop(output);
    frame::read_back::<O, Of>(function.codec, &value[start..]).map_err(codec("result"))
}

/// Runs the future of an async remote function to completion.
pub fn block_on<F: Future>(future: F) -> F::Output {
    engine::block_on(future)
}

/// Runs one item on this thread; a panic becomes a failure with its source location and backtrace.
pub fn attempt(function: &'static Function, input: &[u8], value: &mut Vec<u8>) -> Result<(), Failure> {
    install_panic_hook();
    let start = value.len();
    let outer = RUNNING.replace(true);
    // An earlier item may have caught a panic.
    PANIC.set(None);
    let result = catch_unwind(AssertUnwindSafe(|| function.call(input, value)));
    RUNNING.set(outer);
    let result = result.unwrap_or_else(|payload| Err(panicked(payload.as_ref())));
    if result.is_err() {
        value.truncate(start);
    }
    result
}

/// Returns `true` if this thread is running an item, or if this is an item process.
pub fn is_running() -> bool {
    RUNNING.get() || ITEM_PROCESS.load(Ordering::Relaxed)
}

/// Returns the deadline of the current attempt of this item process; `None` without a timeout, or if this is not an item
/// process.
pub fn deadline() -> Option<Instant> {
    *DEADLINE.lock().unwrap_or_else(PoisonError::into_inner)
}

static DEADLINE: Mutex<Option<Instant>> = Mutex::new(None);

static ITEM_PROCESS: AtomicBool = AtomicBool::new(false);

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<Option<Failure>> = const { RefCell::new(None) };
}

/// The last panic of a thread that the function started. It may be resumed on the item's thread without its location.
static OTHER_THREAD_PANIC: Mutex<Option<Failure>> = Mutex::new(None);

fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if RUNNING.get() && cfg!(panic = "unwind") {
                // Reported as the item's failure, so not printed as well.
                PANIC.set(Some(describe(info)));
            } else {
                if ITEM_PROCESS.load(Ordering::Relaxed)
                    && let Ok(mut panic) = OTHER_THREAD_PANIC.lock()
                {
                    *panic = Some(describe(info));
                }
                previous(info);
            }
        }));
    });
}

fn describe(info: &PanicHookInfo<'_>) -> Failure {
    let mut failure = Failure::new(ItemErrorKind::Panicked, message(info.payload()));
    failure.location = info.location().map(ToString::to_string);
    failure.backtrace = Some(function_frames(&Backtrace::force_capture().to_string()));
    failure
}

fn panicked(payload: &(dyn Any + Send)) -> Failure {
    let message = message(payload);
    let other_thread_panic = || OTHER_THREAD_PANIC.lock().ok()?.take();
    let is_same = |failure: &Failure| failure.message == message;
    // Only the message distinguishes a panic that the function caught from one that it resumed from another thread.
    PANIC
        .take()
        .filter(is_same)
        .or_else(|| other_thread_panic().filter(is_same))
        .unwrap_or_else(|| Failure::new(ItemErrorKind::Panicked, message.clone()))
}

fn message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

/// Returns the frames between those of the panic machinery and those of this crate. A frame begins with its number:
/// `  12: name`.
fn function_frames(backtrace: &str) -> String {
    let mut frames: Vec<String> = Vec::new();
    for line in backtrace.lines() {
        let is_first_line = line.split_once(": ").is_some_and(|(number, _)| number.trim().parse::<u32>().is_ok());
        match frames.last_mut() {
            Some(frame) if !is_first_line => {
                frame.push('\n');
                frame.push_str(line);
            }
            _ => frames.push(line.to_owned()),
        }
    }
    let is_machinery =
        |frame: &String| ["rust_begin_unwind", "core::panicking::"].iter().any(|name| frame.contains(name));
    let machinery = frames.iter().position(is_machinery).unwrap_or(0);
    let start = machinery + frames[machinery..].iter().take_while(|frame| is_machinery(frame)).count();
    let serve = frames.iter().position(|frame| frame.contains("cloudknot_runtime::item::serve"));
    let end = serve.filter(|&at| at > start).unwrap_or(frames.len());
    frames[start..end].join("\n")
}

/// Runs the item process: reads items from its standard input and answers on its standard output until the input ends.
///
/// The function's output goes to stderr, and its standard input is empty.
/// `settings` is the value of [`contract::ENV_ITEM_PROCESS`]: an [`ItemProcess`](contract::ItemProcess) as JSON.
pub fn item_process(settings: &str) -> ! {
    ITEM_PROCESS.store(true, Ordering::Relaxed);
    let settings = match serde_json::from_str(settings) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("error: cannot read `{}`: {error}", contract::ENV_ITEM_PROCESS);
            eprintln!("  hint: cloudknot sets this variable itself; unset it");
            std::process::exit(2)
        }
    };
    let code = match serve_items(&settings) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("cloudknot: the item process lost its supervisor: {error}");
            1
        }
    };
    std::process::exit(code)
}

fn serve_items(settings: &contract::ItemProcess) -> std::io::Result<()> {
    die_with_supervisor();
    let (input, mut output) = take_standard_streams()?;
    let mut input = BufReader::with_capacity(64 * 1024, input);
    let function = match function_for(settings) {
        Ok(function) => function,
        Err(message) => return output.write_all(&Reply::Refused(message).to_bytes()),
    };
    output.write_all(&Reply::Ready.to_bytes())?;
    let timeout = settings.timeout_ms.map(Duration::from_millis);
    let mut frame = Vec::new();
    let mut answer = Vec::new();
    while let Some(request) = Request::read(&mut input)? {
        (&mut input).take(request.length).read_to_end(&mut frame)?;
        if let Some(timeout) = timeout {
            *DEADLINE.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now().checked_add(timeout);
        }
        let start = contract::begin_value(&mut answer, request.item);
        match attempt(function, &frame, &mut answer) {
            Ok(()) => contract::end_value(&mut answer, start),
            Err(failure) => {
                answer.clear();
                answer.extend(Reply::Failed(request.item, failure).to_bytes());
            }
        }
        // The function's output must be in the log before its answer, and a last line without a newline is still buffered.
        std::io::stdout().flush()?;
        output.write_all(&answer)?;
        // The memory of a large item is not kept for small ones.
        for buffer in [&mut frame, &mut answer] {
            buffer.clear();
            buffer.shrink_to(contract::LARGE_LEN);
        }
    }
    Ok(())
}

fn function_for(settings: &contract::ItemProcess) -> Result<&'static Function, String> {
    let function = function::find(&settings.function)?;
    let fingerprint = function.schema().fingerprint;
    if fingerprint == settings.fingerprint {
        return Ok(function);
    }
    Err(format!(
        "cannot run `{}`: its types {fingerprint} differ from the run's types {}; deploy again",
        settings.function, settings.fingerprint
    ))
}

/// Moves the pipes to other descriptors, so that the function's input and output cannot interfere with the messages.
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
    // The signal ends an item process whose supervisor has died. The score below makes the kernel kill it before its
    // supervisor when memory runs out.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // The supervisor may have died before the signal was set; then the answers have no reader.
    let stdout = rustix::stdio::stdout();
    let mut output = [PollFd::from_borrowed_fd(stdout, PollFlags::empty())];
    if poll(&mut output, Some(&Timespec::default())).is_ok() && output[0].revents().contains(PollFlags::ERR) {
        std::process::exit(1);
    }
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

// On other systems the process ends when its input ends, after the current item.
#[cfg(not(target_os = "linux"))]
fn die_with_supervisor() {}
