//! Knot and Pars as CloudFormation stacks: deploy, change, delete, and inspect them.

#[cfg(not(cloudknot_worker))]
mod costs;
#[cfg(not(cloudknot_worker))]
pub mod doctor;
pub(crate) mod knot;
#[cfg(not(cloudknot_worker))]
mod noted;
pub(crate) mod pars;
pub(crate) mod plan;
#[cfg(not(cloudknot_worker))]
pub mod policy;
#[cfg(not(cloudknot_worker))]
pub mod prune;
#[cfg(not(cloudknot_worker))]
mod template;
