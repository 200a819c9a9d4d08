//! The folder `.cloudknot/` of a program: its runs, and the notes that a build and a deploy write to it.

use std::path::PathBuf;
use std::sync::OnceLock;

use cloudknot_runtime::contract;

pub mod built;
pub(crate) mod knot_note;

/// Folder of the program's crate, as set by the generated main; `None` in a worker. Unset if no generated main has run.
static CRATE_FOLDER: OnceLock<Option<&'static str>> = OnceLock::new();

/// Records that the generated main has run, and the folder of the program's crate when it was compiled.
pub(crate) fn set_crate_folder(folder: Option<&'static str>) {
    CRATE_FOLDER.get_or_init(|| folder);
}

/// Returns whether the generated main has run. Only then can this program be started again as an item process.
pub(crate) fn main_has_run() -> bool {
    CRATE_FOLDER.get().is_some()
}

/// Returns the folder of this program: `CLOUDKNOT_HOME`, else `.cloudknot/` beside its crate, else in the current folder.
pub(crate) fn of_this_program() -> PathBuf {
    from_environment().unwrap_or_else(|| {
        let compiled_in = CRATE_FOLDER.get().copied().flatten().map(PathBuf::from);
        // A test harness has no generated main, but cargo provides the folder of its crate.
        let from_cargo = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let crate_folder = compiled_in.or(from_cargo).filter(|folder| folder.is_dir());
        crate_folder.unwrap_or_default().join(contract::HOME)
    })
}

/// Returns the folder of the program of the package in this folder.
pub(crate) fn of_package(folder: &std::path::Path) -> PathBuf {
    from_environment().unwrap_or_else(|| folder.join(contract::HOME))
}

fn from_environment() -> Option<PathBuf> {
    std::env::var_os(contract::ENV_HOME).filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// Creates the folder, hidden from version control.
pub(crate) fn create(home: &std::path::Path) -> std::io::Result<()> {
    std::fs::create_dir_all(home)?;
    let ignore = home.join(".gitignore");
    if ignore.exists() { Ok(()) } else { std::fs::write(ignore, "*\n") }
}
