//! The item process: runs one item after another, as its supervisor requests, until the supervisor closes the channel.
//!
//! One thread reads the requests, and holds the items that have not begun; it gives them back when it is asked to. The main
//! thread runs the items and answers. Standard output and standard error are the log, from the first instruction of the
//! program on; the channel is the standard input until `main` begins, and a descriptor of its own from then on.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::meter::{Meter, SLOW};
use super::{DEADLINE, ITEM_PROCESS, attempt, init};
use crate::contract::{self, Reply, Request};
use crate::failure::ItemErrorKind;
use crate::function::{self, Function};
use crate::log::Marker;
use crate::process;

/// Runs an item process, and ends this process. `settings` is the value of [`contract::ENV_ITEM_PROCESS`]: an
/// [`ItemProcess`](contract::ItemProcess) as JSON.
pub fn item_process(settings: &str) -> ! {
    ITEM_PROCESS.store(true, std::sync::atomic::Ordering::Relaxed);
    let settings = match serde_json::from_str(settings) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("error: cannot read `{}`: {error}", contract::ENV_ITEM_PROCESS);
            eprintln!("  hint: cloudknot sets this variable itself; unset it");
            std::process::exit(2)
        }
    };
    match serve(&settings) {
        Ok(()) => std::process::exit(0),
        Err(error) => lost_supervisor(&error),
    }
}

fn lost_supervisor(error: &io::Error) -> ! {
    eprintln!("cloudknot: the item process lost its supervisor: {error}");
    std::process::exit(1)
}

fn serve(settings: &contract::ItemProcess) -> io::Result<()> {
    end_with_keeper();
    process::restore_open_files(settings.open_files);
    let channel = Arc::new(Channel::take()?);
    let function = match function::find(&settings.function) {
        Ok(function) => function,
        Err(message) => return channel.send(&Reply::Refused(message).to_bytes()),
    };
    function.set_fingerprint(settings.fingerprint);
    let queue = Arc::new(Queue::default());
    let reader = std::thread::Builder::new().name("cloudknot-requests".into()).stack_size(256 << 10);
    let (shared_channel, shared_queue) = (Arc::clone(&channel), Arc::clone(&queue));
    if let Err(error) = reader.spawn(move || read_requests(&shared_channel, &shared_queue)) {
        let Some(number) = error.raw_os_error() else { return Err(error) };
        return channel.send(&Reply::NotStarted(number).to_bytes());
    }
    channel.send(&Reply::Ready.to_bytes())?;
    let mut runner = Runner::new(function, settings, &channel);
    runner.initialize()?;
    loop {
        let (item, frame) = queue.next();
        // The process ends here, because the descriptors must not be dropped if the function has closed them.
        match runner.run(item, frame) {
            Ok(false) => {}
            Ok(true) => match channel.send(&Reply::Replace.to_bytes()) {
                Ok(()) => std::process::exit(0),
                Err(error) => lost_supervisor(&error),
            },
            Err(error) => lost_supervisor(&error),
        }
    }
}

/// Runs items on the main thread.
struct Runner<'a> {
    function: &'static Function,
    channel: &'a Channel,
    log: Log,
    timeout: Option<Duration>,
    folder: Folder,
    /// ID of this process. A function may fork, and return in both processes.
    id: u32,
    wear: Wear,
    meter: Meter,
    answer: Vec<u8>,
    /// `false` if an init function has failed: another process may succeed.
    is_initialized: bool,
}

impl<'a> Runner<'a> {
    fn new(function: &'static Function, settings: &contract::ItemProcess, channel: &'a Channel) -> Self {
        Self {
            function,
            channel,
            log: Log::of(settings),
            timeout: settings.timeout_ms.map(Duration::from_millis),
            folder: Folder::current(),
            id: std::process::id(),
            wear: Wear::new(settings),
            meter: Meter::new(SLOW),
            answer: Vec::new(),
            is_initialized: false,
        }
    }

    /// Runs the init functions. If one fails, so does each item.
    fn initialize(&mut self) -> io::Result<()> {
        self.is_initialized = init::initialize().is_ok();
        self.end_fork();
        self.folder.enter();
        self.channel.send(&Reply::Initialized.to_bytes())
    }

