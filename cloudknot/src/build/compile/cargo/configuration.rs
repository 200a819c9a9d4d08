//! Cargo's configuration for one target, as cargo itself resolves it from its files, what these include, and the environment.
//!
//! The build script of a generated package stores the variables that cargo sets for build scripts
//! (<https://doc.rust-lang.org/cargo/reference/environment-variables.html>), so nothing here depends on the format of the
//! files. Flags cannot be added with `--config` instead: cargo drops `build.rustflags` if a target has flags, and does not
//! append to flags that are written as one string.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::command::{self, Cargo};
use crate::build::compile::error::{CompileError, CompileErrorKind, io};

/// Resolved configuration for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configuration {
    /// rustflags of the user, from the one source that cargo uses.
    pub(super) rustflags: Vec<String>,
    /// Linker that the configuration selects, if it does.
    pub(super) linker: Option<PathBuf>,
    pub(super) rustc: PathBuf,
}

const PACKAGE: &str =
    "[package]\nname = \"cloudknot-configuration\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n[workspace]\n";
/// Lock file of the package, for a build with `--locked`.
const LOCK: &str = "version = 3\n\n[[package]]\nname = \"cloudknot-configuration\"\nversion = \"0.0.0\"\n";
/// Ends with an error on purpose: cargo then compiles nothing for the target, whose standard library may not be installed, and
/// runs the script each time.
const BUILD_SCRIPT: &str = r#"use std::io::Write;
use std::os::unix::ffi::OsStrExt;

fn main() {
    let path = std::env::var_os("CLOUDKNOT_CONFIGURATION").expect("the caller sets the path");
    let mut file = std::fs::File::create(path).expect("the file can be created");
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_LINKER", "RUSTC"] {
        let value = std::env::var_os(name).unwrap_or_default();
        file.write_all(value.as_bytes()).and_then(|()| file.write_all(b"\0")).expect("the file can be written");
    }
    std::process::exit(1);
}
"#;

const LINKER_HINT: &str =
    "install a C compiler, which Rust links with: `sudo apt-get install gcc libc6-dev`, or `xcode-select --install`";

impl Configuration {
    /// Asks cargo for the configuration for this target. The package of the build script is stored in `folder`.
    pub(super) fn of(cargo: &Cargo, folder: &Path, triple: &str) -> Result<Self, CompileError> {
        let manifest = folder.join("Cargo.toml");
        for (path, content) in
            [("Cargo.toml", PACKAGE), ("Cargo.lock", LOCK), ("build.rs", BUILD_SCRIPT), ("src/lib.rs", "")]
        {
            command::write(&folder.join(path), content)?;
        }
        let answer = tempfile::NamedTempFile::new_in(folder).map_err(io("create a file in", folder))?;
        let mut build = cargo.query("build");
        build.args(["--quiet", "--target", triple]).arg("--manifest-path").arg(&manifest);
        build.arg("--target-dir").arg(folder.join("target")).env("CLOUDKNOT_CONFIGURATION", answer.path());
        let failed = || CompileError::new(CompileErrorKind::Toolchain, "cannot read cargo's configuration");
        let output = build.output().map_err(|cause| failed().with_source(cause))?;
        let values = fs::read(answer.path()).map_err(io("read", answer.path()))?;
        Self::parse(&values).ok_or_else(|| {
            let message = command::message_in(&output.stderr);
            // Whatever else is configured, build scripts have to be linked.
            let has_no_linker = message.contains("linker `") && message.contains("not found");
            let error = failed().with_source(message);
            if has_no_linker { error.with_hint(LINKER_HINT) } else { error }
        })
    }

    /// Parses what the build script has written. Returns `None` if it has not run.
    fn parse(values: &[u8]) -> Option<Self> {
        let mut values = values.split(|byte| *byte == 0);
        let mut next = || values.next().map(OsStr::from_bytes);
        let (flags, linker, rustc) = (next()?.to_str()?, next()?, next()?);
        let path = |value: &OsStr| (!value.is_empty()).then(|| PathBuf::from(value));
        Some(Self {
            rustflags: flags.split('\x1f').filter(|flag| !flag.is_empty()).map(str::to_owned).collect(),
            linker: path(linker),
            rustc: path(rustc)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_cargo_are_parsed() {
        let check = |text: &str, expected: Option<(&[&str], Option<&str>)>| {
            let expected = expected.map(|(flags, linker)| Configuration {
                rustflags: flags.iter().map(ToString::to_string).collect(),
                linker: linker.map(PathBuf::from),
                rustc: "/bin/rustc".into(),
            });
            assert_eq!(Configuration::parse(text.as_bytes()), expected, "{text:?}");
        };
        check("\0\0/bin/rustc\0", Some((&[], None)));
        check("--cfg\x1flab\0some-gcc\0/bin/rustc\0", Some((&["--cfg", "lab"], Some("some-gcc"))));
        check("-Clink-arg=-Wl,a b\0\0/bin/rustc\0", Some((&["-Clink-arg=-Wl,a b"], None)));
        check("", None);
        check("--cfg\0", None);
    }
}
