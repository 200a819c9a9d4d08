//! Builds a program: from its source to a worker, to an image, and into a registry or a Docker engine.

pub mod compile;
pub mod docker;
pub(crate) mod docker_image;
#[cfg(not(cloudknot_worker))]
mod elf;
pub mod image;
mod keep;
pub(crate) mod pipeline;
#[cfg(not(cloudknot_worker))]
mod programs;
pub mod registry;
