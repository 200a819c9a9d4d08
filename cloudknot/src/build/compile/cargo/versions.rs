//! Compatibility of the installed `cargo knot` with the cloudknot that a program is linked with.

use cargo_metadata::semver::{Version, VersionReq};
use cargo_metadata::{Metadata, Package};

use super::origin::Origin;
use super::selection::cloudknot_of;
use crate::build::compile::error::{CompileError, CompileErrorKind};

/// Version of this crate, which is also that of `cargo knot`.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Returns an error if the program's cloudknot may have a different contract with its host.
pub(crate) fn check(metadata: &Metadata, package: &Package) -> Result<(), CompileError> {
    let cloudknot = cloudknot_of(metadata, package);
    let Some(version) =
        cloudknot.map(|cloudknot| &cloudknot.version).filter(|version| !is_compatible(VERSION, version))
    else {
        return Ok(());
    };
    let message =
        format!("cannot build `{}`: its cloudknot {version} is incompatible with cargo-knot {VERSION}", package.name);
    Err(refused(message, metadata, package))
}

/// Returns the error for a program whose cloudknot is incompatible; the hint installs the matching command.
pub(super) fn refused(message: String, metadata: &Metadata, package: &Package) -> CompileError {
    let error = CompileError::new(CompileErrorKind::Version, message);
    match cloudknot_of(metadata, package) {
        Some(cloudknot) => error.with_hint(format!("run `{}`, then try again", install(cloudknot))),
        None => error,
    }
}

/// Returns the command that installs `cargo knot` from the source of this cloudknot. `--force` replaces a command of
/// the same version.
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

/// Returns whether two versions are compatible, as in Cargo.toml: below 1 within a minor version, otherwise within a
/// major version.
fn is_compatible(command_version: &str, program_version: &Version) -> bool {
    let command_version = Version::parse(command_version).expect("the version of this crate is valid");
    let requirement = if command_version.major == 0 {
        format!("0.{}", command_version.minor)
    } else {
        command_version.major.to_string()
    };
    let requirement = VersionReq::parse(&requirement).expect("one or two numbers are a valid requirement");
    // A requirement never matches a pre-release of another version.
    requirement.matches(&Version { pre: cargo_metadata::semver::Prerelease::EMPTY, ..program_version.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compatible_as_in_cargo_toml() {
        let check = |command_version: &str, other: &str, expected: bool| {
            assert_eq!(
                is_compatible(command_version, &Version::parse(other).unwrap()),
                expected,
                "{command_version} and {other}"
            );
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
