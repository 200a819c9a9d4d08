//! Data: 20,190 person-years of the RAND Health Insurance Experiment, compiled into the program so that workers have them
//! too. See DATA.md for their source. Independent of the model.

use std::sync::LazyLock;

use nalgebra::SVector;

/// Number of coefficients of the model: nine variables and a constant.
pub const COEFFICIENTS: usize = 10;
/// Names of the coefficients, in the order of [`PersonYear::x`].
pub const NAMES: [&str; COEFFICIENTS] =
    ["lncoins", "idp", "lpi", "fmde", "physlm", "disea", "hlthg", "hlthf", "hlthp", "const"];

/// One person in one year.
pub struct PersonYear {
    /// Number of the person, counted from 1 without gaps.
    pub person: u16,
    /// Number of visits to a doctor.
    pub visits: f64,
    /// The nine variables, and 1 for the constant.
    pub x: SVector<f64, COEFFICIENTS>,
}

/// All rows in the order of persons, parsed once per process.
pub static ROWS: LazyLock<Vec<PersonYear>> = LazyLock::new(|| parse(include_str!("../data/randhie.csv")));

/// Returns the number of persons.
pub fn persons() -> u16 {
    ROWS.last().map_or(0, |row| row.person)
}

fn parse(csv: &str) -> Vec<PersonYear> {
    csv.lines().skip(1).map(|line| parse_row(line).expect("data/randhie.csv is well-formed")).collect()
}

fn parse_row(line: &str) -> Option<PersonYear> {
    let (person, numbers) = line.split_once(',')?;
    let mut numbers = numbers.split(',').map_while(|number| number.parse().ok());
    let visits = numbers.next()?;
    let mut x = SVector::<f64, COEFFICIENTS>::repeat(1.0);
    for variable in x.iter_mut().take(COEFFICIENTS - 1) {
        *variable = numbers.next()?;
    }
    Some(PersonYear { person: person.parse().ok()?, visits, x })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rows_are_parsed() {
        assert_eq!(ROWS.len(), 20_190);
        assert_eq!(persons(), 5_912);
        assert!(ROWS.windows(2).all(|two| matches!(two[1].person - two[0].person, 0 | 1)));
    }

    #[test]
    fn first_row_is_parsed() {
        let first = &ROWS[0];
        assert_eq!((first.person, first.visits), (1, 0.0));
        assert_eq!(first.x.as_slice(), [4.61512, 1.0, 6.907_755, 0.0, 0.0, 13.73189, 1.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn incomplete_row_is_rejected() {
        assert!(parse_row("1,0,4.6,1").is_none());
        assert!(parse_row("1,0,4.6,1,6.9,0,zero,13.7,1,0,0").is_none());
    }
}
