//! `cargo knot results`: the outcomes of a run's items, in several forms.

mod csv;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cargo_knot::exit;
use clap::Args;
use cloudknot::look::{EncodedValue, Look, RawForm};
use cloudknot::{ErrorKind, ItemError};
use serde_json::json;

use crate::failure::Failure;
use crate::items::ItemsArgs;
use crate::output;
use crate::program::{CargoArgs, Decoder};
use crate::scope::ScopeArgs;
use crate::shown::{counted, error_json, number};
use csv::Table;

/// Options of `cargo knot results`.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each bool is a command-line flag")]
pub(crate) struct Results {
    #[command(flatten)]
    of: ItemsArgs,
    /// Print one JSON object with all results
    #[arg(long, group = "form")]
    json: bool,
    /// Print a JSON object on a line for each item
    #[arg(long, group = "form")]
    jsonl: bool,
    /// Print a table as CSV: a column for each field of the values, and one for errors
    #[arg(long, group = "form")]
    csv: bool,
    /// Write strings and bytes as they are, without JSON
    #[arg(long, group = "form")]
    raw: bool,
    /// Write a file for each item into this new or empty folder: `17.json`; with --raw `17`
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["json", "jsonl", "csv"])]
    out: Option<PathBuf>,
    #[command(flatten)]
    cargo: CargoArgs,
    #[command(flatten)]
    scope: ScopeArgs,
}

impl Results {
    pub(crate) async fn run(self) -> Result<u8, Failure> {
        let look = self.of.find(&self.scope).await?;
        let mut results = look.results(&self.of.items())?;
        let mut sink = self.sink(&look)?;
        let (mut values, mut failed, mut decoder) = (0_u64, 0_u64, None);
        sink.begin(&look)?;
        while let Some((item, outcome)) = results.next().await {
            match outcome {
                Ok(value) => {
                    sink.value(item, &self.to_json(&look, item, &value, &mut decoder).await?)?;
                    values += 1;
                }
                Err(error) => {
                    sink.error(item, &error)?;
                    failed += 1;
                }
            }
        }
        sink.end()?;
        Ok(self.conclude(&look, values, failed))
    }

    /// Converts a value to JSON: by the types in the record or, if one of them is opaque, by the program of the run. The program is
    /// built and started for the first such value.
    async fn to_json(
        &self,
        look: &Look,
        item: u64,
        value: &EncodedValue,
        decoder: &mut Option<Decoder>,
    ) -> Result<String, Failure> {
        let error = match value.to_json() {
            Err(error) if error.kind() == ErrorKind::Types => error,
            converted => return Ok(converted?),
        };
        if decoder.is_none() {
            output::remark(&error.to_string(), self.json);
            *decoder = Some(Decoder::of_run(look, self.cargo, self.json).await?);
        }
        let decoder = decoder.as_mut().expect("it was just started");
        decoder.decode(item, value.frame()).await
    }

    fn sink(&self, look: &Look) -> Result<Sink, Failure> {
        let raw = if self.raw { Some(raw_form(look)?) } else { None };
        let out = output::stream();
        Ok(match (&self.out, raw) {
            (Some(folder), raw) => Sink::Folder(new_folder(folder)?, raw),
            (None, Some(form)) => Sink::Raw(out, form),
            _ if self.json => Sink::Json(out, false),
            _ if self.jsonl => Sink::JsonLines(out),
            _ if self.csv => Sink::Csv(out, Table::default()),
            _ => Sink::Text(out),
        })
    }

    /// Says what the output lacks, and what helps next. Returns the exit code.
    fn conclude(&self, look: &Look, values: u64, failed: u64) -> u8 {
        let (summary, word) = (look.summary(), &look.summary().word);
        if let Some(folder) = &self.out {
            output::note(&format!("{} written to `{}`", counted(values, "value was", "values were"), folder.display()));
        }
        let note = |note: &str| output::remark(note, self.json);
        let suggest = |verbs: [String; 2]| {
            if !self.json {
                self.scope.suggest(&verbs);
            }
        };
        if summary.state.is_some_and(|state| !state.is_end()) {
            note("the run has not ended: items without an outcome are left out");
            suggest([format!("wait {word}"), format!("status {word}")]);
            return exit::NOT_ENDED;
        }
        if failed > 0 {
            note(&format!("{} of {} items have no value", number(failed), number(values + failed)));
            suggest([format!("logs {word} --failed"), format!("retry {word}")]);
            return exit::ITEMS_FAILED;
        }
        if values == 0 {
            let why = if summary.items.items == 0 { "the run has no items" } else { "no such item has failed" };
            note(&format!("there are no results: {why}"));
        }
        exit::DONE
    }
}

