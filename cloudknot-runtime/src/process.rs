//! The supervisor's side of an item process: sends items, receives answers, and explains the death of the process.
//! Handles pipes and signals, independently of the use of the answers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::contract::{self, Reply, Request};
use crate::failure::{Failure, ItemErrorKind};

/// Maximum number of bytes of an item's log that are kept for its error.
pub const LOG_TAIL: usize = 16 * 1024;
/// Size of the pipes in bytes, which Linux allows without privileges. Large values need fewer reads and writes.
const PIPE_SIZE: usize = 1024 * 1024;

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

/// Settings to start item processes.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// Path of the executable, which is this program.
    pub program: PathBuf,
    /// Function and types of the run.
    pub item_process: contract::ItemProcess,
    /// Environment variables of the run.
    pub env: BTreeMap<String, String>,
}

/// A running item process.
#[derive(Debug)]
pub struct ItemProcess {
    child: Child,
    input: OwnedFd,
    output: OwnedFd,
    log: Option<OwnedFd>,
    timeout: Option<Duration>,
    ready: bool,
    /// Items that were sent and not answered yet.
    sent: VecDeque<Item>,
    /// Number of OOM kills in this control group when the process was started.
    oom_kills: u64,
    /// Time at which the first item of `sent` began, as observed by the supervisor.
    first_started: Instant,
    write_buf: Vec<u8>,
    written: usize,
    read_buf: Vec<u8>,
    needed: usize,
    /// `true` if the process was found to have exited while its output was still open, held by another process.
    exited: bool,
    tail: Vec<u8>,
    /// Incomplete last line of the log.
    line: Vec<u8>,
}

/// Result of one step.
#[derive(Debug)]
pub struct Step {
    /// Answers, in the order in which the items were sent.
    pub answers: Vec<Answer>,
    /// Output of the process, in whole lines.
    pub log: Vec<u8>,
    /// End of the process, if it has ended.
    pub end: Option<End>,
}

/// Answer to one item.
#[derive(Debug)]
pub struct Answer {
    /// Item that was answered.
    pub item: Item,
    /// Frame of its value, or its failure.
    pub outcome: Result<Vec<u8>, Failure>,
}

/// End of a process.
#[derive(Debug)]
pub enum End {
    /// The process ended before it ran an item: no item is responsible, and another process would end the same way.
    AtStart(String),
    /// A signal ended the process before it ran an item: no item is responsible, and another process may succeed.
    KilledAtStart(String),
    /// The process ended while it ran this item.
    During(Item, Failure),
}

impl ItemProcess {
    /// Starts an item process.
    pub fn start(launcher: &Launcher) -> io::Result<Self> {
        let settings = serde_json::to_string(&launcher.item_process).expect("settings serialize to JSON");
        let (log, log_writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let mut alive = alive();
        let mut child = Command::new(&launcher.program)
            .arg0(std::env::args_os().next().unwrap_or_else(|| launcher.program.clone().into_os_string()))
            .envs(&launcher.env)
            .env(contract::ENV_ITEM_PROCESS, settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log_writer))
            // A separate group: processes that the function starts are killed with it, and only the supervisor gets Ctrl-C.
            .process_group(0)
            .spawn()?;
        alive.insert(child.id());
        drop(alive);
        let input = OwnedFd::from(child.stdin.take().expect("stdin is piped"));
        let output = OwnedFd::from(child.stdout.take().expect("stdout is piped"));
        for pipe in [&input, &output, &log] {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        #[cfg(target_os = "linux")]
        for pipe in [&input, &output] {
            // The user's quota for pipes may be used up. A smaller pipe is only slower.
            let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_SIZE);
        }
        Ok(Self {
            child,
            input,
            output,
            log: Some(log),
            timeout: launcher.item_process.timeout_ms.map(Duration::from_millis),
            ready: false,
            sent: VecDeque::new(),
            oom_kills: oom_kills(),
            first_started: Instant::now(),
            write_buf: Vec::new(),
            written: 0,
            read_buf: Vec::new(),
            needed: 0,
            exited: false,
            tail: Vec::new(),
            line: Vec::new(),
        })
    }

    /// Returns the number of items that were sent and not answered yet.
    pub fn busy(&self) -> usize {
        self.sent.len()
    }

    /// Queues another item; [`step`](Self::step) writes it to the process.
    pub fn send(&mut self, item: Item) {
        if self.sent.is_empty() {
            self.first_started = Instant::now();
            self.tail.clear();
        }
        Request::append(item.index, &item.input, &mut self.write_buf);
        self.sent.push_back(item);
    }

