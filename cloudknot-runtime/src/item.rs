//! Runs an item, from the frame of its input to the frame of its value. Handles the function, independently of the origin
//! of the input and the destination of the value; in an item process (`process`), both are a channel.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Instant;

use serde::{Serialize, de::DeserializeOwned};

use crate::codec::{CodecError, Encoding};
use crate::failure::{Failure, ItemErrorKind};
use crate::function::Function;
use crate::{engine, frame};

mod init;
mod meter;
mod process;

pub use init::Init;
pub(crate) use meter::measure_thread;
pub use meter::{Begun, Meter, SLOW};
pub use process::item_process;

/// Decodes the input, runs the function, encodes its value and reads it back. Implements the `call` of a [`Function`].
///
/// `E` is the codec of the function, and `Of` the type of its value, which `O` may wrap.
pub fn serve<E: Encoding, I: DeserializeOwned + Send, O: Serialize + DeserializeOwned + Send, Of>(
    function: &'static Function,
    input: &[u8],
    value: &mut Vec<u8>,
    run: fn(I) -> Result<O, Failure>,
) -> Result<(), Failure> {
    let codec = |subject: &'static str| {
        move |error: CodecError| Failure::new(ItemErrorKind::Codec, format!("{subject}: {error}"))
    };
    let fingerprint = function.fingerprint().map_err(|error| codec("input")(error.into()))?;
    let input = frame::decode_with::<E, I>(fingerprint, input).map_err(codec("input"))?;
    let output = run(input)?;
    let start = value.len();
    let written = frame::encode_with::<E, O>(fingerprint, &output, value).map_err(codec("result"))?;
    // Dropped first, so that the value and its decoded copy are never in memory at once.
    drop(output);
    frame::read_back_with::<E, O, Of>(&value[start..], &written).map_err(codec("result"))?;
    Ok(())
}

/// Runs the future of an async remote function to completion.
pub fn block_on<F: Future>(future: F) -> F::Output {
    engine::block_on(future)
}

/// Runs one item on this thread; a panic becomes a failure with its source location and backtrace. Before the first item of
/// this process, runs the program's init functions, whose failure is that of all its items.
pub fn attempt(function: &'static Function, input: &[u8], value: &mut Vec<u8>) -> Result<(), Failure> {
    init::initialize()?;
    let start = value.len();
    let result = catch(|| function.call(input, value));
    if result.is_err() {
        value.truncate(start);
    }
    result
}

/// Runs user code on this thread; a panic becomes a failure.
fn catch(run: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    install_panic_hook();
    let outer = RUNNING.replace(true);
    // An earlier item may have caught a panic.
    PANIC.set(None);
    let result = catch_unwind(AssertUnwindSafe(run));
    RUNNING.set(outer);
    result.unwrap_or_else(|payload| {
        let failure = panicked(payload.as_ref());
        drop_payload(payload);
        Err(failure)
    })
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

/// Drops the payload of a panic. The payload of a panic while it is dropped is forgotten, since its drop may panic as well.
fn drop_payload(payload: Box<dyn Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(another);
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

/// The functions that call user code, as they appear in a backtrace.
const CALLERS: [&str; 2] = ["cloudknot_runtime::item::serve", "cloudknot_runtime::item::init::"];

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
    let is_caller = |frame: &String| CALLERS.iter().any(|name| frame.contains(name));
    let end = frames.iter().position(is_caller).filter(|&at| at > start).unwrap_or(frames.len());
    frames[start..end].join("\n")
}
