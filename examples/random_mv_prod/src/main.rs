//! Multiplies random matrices by random vectors: one ordinary function, mapped over 20 standard deviations.

use rand_distr::{Distribution, Normal};
use rand_pcg::{Pcg64, rand_core::SeedableRng};

/// Number of rows and of columns of the matrix.
const SIZE: u16 = 1024;

/// Multiplies a random matrix by a random vector, both normal with mean 0 and standard deviation `b`.
#[cloudknot::remote(vcpus = 1, memory = "2 GiB", retries = 2, timeout = "15m")]
fn random_mv_prod(b: f64) -> Vec<f64> {
    let size = usize::from(SIZE);
    let normal = Normal::new(0.0, b).expect("a standard deviation is finite");
    // Seeded by the input alone, so that every execution of an item returns the same value.
    let mut rng = Pcg64::seed_from_u64(b.to_bits());
    let matrix: Vec<f64> = normal.sample_iter(&mut rng).take(size * size).collect();
    let vector: Vec<f64> = normal.sample_iter(&mut rng).take(size).collect();
    matrix.chunks_exact(size).map(|row| dot(row, &vector)).collect()
}

#[cloudknot::main]
async fn main() -> cloudknot::Result<()> {
    let deviations = linspace(0.1, 100.0, 20);
    let products = random_mv_prod.map(deviations.clone()).await?;

    println!("{:>8}  {:>12}  {:>12}", "b", "deviation", "expected");
    for (b, product) in deviations.iter().zip(&products) {
        println!("{b:>8.2}  {:>12.3}  {:>12.3}", deviation(product), expected_deviation(*b));
    }
    Ok(())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Returns `count` equally spaced numbers from `first` to `last`.
fn linspace(first: f64, last: f64, count: u32) -> Vec<f64> {
    let step = (last - first) / f64::from(count - 1);
    (0..count).map(|i| first + f64::from(i) * step).collect()
}

/// Returns the standard deviation of the elements of a product, whose mean is known to be 0.
fn deviation(product: &[f64]) -> f64 {
    (dot(product, product) / f64::from(SIZE)).sqrt()
}

/// Returns the theoretical deviation: each element is a sum of `SIZE` products of two independent normal variables.
fn expected_deviation(b: f64) -> f64 {
    b * b * f64::from(SIZE).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviation_matches_theory() {
        for b in [0.1, 1.0, 100.0] {
            let product = random_mv_prod(b);
            assert_eq!(product.len(), usize::from(SIZE));
            let ratio = deviation(&product) / expected_deviation(b);
            // The ratio itself has a standard deviation of 1/32 (half from the matrix, half from the vector).
            assert!((ratio - 1.0).abs() < 0.125, "b = {b}: {ratio}");
        }
    }

    #[test]
    fn value_depends_only_on_the_input() {
        assert_eq!(random_mv_prod(2.5), random_mv_prod(2.5));
        // If the seed did not depend on the input, the values would be equal after rescaling.
        assert!((random_mv_prod(1.0)[0] * 4.0 - random_mv_prod(2.0)[0]).abs() > 1e-6);
    }

    #[test]
    fn linspace_includes_both_ends() {
        assert_eq!(linspace(1.0, 2.0, 5), [1.0, 1.25, 1.5, 1.75, 2.0]);
    }
}
