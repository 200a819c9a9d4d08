//! Stubs for workers, where a Knot cannot be created or found.

use crate::backend::Backend;
use crate::deploy::knot::{Knot, KnotBuilder, KnotClobber};
use crate::deploy::plan::Plan;
use crate::error::{Error, ErrorKind, Result};
use crate::settings::account::Account;

#[expect(clippy::unused_async, reason = "on a host it has to wait")]
pub(super) async fn deploy(_: KnotBuilder) -> Result<Knot> {
    Err(absent())
}

#[expect(clippy::unused_async, reason = "on a host it has to wait")]
pub(super) async fn plan(_: KnotBuilder) -> Result<Plan> {
    Err(absent())
}

#[expect(clippy::unused_async, reason = "on a host it has to wait")]
pub(super) async fn template(_: KnotBuilder) -> Result<String> {
    Err(absent())
}

#[expect(clippy::unused_async, reason = "on a host it has to wait")]
pub(super) async fn get(_: &KnotBuilder) -> Result<Knot> {
    Err(absent())
}

#[expect(clippy::unused_async, reason = "on a host it has to wait")]
pub(super) async fn list(_: &Account) -> Result<Vec<Knot>> {
    Err(absent())
}

#[expect(clippy::unused_async, reason = "on a host it has to wait")]
pub(super) async fn clobber(_: &KnotClobber) -> Result<()> {
    Err(absent())
}

#[expect(clippy::unused_async, reason = "on a host it has to wait")]
pub(super) async fn backend(_: &Knot) -> Result<Backend> {
    Err(absent())
}

#[expect(clippy::unused_async, reason = "on a host it has to wait")]
pub(super) async fn use_beside(_: &Knot, _: &std::path::Path) -> Result<()> {
    Err(absent())
}

fn absent() -> Error {
    Error::new(ErrorKind::Config, "cannot reach a Knot: workers do not support this")
        .with_hint("create and clobber it in the program that runs on your machine")
}
