//! Computes how the energies of an oscillator rise as a quartic term stiffens it, with the system's LAPACK and one item
//! per strength. Compares the energies with those of another method, and exits with 1 if they differ.

use std::process::ExitCode;

/// Number of wave functions of the harmonic oscillator in the basis that describes the anharmonic one.
const BASIS: u16 = 128;

/// Strengths of the quartic term, with the energies that `reference.py` finds by another method, to nine decimals.
const REFERENCE: [(f64, [f64; 4]); 8] = [
    (0.1, [0.559_146_327, 1.769_502_644, 3.138_624_308, 4.628_882_809]),
    (0.5, [0.696_175_821, 2.324_406_352, 4.327_524_979, 6.578_401_949]),
    (1.0, [0.803_770_651, 2.737_892_268, 5.179_291_688, 7.942_403_984]),
    (2.0, [0.951_568_473, 3.292_867_821, 6.303_880_567, 9.727_323_173]),
    (10.0, [1.504_972_408, 5.321_608_256, 10.347_055_592, 16.090_146_871]),
    (50.0, [2.499_708_773, 8.915_096_358, 17.436_992_131, 27.192_645_786]),
    (200.0, [3.930_931_339, 14.059_226_772, 27.551_434_667, 43.005_270_804]),
    (1000.0, [6.694_220_850, 23.972_206_056, 47.017_338_732, 73.419_113_845]),
];
const TOLERANCE: f64 = 1e-8;

/// Returns the four lowest energies of a particle in the potential x²/2 + λx⁴, with ħ = m = 1.
#[cloudknot::remote(vcpus = 1, memory = "512 MiB", timeout = "5m")]
fn levels(lambda: f64) -> Result<[f64; 4], String> {
    let energies = eigenvalues(hamiltonian(lambda))?;
    energies.first_chunk().copied().ok_or_else(|| format!("expected at least 4 energies, found {}", energies.len()))
}

#[cloudknot::main]
async fn main() -> cloudknot::Result<ExitCode> {
    let all = levels.map(REFERENCE.map(|(lambda, _)| lambda)).await?;

    println!("{:>6}  {:>13}  {:>13}  {:>13}  {:>13}", "λ", "E0", "E1", "E2", "E3");
    let mut agree = true;
    for ((lambda, reference), found) in REFERENCE.iter().zip(&all) {
        let [e0, e1, e2, e3] = found;
        println!("{lambda:>6}  {e0:>13.9}  {e1:>13.9}  {e2:>13.9}  {e3:>13.9}");
        agree &= found.iter().zip(reference).all(|(found, reference)| (found - reference).abs() < TOLERANCE);
    }
    println!("{}", if agree { "All agree with the reference." } else { "Some differ from the reference." });
    Ok(if agree { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the upper triangle of the Hamiltonian, column by column, in a basis of wave functions of a harmonic oscillator.
fn hamiltonian(lambda: f64) -> Vec<f64> {
    // Any frequency gives the right result. Near this one the fewest wave functions suffice.
    let omega = (1.0 + 6.0 * lambda).cbrt();
    let size = usize::from(BASIS);
    let mut matrix = vec![0.0; size * size];
    for n in 0..BASIS {
        let (row, n) = (usize::from(n), f64::from(n));
        let kinetic = omega / 4.0;
        let (square, fourth) = (1.0 / (4.0 * omega), lambda / (4.0 * omega * omega));
        let two_up = ((n + 1.0) * (n + 2.0)).sqrt();
        let four_up = two_up * ((n + 3.0) * (n + 4.0)).sqrt();
        let couplings = [
            (row, (kinetic + square) * (2.0 * n + 1.0) + fourth * (6.0 * n * n + 6.0 * n + 3.0)),
            (row + 2, (square - kinetic + fourth * (4.0 * n + 6.0)) * two_up),
            (row + 4, fourth * four_up),
        ];
        for (column, coupling) in couplings.into_iter().filter(|(column, _)| *column < size) {
            matrix[column * size + row] = coupling;
        }
    }
    matrix
}

/// Returns the eigenvalues of a symmetric matrix in ascending order, computed by LAPACK's `dsyev`.
fn eigenvalues(mut matrix: Vec<f64>) -> Result<Vec<f64>, String> {
    let size = i32::from(BASIS);
    let mut values = vec![0.0; usize::from(BASIS)];
    let mut work = vec![0.0; 34 * usize::from(BASIS)];
    let work_size = 34 * size;
    let mut info = 0;
    // SAFETY: the matrix has `size` columns of `size` numbers, and `values` and `work` have the lengths that `dsyev` requires.
    #[expect(unsafe_code, reason = "calls a function of LAPACK")]
    unsafe {
        lapack::dsyev(b'N', b'U', size, &mut matrix, size, &mut values, &mut work, work_size, &mut info);
    }
    if info == 0 { Ok(values) } else { Err(format!("cannot compute the eigenvalues: dsyev returned info = {info}")) }
}
