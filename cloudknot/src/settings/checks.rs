//! Checks of settings that do not depend on other settings: each takes the key of the setting and its value. A setting
//! that was not given passes.

#![expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "a check takes the value as it is declared")]

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use cloudknot_quantity::memory_mib;
use cloudknot_runtime::contract;

use super::names::{self, Kind};
use crate::error::{Error, ErrorKind, Result};

pub(crate) fn range(range: RangeInclusive<u32>) -> impl Fn(&str, &Option<u32>) -> Result<()> {
    move |key, value| {
        let Some(value) = value.filter(|value| !range.contains(value)) else { return Ok(()) };
        let hint = match (range.start(), range.end()) {
            (min, &u32::MAX) => format!("must be at least {min}"),
            (min, max) => format!("must be from {min} to {max}"),
        };
        Err(Error::new(ErrorKind::Config, format!("invalid `{key}`: {value}")).with_hint(hint))
    }
}

/// Returns the error of a setting that does not fit another one.
pub(crate) fn refused(what: &str, why: &str) -> Error {
    Error::new(ErrorKind::Config, format!("invalid {what}: {why}")).with_hint("remove it, or change the other setting")
}

pub(super) fn above_zero(key: &str, value: &Option<f64>) -> Result<()> {
    if value.is_none_or(|value| value > 0.0) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, format!("invalid `{key}`: must be above zero")))
}

pub(super) fn amount(key: &str, text: &Option<String>) -> Result<()> {
    mib(key, text.as_deref()).map(drop)
}

/// Returns an amount of memory or disk in MiB.
pub(crate) fn mib(key: &str, text: Option<&str>) -> Result<Option<u64>> {
    let amount = text.map(memory_mib).transpose();
    amount.map_err(|error| Error::new(ErrorKind::Config, format!("invalid `{key}`")).with_source(error))
}

/// Returns a check that a time, such as `1h`, is in this range.
pub(super) fn time(range: RangeInclusive<Duration>) -> impl Fn(&str, &Option<String>) -> Result<()> {
    move |key, text| {
        let Some(text) = text else { return Ok(()) };
        if humantime::parse_duration(text).is_ok_and(|time| range.contains(&time)) {
            return Ok(());
        }
        let [min, max] = [range.start(), range.end()].map(|bound| humantime::format_duration(*bound));
        Err(Error::new(ErrorKind::Config, format!("invalid `{key}`: {text}"))
            .with_hint(format!("must be a time from \"{min}\" to \"{max}\", such as \"1h\"")))
    }
}

pub(super) fn name(kind: Kind) -> impl Fn(&str, &Option<String>) -> Result<()> {
    move |_, name| name.iter().try_for_each(|name| names::check_name(kind, name))
}

pub(super) fn names(kind: Kind) -> impl Fn(&str, &Vec<String>) -> Result<()> {
    move |_, all| all.iter().try_for_each(|name| names::check_name(kind, name))
}

pub(super) fn log_retention(_: &str, days: &Option<u32>) -> Result<()> {
    days.filter(|days| *days > 0).iter().try_for_each(|days| names::check_retention(*days))
}

pub(super) fn tags(_: &str, tags: &BTreeMap<String, String>) -> Result<()> {
    names::check_tags(&tags.clone().into_iter().collect::<Vec<_>>())
}

pub(super) fn knot_tags(_: &str, tags: &BTreeMap<String, String>) -> Result<()> {
    names::check_knot_tags(&tags.clone().into_iter().collect::<Vec<_>>())
}

pub(super) fn variables(_: &str, variables: &BTreeMap<String, String>) -> Result<()> {
    variables.keys().try_for_each(|name| names::check_name(Kind::Variable, name))
}

#[expect(clippy::ptr_arg, reason = "a check takes the value as it is declared")]
pub(super) fn included(key: &str, paths: &Vec<PathBuf>) -> Result<()> {
    let Some(path) = paths.iter().find(|path| !contract::is_included_path(path)) else { return Ok(()) };
    let message = format!("invalid `{key}`: `{}` must be a relative path without `..`", path.display());
    Err(Error::new(ErrorKind::Config, message)
        .with_hint("name files and folders of the package, relative to its folder"))
}

pub(super) fn secrets(key: &str, secrets: &BTreeMap<String, String>) -> Result<()> {
    variables(key, secrets)?;
    secrets.values().try_for_each(|arn| names::secret(arn).map(drop))
}
