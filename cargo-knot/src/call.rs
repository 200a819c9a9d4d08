//! `cargo knot call` and `map`: remote functions from the shell.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use cargo_knot::exit;
use clap::Args;
use cloudknot::__private::{OrderEnd, OrderedInputs, OrderedMap, OrderedTask, Report, TableLine};
use same_file::Handle;

use crate::failure::Failure;
use crate::output;
use crate::program::{ProgramArgs, carry_out, item_error, quiet};
use crate::scope::ScopeArgs;
use crate::shown::{counted, error_json, word_of};

/// Options of `cargo knot call`.
#[derive(Args)]
pub(crate) struct Call {
    /// The function: its name, or the end of its path
    function: String,
    /// The arguments as JSON, in their order
    #[arg(value_name = "JSON", allow_negative_numbers = true)]
    values: Vec<String>,
    #[command(flatten)]
    fixed: FixedArgs,
    /// Run on this machine, whatever backend the program would choose
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    program: ProgramArgs,
    /// Print errors as JSON
    #[arg(long)]
    json: bool,
}

/// Options of `cargo knot map`.
#[derive(Args)]
pub(crate) struct Map {
    /// The function: its name, or the end of its path
    function: String,
    /// The inputs: JSON lines, or a table if the name ends in `.csv`; `-` reads JSON lines from stdin
    #[arg(long, value_name = "FILE")]
    inputs: PathBuf,
    #[command(flatten)]
    fixed: FixedArgs,
    /// Write the results to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Name of the run
    #[arg(long)]
    name: Option<String>,
    /// Run on this machine, whatever backend the program would choose
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    program: ProgramArgs,
    /// Print errors as JSON; results always are
    #[arg(long)]
    json: bool,
}

/// Arguments by name.
#[derive(Args)]
struct FixedArgs {
    /// An argument by its name; in a map, the same for all inputs
    #[arg(long = "arg", value_name = "NAME=JSON", value_parser = parse_argument)]
    arguments: Vec<(String, String)>,
}

fn parse_argument(text: &str) -> Result<(String, String), String> {
    let (name, json) = text.split_once('=').ok_or("must be the name of an argument, `=`, and its value as JSON")?;
    Ok((name.to_owned(), json.to_owned()))
}

impl FixedArgs {
    fn by_name(self) -> Result<BTreeMap<String, String>, Failure> {
        let mut by_name = BTreeMap::new();
        for (name, json) in self.arguments {
            if by_name.insert(name.clone(), json).is_some() {
                return Err(Failure::new(exit::USAGE, format!("invalid options: `--arg {name}=…` is given twice")));
            }
        }
        Ok(by_name)
    }
}

impl Call {
    pub(crate) async fn run(self) -> Result<u8, Failure> {
        let arguments = self.fixed.by_name()?;
        let program = self.program.build(self.json).await?;
        let inputs = OrderedInputs::One(self.values);
        let mut command = program.command(OrderedTask::Map(OrderedMap {
            function: self.function.clone(),
            inputs,
            arguments,
            name: None,
            is_local: self.local,
        }));
        if self.json {
            quiet(&mut command);
        }
        let (mut run, mut failure) = (None, None);
        carry_out(command, |report| {
            match report {
                Report::Run(id) => run = Some(id),
                Report::Value { json, .. } => output::text(&format!("{json}\n"))?,
                Report::Failed { json, .. } => failure = Some(item_error(json)?),
                _ => {}
            }
            Ok(())
        })
        .await?;
        let Some(error) = failure else { return Ok(exit::DONE) };
        let word = run.as_deref().map_or("last", word_of);
        // The message of the item has its causes.
        let message = format!("the call of `{}` in run {word} {error}", self.function);
        Err(Failure::new(exit::ITEMS_FAILED, message).with_hint(format!(
            "`cargo knot logs {word}` shows what it printed, and `cargo knot replay {word} 0` runs it here"
        )))
    }
}

impl Map {
    pub(crate) async fn run(self) -> Result<u8, Failure> {
        let arguments = self.fixed.by_name()?;
        let source = Source::open(&self.inputs)?;
        let mut out = Out::open(self.out.as_deref(), &source)?;
        let program = self.program.build(self.json).await?;
        let mut command = program.command(OrderedTask::Map(OrderedMap {
            function: self.function,
            inputs: source.ordered(),
            arguments,
            name: self.name,
            is_local: self.local,
        }));
        if self.json {
            quiet(&mut command);
        }
        source.connect(&mut command)?;
        let mut run = None;
        let ended = carry_out(command, |report| {
            match report {
                Report::Run(id) => {
                    out.begin()?;
                    run = Some(id);
                }
                Report::Value { item, json } => out.line(&format!("{{\"item\":{item},\"value\":{json}}}"))?,
                Report::Failed { item, json } => {
                    out.line(&format!("{{\"item\":{item},\"error\":{}}}", error_json(&item_error(json)?)))?;
                }
                _ => {}
            }
            Ok(())
        })
        .await;
        let word = run.as_deref().map_or("last", word_of);
        let end = ended.map_err(|failure| match &run {
            Some(_) => {
                failure.with_further_hint(&format!("`cargo knot status {word}` shows what is stored of the run"))
            }
            None => failure,
        })?;
        out.finish()?;
        conclude(word, end, self.json);
        Ok(if end.failed == 0 { exit::DONE } else { exit::ITEMS_FAILED })
    }
}

