//! The functions that prepare a process for its items: those with `#[cloudknot::init]`.

use std::sync::OnceLock;

use super::catch;
use crate::failure::{Failure, ItemErrorKind};

/// Function that runs once in each process that runs items, before the first one. The macro submits it to the registry.
#[derive(Debug)]
pub struct Init {
    /// Path of the module, with the crate name first.
    pub module: &'static str,
    /// Name of the function.
    pub name: &'static str,
    /// Runs the function.
    pub run: fn() -> Result<(), Failure>,
}

inventory::collect!(Init);

/// Runs the functions of this program in the order of their paths, unless this process has run them. Returns the failure of the
/// first one that fails; those after it do not run.
pub(super) fn initialize() -> Result<(), Failure> {
    static INITIALIZED: OnceLock<Result<(), Failure>> = OnceLock::new();
    INITIALIZED.get_or_init(run_all).clone()
}

fn run_all() -> Result<(), Failure> {
    let mut all: Vec<&Init> = inventory::iter::<Init>().collect();
    all.sort_by_key(|init| (init.module, init.name));
    all.into_iter().try_for_each(Init::run)
}

impl Init {
    // Appears in backtraces, which end at it.
    fn call(&self) -> Result<(), Failure> {
        (self.run)()
    }

    fn run(&self) -> Result<(), Failure> {
        catch(|| self.call()).map_err(|mut failure| {
            let verb = if failure.kind == ItemErrorKind::Panicked { "panicked" } else { "failed" };
            let Self { module, name, .. } = self;
            failure.message = format!("{}: `{module}::{name}` {verb}: {}", Failure::INITIALIZATION, failure.message);
            failure
        })
    }
}
