//! The machine that a supervisor runs on, as each part states it.

use std::time::SystemTime;

use crate::contract;
use crate::measurements::Machine;
use crate::process;

/// Describes this machine, as far as it is known without a request. `vcpus` is the number of virtual CPUs that the items share, and
/// `started` the time at which the supervisor's program started.
pub fn describe(vcpus: f64, started: SystemTime) -> Machine {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Machine {
        host: Some(host()).filter(|host| !host.is_empty()),
        vcpus: Some(vcpus),
        memory: process::memory(),
        started_ms: contract::unix_ms(started),
        job: variable(contract::ENV_JOB),
        job_attempt: variable(contract::ENV_ATTEMPT).and_then(|attempt| attempt.parse().ok()),
        ..Machine::default()
    }
}

/// Returns the name of this host.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