    /// Waits for an event, at most `timeout`, and handles it.
    pub fn step(&mut self, timeout: Duration) -> io::Result<Step> {
        let timeout = self.overdue_in().map_or(timeout, |overdue| overdue.min(timeout));
        let quiet = !self.wait(timeout)?;
        self.write()?;
        // A forked child can hold the output open, so a process that has exited and writes no more output counts as
        // ended.
        let ended = quiet && self.exited;
        self.exited = quiet && self.has_exited();
        let open = self.read()? && !ended;
        // Read after the answers: an item's output is written before its answer, so it has arrived by now.
        let mut log = self.read_log();
        let (answers, refused) = self.take_answers();
        let end = if let Some(message) = refused {
            self.kill();
            Some(End::AtStart(message))
        } else if !open {
            let status = self.reap()?;
            log.extend(self.read_log());
            Some(self.explain(status))
        } else if self.overdue_in() == Some(Duration::ZERO) {
            self.kill();
            log.extend(self.read_log());
            self.sent.pop_front().map(|item| End::During(item, self.timed_out()))
        } else {
            None
        };
        let log = self.whole_lines(log, !answers.is_empty() || end.is_some());
        Ok(Step { answers, log, end })
    }

    /// Returns the end of the output since the process was last idle: the output of the item and, for items so quick that
    /// several are sent at once, perhaps that of other items just before it.
    pub fn log_tail(&self) -> String {
        String::from_utf8_lossy(&self.tail).into_owned()
    }

