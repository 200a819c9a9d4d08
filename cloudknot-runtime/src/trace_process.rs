//! Tracing of types in a process of its own: this program again, without its `main`. Values that nobody made may panic,
//! abort, loop, or do whatever their types do when they are built and dropped; there, it hurts nobody.
//!
//! If a type ends the process, the same types are traced again in another process, which reports each point that it passes.
//! The last point before the end is where a third process stops in time, and continues as if the type had panicked.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::codec::CodecError;
use crate::contract::{self, FunctionToTrace, TraceMessage, TraceOrder};
use crate::fingerprint::{Exceptions, Part, Schema, TRACE_TIMEOUT};
use crate::process;

/// Maximum number of points at which a part may end the process, before it is described by its name.
const MAX_ENDS: usize = 32;
/// Maximum number of processes that may be killed from outside, as when memory runs out.
const MAX_KILLS: usize = 5;
/// Maximum time until the process begins: the program is loaded, and its static initializers run.
const START_TIMEOUT: Duration = Duration::from_mins(1);

static MAIN_HAS_RUN: AtomicBool = AtomicBool::new(false);

/// Records that the generated main has run: this program can be started again to trace types.
pub fn enable() {
    MAIN_HAS_RUN.store(true, Ordering::Relaxed);
}

/// Returns whether this program can be started again to trace types.
pub fn is_enabled() -> bool {
    MAIN_HAS_RUN.load(Ordering::Relaxed)
}

/// Error of types that could not be traced, which is not due to the types.
#[derive(Debug)]
pub struct TraceError {
    message: String,
    source: Option<io::Error>,
}

impl TraceError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }
}

impl TraceError {
    /// Removes the error of the operating system that caused this one, if there is one.
    pub fn take_source(&mut self) -> Option<io::Error> {
        self.source.take()
    }
}

