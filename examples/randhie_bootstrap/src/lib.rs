//! Data, model and reference figures of the bootstrap. The program that resamples is in `main.rs`.

pub mod data;
pub mod poisson;
pub mod reference;
