//! Stubs for workers, where a Pars cannot be created or found.

use crate::deploy::pars::{Pars, ParsBuilder, ParsClobber};
use crate::deploy::plan::Plan;
use crate::error::{Error, ErrorKind, Result};
use crate::settings::account::Account;

#[expect(clippy::unused_async, reason = "on a host it has to wait")]
pub(super) async fn create(_: &ParsBuilder) -> Result<Pars> {
    Err(absent())
}

#[expect(clippy::unused_async, reason = "on a host it has to wait")]
pub(super) async fn plan(_: &ParsBuilder) -> Result<Plan> {
    Err(absent())
}

#[expect(clippy::unused_async, reason = "on a host it has to wait")]
pub(super) async fn template(_: &ParsBuilder) -> Result<String> {
    Err(absent())
}

#[expect(clippy::unused_async, reason = "on a host it has to wait")]
pub(super) async fn get(_: &ParsBuilder) -> Result<Pars> {
    Err(absent())
}

#[expect(clippy::unused_async, reason = "on a host it has to wait")]
pub(super) async fn list(_: &Account) -> Result<Vec<Pars>> {
    Err(absent())
}

#[expect(clippy::unused_async, reason = "on a host it has to wait")]
pub(super) async fn clobber(_: &ParsClobber) -> Result<()> {
    Err(absent())
}

fn absent() -> Error {
    Error::new(ErrorKind::Config, "cannot reach a Pars: workers do not support this")
        .with_hint("create and clobber it in the program that runs on your machine")
}
