//! The keeper of an item process: this program again, between the supervisor and the item process, without user code except
//! the initializers of libraries, which run before `main`.
//!
//! It ends everything that the function started when the item process ends, or when the supervisor does, for whatever
//! reason. A process group or a death signal cannot do this: a process leaves its group with `setsid`, and loses its parent
//! with a second `fork`. The keeper is a *subreaper* instead: on Linux, it becomes the parent of all orphans below it. On
//! other systems it can only end the process group of the item process.
//!
//! Its standard input is the channel of the item process, which it passes on without reading; the end of that channel, or of
//! its parent, is the end of the supervisor. Its standard output goes to the supervisor, and carries one message: an [`Exit`].

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, kill_process_group, wait, waitid,
};

use crate::contract::{self, Exit};

/// Runs the keeper, and ends this process.
pub fn main() -> ! {
    let mut supervisor = match take_exit_channel() {
        Ok(supervisor) => supervisor,
        Err(error) => fail(&error),
    };
    let Err(error) = keep(&mut supervisor) else { std::process::exit(0) };
    // If the item process has been started, it ends with this process.
    if let Some(number) = error.raw_os_error() {
        let _ = supervisor.write_all(&Exit::NotStarted(number).to_bytes());
    }
    fail(&error)
}

fn fail(error: &io::Error) -> ! {
    eprintln!("cloudknot: the keeper of an item process failed: {error}");
    std::process::exit(1)
}

/// Moves the channel to the supervisor away from the standard output, which is the log from then on.
fn take_exit_channel() -> io::Result<File> {
    let channel = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    Ok(channel.into())
}

fn keep(supervisor: &mut File) -> io::Result<()> {
    let adopts = adopt_orphans();
    catch_signals()?;
    let item_process = &Mutex::new(None);
    let (started, child) = channel();
    std::thread::scope(|scope| {
        // Started first: if the system allows no thread, no item has begun.
        let waiter = std::thread::Builder::new().stack_size(256 << 10);
        waiter.spawn_scoped(scope, move || {
            let Ok(child) = child.recv() else { return };
            if let Ok(status) = wait_for(child, item_process, adopts) {
                // Fails if the supervisor has ended, which is no reason to leave processes behind.
                let _ = supervisor.write_all(&Exit::Ended(status).to_bytes());
            }
            end_all_children();
            end_at_once()
        })?;
        // By this thread, whose end would be the death signal of the item process.
        let child = start()?;
        *item_process.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        started.send(child).map_err(io::Error::other)?;
        drop(started);
        // An error of the wait is treated as the end, because nothing else would notice it.
        let _ = wait_for_end_of_supervisor();
        if let Some(child) = *item_process.lock().unwrap_or_else(PoisonError::into_inner) {
            kill(child);
        }
        // The waiter ends this process.
        Ok(())
    })
}

/// Starts the item process in a group of its own.
fn start() -> io::Result<Pid> {
    let program = super::this_program();
    let child = Command::new(&program)
        .arg0(std::env::args_os().next().unwrap_or_else(|| program.clone().into_os_string()))
        .env_remove(contract::ENV_KEEPER)
        .stdin(Stdio::inherit())
        .process_group(0)
        .spawn()?;
    Ok(Pid::from_child(&child))
}

/// Waits until this process has ended, and reaps it. Meanwhile reaps orphans.
fn wait_for(item_process: Pid, running: &Mutex<Option<Pid>>, adopts: bool) -> io::Result<ExitStatus> {
    loop {
        retry(|| waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT))?;
        // While it is locked, the ID of a reaped process is not used any more.
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        if !adopts {
            end_group_of(item_process);
        }
        // A process that is traced is reported when it stops, too.
        if let Some((pid, status)) = wait(WaitOptions::NOHANG)?
            && pid == item_process
            && (status.exited() || status.signaled())
        {
            *running = None;
            return Ok(ExitStatus::from_raw(status.as_raw()));
        }
    }
}

/// Kills all processes below this one. As one ends, its children become children of this process, and are killed as well.
fn end_all_children() {
    loop {
        super::children().into_iter().for_each(kill);
        // The error means that there are none. After the first one, all others that have ended are reaped before the next list.
        if !matches!(wait(WaitOptions::empty()), Ok(_) | Err(rustix::io::Errno::INTR)) {
            return;
        }
        while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
    }
}

/// Ends this process without its exit handlers, which are those of libraries.
fn end_at_once() -> ! {
    loop {
        let _ = kill_process(rustix::process::getpid(), Signal::KILL);
    }
}

/// Kills a child and, if it leads one, its process group. A child of this process keeps its ID until this process reaps it.
fn kill(child: Pid) {
    let _ = kill_process_group(child, Signal::KILL);
    let _ = kill_process(child, Signal::KILL);
}

/// Waits until the supervisor has closed its side of the channel, or has ended. A process that the supervisor has forked may
/// hold the channel open.
fn wait_for_end_of_supervisor() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    let events = PollFlags::RDHUP;
    #[cfg(not(target_os = "linux"))]
    let events = PollFlags::HUP;
    let supervisor = supervisor()?;
    let mut ends = vec![PollFd::from_borrowed_fd(rustix::stdio::stdin(), events)];
    ends.extend(supervisor.as_ref().map(|supervisor| PollFd::new(supervisor, PollFlags::IN)));
    retry(|| poll(&mut ends, None))?;
    Ok(())
}

/// Returns a descriptor of the supervisor's process, which is readable when it has ended; `None` if the kernel has none.
///
/// # Errors
/// Fails if the supervisor has ended.
#[cfg(target_os = "linux")]
fn supervisor() -> io::Result<Option<OwnedFd>> {
    use rustix::process::{PidfdFlags, getppid, pidfd_open};
    let supervisor = std::env::var(contract::ENV_KEEPER).ok().and_then(|id| Pid::from_raw(id.parse().ok()?));
    let descriptor = supervisor.and_then(|supervisor| pidfd_open(supervisor, PidfdFlags::empty()).ok());
    // Checked afterwards: until then, the ID was that of the supervisor, which had not ended.
    if supervisor.is_none() || getppid() != supervisor {
        return Err(io::Error::other("the supervisor has ended"));
    }
    Ok(descriptor)
}

#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps, reason = "the same signature on all systems")]
fn supervisor() -> io::Result<Option<OwnedFd>> {
    Ok(None)
}

/// Ends what the item process, if it has ended, has left in its group. Until it is reaped, no other group has its ID.
fn end_group_of(item_process: Pid) {
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    if matches!(waitid(WaitId::Pid(item_process), ended), Ok(Some(_))) {
        let _ = kill_process_group(item_process, Signal::KILL);
    }
}

/// Makes this process the parent of all orphans below it. Returns `false` where this is not possible: outside of Linux, and in
/// emulators of processes.
#[cfg(target_os = "linux")]
fn adopt_orphans() -> bool {
    // The kernel ignores the value; it only has to be there.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn adopt_orphans() -> bool {
    false
}

/// Installs handlers that do nothing. If SIGCHLD is ignored, which a program inherits, no child can be waited for. The
/// others end the item process, if they are sent to all processes, but not its keeper before it has done its work.
fn catch_signals() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    let kinds = [SignalKind::child(), SignalKind::hangup(), SignalKind::interrupt(), SignalKind::terminate()];
    // A handler stays after its listener has been dropped.
    kinds.into_iter().try_for_each(|kind| signal(kind).map(drop))
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}
