//! Memory use of this process, on Linux.

/// Returns the peak so far, in KiB.
///
/// # Panics
/// If Linux does not report it.
pub fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells a process's memory");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells the peak");
    peak.trim().trim_end_matches(" kB").parse().expect("the peak is a number")
}

/// Resets the peak to the current use, and returns it.
///
/// # Panics
/// If Linux does not let a process do so.
pub fn reset_peak() -> u64 {
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux lets a process forget its peak");
    peak()
}
