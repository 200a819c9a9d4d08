//! What every verb takes that asks AWS, and how its answers are shown.

use std::io::{Write, stdout};
use std::time::SystemTime;

use clap::Args;
use cloudknot::{KnotBuilder, ParsBuilder};
use serde_json::Value;

use crate::failure::Failure;

/// Who asks AWS, and where.
#[derive(Args, Clone, Default)]
pub(crate) struct AwsArgs {
    /// The profile of AWS, in place of `AWS_PROFILE` and `cargo knot configure`
    #[arg(long, value_name = "NAME", help_heading = "AWS")]
    aws_profile: Option<String>,
    /// The region, in place of `AWS_REGION`, `cargo knot configure` and the profile's
    #[arg(long, value_name = "NAME", help_heading = "AWS")]
    region: Option<String>,
}

impl AwsArgs {
    pub(crate) fn profile(&self) -> Option<&str> {
        self.aws_profile.as_deref()
    }

    pub(crate) fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    pub(crate) fn pars(&self, mut builder: ParsBuilder) -> ParsBuilder {
        if let Some(profile) = &self.aws_profile {
            builder = builder.profile(profile);
        }
        match &self.region {
            Some(region) => builder.region(region),
            None => builder,
        }
    }

    pub(crate) fn knot(&self, mut builder: KnotBuilder) -> KnotBuilder {
        if let Some(profile) = &self.aws_profile {
            builder = builder.profile(profile);
        }
        match &self.region {
            Some(region) => builder.region(region),
            None => builder,
        }
    }
}

/// One JSON value, or lines of a name and a value.
pub(crate) fn print(json: Option<&Value>, lines: &[(&str, String)]) -> Result<(), Failure> {
    let mut out = stdout().lock();
    if let Some(json) = json {
        writeln!(out, "{json}")?;
        return Ok(());
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "{name:<width$}  {value}")?;
    }
    Ok(())
}

/// A table with a heading; an empty one is no lines at all.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    let mut out = stdout().lock();
    let width = |column: usize| {
        rows.iter().map(|row| row[column].len()).chain([heading[column].len()]).max().unwrap_or_default()
    };
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().enumerate().map(|(column, cell)| format!("{cell:<width$}", width = width(column)));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    if !rows.is_empty() {
        writeln!(out, "{}", line(heading.to_vec()))?;
    }
    for row in rows {
        writeln!(out, "{}", line(row.iter().map(String::as_str).collect()))?;
    }
    Ok(())
}

/// How long ago something was: in the largest unit that there is one of.
pub(crate) fn age(since: SystemTime) -> String {
    let seconds = since.elapsed().map(|elapsed| elapsed.as_secs()).unwrap_or_default();
    let in_units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let fits = in_units.into_iter().find(|(unit, _)| seconds >= *unit);
    fits.map_or_else(|| "0s".to_owned(), |(unit, name)| format!("{}{name}", seconds / unit))
}
