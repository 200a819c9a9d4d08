//! The supervisor's side of an item process: sends items, receives answers, and observes the end of the process. Between
//! them is a [`keeper`], which ends everything that the item process started.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::io;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::contract::{self, Exit, Parsed, Reply, Request};
use crate::failure::{Failure, ItemErrorKind};
use crate::frame;
use crate::log::{ItemOutput, Marker, Printed, Source, Splitter};
use crate::measurements::Measured;

mod death;
mod descendants;
pub mod keeper;
mod launcher;

pub use descendants::reap_orphans;
use descendants::{children, kill_tagged};
pub use launcher::Launcher;
pub(crate) use launcher::{max_processes, memory, restore_open_files};

/// Number of bytes that the kernel buffers between supervisor and item process, if it allows so many. Large values need
/// fewer reads and writes.
const BUFFER_SIZE: usize = 1024 * 1024;
/// Maximum number of bytes read from a process in one step, so that its timeout is checked however much it writes.
const MAX_READ: usize = 256 * 1024;
/// Time from the start of an item for which its output alone does not wake the supervisor.
const LOG_DELAY: Duration = Duration::from_millis(1);
/// Index that no item has, because a run has fewer items.
const NO_ITEM: u64 = u64::MAX;
/// Maximum pause in the transfer of an answer. After it, the timeout of the item applies again.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// On macOS, a socket has an option in place of the flag, which the standard library sets.
const SEND_FLAGS: SendFlags = if cfg!(target_os = "linux") { SendFlags::NOSIGNAL } else { SendFlags::empty() };
/// Maximum time to wait for the end of a process that was killed. A process that the kernel cannot end is left behind.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// An attempt of an item, to be sent to an item process.
#[derive(Debug, Clone)]
pub struct Item {
    /// Index of the item in the run.
    pub index: u64,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Frame of the item's input.
    pub input: Bytes,
}

/// An item, with the time at which it was sent.
#[derive(Debug)]
struct Sent {
    item: Item,
    at: SystemTime,
}

/// A running item process.
#[derive(Debug)]
pub struct ItemProcess {
    keeper: Child,
    /// Identifies the processes that the function starts.
    tag: String,
    channel: UnixStream,
    /// Channel on which the keeper reports how the process ended. It is closed when the keeper has ended.
    exit: OwnedFd,
    exit_buf: Vec<u8>,
    log: Option<OwnedFd>,
    output: Splitter,
    timeout: Option<Duration>,
    stage: Stage,
    /// Items that were sent and not answered yet.
    sent: VecDeque<Sent>,
    /// Number of items that were answered.
    answered: u64,
    /// `true` while the process was asked to give back items and has not replied.
    giving_back: bool,
    /// Number of OOM kills in this control group when the process was started.
    oom_kills: u64,
    /// Time at which the first item of `sent` began, as observed by the supervisor.
    first_started: Instant,
    write_buf: Vec<u8>,
    written: usize,
    read_buf: Vec<u8>,
    /// Time at which a part of a reply arrived.
    last_read: Instant,
    /// Length of the reply at the start of `read_buf`, if it is incomplete.
    needed: usize,
}

/// Stage in the life of an item process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It starts. No item is responsible for its end.
    Starts,
    /// It runs the program's init functions, which have no timeout.
    Initializes,
    /// It runs items.
    RunsItems,
}

/// Result of one step.
#[derive(Debug, Default)]
pub struct Step {
    /// Answers, in the order in which the items were sent.
    pub answers: Vec<Answer>,
    /// Items that were given back: they have not begun.
    pub given_back: Vec<Item>,
    /// Output of the process, by item.
    pub log: Vec<Printed>,
    /// End of the process, if it has ended or must be replaced.
    pub end: Option<End>,
}

/// Time and memory that an attempt took.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Time at which the item was sent to its process.
    pub sent: SystemTime,
    /// Measurements of the process, or of the supervisor if the process ended.
    pub measured: Measured,
}

/// Answer to one item.
#[derive(Debug)]
pub struct Answer {
    /// Item that was answered.
    pub item: Item,
    /// Time and memory that it took.
    pub timing: Timing,
    /// Frame of its value, or its failure.
    pub outcome: Result<Vec<u8>, Box<FailedItem>>,
}

/// Failure of an item.
#[derive(Debug)]
pub struct FailedItem {
    /// The failure.
    pub failure: Failure,
    /// The end of the item's output.
    pub output: String,
}

/// Item that was running when its process ended.
#[derive(Debug)]
pub struct Victim {
    /// The item.
    pub item: Item,
    /// Time that it took.
    pub timing: Timing,
    /// Its failure.
    pub failed: FailedItem,
}

