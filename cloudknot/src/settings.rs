//! Settings as the user gives them, and their limits. Makes no requests.

pub(crate) mod account;
pub(crate) mod checks;
#[cfg(feature = "deploy")]
pub mod config;
pub(crate) mod declare;
pub(crate) mod image;
pub(crate) mod knot;
pub(crate) mod login;
pub(crate) mod names;
#[cfg(all(feature = "deploy", not(cloudknot_worker)))]
pub(crate) mod network;
pub(crate) mod pars;
pub(crate) mod partition;
pub(crate) mod sizes;
