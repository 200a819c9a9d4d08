//! The start of a program: as itself, as an item process or its keeper, or as a worker.

use cloudknot_runtime::contract;

use crate::home;

/// Properties of the program that the generated main passes to the library.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Folder of the program's crate when it was compiled; `None` in a worker, whose bytes must not depend on the
    /// folder.
    pub crate_folder: Option<&'static str>,
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

/// Starts the program; the first statement of the generated main. Does not return in a worker or in an item process.
pub fn start(program: Program) -> RunningProgram {
    if std::env::var_os(contract::ENV_KEEPER).is_some() {
        cloudknot_runtime::process::keeper::main();
    }
    if let Ok(order) = std::env::var(contract::ENV_ITEM_PROCESS) {
        // SAFETY: this is the first statement of `main`, so no other thread reads the environment at the same time. The
        // variable has to be removed before user code runs: a program that the function starts is not an item process.
        #[allow(unsafe_code)]
        unsafe {
            std::env::remove_var(contract::ENV_ITEM_PROCESS);
        }
        cloudknot_runtime::item::item_process(&order);
    }
    if cfg!(cloudknot_worker) {
        cloudknot_runtime::worker::main();
    }
    home::set_crate_folder(program.crate_folder);
    install_terminal()
}

/// Reports events on the terminal from now on, if cloudknot has the feature `progress`.
pub fn install_terminal() -> RunningProgram {
    #[allow(unused_mut, reason = "there may be no terminal")]
    let mut flush: Option<fn()> = None;
    #[cfg(all(feature = "progress", not(cloudknot_worker)))]
    flush.replace(crate::terminal::install());
    RunningProgram { flush }
}
