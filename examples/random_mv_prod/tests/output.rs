//! Runs the program as a person would, and reads what it prints.

use std::process::Command;

#[test]
fn each_of_20_products_is_as_wide_as_theory_says() {
    let output = Command::new(env!("CARGO_BIN_EXE_random_mv_prod"))
        .env("CLOUDKNOT_HOME", env!("CARGO_TARGET_TMPDIR"))
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{output:?}");

    let stdout = String::from_utf8_lossy(&output.stdout);
    let rows: Vec<Vec<f64>> = stdout.lines().skip(1).map(numbers).collect();
    assert_eq!(rows.len(), 20, "{stdout}");
    for row in rows {
        let [b, deviation, expected] = row[..] else { panic!("three numbers a row: {stdout}") };
        assert!((expected - 32.0 * b * b).abs() <= 0.01 * expected, "{b} {expected}");
        assert!((deviation / expected - 1.0).abs() < 0.125, "{b}: {deviation} {expected}");
    }
}

fn numbers(line: &str) -> Vec<f64> {
    line.split_whitespace().map(|number| number.parse().expect("a number")).collect()
}
