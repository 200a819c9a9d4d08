//! Memory use of this process, on Linux.

/// Returns the peak so far, in KiB.
///
/// # Panics
/// If Linux does not report it.
pub fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux reports the memory of a process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux reports the peak");
    peak.trim().trim_end_matches(" kB").parse().expect("the peak is a number")
}

/// Resets the peak to the current use, and returns it.
///
/// # Panics
/// If Linux does not allow a process to do so.
pub fn reset_peak() -> u64 {
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux allows a process to reset its peak");
    peak()
}
