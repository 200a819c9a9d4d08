//! Knot and Pars as CloudFormation stacks: deploy, change, delete, and inspect them.

mod costs;
pub mod doctor;
pub(crate) mod knot;
#[cfg(not(cloudknot_worker))]
mod noted;
pub(crate) mod pars;
pub(crate) mod plan;
pub mod policy;
pub mod prune;
mod template;
