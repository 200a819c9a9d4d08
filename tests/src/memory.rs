//! How much memory this process takes, on Linux.

/// The most that it has had, in KiB.
///
/// # Panics
/// Where Linux does not tell.
pub fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells a process's memory");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells the peak");
    peak.trim().trim_end_matches(" kB").parse().expect("the peak is a number")
}

/// Forgets the peak so far, and says what it is now.
///
/// # Panics
/// Where Linux does not let a process do so.
pub fn reset_peak() -> u64 {
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux lets a process forget its peak");
    peak()
}
