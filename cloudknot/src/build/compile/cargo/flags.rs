//! rustc and cargo flags for a worker build: those of every worker, then the user's, and a profile that needs no
//! edit of the user's `Cargo.toml`.

use std::collections::BTreeSet;
use std::path::Path;

use cargo_config2::Flags;
use cargo_metadata::Metadata;

use super::toolchain::Toolchain;
use crate::build::compile::Profile;
use crate::build::compile::error::{CompileError, CompileErrorKind};
use crate::build::compile::settings::{Allocator, Settings};

impl Profile {
    /// Returns the cargo options that define the profile. `manifest` is that of the workspace.
    pub(super) fn options(&self, settings: &Settings, manifest: &toml::Table, metadata: &Metadata) -> Vec<String> {
        let name = self.name();
        let defaults: &[(&str, &str)] = match self {
            Self::Deploy => &[
                ("inherits", "\"release\""),
                ("opt-level", "3"),
                ("lto", "\"fat\""),
                ("codegen-units", "1"),
                ("strip", "\"symbols\""),
                ("panic", "\"unwind\""),
            ],
            Self::Fast => &[
                ("inherits", "\"release\""),
                ("lto", "\"off\""),
                ("codegen-units", "16"),
                ("incremental", "true"),
                ("strip", "\"symbols\""),
                ("panic", "\"unwind\""),
            ],
            Self::Named(_) => &[],
        };
        let user_profile = manifest.get("profile").and_then(|profiles| profiles.get(name)?.as_table());
        let set_by_user = |key: &str| user_profile.is_some_and(|profile| profile.contains_key(key));
        let mut keys: Vec<(String, String)> = defaults
            .iter()
            .filter(|(key, _)| !set_by_user(key))
            .map(|(key, value)| ((*key).to_string(), (*value).to_string()))
            .collect();
        if *self == Self::Deploy {
            let packages = user_profile.and_then(|profile| profile.get("package")?.as_table());
            let names: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
            let aws_sdk = names.into_iter().filter(|name| is_aws_sdk(name));
            let aws_sdk = aws_sdk.filter(|name| packages.is_none_or(|packages| !packages.contains_key(*name)));
            keys.extend(aws_sdk.map(|name| (format!("package.{name}.opt-level"), "\"z\"".to_string())));
            // If a key is given twice, the last value counts.
            keys.extend(settings.compile.profile().into_iter().map(|(key, value)| (key.to_string(), value)));
        }
        let config =
            keys.into_iter().flat_map(|(key, value)| ["--config".into(), format!("profile.{name}.{key}={value}")]);
        ["--profile".into(), name.to_string()].into_iter().chain(config).collect()
    }
}

/// Returns whether this package is a part of the AWS SDK. The SDK's hashing, TLS and compression are third-party crates, which
/// stay optimized for speed.
fn is_aws_sdk(package: &str) -> bool {
    ["aws-config", "aws-credential-types", "aws-runtime", "aws-sigv4", "aws-types"].contains(&package)
        || ["aws-sdk-", "aws-smithy-"].iter().any(|start| package.starts_with(start))
}

/// Returns the user's flags for this target, from every source that cargo reads.
pub(super) fn user_flags(toolchain: &Toolchain, triple: &str) -> Result<Vec<String>, CompileError> {
    let flags = toolchain.config.rustflags(triple).map_err(|cause| {
        CompileError::new(CompileErrorKind::Toolchain, "cannot read the rustflags in cargo's configuration")
            .with_source(cause)
    })?;
    Ok(flags.map(|flags| flags.flags).unwrap_or_default())
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
    folders.extend(toolchain.cargo_home.clone().map(|folder| (folder, "/cargo".to_string())));
    // The last matching prefix counts, so the innermost folder comes last.
    folders.sort_by_key(|(folder, _)| folder.as_os_str().len());
    folders.iter().map(|(folder, name)| format!("--remap-path-prefix={}={name}", folder.display())).collect()
}

/// Encodes the flags for `CARGO_ENCODED_RUSTFLAGS`, which takes precedence over all configuration.
pub(super) fn encode(flags: impl IntoIterator<Item = String>) -> Result<String, CompileError> {
    let mut encoded = Flags::default();
    flags.into_iter().for_each(|flag| encoded.push(flag));
    encoded.encode().map_err(|cause| {
        CompileError::new(CompileErrorKind::Toolchain, "cannot pass the rustflags to cargo").with_source(cause)
    })
}

/// Returns whether the user's flags select the CPU of this machine.
pub(super) fn selects_native_cpu(flags: &[String]) -> bool {
    let joined = flags.join(" ");
    ["-Ctarget-cpu=native", "-C target-cpu=native"].iter().any(|native| joined.contains(native))
}
