//! What a function may do to its process, to the next items, and to the machine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Input of the function of these tests: a misdeed, for which only its own item may pay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Misdeed {
    /// Writes this text to all sockets of its process, then returns 1.
    Stray(String),
    /// Forks, and returns 7 in both processes.
    ForkAndReturn,
    /// Closes all descriptors that it did not open.
    CloseDescriptors,
    /// Moves its process to the group of another process, then sleeps.
    LeaveGroup,
    /// Starts a program in a session of its own, by a parent that ends at once; writes its ID to this file, then sleeps.
    Detach(PathBuf),
    /// Does the same, then returns 1.
    DetachAndReturn(PathBuf),
    /// Writes to stderr without end.
    Flood,
    /// Panics while it holds a lock, if `true`; else takes the lock and returns 1.
    Lock(bool),
    /// Works in a folder that it removes. Fails unless it begins in this folder.
    ChangeFolder(PathBuf),
    /// Keeps so many MiB, and returns the ID of its process.
    Leak(usize),
    /// Returns the ID of its process.
    Pid,
    /// Returns the soft limit of open files.
    OpenFiles,
    /// Panics with a payload that panics when it is dropped.
    PanicTwice,
    /// Leaves a thread that aborts the process after so many milliseconds, and returns 1.
    AbortLater(u64),
    /// Starts its own program, and returns its exit code; fails unless its stderr contains this text.
    StartItself(String),
    /// Leaves so many orphans, which end after half a second, and returns 1.
    Orphans(u32),
    /// Returns the number of children of this process, of its keeper and of the worker that have ended and are not reaped.
    Zombies,
    /// Creates this file, and returns 1.
    Create(PathBuf),
}
