//! Builds a program: from its source to a worker, to an image, and into a registry or a Docker engine.

#[cfg(not(cloudknot_worker))]
pub mod compile;
#[cfg(all(feature = "docker", not(cloudknot_worker)))]
pub mod docker;
pub(crate) mod docker_image;
#[cfg(not(cloudknot_worker))]
mod elf;
#[cfg(not(cloudknot_worker))]
pub mod image;
#[cfg(not(cloudknot_worker))]
mod keep;
#[cfg(not(cloudknot_worker))]
pub(crate) mod pipeline;
#[cfg(not(cloudknot_worker))]
pub mod registry;
