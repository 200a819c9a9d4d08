//! The meaning of the death of an item process.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::Signal;

use crate::failure::{Failure, ItemErrorKind};

/// Explains the death of a process by its exit status and the kernel's count of OOM kills. The log only refines an abort:
/// the Rust runtime prints the reason in the last line before it aborts.
pub(super) fn explain(status: ExitStatus, log: &str, out_of_memory: bool) -> Failure {
    use ItemErrorKind::{Crashed, OutOfMemory};
    let is = |signal: Signal| status.signal() == Some(signal.as_raw());
    let reason = if is(Signal::ABORT) { abort_reason(log) } else { None };
    let (kind, message) = if let Some(reason) = reason {
        reason
    } else if out_of_memory && is(Signal::KILL) {
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

/// Returns the reason for an abort, if the Rust runtime aborted: a stack overflow or a failed allocation.
fn abort_reason(log: &str) -> Option<(ItemErrorKind, String)> {
    let mut lines =
        log.lines().rev().map(str::trim).filter(|line| !line.is_empty()).skip_while(|line| is_backtrace(line));
    let last = lines.next()?;
    let bytes = last.strip_prefix("memory allocation of ").and_then(|rest| rest.strip_suffix(" bytes failed"));
    if bytes.is_some_and(|bytes| bytes.parse::<u128>().is_ok()) {
        return Some((ItemErrorKind::OutOfMemory, last.to_owned()));
    }
    // Printed in two lines: the thread, then the fault.
    let thread = lines.next().filter(|_| last.starts_with("fatal runtime error: stack overflow"))?;
    let is_overflow = thread.starts_with("thread '") && thread.ends_with("has overflowed its stack");
    is_overflow.then(|| (ItemErrorKind::Crashed, format!("stack overflow: {thread}")))
}

/// Returns whether a line belongs to the backtrace that the runtime prints after the reason, or notes that it does not.
fn is_backtrace(line: &str) -> bool {
    let is_frame = |line: &str| line.split_once(": ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
    line.starts_with("note: ") || line == "stack backtrace:" || line.starts_with("at ") || is_frame(line)
}

/// Returns the number of OOM kills in the control group of this process: version 2, else version 1.
///
/// A SIGKILL from elsewhere does not change the count.
pub(super) fn oom_kills() -> u64 {
    let count = |text: String| text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    [
        format!("/sys/fs/cgroup{}/memory.events", super::control_group()),
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

#[cfg(test)]
mod tests {
    use super::*;

    const ABORT: i32 = 6;
    const EXIT_3: i32 = 3 << 8;

    fn check(status: i32, log: &str, kind: ItemErrorKind, message: &str) {
        let failure = explain(ExitStatus::from_raw(status), log, false);
        assert_eq!(failure.kind, kind, "{log}");
        assert!(failure.message.contains(message), "{failure:?}");
    }

    // Finding M12.
    #[test]
    fn m12_printed_words_do_not_change_the_kind() {
        let memory = "checking the memory allocation of buffers: fine\n";
        check(EXIT_3, memory, ItemErrorKind::Crashed, "code 3");
        check(EXIT_3, "memory allocation of 12 bytes failed\n", ItemErrorKind::Crashed, "code 3");
        check(ABORT, memory, ItemErrorKind::Crashed, "SIGABRT");
        check(ABORT, "memory allocation of 12 bytes failed\nall is well\n", ItemErrorKind::Crashed, "SIGABRT");
        check(EXIT_3, "warning: the solver has overflowed its stack\n", ItemErrorKind::Crashed, "code 3");
        check(ABORT, "warning: the solver has overflowed its stack\n", ItemErrorKind::Crashed, "SIGABRT");
    }

    #[test]
    fn reasons_of_the_runtime_explain_an_abort() {
        check(ABORT, "one\nmemory allocation of 12 bytes failed\n", ItemErrorKind::OutOfMemory, "of 12 bytes");
        let traced = "memory allocation of 12 bytes failed\nstack backtrace:\n   0: alloc::oom\n             at a.rs:1\nnote: some\n";
        check(ABORT, traced, ItemErrorKind::OutOfMemory, "of 12 bytes");
        let overflow = "\nthread 'main' (7) has overflowed its stack\nfatal runtime error: stack overflow, aborting\n";
        check(ABORT, overflow, ItemErrorKind::Crashed, "stack overflow: thread 'main'");
    }
}
