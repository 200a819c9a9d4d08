//! Settings as the user gives them, and their limits. Makes no requests.

pub(crate) mod account;
#[cfg(feature = "deploy")]
pub mod config;
pub(crate) mod knot;
pub(crate) mod login;
#[cfg(all(feature = "aws", not(cloudknot_worker)))]
pub(crate) mod names;
pub(crate) mod pars;
pub(crate) mod partition;
pub(crate) mod sizes;
