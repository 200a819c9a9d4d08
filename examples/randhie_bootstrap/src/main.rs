//! Estimates the uncertainty of a regression. Fits a model of doctor visits to 400 resamples of the RAND Health Insurance
//! Experiment, one item each, and compares the results with figures that others computed. Exits with 1 if they differ.

use std::process::ExitCode;

use rand::RngExt;
use rand_pcg::{Pcg64, rand_core::SeedableRng};
use randhie_bootstrap::data::{self, COEFFICIENTS, NAMES, ROWS};
use randhie_bootstrap::poisson::{self, FitError};
use randhie_bootstrap::reference::{CLUSTERED_ERRORS, COEFFICIENTS_BY_STATA};

const RESAMPLES: u32 = 400;
/// Both programs find the maximum of the same function, to the tolerances of their methods.
const COEFFICIENT_TOLERANCE: f64 = 1e-6;
/// A standard error from 400 resamples has itself a standard error of 1 / √800 = 3.5 %. This is four of them.
const ERROR_TOLERANCE: f64 = 0.14;

/// Returns the coefficients of the model in one resample: as many persons as there are, drawn with replacement.
/// The years of a person are not independent of each other, so they are drawn together.
#[cloudknot::remote(vcpus = 1, memory = "512 MiB", timeout = "5m")]
fn resample(seed: u64) -> Result<[f64; COEFFICIENTS], FitError> {
    let mut rng = Pcg64::seed_from_u64(seed);
    let persons = data::persons();
    let mut times_drawn = vec![0.0; usize::from(persons) + 1];
    for _ in 0..persons {
        times_drawn[usize::from(rng.random_range(1..=persons))] += 1.0;
    }
    let coefficients = poisson::fit(&ROWS, |row| times_drawn[usize::from(row.person)])?;
    Ok(coefficients.into())
}

#[cloudknot::main]
async fn main() -> cloudknot::Result<ExitCode> {
    let resamples = resample.map(0..u64::from(RESAMPLES)).await?;
    let fitted = poisson::fit(&ROWS, |_| 1.0).expect("the model fits the complete data");

    println!("{:8}  {:>11}  {:>11}  {:>9}  {:>9}", "", "coefficient", "Stata", "bootstrap", "clustered");
    let mut agree = true;
    for (i, name) in NAMES.iter().enumerate() {
        let error = deviation(&resamples, i);
        println!(
            "{name:8}  {:>11.6}  {:>11.6}  {error:>9.6}  {:>9.6}",
            fitted[i], COEFFICIENTS_BY_STATA[i], CLUSTERED_ERRORS[i]
        );
        agree &= (fitted[i] - COEFFICIENTS_BY_STATA[i]).abs() < COEFFICIENT_TOLERANCE;
        agree &= (error / CLUSTERED_ERRORS[i] - 1.0).abs() < ERROR_TOLERANCE;
    }
    println!(
        "{}",
        if agree { "All agree within their tolerances." } else { "Some figures differ by more than their tolerances." }
    );
    Ok(if agree { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the standard deviation of one coefficient over the resamples: its bootstrap standard error.
fn deviation(resamples: &[[f64; COEFFICIENTS]], coefficient: usize) -> f64 {
    let mean = resamples.iter().map(|r| r[coefficient]).sum::<f64>() / f64::from(RESAMPLES);
    let squares: f64 = resamples.iter().map(|r| (r[coefficient] - mean).powi(2)).sum();
    (squares / f64::from(RESAMPLES - 1)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_determines_the_resample() {
        assert_eq!(resample(1), resample(1));
        assert_ne!(resample(1), resample(2));
    }

    #[test]
    fn resample_is_near_the_full_fit() {
        let resampled = resample(7).expect("a fit");
        for i in 0..COEFFICIENTS {
            let distance = (resampled[i] - COEFFICIENTS_BY_STATA[i]).abs();
            assert!(distance < 5.0 * CLUSTERED_ERRORS[i], "{}: {distance}", NAMES[i]);
        }
    }
}