    /// Takes back the items that the process has not answered.
    pub fn take_back(&mut self) -> impl Iterator<Item = Item> + '_ {
        self.sent.drain(..)
    }

    /// Kills the process and all processes that it started.
    pub fn kill(&mut self) {
        let mut alive = alive();
        // Until the process is reaped, its ID cannot have been reused.
        if alive.remove(&self.child.id()) {
            kill_group(self.child.id());
        }
        drop(alive);
        let _ = self.child.wait();
    }

    /// Returns `true` if the process has exited. It still has to be reaped.
    pub fn has_exited(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        pid(self.child.id()).is_some_and(|pid| matches!(waitid(WaitId::Pid(pid), options), Ok(Some(_))))
    }

    fn overdue_in(&self) -> Option<Duration> {
        // The start of the process and the transfer of an answer that has begun to arrive do not count as the item's time.
        let timeout = self.timeout.filter(|_| self.ready && self.read_buf.is_empty() && !self.sent.is_empty())?;
        Some(timeout.saturating_sub(self.first_started.elapsed()))
    }

    /// Waits at most `timeout`. Returns `true` if there may be output to read.
    fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(&self.output, PollFlags::IN)];
        fds.extend(self.log.as_ref().map(|log| PollFd::new(log, PollFlags::IN)));
        let readable = fds.len();
        if !self.write_buf.is_empty() {
            fds.push(PollFd::new(&self.input, PollFlags::OUT));
        }
        let timeout = Timespec::try_from(timeout).ok();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => Ok(fds[..readable].iter().any(|fd| !fd.revents().is_empty())),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn write(&mut self) -> io::Result<()> {
        use rustix::io::Errno;
        while self.written < self.write_buf.len() {
            match rustix::io::write(&self.input, &self.write_buf[self.written..]) {
                Ok(count) => self.written += count,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                // The process has ended; reading its output reports that, too.
                Err(Errno::PIPE) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.write_buf.clear();
        self.write_buf.shrink_to(contract::LARGE_LEN);
        self.written = 0;
        Ok(())
    }

    /// Reads the available output. Returns `false` at its end.
    fn read(&mut self) -> io::Result<bool> {
        use rustix::io::Errno;
        loop {
            let missing = self.needed.saturating_sub(self.read_buf.len());
            self.read_buf.reserve(missing.max(64 * 1024));
            match rustix::io::read(&self.output, rustix::buffer::spare_capacity(&mut self.read_buf)) {
                Ok(0) => return Ok(false),
                // A complete answer is handled before more is read.
                Ok(_) if self.read_buf.len() >= self.needed => return Ok(true),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take_answers(&mut self) -> (Vec<Answer>, Option<String>) {
        let mut answers = Vec::new();
        let mut at = 0;
        let mut refused = None;
        self.needed = 0;
        let mut large = Reply::take_large(&mut self.read_buf).map(|reply| (reply, 0));
        while large.is_some() || at < self.read_buf.len() {
            let (reply, length) = match large.take().map_or_else(|| Reply::parse(&self.read_buf[at..]), Ok) {
                Ok(parsed) => parsed,
                Err(needed) => {
                    self.needed = needed;
                    break;
                }
            };
            at += length;
            let (index, outcome) = match reply {
                Reply::Ready => {
                    self.ready = true;
                    self.first_started = Instant::now();
                    continue;
                }
                Reply::Refused(message) => {
                    refused = Some(message);
                    break;
                }
                Reply::Failed(index, failure) => (index, Err(failure)),
                Reply::Value(index, frame) => (index, Ok(frame)),
            };
            match self.sent.pop_front() {
                Some(item) if item.index == index => answers.push(Answer { item, outcome }),
                _ => {
                    refused = Some(format!("the item process sent an unexpected reply for item {index}"));
                    break;
                }
            }
        }
        self.read_buf.drain(..at);
        if !answers.is_empty() {
            self.first_started = Instant::now();
        }
        (answers, refused)
    }

    fn read_log(&mut self) -> Vec<u8> {
        let mut read = Vec::new();
        while let Some(log) = &self.log {
            read.reserve(4096);
            match rustix::io::read(log, rustix::buffer::spare_capacity(&mut read)) {
                Ok(0) => self.log = None,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.tail.extend_from_slice(&read);
        let excess = self.tail.len().saturating_sub(LOG_TAIL);
        self.tail.drain(..excess);
        read
    }

    /// Holds back an incomplete line, so that the lines of several processes do not mix. An answer ends the line.
    fn whole_lines(&mut self, log: Vec<u8>, ended: bool) -> Vec<u8> {
        let mut lines = std::mem::take(&mut self.line);
        lines.extend(log);
        if !ended {
            let whole = lines.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            // A line without an end is not held back forever.
            if lines.len() - whole <= LOG_TAIL {
                self.line = lines.split_off(whole);
            }
        } else if lines.last().is_some_and(|&byte| byte != b'\n') {
            lines.push(b'\n');
        }
        lines
    }

    /// Reaps the process after it has closed its output, and returns its exit status. A process that does not exit within five
    /// seconds is killed, as are all processes that it started.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.has_exited() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.kill();
        self.child.wait()
    }

    fn explain(&mut self, status: ExitStatus) -> End {
        match self.sent.pop_front() {
            Some(item) if self.ready => End::During(item, self.died(status)),
            other => {
                self.sent.extend(other);
                let message = format!("the item process ended before its first item: {status}\n{}", self.log_tail());
                if status.signal().is_some() { End::KilledAtStart(message) } else { End::AtStart(message) }
            }
        }
    }

    fn died(&self, status: ExitStatus) -> Failure {
        died(status, &self.log_tail(), oom_kills() > self.oom_kills)
    }

    fn timed_out(&self) -> Failure {
        let timeout = self.timeout.unwrap_or_default();
        Failure::new(ItemErrorKind::TimedOut, format!("the item took longer than its timeout of {timeout:?}"))
    }
}

impl Drop for ItemProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// IDs of the item processes of this program. Each process leads a process group with the same ID.
static ALIVE: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn alive() -> MutexGuard<'static, BTreeSet<u32>> {
    ALIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills all item processes of this program and all processes that they started. The program must exit immediately
/// afterwards.
///
/// Supervisors are prevented from observing these deaths, which they would otherwise record as failures of items.
pub fn end_all() {
    let alive = alive();
    alive.iter().copied().for_each(kill_group);
    // The lock is held to the end of the program, so that no process is reaped or started any more.
    std::mem::forget(alive);
}

fn pid(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

fn kill_group(id: u32) {
    // An error means that the group no longer exists.
    let _ = pid(id).map(|group| kill_process_group(group, Signal::KILL));
}

/// Explains the death of a process by its exit status, the end of its log, and the kernel's count of OOM kills.
fn died(status: ExitStatus, log: &str, out_of_memory: bool) -> Failure {
    use ItemErrorKind::{Crashed, OutOfMemory};
    let last_line_with = |pattern: &str| log.lines().rev().find(|line| line.contains(pattern)).map(str::to_owned);
    let (kind, message) = if let Some(line) = last_line_with("has overflowed its stack") {
        (Crashed, format!("stack overflow: {}", line.trim()))
    } else if let Some(line) = last_line_with("memory allocation of ") {
        (OutOfMemory, line)
    } else if out_of_memory && status.signal() == Some(Signal::KILL.as_raw()) {
        (OutOfMemory, "the kernel killed the item process at the memory limit".to_owned())
    } else if let Some(signal) = status.signal() {
        (Crashed, format!("the item process was killed by {}", signal_name(signal)))
    } else {
        (Crashed, format!("the item process exited with code {} before the item was done", status.code().unwrap_or(-1)))
    };
    let mut failure = Failure::new(kind, message);
    failure.signal = status.signal();
    failure.exit_code = status.code();
    failure
}

/// Returns the number of OOM kills in the control group of this process: version 2, else version 1.
///
/// In a container, the group is the root of the mounted hierarchy. A SIGKILL from elsewhere does not change the count.
fn oom_kills() -> u64 {
    let count = |text: String| text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = cgroup.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    [
        format!("/sys/fs/cgroup{group}/memory.events"),
        "/sys/fs/cgroup/memory.events".to_owned(),
        "/sys/fs/cgroup/memory/memory.oom_control".to_owned(),
    ]
    .into_iter()
    .find_map(|path| count(std::fs::read_to_string(path).ok()?))
    .unwrap_or(0)
}

fn signal_name(signal: i32) -> String {
    let named = Signal::from_named_raw(signal).map(|name| match name {
        Signal::ABORT => "SIGABRT (an abort)",
        Signal::BUS => "SIGBUS (a bad memory access)",
        Signal::FPE => "SIGFPE (an arithmetic fault)",
        Signal::ILL => "SIGILL (an illegal instruction)",
        Signal::INT => "SIGINT",
        Signal::KILL => "SIGKILL (killed from outside, perhaps because memory ran out)",
        Signal::SEGV => "SIGSEGV (a bad memory access)",
        Signal::SYS => "SIGSYS (a system call that is not allowed)",
        Signal::TERM => "SIGTERM",
        Signal::XCPU => "SIGXCPU (the CPU time limit)",
        _ => "",
    });
    match named {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => format!("signal {signal}"),
    }
}