impl From<io::Error> for TraceError {
    fn from(error: io::Error) -> Self {
        Self { message: "cannot start the process that traces the types of functions".to_owned(), source: Some(error) }
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TraceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

impl From<TraceError> for CodecError {
    fn from(error: TraceError) -> Self {
        match error.source {
            Some(source) => Self::new("cannot trace the types", format!("{}: {source}", error.message)),
            None => Self::new("cannot trace the types", error.message),
        }
    }
}

/// Traces the types of functions, which are given by index and ID. Returns one schema for each of them.
///
/// # Errors
/// Returns an error if the process cannot be started, or ends before it begins.
pub fn trace(functions: impl IntoIterator<Item = (usize, String)>) -> Result<Vec<Schema>, TraceError> {
    let functions =
        functions.into_iter().map(|(index, id)| FunctionToTrace { index, id, exceptions: Exceptions::default() });
    let mut tracing = Tracing::new(functions.collect());
    while !tracing.order.functions.is_empty() {
        match tracing.run()? {
            End::Done | End::Killed => {}
            End::TimedOut(part) => tracing.make_opaque(part),
            End::Died(part, point) => tracing.avoid(part, point),
        }
    }
    Ok(tracing.schemas)
}

/// Functions that are not traced yet, and the schemas of those that are.
struct Tracing {
    order: TraceOrder,
    schemas: Vec<Schema>,
    /// Part of the first function that is being traced, and the time at which the process began with it.
    current: Option<(Part, Instant)>,
    /// Time that the parts of the first function have taken, in all processes.
    spent: BTreeMap<Part, Duration>,
    /// Number of processes that were killed from outside.
    kills: usize,
}

/// End of a process.
enum End {
    /// All functions are traced.
    Done,
    /// The process was killed from outside, which says nothing about the types.
    Killed,
    /// The types of this part took too long.
    TimedOut(Part),
    /// The types of this part ended the process after this point, if it was reported.
    Died(Part, Option<u64>),
}

impl Tracing {
    fn new(functions: Vec<FunctionToTrace>) -> Self {
        let order = TraceOrder { functions, reports_points: false };
        Self { order, schemas: Vec::new(), current: None, spent: BTreeMap::new(), kills: 0 }
    }

    /// Starts a process, and reads its messages until its end.
    fn run(&mut self) -> Result<End, TraceError> {
        let mut process = TraceProcess::start()?;
        // If the process has ended already, the first message says so.
        let _ = process.channel.get_mut().write_all(&contract::line(&self.order));
        self.current = None;
        let mut idle_since = Instant::now();
        let mut last_point = None;
        loop {
            match process.receive(self.deadline(idle_since)) {
                Ok(Some(TraceMessage::Begins(part))) => {
                    self.end_part();
                    self.current = Some((part, Instant::now()));
                    last_point = None;
                }
                Ok(Some(TraceMessage::Point(point))) => last_point = Some(point),
                Ok(Some(TraceMessage::Traced(schema))) => {
                    self.take(schema);
                    if self.order.functions.is_empty() {
                        return Ok(End::Done);
                    }
                    (idle_since, last_point) = (Instant::now(), None);
                }
                Ok(Some(TraceMessage::Refused(reason))) => {
                    return Err(TraceError::new(format!("cannot trace the types of functions: {reason}")));
                }
                Ok(None) if self.kills < MAX_KILLS && process.was_killed() => {
                    self.kills += 1;
                    return Ok(End::Killed);
                }
                Ok(None) => {
                    return self
                        .end_part()
                        .map(|part| End::Died(part, last_point))
                        .ok_or_else(|| self.no_begin("ended"));
                }
                Err(error) if is_timeout(&error) => {
                    return self.end_part().map(End::TimedOut).ok_or_else(|| self.no_begin("did not begin in time"));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns the time until which a message must arrive.
    fn deadline(&self, idle_since: Instant) -> Instant {
        match self.current {
            Some((part, since)) => {
                since + TRACE_TIMEOUT.saturating_sub(self.spent.get(&part).copied().unwrap_or_default())
            }
            None => idle_since + START_TIMEOUT,
        }
    }

    /// Adds up the time of the current part, and returns the part.
    fn end_part(&mut self) -> Option<Part> {
        let (part, since) = self.current.take()?;
        *self.spent.entry(part).or_default() += since.elapsed();
        Some(part)
    }

    fn take(&mut self, schema: Schema) {
        self.order.functions.remove(0);
        self.schemas.push(schema);
        self.current = None;
        self.spent.clear();
    }

    fn no_begin(&self, event: &str) -> TraceError {
        let id = &self.order.functions[0].id;
        TraceError::new(format!("cannot trace the types of `{id}`: the process that traces them {event}"))
    }

    /// Describes a part of the first function by its name.
    fn make_opaque(&mut self, part: Part) {
        let exceptions = &mut self.order.functions[0].exceptions;
        exceptions.ends.remove(&part);
        exceptions.opaque.insert(part);
    }

    /// Continues in the next process as if the types had panicked at this point, or finds the point.
    fn avoid(&mut self, part: Part, point: Option<u64>) {
        let ends = self.order.functions[0].exceptions.ends.entry(part).or_default();
        match point {
            Some(point) if ends.len() < MAX_ENDS => {
                // The same point again: the process ends even if it stops there.
                if !ends.insert(point) {
                    self.make_opaque(part);
                }
            }
            None if !self.order.reports_points => self.order.reports_points = true,
            _ => self.make_opaque(part),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A process that traces types. It is killed when this is dropped.
struct TraceProcess {
    child: Child,
    channel: BufReader<UnixStream>,
}

impl TraceProcess {
    fn start() -> io::Result<Self> {
        let (channel, child_side) = UnixStream::pair()?;
        channel.set_write_timeout(Some(START_TIMEOUT))?;
        let program = process::this_program();
        let mut command = Command::new(&program);
        command.arg0(std::env::args_os().next().unwrap_or_else(|| program.clone().into_os_string()));
        for role in contract::ROLES {
            command.env_remove(role);
        }
        let child = command
            .env(contract::ENV_TRACE, "1")
            .stdin(OwnedFd::from(child_side))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { child, channel: BufReader::new(channel) })
    }

    /// Returns the next message; `None` if the process has ended.
    fn receive(&mut self, deadline: Instant) -> io::Result<Option<TraceMessage>> {
        let left = deadline.saturating_duration_since(Instant::now());
        // A timeout of zero is invalid.
        self.channel.get_ref().set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut line = Vec::new();
        match self.channel.read_until(b'\n', &mut line) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error),
        }
        // An incomplete line is the end. What is no message was written by a type, which has no business to.
        if line.last() != Some(&b'\n') {
            return Ok(None);
        }
        Ok(serde_json::from_slice(&line).ok())
    }
}

impl TraceProcess {
    /// Returns whether SIGKILL has ended the process, which no type sends.
    fn was_killed(&self) -> bool {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return false };
        // Its channel is closed, so that it has ended, or does so at once; unless a type has closed the channel.
        let deadline = Instant::now() + Duration::from_secs(1);
        while Instant::now() < deadline {
            match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT) {
                Ok(Some(status)) => return status.terminating_signal() == Some(Signal::KILL.as_raw()),
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Err(_) => return false,
            }
        }
        false
    }
}

impl Drop for TraceProcess {
    /// Kills the process, with all processes in its group, and reaps it.
    fn drop(&mut self) {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
        // Not reaped here. If it was reaped elsewhere, which happens if SIGCHLD is ignored, its ID may be another's.
        let unreaped = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if waitid(WaitId::Pid(pid), unreaped).is_ok() {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}
