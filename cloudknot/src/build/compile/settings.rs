//! Settings of a worker in `[package.metadata.cloudknot]`. This module does not depend on how they are applied.
//!
//! The keys are the fields of [`CompileSettings`], [`ImageSettings`] and [`KnotSettings`], in kebab case. Paths are relative to
//! the package's folder.
//!
//! If `allocator` is missing, it is mimalloc if the worker is built for musl and a C compiler for musl is available (musl's own
//! allocator is slow with threads), otherwise the system's. A program with its own `#[global_allocator]` gets no other one, and
//! sets "system" if at all.
//!
//! The profile can also be written as `[profile.cloudknot]` in the workspace's `Cargo.toml` or in cargo's configuration, with
//! every key that cargo supports; `inherits` counts only in `Cargo.toml`. `[package.metadata.cloudknot]` takes precedence over it.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::{CompileError, CompileErrorKind};
use crate::error::{self, Error, ErrorKind};
use crate::settings::checks;
use crate::settings::declare::{Declared, Setting, Single, declare};
use crate::settings::image::ImageSettings;
use crate::settings::knot::KnotSettings;

/// Settings in `[package.metadata.cloudknot]`.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// Settings of the Knot.
    pub knot: KnotSettings,
    /// Settings of the image, with absolute paths.
    pub image: ImageSettings,
    /// Settings of the compilation.
    pub compile: CompileSettings,
}

declare! {
    /// Settings of the compilation of a worker. A setting that was not given is `None`.
    #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
    #[non_exhaustive]
    pub struct CompileSettings {
        /// Minimum CPU that the worker needs, as in rustc's `-C target-cpu`.
        #[check(check_target_cpu)]
        pub target_cpu: Option<String>,
        /// The profile's `opt-level`; 3 if not given.
        #[check(check_opt_level)]
        pub opt_level: Option<OptLevel>,
        /// The profile's `lto`; "fat" if not given.
        pub lto: Option<Lto>,
        /// The profile's `codegen-units`; 1 if not given.
        #[check(checks::range(1..=u32::MAX))]
        pub codegen_units: Option<u32>,
        /// The profile's `overflow-checks`; off if not given.
        pub overflow_checks: Option<bool>,
        /// Memory allocator of the worker.
        pub allocator: Option<Allocator>,
    }
}

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

/// Link-time optimization: a boolean or a string, as in a profile.
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

impl Single for OptLevel {}
impl Single for Lto {}
impl Single for Allocator {}

impl Settings {
    /// Reads the table of a package with this name and manifest.
    pub(super) fn read(table: &Value, package: &str, manifest: &Path) -> Result<Self, CompileError> {
        let refused = || {
            let message = format!("cannot read [package.metadata.cloudknot] of `{package}`");
            CompileError::new(CompileErrorKind::Settings, message)
                .with_hint(format!("correct it in `{}`", manifest.display()))
        };
        let Some(table) = table.as_object() else { return Err(refused().with_source("it must be a table")) };
        // Each type deserializes its own keys. Unknown keys are those of a Knot, whose error lists the known ones.
        let mut knot = table.clone();
        let compile = part(&mut knot, CompileSettings::ALL);
        let image = part(&mut knot, ImageSettings::ALL);
        let mut settings = Self {
            compile: CompileSettings::deserialize(compile).map_err(|cause| refused().with_source(cause))?,
            image: ImageSettings::deserialize(image).map_err(|cause| refused().with_source(cause))?,
            knot: KnotSettings::deserialize(Value::from(knot)).map_err(|cause| {
                let others = CompileSettings::ALL.iter().chain(ImageSettings::ALL);
                let others: Vec<_> = others.map(|setting| format!("`{}`", setting.key())).collect();
                let (others, file) = (others.join(", "), manifest.display());
                refused()
                    .with_source(cause)
                    .with_hint(format!("correct it in `{file}`; these keys are valid too: {others}"))
            })?,
        };
        let folder = manifest.parent().unwrap_or(Path::new(""));
        for path in settings.image.ca_bundle.iter_mut().chain(&mut settings.image.dockerfile) {
            *path = folder.join(&path);
        }
        let checked = settings.compile.check_each().and_then(|()| settings.image.check());
        checked.map_err(|cause| {
            let hint = cause.hint().map_or_else(String::new, |hint| format!("{hint}; "));
            refused().with_source(cause).with_hint(format!("{hint}correct it in `{}`", manifest.display()))
        })?;
        Ok(settings)
    }
}

/// Removes these settings from a table, and returns them.
fn part(table: &mut Map<String, Value>, settings: &[Setting]) -> Value {
    settings.iter().filter_map(|setting| table.remove_entry(&setting.key())).collect()
}

#[expect(clippy::ref_option, reason = "a check receives the value as it is declared")]
fn check_target_cpu(key: &str, cpu: &Option<String>) -> error::Result<()> {
    if cpu.as_deref() != Some("native") {
        return Ok(());
    }
    let message = format!("invalid `{key}`: the worker runs on other machines than this one");
    Err(Error::new(ErrorKind::Config, message).with_hint("name a CPU that they have, such as \"x86-64-v3\""))
}

#[expect(clippy::ref_option, reason = "a check receives the value as it is declared")]
fn check_opt_level(key: &str, level: &Option<OptLevel>) -> error::Result<()> {
    match level {
        Some(OptLevel::Speed(4..)) => {
            let message = format!("invalid `{key}`: must be 0, 1, 2, 3, \"s\" or \"z\"");
            Err(Error::new(ErrorKind::Config, message))
        }
        _ => Ok(()),
    }
}

impl CompileSettings {
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
