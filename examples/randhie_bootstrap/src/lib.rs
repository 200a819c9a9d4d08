//! The data, the model, and the figures to compare with. The program that resamples is in `main.rs`.

pub mod data;
pub mod poisson;
pub mod reference;