/// End of a process.
#[derive(Debug)]
pub enum End {
    /// The process could not be started, because of this error of the operating system.
    NotStarted(io::Error),
    /// The process ended before it ran an item: no item is responsible, and another process would end the same way.
    AtStart(String),
    /// A signal ended the process before it ran an item: no item is responsible, and another process may succeed.
    KilledAtStart(String),
    /// The process ended while it ran this item.
    During(Box<Victim>),
    /// The process ended between two items, or is to be replaced.
    Idle,
}

impl ItemProcess {
    /// Starts an item process.
    pub fn start(launcher: &Launcher) -> io::Result<Self> {
        static STARTED: AtomicU64 = AtomicU64::new(0);
        // Containers of one machine have processes of the same ID, but not started at the same time.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let tag = format!("{}-{now:x}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let nonce = random();
        let settings = contract::ItemProcess { log_nonce: format!("{nonce:032x}"), ..launcher.item_process.clone() };
        let settings = serde_json::to_string(&settings).expect("settings serialize to JSON");
        let (channel, item_side) = UnixStream::pair()?;
        for side in [&channel, &item_side] {
            // The kernel may allow less. A smaller buffer is only slower.
            let _ = rustix::net::sockopt::set_socket_send_buffer_size(side, BUFFER_SIZE);
        }
        let (log, log_writer) = io::pipe()?;
        let log = OwnedFd::from(log);
        channel.set_nonblocking(true)?;
        rustix::io::ioctl_fionbio(&log, true)?;
        let program = this_program();
        let mut command = Command::new(&program);
        command.arg0(std::env::args_os().next().unwrap_or_else(|| program.clone().into_os_string()));
        for role in contract::ROLES {
            command.env_remove(role);
        }
        let mut keeper = command
            .envs(&launcher.env)
            .env(contract::ENV_ITEM_PROCESS, settings)
            .env(contract::ENV_KEEPER, std::process::id().to_string())
            .env(contract::ENV_TAG, &tag)
            .stdin(OwnedFd::from(item_side))
            .stdout(Stdio::piped())
            .stderr(log_writer)
            // A separate group: only the supervisor gets Ctrl-C.
            .process_group(0)
            .spawn()?;
        descendants::add_keeper(&keeper);
        let exit = OwnedFd::from(keeper.stdout.take().expect("stdout is piped"));
        rustix::io::ioctl_fionbio(&exit, true)?;
        Ok(Self {
            keeper,
            tag,
            channel,
            exit,
            exit_buf: Vec::new(),
            log: Some(log),
            output: Splitter::new(Marker::new(nonce)),
            timeout: launcher.item_process.timeout_ms.map(Duration::from_millis),
            stage: Stage::Starts,
            sent: VecDeque::new(),
            answered: 0,
            giving_back: false,
            oom_kills: death::oom_kills(),
            first_started: Instant::now(),
            write_buf: Vec::new(),
            written: 0,
            read_buf: Vec::new(),
            last_read: Instant::now(),
            needed: 0,
        })
    }

    /// Returns the number of items that were sent and not answered yet.
    pub fn busy(&self) -> usize {
        self.sent.len()
    }

    /// Returns the number of items that were answered.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Returns the time for which the current item has been running.
    pub fn running_for(&self) -> Duration {
        if self.runs_items() && !self.sent.is_empty() { self.first_started.elapsed() } else { Duration::ZERO }
    }

    /// Queues another item; [`step`](Self::step) writes it to the process.
    pub fn send(&mut self, item: Item) {
        if self.sent.is_empty() {
            self.first_started = Instant::now();
        }
        Request::append(item.index, &item.input, &mut self.write_buf);
        self.sent.push_back(Sent { item, at: SystemTime::now() });
    }

    /// Returns whether more items may be sent. While items are being given back, none may.
    pub fn accepts_items(&self) -> bool {
        !self.giving_back
    }

    /// Asks the process to give back the items that it has not begun.
    pub fn ask_to_give_back(&mut self) {
        if !std::mem::replace(&mut self.giving_back, true) {
            Request::append_give_back(&mut self.write_buf);
        }
    }