/// Says how many items have no value, and what helps next.
fn conclude(word: &str, end: OrderEnd, as_json: bool) {
    if end.failed > 0 {
        output::remark(&format!("{} no value", counted(end.failed, "item has", "items have")), as_json);
    }
    if !as_json {
        let retry = (end.failed > 0).then(|| format!("retry {word}"));
        ScopeArgs::default().suggest(&std::iter::once(format!("status {word}")).chain(retry).collect::<Vec<_>>());
    }
}

/// The inputs of a map.
enum Source {
    Stdin,
    Lines(File),
    Table(Box<csv::Reader<File>>, Vec<String>),
}

impl Source {
    fn open(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self::Stdin);
        }
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(exit::USAGE, format!("cannot read the inputs `{}`: {error}", path.display())).with_hint(
                "name a file with one JSON value a line, or a table whose name ends in `.csv`; nothing was submitted",
            )
        };
        let file = File::open(path).map_err(|error| failed(&error))?;
        if path.is_dir() {
            return Err(failed(&io::Error::from(io::ErrorKind::IsADirectory)));
        }
        if !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
            return Ok(Self::Lines(file));
        }
        let mut table = csv::Reader::from_reader(file);
        let columns = table.headers().map_err(|error| failed(&error))?.iter().map(str::to_owned).collect();
        Ok(Self::Table(Box::new(table), columns))
    }

    /// Returns whether the inputs are read from this file.
    fn is_file(&self, path: &Path) -> bool {
        let own = match self {
            Self::Stdin => Handle::stdin(),
            Self::Lines(file) => file.try_clone().and_then(Handle::from_file),
            Self::Table(table, _) => table.get_ref().try_clone().and_then(Handle::from_file),
        };
        path.is_file() && own.is_ok_and(|own| Handle::from_path(path).is_ok_and(|other| own == other))
    }

    fn ordered(&self) -> OrderedInputs {
        match self {
            Self::Stdin | Self::Lines(_) => OrderedInputs::Lines,
            Self::Table(_, columns) => OrderedInputs::Cells(columns.clone()),
        }
    }

    /// Connects the inputs with the standard input of the program.
    fn connect(self, command: &mut tokio::process::Command) -> Result<(), Failure> {
        match self {
            Self::Stdin => command.stdin(Stdio::inherit()),
            Self::Lines(file) => command.stdin(file),
            Self::Table(table, _) => {
                let (read, write) = io::pipe().map_err(|error| Failure::of_io("create a pipe", &error))?;
                // If the program reads no further, it says why.
                std::thread::spawn(move || _ = write_rows(*table, BufWriter::new(write)));
                command.stdin(read)
            }
        };
        Ok(())
    }
}

fn write_rows(mut table: csv::Reader<File>, mut out: impl Write) -> io::Result<()> {
    let mut write = |line: &TableLine| {
        serde_json::to_writer(&mut out, line)?;
        out.write_all(b"\n")
    };
    for row in table.records() {
        match row {
            Ok(row) => {
                let line = row.position().map_or(0, csv::Position::line);
                write(&TableLine::Row(line, row.iter().map(str::to_owned).collect()))?;
            }
            Err(error) => {
                write(&TableLine::Failed(error.to_string()))?;
                return out.flush();
            }
        }
    }
    write(&TableLine::End)?;
    out.flush()
}

/// Where the results go.
enum Out {
    Stdout,
    File(PathBuf, BufWriter<File>),
}

impl Out {
    /// Opens a file for writing. What it contains is kept until a run begins.
    fn open(path: Option<&Path>, source: &Source) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self::Stdout) };
        if source.is_file(path) {
            let message = format!("cannot write the results to `{}`: the inputs are read from it", path.display());
            return Err(Failure::new(exit::USAGE, message).with_hint("give `--out` the name of another file"));
        }
        let file = File::options().write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|error| not_written(path, &error))?;
        Ok(Self::File(path.to_owned(), BufWriter::new(file)))
    }

    /// Removes what the file contains.
    fn begin(&mut self) -> Result<(), Failure> {
        match self {
            // Pipes and devices keep nothing.
            Self::File(path, file) if file.get_ref().metadata().is_ok_and(|metadata| metadata.is_file()) => {
                file.get_ref().set_len(0).map_err(|error| not_written(path, &error))
            }
            _ => Ok(()),
        }
    }

    fn line(&mut self, line: &str) -> Result<(), Failure> {
        match self {
            Self::Stdout => Ok(output::text(&format!("{line}\n"))?),
            Self::File(path, file) => writeln!(file, "{line}").map_err(|error| not_written(path, &error)),
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Stdout => Ok(()),
            Self::File(path, mut file) => file.flush().map_err(|error| not_written(&path, &error)),
        }
    }
}

fn not_written(path: &Path, error: &io::Error) -> Failure {
    Failure::new(exit::OTHER, format!("cannot write the results to `{}`: {error}", path.display()))
}
