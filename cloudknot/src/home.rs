//! The folder `.cloudknot/` of a program: its runs, and the notes that a build and a deploy write to it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use cloudknot_runtime::{contract, files};

pub mod built;
pub(crate) mod knot_note;

/// Maximum length of a note in bytes.
const MAX_NOTE_LEN: u64 = contract::MAX_RECORD_LEN;

/// Reason for the error of an installed program that needs a note.
#[allow(dead_code, reason = "some sets of features need no note")]
pub(crate) const NO_CRATE: &str = "the folder of its crate does not exist on this machine";
/// Hint of the same error.
#[allow(dead_code, reason = "some sets of features need no note")]
pub(crate) const NO_CRATE_HINT: &str =
    "set CLOUDKNOT_HOME to the folder `.cloudknot` that the deploy or the build has written to";

/// Folder of the program's crate, as set by the generated main; `None` in a worker. Unset if no generated main has run.
static CRATE_FOLDER: OnceLock<Option<&'static str>> = OnceLock::new();

/// The current folder of the program when it started, before it can have changed it; `None` if it had been removed. Without a
/// generated main, the current folder at the first use.
static START_FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();

/// `true` once the generated main runs as the program itself.
static MAIN_HAS_RUN: AtomicBool = AtomicBool::new(false);

/// Records the folder of the program's crate when it was compiled. An item process has it too, for the files of its function.
pub(crate) fn set_crate_folder(folder: Option<&'static str>) {
    CRATE_FOLDER.get_or_init(|| folder);
}

/// Records that the generated main has run.
pub(crate) fn set_main_has_run() {
    MAIN_HAS_RUN.store(true, Ordering::Relaxed);
    start_folder();
}

/// Returns whether the generated main has run. Only then can this program be started again as an item process.
pub(crate) fn main_has_run() -> bool {
    MAIN_HAS_RUN.load(Ordering::Relaxed)
}

/// Returns the folder of this program's runs: `CLOUDKNOT_HOME`, else `.cloudknot/` beside its crate, else in the folder in which
/// the program was started.
pub(crate) fn of_this_program() -> PathBuf {
    of_notes().unwrap_or_else(|| absolute(Path::new(contract::HOME)))
}

/// Returns the folder of this program's notes: `CLOUDKNOT_HOME`, else `.cloudknot/` beside its crate. Returns `None` for an
/// installed program, whose crate does not exist or is in cargo's cache: the folder in which it is started may be anyone's, and
/// must not decide where inputs are sent.
pub(crate) fn of_notes() -> Option<PathBuf> {
    from_environment().or_else(|| crate_folder().map(|folder| folder.join(contract::HOME)))
}

/// Returns the folder of this program's crate; `None` for an installed program, whose crate does not exist or is in cargo's cache.
pub(crate) fn crate_folder() -> Option<PathBuf> {
    let compiled_in = CRATE_FOLDER.get().copied().flatten().map(PathBuf::from);
    // A test harness has no generated main, but cargo provides the folder of its crate.
    let from_cargo = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    existing(compiled_in, from_cargo)
}

fn existing(compiled_in: Option<PathBuf>, from_cargo: Option<PathBuf>) -> Option<PathBuf> {
    compiled_in.or(from_cargo).filter(|folder| folder.is_dir() && !is_in_cargo_cache(folder))
}

/// Returns whether cargo has unpacked the crate into its cache, which it may clear: for `cargo install` from a registry or a
/// repository. cargo marks what it has unpacked completely with a file.
fn is_in_cargo_cache(crate_folder: &Path) -> bool {
    crate_folder.ancestors().any(|folder| folder.join(".cargo-ok").is_file())
}

/// Returns the folder of the program of the package in this folder.
pub(crate) fn of_package(folder: &Path) -> PathBuf {
    from_environment().unwrap_or_else(|| folder.join(contract::HOME))
}

fn from_environment() -> Option<PathBuf> {
    std::env::var_os(contract::ENV_HOME).filter(|home| !home.is_empty()).map(|home| absolute(Path::new(&home)))
}

/// Returns the path that a relative path had when the program started.
fn absolute(path: &Path) -> PathBuf {
    start_folder().map_or_else(|| path.to_owned(), |folder| folder.join(path))
}

fn start_folder() -> Option<&'static Path> {
    START_FOLDER.get_or_init(|| std::env::current_dir().ok()).as_deref()
}

/// Reads a note in this folder. Returns `None` if it does not exist.
fn read_note(home: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    match files::read(&home.join(name), MAX_NOTE_LEN) {
        Ok(bytes) => Ok(Some(bytes)),
        // A path that is not a folder is reported when a run is stored in it.
        Err(error) if files::is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a note to this folder. Creates the folder, hidden from version control.
fn write_note(home: &Path, name: &str, note: &[u8]) -> io::Result<()> {
    files::create_folders(home)?;
    let ignore = home.join(".gitignore");
    if !ignore.exists() {
        files::write(&ignore, b"*\n")?;
    }
    files::write(&home.join(name), note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(compiled_in: Option<&str>, from_cargo: Option<&str>, expected: Option<&str>) {
        let folder = existing(compiled_in.map(PathBuf::from), from_cargo.map(PathBuf::from));
        assert_eq!(folder.as_deref(), expected.map(Path::new));
    }

    /// L5: the folder in which an installed program is started does not decide where inputs are sent.
    #[test]
    fn l5_program_without_its_crate_heeds_no_note() {
        check(Some("/"), None, Some("/"));
        check(None, Some("/"), Some("/"));
        check(Some("/no/such/crate"), None, None);
        check(Some("/no/such/crate"), Some("/"), None);
        check(None, None, None);
    }

    #[test]
    fn program_installed_from_a_repository_heeds_no_note() {
        let cache = tempfile::tempdir().expect("a folder can be created");
        let crate_folder = cache.path().join("git/checkouts/lab-0a1b/2c3d/crates/fit");
        std::fs::create_dir_all(&crate_folder).expect("a folder can be created");
        let crate_folder = crate_folder.to_str().expect("the path is Unicode");
        check(Some(crate_folder), None, Some(crate_folder));
        std::fs::write(cache.path().join("git/checkouts/lab-0a1b/2c3d/.cargo-ok"), "").expect("a file can be written");
        check(Some(crate_folder), None, None);
    }

    #[test]
    fn relative_paths_are_those_of_the_start() {
        let start = std::env::current_dir().expect("the current folder exists");
        assert_eq!(absolute(Path::new("home")), start.join("home"));
        assert_eq!(absolute(Path::new("/home")), Path::new("/home"));
    }
}