    /// Waits for an event, at most `timeout`, and handles it.
    pub fn step(&mut self, timeout: Duration) -> io::Result<Step> {
        let timeout = self.overdue_in().map_or(timeout, |overdue| overdue.min(timeout));
        self.wait(timeout)?;
        self.write()?;
        // Asked before the answers are read: whatever the process has written before its end is then there to read.
        let ended = self.read_exit()?;
        let mut step = Step::default();
        self.read(ended)?;
        // Read after the answers: an item's output is written before its answer, so it has arrived by now.
        let mut log = Vec::new();
        self.read_log(&mut log);
        let attempts: Vec<(u64, u32)> = self.sent.iter().map(|sent| (sent.item.index, sent.item.attempt)).collect();
        self.take_replies(&mut step);
        if step.end.is_none() {
            step.end = if ended {
                Some(self.explain_end(&mut log))
            } else if self.overdue_in() == Some(Duration::ZERO) {
                let failure = self.timed_out();
                self.end_during(failure)
            } else {
                None
            };
        }
        if step.end.is_some() {
            self.kill();
            self.read_log(&mut log);
            self.output.end(&mut log);
        }
        let is_running = |item: u64| self.sent.iter().any(|sent| sent.item.index == item);
        self.output.end_line_unless(is_running, &mut log);
        self.output.keep_tails(is_running);
        step.log = log.into_iter().map(|output| printed(output, &attempts)).collect();
        Ok(step)
    }

