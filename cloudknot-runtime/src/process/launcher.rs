//! Settings of item processes, and the share of the machine that each of them has.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::contract::ItemProcess;

/// Settings to start item processes.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// Function and types of the run.
    pub item_process: ItemProcess,
    /// Environment variables of the run.
    pub env: BTreeMap<String, String>,
}

impl Launcher {
    /// Creates the settings for `parallel` item processes at once, which share the CPUs and the memory of this machine.
    ///
    /// Limits rayon and OpenMP to a share of the CPUs, unless the environment or `env` sets their variables: without them, a
    /// function that uses either would use all CPUs in every process at once. Raises the limit of open files of this program.
    pub fn new(item_process: ItemProcess, mut env: BTreeMap<String, String>, cpus: usize, parallel: u32) -> Self {
        let parallel = parallel.max(1);
        let threads = (cpus / parallel as usize).max(1).to_string();
        for name in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS"] {
            if std::env::var_os(name).is_none() {
                env.entry(name.to_owned()).or_insert_with(|| threads.clone());
            }
        }
        let memory = memory().map(|bytes| bytes / u64::from(parallel));
        Self { item_process: ItemProcess { memory, open_files: open_files_before(), ..item_process }, env }
    }
}

/// Returns the number of item processes for which the limit of open files of this program suffices; at least 1.
pub(crate) fn max_processes() -> usize {
    // A process has three, and some more for a moment when it is started, as has each value that is stored.
    const PER_PROCESS: u64 = 8;
    // For the rest of the program.
    const RESERVED: u64 = 24;
    let Some(limit) = getrlimit(Resource::Nofile).current else { return usize::MAX };
    let open = std::fs::read_dir("/dev/fd").map_or(0, |entries| entries.count() as u64);
    let processes = limit.saturating_sub(open + RESERVED) / PER_PROCESS;
    usize::try_from(processes).unwrap_or(usize::MAX).max(1)
}

/// Raises the soft limit of open files to the hard limit, once in a program. Returns the soft limit before that, which item
/// processes get back: programs that use `select` fail with a high one.
fn open_files_before() -> Option<u64> {
    static BEFORE: OnceLock<Option<u64>> = OnceLock::new();
    *BEFORE.get_or_init(raise_open_files)
}

/// Raises the soft limit of open files. Returns the previous one if it was lower.
fn raise_open_files() -> Option<u64> {
    let limits = getrlimit(Resource::Nofile);
    let hard_limit = limits.maximum.unwrap_or(u64::MAX);
    // macOS accepts no higher soft limit, whatever the hard limit (setrlimit(2) there).
    let raised = if cfg!(target_os = "macos") { hard_limit.min(10_240) } else { hard_limit };
    let current = limits.current.filter(|&current| current < raised)?;
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: Some(raised), ..limits }).ok()?;
    Some(current)
}

/// Returns the memory in bytes that this process and its children may use: that of its control group (version 2, else
/// version 1), else that of the machine. `None` if the system does not tell.
pub(crate) fn memory() -> Option<u64> {
    let read = |path: String| std::fs::read_to_string(path).ok()?.trim().parse().ok();
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total: u64 = total.trim().trim_end_matches(" kB").parse().ok()?;
    let limit = [
        format!("/sys/fs/cgroup{}/memory.max", super::control_group()),
        "/sys/fs/cgroup/memory.max".to_owned(),
        "/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned(),
    ]
    .into_iter()
    .find_map(read);
    Some(limit.unwrap_or(u64::MAX).min(total * 1024))
}

/// Sets the soft limit of open files of an item process to that of the program before it was raised.
pub(crate) fn restore_open_files(soft_limit: Option<u64>) {
    if soft_limit.is_some() {
        let limits = getrlimit(Resource::Nofile);
        // Lowering a limit is always allowed.
        let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: soft_limit, ..limits });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_each_run_get_the_limit_of_the_start() {
        let limits = getrlimit(Resource::Nofile);
        let lower = limits.current.map_or(256, |current| current.min(256));
        setrlimit(Resource::Nofile, rustix::process::Rlimit { current: Some(lower), ..limits })
            .expect("a limit can be lowered");
        let launcher = || Launcher::new(ItemProcess::default(), BTreeMap::new(), 1, 1).item_process.open_files;
        let expected = limits.maximum.is_none_or(|maximum| maximum > lower).then_some(lower);
        assert_eq!([launcher(), launcher()], [expected, expected]);
    }
}
