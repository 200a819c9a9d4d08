//! The machine that a supervisor runs on, as each part states it.

use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use tokio::task::JoinHandle;

use crate::measurements::Machine;
use crate::process;
use crate::{contract, engine};

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

/// Description of a machine that a request may complete while the first items run.
pub struct Description {
    complete: OnceLock<Machine>,
    known: Machine,
    request: Mutex<Option<JoinHandle<Machine>>>,
}

impl Description {
    /// Begins to complete a description by a request to this machine, if there is something to ask. The request has a short timeout.
    pub fn begin(known: Machine) -> Self {
        let request = Mutex::new(completed(known.clone()));
        Self { complete: OnceLock::new(), known, request }
    }

    /// Returns the description. The first outcome of a worker may wait for the request, which began before the first item.
    pub(crate) fn get(&self) -> &Machine {
        self.complete.get_or_init(|| {
            let request = self.request.lock().unwrap_or_else(PoisonError::into_inner).take();
            let completed = request.and_then(|request| engine::block_on(request).ok());
            completed.unwrap_or_else(|| self.known.clone())
        })
    }
}

impl From<Machine> for Description {
    fn from(machine: Machine) -> Self {
        Self { complete: OnceLock::new(), known: machine, request: Mutex::new(None) }
    }
}

impl fmt::Debug for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Description").field(self.complete.get().unwrap_or(&self.known)).finish()
    }
}

#[cfg(feature = "s3")]
fn completed(known: Machine) -> Option<JoinHandle<Machine>> {
    use crate::ecs;
    let address = std::env::var(ecs::ENV_ADDRESS).ok().filter(|address| !address.is_empty())?;
    Some(engine::spawn(ecs::complete(known, address)))
}

/// Returns `None`: a worker without the S3 store never runs on AWS.
#[cfg(not(feature = "s3"))]
#[allow(clippy::needless_pass_by_value, reason = "with the feature, the request takes the description")]
fn completed(_: Machine) -> Option<JoinHandle<Machine>> {
    None
}
