//! Settings as the user gives them, and their limits. Makes no requests.

#[cfg(feature = "deploy")]
pub(crate) mod account;
#[cfg(all(feature = "deploy", not(cloudknot_worker)))]
pub mod config;
#[cfg(feature = "deploy")]
pub(crate) mod knot;
#[cfg(feature = "deploy")]
pub(crate) mod login;
#[cfg(all(feature = "aws", not(cloudknot_worker)))]
#[cfg_attr(not(feature = "deploy"), allow(dead_code, reason = "a deploy has more names than a run"))]
pub(crate) mod names;
#[cfg(feature = "deploy")]
pub(crate) mod pars;
#[cfg(not(cloudknot_worker))]
#[cfg_attr(not(feature = "aws"), allow(dead_code, reason = "only that there is a note is of interest"))]
pub(crate) mod sizes;
