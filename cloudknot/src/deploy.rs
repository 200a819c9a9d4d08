//! Knot and Pars as CloudFormation stacks: deploy, change, delete, and inspect them.

mod costs;
pub mod doctor;
pub(crate) mod knot;
pub(crate) mod pars;
pub(crate) mod plan;
pub mod policy;
pub mod prune;
pub mod rehearsal;
#[cfg(not(cloudknot_worker))]
mod stack_note;
mod template;
