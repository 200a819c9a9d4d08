//! Settings of a worker in `[package.metadata.cloudknot]`. This module does not depend on how they are applied.
//!
//! ```toml
//! [package.metadata.cloudknot]
//! target-cpu = "x86-64-v3"   # rustc's -C target-cpu; "native" is refused
//! opt-level = "z"            # 0 to 3, "s", "z"; default 3
//! lto = false                # true (default), false, "thin", "off"
//! codegen-units = 16         # default 1
//! overflow-checks = true     # default false
//! allocator = "mimalloc"     # or "system"; see below
//! ca-bundle = ["lab.pem"]     # certificate authorities that the worker trusts besides the public ones
//! base-image = "debian:12"   # what the worker stands on; it is then linked dynamically. Or:
//! dockerfile = "Dockerfile"  # the same, built first
//! ```
//! Paths are relative to the package's folder. Other keys of the table are settings of the Knot: see `settings/knot.rs`.
//!
//! If `allocator` is missing, it is mimalloc if the worker is built for musl and a C compiler for musl is available (musl's own
//! allocator is slow with threads), otherwise the system's. A program with its own `#[global_allocator]` sets "system".
//!
//! The profile can also be written as `[profile.cloudknot]` in the workspace's `Cargo.toml`, with every key that cargo
//! supports. `[package.metadata.cloudknot]` takes precedence over it.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::{CompileError, CompileErrorKind};
use crate::settings::knot::KnotSettings;

/// Settings in `[package.metadata.cloudknot]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Settings of the Knot, as opposed to the worker.
    #[serde(skip)]
    pub knot: KnotSettings,
    /// Minimum CPU that the worker needs.
    pub target_cpu: Option<String>,
    /// The profile's `opt-level`.
    pub opt_level: Option<OptLevel>,
    /// The profile's `lto`.
    pub lto: Option<Lto>,
    /// The profile's `codegen-units`.
    pub codegen_units: Option<u32>,
    /// The profile's `overflow-checks`.
    pub overflow_checks: Option<bool>,
    /// Memory allocator of the worker.
    pub allocator: Option<Allocator>,
    /// PEM files of certificate authorities that the worker trusts besides the public ones.
    #[serde(default)]
    pub ca_bundle: Vec<PathBuf>,
    /// Base image of the worker, for native libraries.
    pub base_image: Option<String>,
    /// Dockerfile of the worker's base image.
    pub dockerfile: Option<PathBuf>,
}

/// Keys of the table that are settings of the worker.
const OF_THE_WORKER: [&str; 9] = [
    "target-cpu",
    "opt-level",
    "lto",
    "codegen-units",
    "overflow-checks",
    "allocator",
    "ca-bundle",
    "base-image",
    "dockerfile",
];

/// Optimization level: a number or a letter, as in a profile.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "`opt-level` must be 0, 1, 2, 3, \"s\" or \"z\"")]
pub enum OptLevel {
    /// Optimization for speed, 0 to 3.
    Speed(u8),
    /// Optimization for size.
    Size(SizeLevel),
}

/// Levels of optimization for size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SizeLevel {
    /// Level `s`: small.
    S,
    /// Level `z`: smallest.
    Z,
}

/// Link-time optimization: a switch or a word, as in a profile.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "`lto` must be true, false, \"thin\", \"fat\" or \"off\"")]
pub enum Lto {
    /// `true` is "fat"; `false` optimizes within each crate.
    Switch(bool),
    /// Kind of link-time optimization, by its name.
    Word(LtoWord),
}

/// Kinds of link-time optimization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LtoWord {
    /// Optimizes all crates at once.
    Fat,
    /// Optimizes across crates by their summaries.
    Thin,
    /// No link-time optimization.
    Off,
}

/// Memory allocator of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Allocator {
    /// mimalloc; requires a C compiler for the worker's platform.
    Mimalloc,
    /// Allocator of the C library, or the program's own `#[global_allocator]`.
    System,
}

impl Settings {
    /// Reads the table of a package with this name and manifest.
    pub(super) fn read(table: &Value, package: &str, manifest: &Path) -> Result<Self, CompileError> {
        let refused = |hint: &str| {
            CompileError::new(
                CompileErrorKind::Settings,
                format!("cannot read [package.metadata.cloudknot] of `{package}`"),
            )
            .with_hint(format!("{hint}, in `{}`", manifest.display()))
        };
        let Some(table) = table.as_object() else { return Err(refused("it must be a table")) };
        // Two types deserialize the table, so that each can reject unknown keys.
        let (own, knot): (Map<_, _>, Map<_, _>) =
            table.clone().into_iter().partition(|(key, _)| OF_THE_WORKER.contains(&key.as_str()));
        let mut settings =
            Self::deserialize(Value::from(own)).map_err(|cause| refused("correct it").with_source(cause))?;
        // The error of `KnotSettings` lists its own keys, so the hint adds only the worker's.
        let others = OF_THE_WORKER.map(|key| format!("`{key}`")).join(", ");
        settings.knot = KnotSettings::deserialize(Value::from(knot))
            .map_err(|cause| refused(&format!("correct it (there are {others} as well)")).with_source(cause))?;
        let folder = manifest.parent().unwrap_or(Path::new(""));
        for path in settings.ca_bundle.iter_mut().chain(&mut settings.dockerfile) {
            *path = folder.join(&path);
        }
        if settings.base_image.is_some() && settings.dockerfile.is_some() {
            return Err(refused("name `base-image` or `dockerfile`, not both"));
        }
        if let Some(OptLevel::Speed(4..)) = settings.opt_level {
            return Err(refused("`opt-level` must be 0, 1, 2, 3, \"s\" or \"z\""));
        }
        if settings.codegen_units == Some(0) {
            return Err(refused("`codegen-units` must be at least 1"));
        }
        if settings.target_cpu.as_deref() == Some("native") {
            return Err(refused(
                "the worker runs on other machines than this one, so name a CPU that they have, such as \"x86-64-v3\"",
            ));
        }
        Ok(settings)
    }

    /// Returns whether the worker has a base image, which provides the libraries that it needs.
    pub(super) fn has_base(&self) -> bool {
        self.base_image.is_some() || self.dockerfile.is_some()
    }

    /// Returns the profile's settings as cargo's keys and TOML values.
    pub(super) fn profile(&self) -> Vec<(&'static str, String)> {
        let opt_level = self.opt_level.as_ref().map(|level| match level {
            OptLevel::Speed(level) => level.to_string(),
            OptLevel::Size(SizeLevel::S) => "\"s\"".into(),
            OptLevel::Size(SizeLevel::Z) => "\"z\"".into(),
        });
        let lto = self.lto.as_ref().map(|lto| match lto {
            Lto::Switch(on) => on.to_string(),
            Lto::Word(LtoWord::Fat) => "\"fat\"".into(),
            Lto::Word(LtoWord::Thin) => "\"thin\"".into(),
            Lto::Word(LtoWord::Off) => "\"off\"".into(),
        });
        let codegen_units = self.codegen_units.map(|units| units.to_string());
        let overflow_checks = self.overflow_checks.map(|on| on.to_string());
        [("opt-level", opt_level), ("lto", lto), ("codegen-units", codegen_units), ("overflow-checks", overflow_checks)]
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect()
    }
}
