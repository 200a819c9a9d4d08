//! The process that traces types for a program: this program again, which `trace_process` starts. Tracing builds values that
//! nobody made, and what they do must have no effect: on Linux, a filter of system calls refuses it.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod filter;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};

use crate::contract::{self, FunctionToTrace, TraceMessage, TraceOrder};
use crate::fingerprint::{Observer, Part};
use crate::function::{self, Function};
use crate::process;

/// Traces the types that the standard input specifies, and ends this process.
pub fn main() -> ! {
    // An error means that nobody waits for the types any more.
    let _ = serve();
    end_at_once()
}

/// Ends this process without running anything else: what the program runs at its end is user code as well.
fn end_at_once() -> ! {
    loop {
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

fn serve() -> io::Result<()> {
    let channel = Arc::new(process::take_channel()?);
    let mut input = BufReader::new(File::from(channel.try_clone()?));
    let mut order = String::new();
    input.read_line(&mut order)?;
    let order: TraceOrder = match serde_json::from_str(&order) {
        Ok(order) => order,
        Err(error) => return send(&channel, &TraceMessage::Refused(format!("invalid order: {error}"))),
    };
    end_with_program(input)?;
    // Panics of types are no news, and a backtrace takes long.
    std::panic::set_hook(Box::new(|_| {}));
    restrict();
    for function in &order.functions {
        trace(function, order.reports_points, &channel)?;
    }
    Ok(())
}

/// Ends this process when the program has ended, or closes the channel.
fn end_with_program(mut channel: BufReader<File>) -> io::Result<()> {
    let watcher = std::thread::Builder::new().name("cloudknot-channel".into()).stack_size(256 << 10);
    watcher.spawn(move || {
        let _ = io::copy(&mut channel, &mut io::sink());
        end_at_once()
    })?;
    Ok(())
}

/// Takes from this process what types must not do. None of it is available everywhere, and each part is of use by itself.
fn restrict() {
    // No file with an image of the memory, if a type aborts.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // No relative path leads to files of the user.
    let _ = std::env::set_current_dir("/");
    #[cfg(target_os = "linux")]
    {
        // The kernel kills this process first when memory runs out.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    }
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = filter::install();
}

fn trace(order: &FunctionToTrace, reports_points: bool, channel: &Arc<OwnedFd>) -> io::Result<()> {
    let Some(function) = find(order) else {
        let message = format!("the program has no function `{}` when it is started again", order.id);
        return send(channel, &TraceMessage::Refused(message));
    };
    let observer: Arc<dyn Observer> = Arc::new(Reporter { channel: Arc::clone(channel), reports_points });
    match function.trace(&order.exceptions, &observer)? {
        Some(schema) => send(channel, &TraceMessage::Traced(schema)),
        // The type has ended the thread, as if it had ended the process. Not by SIGKILL, which comes from outside.
        None => std::process::abort(),
    }
}

fn find(order: &FunctionToTrace) -> Option<&'static Function> {
    function::all().nth(order.index).filter(|function| function.id.to_string() == order.id)
}

/// Sends the progress of a trace to the program.
struct Reporter {
    channel: Arc<OwnedFd>,
    reports_points: bool,
}

impl Observer for Reporter {
    fn begins(&self, part: Part) {
        // An error ends this process with the next one, or when the program closes the channel.
        let _ = send(&self.channel, &TraceMessage::Begins(part));
    }

    fn passes(&self, point: u64) {
        if self.reports_points {
            let _ = send(&self.channel, &TraceMessage::Point(point));
        }
    }
}

fn send(channel: &OwnedFd, message: &TraceMessage) -> io::Result<()> {
    let line = contract::line(message);
    let mut rest = &line[..];
    while !rest.is_empty() {
        match rustix::io::write(channel, rest) {
            Ok(written) => rest = &rest[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
