//! The memory allocator of a worker. A program can have only one, so its own is found in its sources before anything is
//! compiled.

use cargo_metadata::Package;

use super::BuildContext;
use super::selection::SelectedTarget;
use super::sources::{self, OwnAllocator};
use crate::build::compile::error::{CompileError, CompileErrorKind};
use crate::build::compile::settings::Allocator;

/// Returns the allocator of the worker, and a warning if it may not be the one that the user expects.
pub(super) fn choose(
    configured: Option<Allocator>,
    context: &BuildContext,
    selected: &SelectedTarget<'_>,
) -> Result<(Allocator, Option<String>), CompileError> {
    let platform = &context.platform;
    let is_musl = platform.triple.ends_with("-musl");
    let automatic = if is_musl && platform.compiles_c { Allocator::Mimalloc } else { Allocator::System };
    if configured.unwrap_or(automatic) == Allocator::System {
        return Ok((Allocator::System, None));
    }
    match (sources::search(context, selected).allocator(), configured) {
        (None, _) => Ok((Allocator::Mimalloc, None)),
        (Some(own), None) => Ok((Allocator::System, own.is_conditional.then(|| warning(&own)))),
        // Whether the condition applies, only the compiler knows.
        (Some(own), Some(_)) if own.is_conditional => Ok((Allocator::Mimalloc, None)),
        (Some(own), Some(_)) => Err(refused(&own, selected.package)),
    }
}

fn warning(own: &OwnAllocator) -> String {
    format!(
        "warning: `{}` has a #[global_allocator] under a condition, so the worker is built without mimalloc; musl's own allocator is \
         slow with threads. Set `allocator` in [package.metadata.cloudknot]",
        own.file.display()
    )
}

fn refused(own: &OwnAllocator, package: &Package) -> CompileError {
    let message = format!(
        "cannot build the worker of `{}` with mimalloc: it has an allocator of its own, #[global_allocator] in `{}`",
        package.name,
        own.file.display()
    );
    CompileError::new(CompileErrorKind::Settings, message).with_hint(HINT)
}

/// Hint for a worker with two allocators.
pub(super) const HINT: &str =
    "set `allocator = \"system\"` in [package.metadata.cloudknot]; the worker then uses its own";