    /// Takes back the items that the process has not answered.
    pub fn take_back(&mut self) -> impl Iterator<Item = Item> + '_ {
        self.sent.drain(..).map(|sent| sent.item)
    }

    /// Returns `true` if the process has ended.
    pub fn has_ended(&self) -> bool {
        let mut exit = [PollFd::new(&self.exit, PollFlags::IN)];
        poll(&mut exit, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Ends the process and everything that it started, which its keeper does once the channel is closed. Returns when they
    /// have ended, or after five seconds.
    pub fn kill(&mut self) {
        let _ = self.channel.shutdown(Shutdown::Both);
        let deadline = Instant::now() + END_TIMEOUT;
        let is_closed = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut exit = [PollFd::new(&self.exit, PollFlags::IN)];
            let waited = poll(&mut exit, Timespec::try_from(left).ok().as_ref());
            match self.read_exit_bytes() {
                Ok(false) if left.is_zero() || waited.is_err_and(|error| error != Errno::INTR) => break false,
                Ok(false) => {}
                Ok(true) => break true,
                Err(_) => break false,
            }
        };
        if !is_closed {
            let _ = self.keeper.kill();
        }
        // A keeper that was killed could not end the others.
        if Exit::parse(&self.exit_buf).is_none() || !is_closed {
            kill_tagged(&self.tag);
        }
        descendants::remove_keeper(&mut self.keeper, is_closed);
    }

    fn runs_items(&self) -> bool {
        self.stage == Stage::RunsItems
    }

    fn overdue_in(&self) -> Option<Duration> {
        let item = &self.sent.front().filter(|_| self.runs_items())?.item;
        // The start of the process, its init functions and the transfer of an answer do not count as the item's time.
        let is_arriving = Reply::is_answer(&self.read_buf, item.index) && self.last_read.elapsed() < MAX_PAUSE;
        let timeout = self.timeout.filter(|_| !is_arriving)?;
        Some(timeout.saturating_sub(self.first_started.elapsed()))
    }

    fn wait(&self, timeout: Duration) -> io::Result<()> {
        // The marker of a quick item is read together with its answer, instead of on its own.
        let quiet = LOG_DELAY.saturating_sub(self.first_started.elapsed()).min(timeout);
        if self.runs_items() && !quiet.is_zero() && (self.poll(quiet, false)? || quiet == timeout) {
            return Ok(());
        }
        self.poll(timeout.saturating_sub(quiet), true).map(drop)
    }

    /// Waits for an event. Returns whether there is one.
    fn poll(&self, timeout: Duration, with_log: bool) -> io::Result<bool> {
        let output = if self.write_buf.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let mut fds = vec![PollFd::new(&self.channel, PollFlags::IN | output), PollFd::new(&self.exit, PollFlags::IN)];
        fds.extend(self.log.as_ref().filter(|_| with_log).map(|log| PollFd::new(log, PollFlags::IN)));
        match poll(&mut fds, Timespec::try_from(timeout).ok().as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while self.written < self.write_buf.len() {
            // Not `write`: the user's program may have reset SIGPIPE to its default.
            match send(&self.channel, &self.write_buf[self.written..], SEND_FLAGS) {
                Ok(count) => self.written += count,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                // The process has ended; its keeper reports that, too.
                Err(Errno::PIPE | Errno::CONNRESET) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.write_buf.clear();
        self.write_buf.shrink_to(contract::LARGE_LEN);
        self.written = 0;
        Ok(())
    }

    /// Reads the available replies: at most [`MAX_READ`] bytes, or all that is there if the process has `ended`.
    fn read(&mut self, ended: bool) -> io::Result<()> {
        let start = self.read_buf.len();
        loop {
            // Doubles the buffer of a large value. Its length is only known from the process, so it is not reserved.
            self.read_buf.reserve(64 * 1024);
            let read = rustix::io::read(&self.channel, rustix::buffer::spare_capacity(&mut self.read_buf));
            if read.is_ok() {
                self.last_read = Instant::now();
            }
            match read {
                Ok(0) | Err(Errno::AGAIN | Errno::CONNRESET) => return Ok(()),
                // A complete reply is handled before more is read.
                Ok(_) if !ended && (self.needed == 0 || self.read_buf.len() >= self.needed) => return Ok(()),
                Ok(_) if !ended && self.read_buf.len() - start >= MAX_READ => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns whether the process has ended: its keeper says so, or has ended itself.
    fn read_exit(&mut self) -> io::Result<bool> {
        Ok(self.read_exit_bytes()? || Exit::parse(&self.exit_buf).is_some())
    }

    /// Returns whether the keeper has ended.
    fn read_exit_bytes(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        loop {
            match rustix::io::read(&self.exit, &mut bytes) {
                Ok(0) => return Ok(true),
                Ok(count) => self.exit_buf.extend_from_slice(&bytes[..count]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
            Exit::keep_last(&mut self.exit_buf);
        }
    }

    fn take_replies(&mut self, step: &mut Step) {
        let mut at = 0;
        self.needed = 0;
        let mut large = Reply::take_large(&mut self.read_buf);
        while step.end.is_none() && (large.is_some() || at < self.read_buf.len()) {
            let parsed =
                large.take().map_or_else(|| Reply::parse(&self.read_buf[at..]), |reply| Parsed::Reply(reply, 0));
            match parsed {
                Parsed::Reply(reply, length) => {
                    at += length;
                    self.take_reply(reply, step);
                }
                Parsed::Incomplete(needed) => {
                    self.needed = needed;
                    break;
                }
                Parsed::Stray => step.end = Some(self.stray()),
            }
        }
        self.read_buf.drain(..at);
        if self.needed == 0 {
            self.read_buf.shrink_to(contract::LARGE_LEN);
        }
        if !step.answers.is_empty() {
            self.answered += step.answers.len() as u64;
            self.first_started = Instant::now();
        }
    }

    fn take_reply(&mut self, reply: Reply, step: &mut Step) {
        let (index, outcome, measured) = match reply {
            Reply::Ready if self.stage == Stage::Starts => return self.stage = Stage::Initializes,
            Reply::Initialized if self.stage == Stage::Initializes => {
                self.stage = Stage::RunsItems;
                self.first_started = Instant::now();
                return;
            }
            Reply::Ready | Reply::Initialized => return step.end = Some(self.stray()),
            Reply::Refused(message) => return step.end = Some(End::AtStart(message)),
            Reply::NotStarted(error) => {
                return step.end = Some(End::NotStarted(io::Error::from_raw_os_error(error)));
            }
            Reply::Replace => return step.end = Some(End::Idle),
            Reply::GivenBack(count) => return self.take_given_back(count, step),
            Reply::Failed(index, failure, measured) => (index, Err(failure), measured),
            Reply::Value(index, frame, measured) => (index, Ok(frame), measured),
        };
        let is_frame = |bytes: &[u8]| frame::frame_length(bytes).is_ok_and(|length| length == bytes.len() as u64);
        let outcome = outcome.map_err(|failure| Box::new(FailedItem { failure, output: self.output.tail(index) }));
        let is_first = self.sent.front().is_some_and(|sent| sent.item.index == index);
        if is_first && outcome.as_ref().map_or(true, |bytes| is_frame(bytes)) {
            let answer = |Sent { item, at }| Answer { item, timing: Timing { sent: at, measured }, outcome };
            step.answers.extend(self.sent.pop_front().map(answer));
        } else {
            step.end = Some(self.stray());
        }
    }

    fn take_given_back(&mut self, count: u64, step: &mut Step) {
        match usize::try_from(count).ok().and_then(|count| self.sent.len().checked_sub(count)) {
            Some(begun) if self.giving_back => {
                self.giving_back = false;
                step.given_back.extend(self.sent.drain(begun..).map(|sent| sent.item));
            }
            _ => step.end = Some(self.stray()),
        }
    }

    /// Ends the process because of bytes that it should not have written: the item that is running has written them.
    fn stray(&mut self) -> End {
        let message = "the function wrote to a file descriptor that it did not open, which is the channel of its item \
                       process, or it answered twice";
        self.end_during(Failure::new(ItemErrorKind::Crashed, message)).unwrap_or(End::Idle)
    }

    /// Returns the end of the process during the first item that it has not answered.
    fn end_during(&mut self, failure: Failure) -> Option<End> {
        let Sent { item, at } = self.sent.pop_front()?;
        // While the process starts, no item has begun.
        let duration = if self.runs_items() { self.first_started.elapsed() } else { Duration::ZERO };
        let started = SystemTime::now().checked_sub(duration).unwrap_or(at);
        let timing = Timing { sent: at, measured: Measured::until_now(started, duration) };
        let failed = FailedItem { failure, output: self.output.tail(item.index) };
        Some(End::During(Box::new(Victim { item, timing, failed })))
    }

    /// Reads the available output of the function, at most [`MAX_READ`] bytes.
    fn read_log(&mut self, out: &mut Vec<ItemOutput>) {
        let mut read = Vec::new();
        while let Some(log) = self.log.as_ref().filter(|_| read.len() < MAX_READ) {
            read.reserve(4096);
            match rustix::io::read(log, rustix::buffer::spare_capacity(&mut read)) {
                Ok(0) => self.log = None,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.output.push(&read, out);
    }

    /// Explains the end of the process. Completes the `log`, whose last lines may give the reason.
    fn explain_end(&mut self, log: &mut Vec<ItemOutput>) -> End {
        self.read_log(log);
        let status = match Exit::parse(&self.exit_buf) {
            Some(Exit::NotStarted(error)) => return End::NotStarted(io::Error::from_raw_os_error(error)),
            Some(Exit::Ended(status)) => Some(status),
            None => None,
        };
        let described = status.map_or_else(|| "its keeper was killed".to_owned(), |status| status.to_string());
        if self.stage == Stage::Starts {
            let output = self.output.tail(NO_ITEM);
            let message = format!("the item process ended before its first item: {described}\n{output}");
            let is_signal =
                status.is_none_or(|status| std::os::unix::process::ExitStatusExt::signal(&status).is_some());
            return if is_signal { End::KilledAtStart(message) } else { End::AtStart(message) };
        }
        let Some(first) = self.sent.front() else { return End::Idle };
        let mut failure = match status {
            Some(status) => {
                death::explain(status, &self.output.tail(first.item.index), death::oom_kills() > self.oom_kills)
            }
            None => Failure::new(ItemErrorKind::Crashed, "the keeper of the item process was killed"),
        };
        if self.stage == Stage::Initializes {
            failure.message = format!("{}: {}", Failure::INITIALIZATION, failure.message);
        }
        self.end_during(failure).unwrap_or(End::Idle)
    }

    fn timed_out(&self) -> Failure {
        let timeout = self.timeout.unwrap_or_default();
        Failure::new(ItemErrorKind::TimedOut, format!("the item took longer than its timeout of {timeout:?}"))
    }
}

/// Returns output with the attempt that printed it. An item that is not among those that were sent is none: the function may have
/// written a marker.
fn printed(output: ItemOutput, attempts: &[(u64, u32)]) -> Printed {
    let attempt = |item: u64| attempts.iter().find(|(sent, _)| *sent == item);
    let source = output.item.and_then(attempt).map(|&(item, attempt)| Source { item, attempt });
    Printed { source, text: output.text }
}

/// Returns a random number. The keys of a hasher come from the system's random source.
fn random() -> u128 {
    let half = || u128::from(std::hash::RandomState::new().hash_one(SystemTime::now()));
    half() << 64 | half()
}

impl Drop for ItemProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the control group of this process, version 2. In a container, it is the root of the mounted hierarchy.
fn control_group() -> String {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    group.trim_end_matches('/').to_owned()
}

/// Moves the channel of a process that this program started away from its standard input, which is empty from then on.
pub(crate) fn take_channel() -> io::Result<OwnedFd> {
    let channel = duplicate(rustix::stdio::stdin())?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(channel)
}

/// Duplicates a descriptor. Processes that this program starts do not inherit it.
pub(crate) fn duplicate(descriptor: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // High, so that programs which number their descriptors do not meet it.
    const FIRST: i32 = 100;
    let duplicate = |first| rustix::io::fcntl_dupfd_cloexec(descriptor, first);
    Ok(duplicate(FIRST).or_else(|_| duplicate(3))?)
}

/// Returns the file that is running, even if a rebuild has replaced it.
#[cfg(target_os = "linux")]
pub(crate) fn this_program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn this_program() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| std::env::args_os().next().unwrap_or_default().into())
}
