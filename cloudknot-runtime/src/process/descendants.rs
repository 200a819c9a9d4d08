//! Processes below this one: its children, its orphans, and processes that are found by their tag.

use std::collections::BTreeSet;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
#[cfg(target_os = "linux")]
use rustix::process::{Signal, kill_process};

#[cfg(target_os = "linux")]
use crate::contract;

/// Keepers that this process has started and not reaped.
static KEEPERS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn keepers() -> MutexGuard<'static, BTreeSet<u32>> {
    KEEPERS.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn add_keeper(keeper: &Child) {
    keepers().insert(keeper.id());
}

/// Reaps a keeper that `has_ended`. One that the kernel cannot end is reaped with the orphans, if ever.
pub(super) fn remove_keeper(keeper: &mut Child, has_ended: bool) {
    // An error means that the keeper has been reaped: SIGCHLD is ignored in this process.
    let _ = if has_ended { keeper.wait().map(drop) } else { keeper.try_wait().map(drop) };
    keepers().remove(&keeper.id());
}

/// Reaps the children of this process that have ended, except keepers. The first process of a container becomes the parent
/// of all orphans in it.
pub fn reap_orphans() {
    let keepers = keepers();
    for child in children() {
        let is_keeper = u32::try_from(child.as_raw_nonzero().get()).is_ok_and(|id| keepers.contains(&id));
        if !is_keeper {
            let _ = waitid(WaitId::Pid(child), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

/// Returns the children of this process.
#[cfg(target_os = "linux")]
pub(super) fn children() -> Vec<Pid> {
    listed_children().unwrap_or_else(|| processes().filter(|process| is_child(*process)).collect())
}

/// Returns the children as the kernel lists them, by the thread that started them; `None` if it was built without these lists.
#[cfg(target_os = "linux")]
fn listed_children() -> Option<Vec<Pid>> {
    let threads = std::fs::read_dir("/proc/self/task").ok()?;
    let of_thread = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("children")).ok();
    let lists: Vec<String> = threads.flatten().filter_map(of_thread).collect();
    (!lists.is_empty()).then(|| lists.iter().flat_map(|list| list.split_whitespace()).filter_map(pid).collect())
}

#[cfg(target_os = "linux")]
fn is_child(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap_or_default();
    // The name in parentheses, the state, and the parent.
    let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
    parent == Some(std::process::id())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn children() -> Vec<Pid> {
    Vec::new()
}

/// Kills all processes with this tag in their environment. Only needed if their keeper was killed: a process that has
/// cleared its environment is not found.
#[cfg(target_os = "linux")]
pub(super) fn kill_tagged(tag: &str) {
    // A process may start another one after the list was read; then the next list has it.
    const MAX_LISTS: usize = 10;
    let marker = format!("{}={tag}", contract::ENV_TAG);
    for _ in 0..MAX_LISTS {
        let tagged: Vec<Pid> = processes().filter(|process| has_variable(*process, &marker)).collect();
        if tagged.is_empty() {
            return;
        }
        for process in tagged {
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

#[cfg(target_os = "linux")]
fn processes() -> impl Iterator<Item = Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| pid(entry.file_name().to_str()?))
}

#[cfg(target_os = "linux")]
fn has_variable(process: Pid, variable: &str) -> bool {
    let environment = std::fs::read(format!("/proc/{}/environ", process.as_raw_nonzero())).unwrap_or_default();
    environment.split(|&byte| byte == 0).any(|other| other == variable.as_bytes())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn kill_tagged(_tag: &str) {}

#[cfg(target_os = "linux")]
fn pid(number: &str) -> Option<Pid> {
    number.parse().ok().and_then(Pid::from_raw)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn children_are_found_with_and_without_the_kernel_s_list() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("the program is installed");
        let pid = Pid::from_child(&child);
        let (listed, scanned) = (children().contains(&pid), processes().any(|process| process == pid && is_child(pid)));
        child.kill().and_then(|()| child.wait()).expect("it was running");
        assert!(listed && scanned && !is_child(pid));
    }
}
