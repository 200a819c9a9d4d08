//! Poisson regression with a log link, by Newton's method (for this model the same as iteratively reweighted least
//! squares). Independent of cloudknot and of where its rows come from.

use std::error::Error;
use std::fmt;

use nalgebra::{SMatrix, SVector};

use crate::data::{COEFFICIENTS, PersonYear};

/// Coefficients of a fitted model.
pub type Coefficients = SVector<f64, COEFFICIENTS>;

/// Maximum number of Newton steps. From a start at the mean, this model converges after 6 or 7.
const MAX_STEPS: u32 = 50;
/// Upper limit on the change of any coefficient in the last step.
const TOLERANCE: f64 = 1e-10;

/// Returns the maximum-likelihood coefficients for the visits of `rows`, with each row counted `weight` times.
///
/// # Errors
/// Fails if the variables are collinear in the rows with a weight, or if the method does not converge.
pub fn fit(rows: &[PersonYear], weight: impl Fn(&PersonYear) -> f64) -> Result<Coefficients, FitError> {
    let mut coefficients = Coefficients::zeros();
    coefficients[COEFFICIENTS - 1] = mean_visits(rows, &weight).ln();
    for _ in 0..MAX_STEPS {
        let step = newton_step(rows, &weight, &coefficients)?;
        coefficients += step;
        if step.amax() < TOLERANCE {
            return Ok(coefficients);
        }
    }
    Err(FitError::NotConverged)
}

fn mean_visits(rows: &[PersonYear], weight: impl Fn(&PersonYear) -> f64) -> f64 {
    let (visits, count) = rows.iter().fold((0.0, 0.0), |(visits, count), row| {
        let weight = weight(row);
        (visits + weight * row.visits, count + weight)
    });
    visits / count
}

/// Returns the inverse of the information matrix times the score.
fn newton_step(
    rows: &[PersonYear],
    weight: impl Fn(&PersonYear) -> f64,
    coefficients: &Coefficients,
) -> Result<Coefficients, FitError> {
    let mut information = SMatrix::<f64, COEFFICIENTS, COEFFICIENTS>::zeros();
    let mut score = Coefficients::zeros();
    for row in rows {
        let weight = weight(row);
        if weight > 0.0 {
            let expected = row.x.dot(coefficients).exp();
            information.ger(weight * expected, &row.x, &row.x, 1.0);
            score.axpy(weight * (row.visits - expected), &row.x, 1.0);
        }
    }
    Ok(information.cholesky().ok_or(FitError::Collinear)?.solve(&score))
}

/// Reason why a model could not be fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FitError {
    /// One variable is a linear combination of others.
    Collinear,
    /// The method did not converge within the maximum number of steps.
    NotConverged,
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collinear => write!(f, "cannot fit the model: its variables are collinear"),
            Self::NotConverged => write!(f, "cannot fit the model: no convergence after {MAX_STEPS} steps"),
        }
    }
}

impl Error for FitError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::ROWS;
    use crate::reference::COEFFICIENTS_BY_STATA;

    #[test]
    fn fit_agrees_with_stata() {
        let fitted = fit(&ROWS, |_| 1.0).expect("the model fits the complete data");
        for (fitted, reference) in fitted.iter().zip(COEFFICIENTS_BY_STATA) {
            assert!((fitted - reference).abs() < 1e-7, "{fitted} {reference}");
        }
    }

    #[test]
    fn weight_of_two_counts_row_twice() {
        let rows = &ROWS[..4_000];
        let weighted = fit(rows, |row| if row.person <= 100 { 2.0 } else { 1.0 }).expect("a fit");
        let twice: Vec<_> = rows
            .iter()
            .chain(rows.iter().filter(|row| row.person <= 100))
            .map(|row| PersonYear { person: row.person, visits: row.visits, x: row.x })
            .collect();
        assert!((weighted - fit(&twice, |_| 1.0).expect("a fit")).amax() < 1e-9);
    }

    #[test]
    fn identical_rows_are_collinear() {
        assert_eq!(fit(&ROWS[..2], |_| 1.0), Err(FitError::Collinear));
    }
}