    /// Runs an item and answers. Returns whether the process has to be replaced before the next item.
    fn run(&mut self, item: u64, frame: Vec<u8>) -> io::Result<bool> {
        if let Some(timeout) = self.timeout {
            *DEADLINE.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now().checked_add(timeout);
        }
        self.log.mark(item);
        let start = contract::begin_value(&mut self.answer, item);
        let mut has_panicked = false;
        let begun = self.meter.begin();
        let result = attempt(self.function, &frame, &mut self.answer);
        let measured = self.meter.end(&begun);
        match result {
            Ok(()) => contract::end_value(&mut self.answer, start, measured),
            Err(failure) => {
                has_panicked = failure.kind == ItemErrorKind::Panicked;
                self.answer.clear();
                self.answer.extend(Reply::Failed(item, failure, measured).to_bytes());
            }
        }
        drop(frame);
        self.end_fork();
        // The function's output must be in the log before its answer, and a last line without a newline is still buffered. An
        // error means that the function has closed its output.
        let _ = io::stdout().flush();
        self.channel.send(&self.answer)?;
        // The memory of a large item is not kept for small ones.
        self.answer.clear();
        self.answer.shrink_to(contract::LARGE_LEN);
        // A panic may have left a lock poisoned, or a value half changed.
        Ok(has_panicked || !self.is_initialized || !self.folder.enter() || self.wear.is_worn())
    }

    /// Ends this process if it is a fork of the item process, in which the user's code has returned as well.
    fn end_fork(&self) {
        if std::process::id() != self.id {
            end_at_once();
        }
    }
}

/// Ends this process without running anything else.
fn end_at_once() -> ! {
    loop {
        let _ = kill_process(rustix::process::getpid(), Signal::KILL);
    }
}

/// The items that have been received and have not begun.
#[derive(Default)]
struct Queue {
    items: Mutex<VecDeque<(u64, Vec<u8>)>>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, Vec<u8>)>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, item: u64, frame: Vec<u8>) {
        self.lock().push_back((item, frame));
        self.changed.notify_one();
    }

    /// Removes the next item, which thereby begins. Waits for it if there is none.
    fn next(&self) -> (u64, Vec<u8>) {
        let mut items = self.lock();
        loop {
            if let Some(next) = items.pop_front() {
                return next;
            }
            items = self.changed.wait(items).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self) -> u64 {
        self.lock().drain(..).count() as u64
    }
}

/// Reads requests until the supervisor closes the channel, and ends this process then.
fn read_requests(channel: &Channel, queue: &Queue) {
    let mut input = BufReader::with_capacity(64 * 1024, channel);
    let mut read = || -> io::Result<bool> {
        match Request::read(&mut input)? {
            None => return Ok(false),
            Some(Request::GiveBack) => channel.send(&Reply::GivenBack(queue.give_back()).to_bytes())?,
            Some(Request::Run { item, length }) => {
                let mut frame = Vec::new();
                let read = (&mut input).take(length).read_to_end(&mut frame)?;
                if read as u64 != length {
                    return Ok(false);
                }
                queue.push(item, frame);
            }
        }
        Ok(true)
    };
    while matches!(read(), Ok(true)) {}
    // If the function has closed the channel, the main thread finds out when it answers, and says so.
    if channel.check().is_ok() {
        end_at_once();
    }
}

/// The channel to the supervisor.
struct Channel {
    descriptor: OwnedFd,
    /// Device and number of the socket.
    identity: (u64, u64),
    sending: Mutex<()>,
}

impl Channel {
    fn take() -> io::Result<Self> {
        let descriptor = process::take_channel()?;
        let identity = identity(descriptor.as_fd())?;
        Ok(Self { descriptor, identity, sending: Mutex::new(()) })
    }

    fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        while !bytes.is_empty() {
            match rustix::io::write(&self.descriptor, bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Returns an error if the function has closed the descriptor: the number may be that of a file of the function by now.
    fn check(&self) -> io::Result<()> {
        if identity(self.descriptor.as_fd()).is_ok_and(|identity| identity == self.identity) {
            return Ok(());
        }
        Err(io::Error::other("the function closed a file descriptor that it did not open"))
    }
}

impl Read for &Channel {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        loop {
            match rustix::io::read(&self.descriptor, &mut *bytes) {
                Err(rustix::io::Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }
}

/// The log of this process, which has a marker before the output of each item.
struct Log {
    /// The descriptor and its identity; `None` if the process has no log.
    descriptor: Option<(OwnedFd, (u64, u64))>,
    marker: Marker,
}

impl Log {
    fn of(settings: &contract::ItemProcess) -> Self {
        let duplicate = || {
            let log = process::duplicate(rustix::stdio::stderr())?;
            let identity = identity(log.as_fd())?;
            io::Result::Ok((log, identity))
        };
        let nonce = u128::from_str_radix(&settings.log_nonce, 16).ok();
        // Without a log or a marker, all output is that of no item.
        Self { descriptor: nonce.and_then(|_| duplicate().ok()), marker: Marker::new(nonce.unwrap_or_default()) }
    }

    /// Writes the marker of an item. If the function has closed the descriptor, output is that of an earlier item from now on.
    fn mark(&self, item: u64) {
        let Some((log, of_log)) = &self.descriptor else { return };
        if identity(log.as_fd()).is_ok_and(|identity| identity == *of_log) {
            // A pipe takes so few bytes as a whole, or not at all if its reader has ended (pipe(7)).
            while rustix::io::write(log, &self.marker.before(item)) == Err(rustix::io::Errno::INTR) {}
        }
    }
}

fn identity(descriptor: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(descriptor)?;
    // The types differ between systems.
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
    Ok((stat.st_dev as u64, stat.st_ino as u64))
}

/// The folder in which each item begins.
struct Folder {
    descriptor: Option<OwnedFd>,
    path: Option<PathBuf>,
}

impl Folder {
    fn current() -> Self {
        use rustix::fs::{Mode, OFlags};
        let descriptor = rustix::fs::open(".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        Self { descriptor: descriptor.ok(), path: std::env::current_dir().ok() }
    }

    /// Returns to the folder. Returns `false` if this is not possible, because the function has closed the descriptor.
    fn enter(&self) -> bool {
        match (&self.descriptor, &self.path) {
            (Some(descriptor), _) if rustix::process::fchdir(descriptor).is_ok() => true,
            (_, Some(path)) => std::env::set_current_dir(path).is_ok(),
            // The program has no folder.
            (_, None) => true,
        }
    }
}

/// What the items that ran in this process have left behind, as far as it can be measured.
struct Wear {
    items: u64,
    max_items: Option<u64>,
    /// Memory that this process may use, in bytes.
    memory: Option<u64>,
    /// Memory after the first item, in bytes.
    first: u64,
    checked: Instant,
}

/// Minimum time between two measurements of the memory.
const MEMORY_INTERVAL: Duration = Duration::from_millis(10);

impl Wear {
    fn new(settings: &contract::ItemProcess) -> Self {
        let (max_items, memory) = (settings.recycle, settings.memory);
        Self { items: 0, max_items, memory, first: 0, checked: Instant::now() }
    }

    /// Returns whether the process has to be replaced: because it has run its maximum number of items, or because its memory
    /// has grown to more than twice that after the first item and more than a quarter of what it may use.
    fn is_worn(&mut self) -> bool {
        self.items += 1;
        if self.max_items.is_some_and(|max| self.items >= max) {
            return true;
        }
        if self.memory.is_none() || (self.items > 1 && self.checked.elapsed() < MEMORY_INTERVAL) {
            return false;
        }
        self.checked = Instant::now();
        resident_memory().is_some_and(|memory| self.has_grown_to(memory))
    }

    fn has_grown_to(&mut self, memory: u64) -> bool {
        if self.items == 1 {
            self.first = memory;
        }
        memory > self.first.saturating_mul(2) && self.memory.is_some_and(|limit| memory > limit / 4)
    }
}

/// Returns the resident memory of this process in bytes.
fn resident_memory() -> Option<u64> {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(target_os = "linux")]
fn end_with_keeper() {
    // The signal ends an item process whose keeper was killed. The score makes the kernel kill it before its supervisor when
    // memory runs out.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

// On other systems the process ends when its channel is closed.
#[cfg(not(target_os = "linux"))]
fn end_with_keeper() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaking_process_is_replaced_before_it_uses_its_share() {
        let settings = contract::ItemProcess { memory: Some(1_000), ..contract::ItemProcess::default() };
        let check = |first: u64, memory: u64, expected: bool| {
            let mut wear = Wear { items: 1, ..Wear::new(&settings) };
            assert!(!wear.has_grown_to(first), "the first item is no leak");
            wear.items = 2;
            assert_eq!(wear.has_grown_to(memory), expected, "{first} after the first item, then {memory}");
        };
        check(100, 250, false);
        check(100, 251, true);
        check(200, 400, false);
        check(200, 401, true);
        check(900, 1_000, false);
        let mut unlimited = Wear { items: 2, ..Wear::new(&contract::ItemProcess::default()) };
        assert!(!unlimited.has_grown_to(u64::MAX));
    }

    #[test]
    fn process_is_replaced_after_so_many_items() {
        let mut wear = Wear::new(&contract::ItemProcess { recycle: Some(3), ..contract::ItemProcess::default() });
        assert_eq!([wear.is_worn(), wear.is_worn(), wear.is_worn()], [false, false, true]);
    }
}