fn raw_form(look: &Look) -> Result<RawForm, Failure> {
    look.raw_form().ok_or_else(|| {
        let message = "cannot write the values without JSON: they are neither strings nor bytes";
        Failure::new(exit::USAGE, message).with_hint("leave out `--raw`, or use `--jsonl`, or `--csv`")
    })
}

/// Creates a folder, which must not have files of another run.
fn new_folder(folder: &Path) -> Result<PathBuf, Failure> {
    let cannot = |why: &dyn std::fmt::Display| {
        Failure::new(exit::USAGE, format!("cannot write results to `{}`: {why}", folder.display()))
            .with_hint("name a new folder")
    };
    fs::create_dir_all(folder).map_err(|error| cannot(&error))?;
    match fs::read_dir(folder).map_err(|error| cannot(&error))?.next() {
        Some(_) => Err(cannot(&"the folder is not empty")),
        None => Ok(folder.to_owned()),
    }
}

/// Output of the results in one of the forms.
enum Sink {
    Text(output::Stream),
    /// `true` after the first result.
    Json(output::Stream, bool),
    JsonLines(output::Stream),
    Csv(output::Stream, Table),
    Raw(output::Stream, RawForm),
    Folder(PathBuf, Option<RawForm>),
}

impl Sink {
    fn begin(&mut self, look: &Look) -> io::Result<()> {
        match self {
            Self::Json(out, _) => write!(out, "{{\"v\":1,\"run\":{},\"results\":[", json!(look.id())),
            _ => Ok(()),
        }
    }

    fn value(&mut self, item: u64, value: &str) -> Result<(), Failure> {
        match self {
            // JSON has no control characters.
            Self::Text(out) => writeln!(out, "{item}  {value}")?,
            Self::Json(..) | Self::JsonLines(_) => self.object(&format!("{{\"item\":{item},\"value\":{value}}}"))?,
            Self::Csv(_, table) => table.value(item, value),
            Self::Raw(out, form) => {
                out.write_all(&raw(value, *form))?;
                if *form == RawForm::Text {
                    writeln!(out)?;
                }
            }
            Self::Folder(folder, None) => write_file(&folder.join(format!("{item}.json")), value.as_bytes())?,
            Self::Folder(folder, Some(form)) => write_file(&folder.join(item.to_string()), &raw(value, *form))?,
        }
        Ok(())
    }

    fn error(&mut self, item: u64, error: &ItemError) -> Result<(), Failure> {
        let object = || json!({"item": item, "error": error_json(error)}).to_string();
        match self {
            Self::Text(out) => {
                let message = error.to_string();
                let first = message.lines().next().unwrap_or_default();
                writeln!(out, "{item}  error: {}", cloudknot::__private::printable(first))?;
            }
            Self::Json(..) | Self::JsonLines(_) => self.object(&object())?,
            Self::Csv(_, table) => table.error(item, error),
            Self::Raw(..) => {}
            Self::Folder(folder, _) => write_file(&folder.join(format!("{item}.error.json")), object().as_bytes())?,
        }
        Ok(())
    }

    fn object(&mut self, object: &str) -> io::Result<()> {
        match self {
            Self::Json(out, is_first) => {
                let comma = if std::mem::replace(is_first, true) { "," } else { "" };
                write!(out, "{comma}{object}")
            }
            Self::JsonLines(out) => writeln!(out, "{object}"),
            _ => unreachable!("only JSON has objects"),
        }
    }

    fn end(self) -> Result<(), Failure> {
        match self {
            Self::Json(mut out, _) => {
                writeln!(out, "]}}")?;
                out.flush()?;
            }
            Self::Csv(out, table) => table.write(out)?,
            Self::Text(mut out) | Self::JsonLines(mut out) | Self::Raw(mut out, _) => out.flush()?,
            Self::Folder(..) => {}
        }
        Ok(())
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes)
        .map_err(|error| Failure::new(exit::OTHER, format!("cannot write `{}`: {error}", path.display())))
}

/// Returns a value that has this form from its JSON.
fn raw(value: &str, form: RawForm) -> Vec<u8> {
    let read = match form {
        RawForm::Bytes => serde_json::from_str(value),
        _ => serde_json::from_str::<String>(value).map(String::into_bytes),
    };
    read.expect("the types of the run show the form of its values")
}
