//! [`DockerImage`](super::DockerImage) in a worker build: none exists, and none can be created.

use std::path::Path;

use super::{DockerImageBuilder, absent};
use crate::error::Result;
use crate::settings::login::Login;

#[derive(Debug)]
pub(super) enum Inside {}

impl Inside {
    #[expect(clippy::unused_async, reason = "on the host it has to wait")]
    pub(super) async fn build(_: &DockerImageBuilder) -> Result<Self> {
        Err(absent())
    }

    pub(super) fn check_name(_: &str) -> Result<()> {
        Err(absent())
    }

    pub(super) fn digest(&self) -> &str {
        match *self {}
    }

    pub(super) fn compressed_bytes(&self) -> u64 {
        match *self {}
    }

    pub(super) fn worker_bytes(&self) -> u64 {
        match *self {}
    }

    pub(super) fn layers(&self) -> Vec<(String, u64)> {
        match *self {}
    }

    pub(super) fn save(&self, _: &Path, _: &[String]) -> Result<()> {
        match *self {}
    }

    pub(super) async fn push(&self, _: &str, _: &Login, _: &[String]) -> Result<String> {
        match *self {}
    }

    pub(super) async fn remove_pushed(&self, _: &str, _: &Login) -> Result<()> {
        match *self {}
    }

    #[cfg(feature = "docker")]
    pub(super) async fn load(&self, _: &[String]) -> Result<()> {
        match *self {}
    }

    pub(super) async fn remove_local(&self, _: &[String]) -> Result<()> {
        match *self {}
    }
}
