//! Compatibility of the installed `cargo knot` with the cloudknot that a program is linked with.

use cargo_metadata::semver::{Version, VersionReq};
use cargo_metadata::{Metadata, Package};

use super::error::{CompileError, CompileErrorKind};
use super::selection::cloudknot_of;

/// Version of this crate, which is also that of `cargo knot`.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// Returns the version of cloudknot in this program.
pub(super) fn of(metadata: &Metadata, package: &Package) -> Option<Version> {
    cloudknot_of(metadata, package).map(|cloudknot| cloudknot.version.clone())
}

/// Returns an error if the program's cloudknot may have a different contract with its host.
pub(super) fn check(metadata: &Metadata, package: &Package) -> Result<(), CompileError> {
    let Some(version) = of(metadata, package).filter(|version| !is_compatible(OWN, version)) else { return Ok(()) };
    let message = format!("cannot build `{}`: it has cloudknot {version}, and this is cargo-knot {OWN}", package.name);
    Err(refused(message, Some(version)))
}

/// Returns the error for a program with this version of cloudknot.
pub(super) fn refused(message: String, version: Option<Version>) -> CompileError {
    let version = version.map_or_else(|| OWN.to_owned(), |version| version.to_string());
    CompileError::new(CompileErrorKind::Version, message).with_hint(format!(
        "run `cargo install cargo-knot --version {version}`; in a clone of that version, `cargo install --path cargo-knot`"
    ))
}

/// Returns whether two versions are compatible, as in Cargo.toml: below 1 within a minor version, otherwise within a major
/// version.
fn is_compatible(own: &str, of_program: &Version) -> bool {
    let own = Version::parse(own).expect("cargo gives a version");
    let wanted = if own.major == 0 { format!("0.{}", own.minor) } else { own.major.to_string() };
    let wanted = VersionReq::parse(&wanted).expect("two numbers are a requirement");
    // A requirement never matches a pre-release of another version.
    wanted.matches(&Version { pre: cargo_metadata::semver::Prerelease::EMPTY, ..of_program.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compatible_as_in_cargo_toml() {
        let check = |own: &str, other: &str, expected: bool| {
            assert_eq!(is_compatible(own, &Version::parse(other).unwrap()), expected, "{own} and {other}");
        };
        check("0.1.0", "0.1.7", true);
        check("0.1.7", "0.1.0", true);
        check("0.1.0", "0.2.0", false);
        check("0.2.0", "0.1.9", false);
        check("1.2.0", "1.0.3", true);
        check("1.2.0", "2.0.0", false);
        check("0.1.0", "0.1.8-rc.1", true);
    }
}
