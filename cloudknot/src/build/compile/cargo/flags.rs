//! rustc and cargo flags for a worker build: those of every worker, then the user's, and a profile that needs no
//! edit of the user's `Cargo.toml`.

use std::collections::BTreeSet;
use std::path::Path;

use cargo_metadata::Metadata;

use super::toolchain::Toolchain;
use crate::build::compile::Profile;
use crate::build::compile::error::{CompileError, CompileErrorKind};
use crate::build::compile::settings::{Allocator, Settings};

impl Profile {
    /// Returns the cargo options that define the profile. `manifest` is that of the workspace.
    ///
    /// The defaults are a profile of their own, from which the named one inherits. What the user's manifest or configuration
    /// sets in the named one takes precedence, in the way that cargo merges profiles. Only `inherits` has to be in the manifest,
    /// to be passed on to the defaults.
    pub(super) fn options(&self, settings: &Settings, manifest: &toml::Table, metadata: &Metadata) -> Vec<String> {
        let name = self.name();
        let mut keys: Vec<(String, String)> = Vec::new();
        if let Some(defaults) = self.defaults() {
            let inherits = manifest.get("profile").and_then(|profiles| profiles.get(name)?.get("inherits")?.as_str());
            let base = format!("{name}-defaults");
            keys.push((format!("{base}.inherits"), format!("\"{}\"", inherits.unwrap_or("release"))));
            keys.extend(defaults.iter().map(|(key, value)| (format!("{base}.{key}"), (*value).to_string())));
            if *self == Self::Deploy {
                let names: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
                let aws_sdk = names.into_iter().filter(|name| is_aws_sdk(name));
                keys.extend(aws_sdk.map(|name| (format!("{base}.package.{name}.opt-level"), "\"z\"".to_string())));
            }
            keys.push((format!("{name}.inherits"), format!("\"{base}\"")));
        }
        if *self == Self::Deploy {
            keys.extend(settings.compile.profile().into_iter().map(|(key, value)| (format!("{name}.{key}"), value)));
        }
        let config = keys.into_iter().flat_map(|(key, value)| ["--config".into(), format!("profile.{key}={value}")]);
        ["--profile".into(), name.to_string()].into_iter().chain(config).collect()
    }

    /// Returns the profile's keys unless the user sets them; `None` for a profile of the user.
    fn defaults(&self) -> Option<&'static [(&'static str, &'static str)]> {
        match self {
            Self::Deploy => Some(&[
                ("opt-level", "3"),
                ("lto", "\"fat\""),
                ("codegen-units", "1"),
                ("strip", "\"symbols\""),
                ("panic", "\"unwind\""),
            ]),
            Self::Fast => Some(&[
                ("lto", "\"off\""),
                ("codegen-units", "16"),
                ("incremental", "true"),
                ("strip", "\"symbols\""),
                ("panic", "\"unwind\""),
            ]),
            Self::Named(_) => None,
        }
    }
}

/// Returns whether this package is a part of the AWS SDK. The SDK's hashing, TLS and compression are third-party crates, which
/// stay optimized for speed.
fn is_aws_sdk(package: &str) -> bool {
    ["aws-config", "aws-credential-types", "aws-runtime", "aws-sigv4", "aws-types"].contains(&package)
        || ["aws-sdk-", "aws-smithy-"].iter().any(|start| package.starts_with(start))
}

/// Returns the flags of every worker build: static, unless the base image has a C library.
pub(super) fn worker_flags(dynamic: bool) -> Vec<String> {
    let linking = if dynamic { "-Ctarget-feature=-crt-static" } else { "-Ctarget-feature=+crt-static" };
    ["--cfg", "cloudknot_worker", linking].map(ToString::to_string).to_vec()
}

pub(super) fn settings_flags(settings: &Settings, allocator: Allocator) -> Vec<String> {
    let mut flags = Vec::new();
    if let Some(cpu) = &settings.compile.target_cpu {
        flags.push(format!("-Ctarget-cpu={cpu}"));
    }
    if allocator == Allocator::Mimalloc {
        flags.extend(["--cfg".into(), "cloudknot_allocator=\"mimalloc\"".into()]);
    }
    flags
}

/// Returns the flags that remove the names of this machine's folders from the worker, so that two checkouts give the same
/// bytes.
pub(super) fn remap(toolchain: &Toolchain, metadata: &Metadata, target_folder: &Path) -> Vec<String> {
    let commit = toolchain.commit.as_deref().unwrap_or("unknown");
    let mut folders = vec![
        (metadata.workspace_root.clone().into_std_path_buf(), "/workspace".to_string()),
        (target_folder.to_path_buf(), "/target".into()),
        (toolchain.sysroot.clone(), "/rust".into()),
        // If the sources of the standard library are installed, rustc uses their path in place of `/rustc/<commit>`.
        (toolchain.sysroot.join("lib/rustlib/src/rust"), format!("/rustc/{commit}")),
    ];
    let packages = super::packages_in_folders(metadata);
    let packages = packages.map(|package| (super::folder_of(package), format!("/packages/{}", package.name)));
    folders.extend(packages.filter(|(folder, _)| !folder.starts_with(&metadata.workspace_root)));
    folders.extend(toolchain.cargo.home().map(|folder| (folder, "/cargo".to_string())));
    // The last matching prefix counts, so the innermost folder comes last.
    folders.sort_by_key(|(folder, _)| folder.as_os_str().len());
    folders.iter().map(|(folder, name)| format!("--remap-path-prefix={}={name}", folder.display())).collect()
}

/// Returns the encoded flags that decide which packages a worker has: those of every worker, and these of the user.
pub(super) fn resolution_flags(dynamic: bool, user: Vec<String>) -> Result<String, CompileError> {
    encode(worker_flags(dynamic).into_iter().chain(user))
}

/// Encodes the flags for `CARGO_ENCODED_RUSTFLAGS`, which takes precedence over all configuration.
pub(super) fn encode(flags: impl IntoIterator<Item = String>) -> Result<String, CompileError> {
    let flags: Vec<String> = flags.into_iter().collect();
    match flags.iter().find(|flag| flag.contains('\x1f')) {
        Some(flag) => {
            let message = format!("cannot pass the rustflag {flag:?} to cargo: it contains the separator of flags");
            Err(CompileError::new(CompileErrorKind::Toolchain, message))
        }
        None => Ok(flags.join("\x1f")),
    }
}

/// Returns whether the user's flags select the CPU of this machine.
pub(super) fn selects_native_cpu(flags: &[String]) -> bool {
    let joined = flags.join(" ");
    ["-Ctarget-cpu=native", "-C target-cpu=native"].iter().any(|native| joined.contains(native))
}
