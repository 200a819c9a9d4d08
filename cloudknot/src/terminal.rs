//! The terminal's hook.
pub(crate) fn install() {}
