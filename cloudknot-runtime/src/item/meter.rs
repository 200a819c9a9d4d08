//! Measures items: the time and the CPU time that an item takes, and the peak of its memory.
//!
//! On Linux, the kernel's record of the peak of this process (`VmHWM`) is reset before an item (`/proc/self/clear_refs`, proc(5)), and
//! read after it. Both take some 20 µs, so quick items are left out, and an item after quick ones has a peak that may be theirs. On
//! other systems, the peak is that of the whole life of the process.

use std::time::{Duration, Instant, SystemTime};

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rustix::time::{ClockId, clock_gettime};

use crate::measurements::{Measured, Memory};

/// Duration of an item from which its memory is measured.
pub const SLOW: Duration = Duration::from_millis(2);

/// Time for which the counters at the end of an item are those at the start of the next one: reading them takes system calls, and an
/// item may take less than these.
const FRESH: Duration = Duration::from_micros(50);

/// Measures the items of this process, one after another.
#[derive(Debug)]
pub struct Meter {
    /// Duration of an item from which its memory is measured.
    slow: Duration,
    /// `true` if the peak is to be reset before the next item.
    is_reset_due: bool,
    /// `true` if the peak may be that of an item before the current one.
    has_earlier: bool,
    /// End of the last item, and the counters then.
    last: Option<(Instant, Counters)>,
}

/// The start of an item.
#[derive(Debug)]
pub struct Begun {
    time: SystemTime,
    instant: Instant,
    counters: Counters,
}

/// CPU time of this process, and of its children that have ended.
#[derive(Debug, Clone, Copy)]
struct Counters {
    cpu: Duration,
    children: Option<Children>,
}

impl Counters {
    fn read() -> Self {
        Self { cpu: process_cpu(), children: children() }
    }
}

/// Counters of the kernel for ended child processes. Each child that ends changes the number of page faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Children {
    cpu_us: i64,
    faults: i64,
    peak: u64,
}

impl Meter {
    /// Creates a meter that measures the memory of items from this duration on.
    pub fn new(slow: Duration) -> Self {
        Self { slow, is_reset_due: true, has_earlier: false, last: None }
    }

    /// Begins an item.
    pub fn begin(&mut self) -> Begun {
        if std::mem::take(&mut self.is_reset_due) {
            self.has_earlier = !reset_peak();
        }
        let (time, instant) = (SystemTime::now(), Instant::now());
        let fresh = self.last.take().filter(|(end, _)| instant.duration_since(*end) < FRESH);
        Begun { time, instant, counters: fresh.map_or_else(Counters::read, |(_, counters)| counters) }
    }

    /// Ends an item.
    pub fn end(&mut self, begun: &Begun) -> Measured {
        let now = Instant::now();
        let (duration, counters) = (now - begun.instant, Counters::read());
        let ended = counters.children.zip(begun.counters.children).filter(|(now, before)| now != before);
        let children_cpu = ended.map_or(0, |(now, before)| u64::try_from(now.cpu_us - before.cpu_us).unwrap_or(0));
        let cpu = counters.cpu.saturating_sub(begun.counters.cpu) + Duration::from_micros(children_cpu);
        let memory = (duration >= self.slow || ended.is_some()).then(|| self.memory(ended)).flatten();
        if memory.is_some() {
            self.is_reset_due = true;
        }
        // The peak of an item that was not measured may be that of the next one.
        self.has_earlier = true;
        self.last = Some((now, counters));
        let cpu_us = u64::try_from(cpu.as_micros()).ok();
        Measured { cpu_us, memory, ..Measured::until_now(begun.time, duration) }
    }

    fn memory(&self, ended: Option<(Children, Children)>) -> Option<Memory> {
        let own = Memory { peak: peak()?, is_bound: self.has_earlier };
        // The kernel keeps the largest peak of all children that have ended so far.
        let largest = ended.map(|(now, before)| Memory { peak: now.peak, is_bound: now.peak == before.peak });
        Some(largest.filter(|child| child.peak > own.peak).unwrap_or(own))
    }
}

