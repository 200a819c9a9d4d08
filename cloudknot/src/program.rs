//! The program that the user started: what its generated main told us, and where its folder is.

use std::path::PathBuf;
use std::sync::OnceLock;

use cloudknot_runtime::contract;

/// What only the program itself can say of itself.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Where its crate was when it was compiled; `None` in a worker, which is the same wherever it was compiled.
    pub crate_folder: Option<&'static str>,
}

static PROGRAM: OnceLock<Program> = OnceLock::new();

/// What the generated main does first. In a worker, and in an item process, it does not return.
pub fn start(program: Program) {
    if let Ok(order) = std::env::var(contract::ENV_ITEM_PROCESS) {
        // SAFETY: this is the first statement of `main`, so no other thread reads the environment meanwhile. The
        // marker has to go before user code runs: a program that the function starts is not an item process.
        #[allow(unsafe_code)]
        unsafe {
            std::env::remove_var(contract::ENV_ITEM_PROCESS);
        }
        run_items(&order);
    }
    if cfg!(cloudknot_worker) {
        cloudknot_runtime::worker::main();
    }
    PROGRAM.get_or_init(|| program);
    #[cfg(all(feature = "progress", not(cloudknot_worker)))]
    crate::terminal::install();
}

fn run_items(order: &str) -> ! {
    match serde_json::from_str(order) {
        Ok(order) => cloudknot_runtime::item::item_process(&order),
        Err(error) => {
            eprintln!("error: failed to read `{}`: {error}", contract::ENV_ITEM_PROCESS);
            eprintln!("  hint: cloudknot sets this variable itself; unset it");
            std::process::exit(2)
        }
    }
}

/// Whether the generated main has run. Only then can this program be started again as an item process.
pub(crate) fn has_started() -> bool {
    PROGRAM.get().is_some()
}

/// The folder of runs: `CLOUDKNOT_HOME`, else `.cloudknot/` beside the crate, else in the current folder.
pub(crate) fn home() -> PathBuf {
    if let Some(home) = std::env::var_os(contract::ENV_HOME).filter(|home| !home.is_empty()) {
        return PathBuf::from(home);
    }
    let compiled_in = PROGRAM.get().and_then(|program| program.crate_folder).map(PathBuf::from);
    // A test harness has no generated main, but cargo tells it where its crate is.
    let by_cargo = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let crate_folder = compiled_in.or(by_cargo).filter(|folder| folder.is_dir());
    crate_folder.unwrap_or_default().join(contract::HOME)
}
