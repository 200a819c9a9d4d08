//! Compatibility of the installed `cargo knot` with the cloudknot that a program is linked with.

use cargo_metadata::semver::{Version, VersionReq};
use cargo_metadata::{Metadata, Package};

use super::origin::Origin;
use super::selection::cloudknot_of;
use crate::build::compile::error::{CompileError, CompileErrorKind};

/// Version of this crate, which is also that of `cargo knot`.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// Returns an error if the program's cloudknot may have a different contract with its host.
pub(crate) fn check(metadata: &Metadata, package: &Package) -> Result<(), CompileError> {
    let cloudknot = cloudknot_of(metadata, package);
    let Some(version) = cloudknot.map(|cloudknot| &cloudknot.version).filter(|version| !is_compatible(OWN, version))
    else {
        return Ok(());
    };
    let message =
        format!("cannot build `{}`: its cloudknot {version} is incompatible with cargo-knot {OWN}", package.name);
    Err(refused(message, metadata, package))
}

/// Returns the error for a program whose cloudknot does not fit; the hint installs the command that belongs to it.
pub(super) fn refused(message: String, metadata: &Metadata, package: &Package) -> CompileError {
    let error = CompileError::new(CompileErrorKind::Version, message);
    match cloudknot_of(metadata, package) {
        Some(cloudknot) => error.with_hint(format!("run `{}`, then try again", install(cloudknot))),
        None => error,
    }
}

/// Returns the command that installs `cargo knot` from where this cloudknot comes from. `--force` replaces a command of the
/// same version.
fn install(cloudknot: &Package) -> String {
    let version = &cloudknot.version;
    match Origin::of(cloudknot) {
        // Both are folders of one clone.
        Origin::Folder(folder) => format!("cargo install --force --path {}", folder.with_file_name("cargo-knot")),
        Origin::Git { url, revision, .. } => format!("cargo install --force --git {url} --rev {revision} cargo-knot"),
        Origin::Registry(index) => format!("cargo install --force cargo-knot --version {version} --index {index}"),
        Origin::CratesIo | Origin::Other(_) => format!("cargo install --force cargo-knot --version {version}"),
    }
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