/// Returns the time and the CPU time of an item that runs on this thread of a program which runs other things, too.
pub(crate) fn measure_thread<T>(run: impl FnOnce() -> T) -> (T, Measured) {
    let cpu = || duration(clock_gettime(ClockId::ThreadCPUTime));
    let (time, instant, before) = (SystemTime::now(), Instant::now(), cpu());
    let result = run();
    let cpu_us = u64::try_from(cpu().saturating_sub(before).as_micros()).ok();
    (result, Measured { cpu_us, ..Measured::until_now(time, instant.elapsed()) })
}

fn process_cpu() -> Duration {
    duration(clock_gettime(ClockId::ProcessCPUTime))
}

fn duration(time: rustix::time::Timespec) -> Duration {
    Duration::try_from(time).unwrap_or_default()
}

fn children() -> Option<Children> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).ok()?;
    let cpu_us = (usage.user_time() + usage.system_time()).num_microseconds();
    Some(Children { cpu_us, faults: usage.minor_page_faults(), peak: max_rss(&usage)? })
}

/// Returns the peak of resident memory in bytes.
fn max_rss(usage: &Usage) -> Option<u64> {
    // In KiB, but for macOS (getrusage(2) of both).
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    u64::try_from(usage.max_rss()).ok()?.checked_mul(unit)
}

#[cfg(target_os = "linux")]
fn reset_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

#[cfg(target_os = "linux")]
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    peak.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(not(target_os = "linux"))]
fn reset_peak() -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
fn peak() -> Option<u64> {
    max_rss(&getrusage(UsageWho::RUSAGE_SELF).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(meter: &mut Meter, run: impl FnOnce()) -> Measured {
        let begun = meter.begin();
        run();
        meter.end(&begun)
    }

    fn touch(bytes: usize) {
        let memory = vec![1_u8; bytes];
        std::hint::black_box(memory);
        std::thread::sleep(SLOW);
    }

    // One test, because the peak is that of the process. The tests of this crate run in a process each.
    #[test]
    #[cfg(target_os = "linux")]
    fn peaks_are_those_of_their_items() {
        const LARGE: usize = 200 << 20;
        let mut meter = Meter::new(SLOW);
        let is_large = |memory: Memory| memory.peak > LARGE as u64;
        let large = measure(&mut meter, || touch(LARGE)).memory.expect("the item is slow");
        assert!(is_large(large) && !large.is_bound, "{large:?}");
        let small = measure(&mut meter, || touch(1)).memory.expect("the item is slow");
        assert!(!is_large(small) && !small.is_bound, "{small:?}");
        assert_eq!(measure(&mut meter, || ()).memory, None, "quick items are left out");
        let after_quick = measure(&mut meter, || touch(1)).memory.expect("the item is slow");
        assert!(after_quick.is_bound, "the peak may be that of the quick item");
        let child = measure(&mut meter, || {
            let script = "x=$(head -c 300000000 /dev/zero | tr '\\0' 'x'); : ${#x}";
            assert!(std::process::Command::new("sh").args(["-c", script]).status().expect("sh runs").success());
        });
        let memory = child.memory.expect("a child has ended");
        assert!(is_large(memory) && !memory.is_bound, "{memory:?}");
        assert!(child.cpu_us.is_some_and(|cpu| cpu > 10_000), "{child:?}");
    }

    #[test]
    fn times_are_measured() {
        let mut meter = Meter::new(SLOW);
        let before = SystemTime::now();
        let busy = || {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(20) {
                std::hint::black_box(0);
            }
        };
        for measured in [measure(&mut meter, busy), measure_thread(busy).1] {
            assert!(measured.duration() >= Duration::from_millis(20));
            assert!(measured.started().duration_since(before).is_ok_and(|since| since < Duration::from_mins(1)));
            assert!(measured.cpu().is_some_and(|cpu| cpu > Duration::ZERO), "{measured:?}");
        }
    }
}
