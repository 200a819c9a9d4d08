//! The start of a program: as itself, as an item process or its keeper, as a process that traces types, as a worker, or to carry out
//! an order.

use cloudknot_runtime::contract;

use crate::provenance::{self, Target};
use crate::{home, orders};

/// Properties of the program that the generated main passes to the library. A worker passes none, because its bytes must not
/// depend on where and how it was compiled.
#[derive(Debug, Clone, Copy, Default)]
pub struct Program {
    /// Folder of the program's crate when it was compiled.
    pub crate_folder: Option<&'static str>,
    /// Cargo target of the program.
    pub target: Target,
}

/// A running program, held by its main until it returns or unwinds.
#[derive(Debug)]
#[must_use = "the program ends when this is dropped"]
pub struct RunningProgram {
    /// Prints what is reported but not printed yet, if there is a terminal's hook.
    flush: Option<fn()>,
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        if let Some(flush) = self.flush {
            flush();
        }
    }
}

/// Starts the program; the first statement of the generated main. Does not return unless the program was started as itself.
pub fn start(program: Program) -> RunningProgram {
    if std::env::var_os(contract::ENV_KEEPER).is_some() {
        cloudknot_runtime::process::keeper::main();
    }
    home::set_crate_folder(program.crate_folder);
    provenance::set_target(program.target);
    if let Some(order) = take_variable(contract::ENV_ITEM_PROCESS) {
        cloudknot_runtime::item::item_process(&order);
    }
    if take_variable(contract::ENV_TRACE).is_some() {
        cloudknot_runtime::trace_child::main();
    }
    let order = take_variable(contract::ENV_ORDER);
    cloudknot_runtime::trace_process::enable();
    if cfg!(cloudknot_worker) {
        cloudknot_runtime::worker::main();
    }
    home::set_main_has_run();
    let running = install_terminal();
    if let Some(order) = order {
        carry_out(&order, running);
    }
    running
}

/// Carries out an order, and ends the program.
fn carry_out(order: &str, running: RunningProgram) -> ! {
    let obeyed = orders::obey(order);
    drop(running);
    std::process::exit(if obeyed.is_ok() { 0 } else { 2 });
}

/// Removes a variable from the environment: a program that user code starts is not what this one is.
fn take_variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?;
    // SAFETY: `start` is the first statement of `main`, so no other thread reads the environment at the same time.
    #[allow(unsafe_code)]
    unsafe {
        std::env::remove_var(name);
    }
    Some(value)
}

/// Reports events on the terminal from now on, if cloudknot has the feature `progress`.
pub fn install_terminal() -> RunningProgram {
    #[allow(unused_mut, reason = "there may be no terminal")]
    let mut flush: Option<fn()> = None;
    #[cfg(all(feature = "progress", not(cloudknot_worker)))]
    flush.replace(crate::terminal::install());
    RunningProgram { flush }
}
