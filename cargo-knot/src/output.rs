//! The only code of the command that prints. Results go to stdout; progress, warnings, errors and questions go to stderr.

use std::error::Error;
use std::io::{BufRead, BufWriter, IsTerminal, Stdout, Write, stderr, stdin, stdout};
use std::time::SystemTime;

use console::{Term, truncate_str};
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

/// Prints a line of progress, or a warning.
pub(crate) fn note(line: &str) {
    // If stderr is closed, the failure cannot be reported either.
    let _ = writeln!(stderr(), "{line}");
}

/// Prints an error with its causes and a hint.
pub(crate) fn error(error: &dyn Error, hint: Option<&str>) {
    note(&format!("error: {error}"));
    let mut cause = error.source();
    while let Some(error) = cause {
        note(&format!("  caused by: {}", indented(&error.to_string())));
        cause = error.source();
    }
    if let Some(hint) = hint {
        note(&format!("  hint: {}", indented(hint)));
    }
}

/// Prints an error with its causes, a hint and the exit code, as a JSON object.
pub(crate) fn json_error(error: &dyn Error, hint: Option<&str>, code: u8) {
    let causes = std::iter::successors(error.source(), |&error| error.source()).map(ToString::to_string);
    let causes: Vec<_> = causes.collect();
    let error = json!({"message": error.to_string(), "causes": causes, "hint": hint, "code": code});
    note(&with_version(&json!({"error": error})));
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n    ")
}

/// Returns whether a user at a terminal can read and answer a question.
pub(crate) fn can_ask() -> bool {
    stdin().is_terminal() && stderr().is_terminal()
}

/// Asks the user at the terminal a question. Returns the answer, a trimmed line; `None` at the end of the input.
pub(crate) fn ask(question: &str) -> std::io::Result<Option<String>> {
    write!(stderr(), "{question}: ")?;
    stderr().flush()?;
    let mut line = String::new();
    let read = stdin().lock().read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim().to_owned()))
}

/// Writer to stdout for output of any length. It must be flushed at its end.
pub(crate) type Stream = BufWriter<Stdout>;

/// Returns a writer to stdout.
pub(crate) fn stream() -> Stream {
    BufWriter::new(stdout())
}

/// Prints text unchanged, without a newline.
pub(crate) fn text(text: &str) -> std::io::Result<()> {
    stdout().lock().write_all(text.as_bytes())
}

/// Prints lines. Control characters in names and descriptions of others are escaped.
pub(crate) fn lines(lines: impl IntoIterator<Item = String>) -> std::io::Result<()> {
    let mut out = stdout().lock();
    lines.into_iter().try_for_each(|line| writeln!(out, "{}", cloudknot::__private::printable(&line)))
}

/// Lines at the terminal that replace each other.
pub(crate) struct Screen {
    terminal: Term,
    shown: usize,
}

impl Screen {
    /// Returns `None` if stdout is not a terminal.
    pub(crate) fn of_stdout() -> Option<Self> {
        let terminal = Term::stdout();
        terminal.is_term().then_some(Self { terminal, shown: 0 })
    }

    /// Shows these lines in place of the last ones. Each is cut to the width of the terminal, because only whole lines can be replaced.
    pub(crate) fn show(&mut self, lines: &[String]) -> std::io::Result<()> {
        let (height, width) = self.terminal.size();
        let fit = lines.iter().take(usize::from(height).saturating_sub(1));
        let fit: Vec<_> =
            fit.map(|line| cloudknot::__private::printable(&line.replace(['\n', '\t'], " ")).into_owned()).collect();
        self.clear()?;
        for line in &fit {
            self.terminal.write_line(&truncate_str(line, usize::from(width), "…"))?;
        }
        self.shown = fit.len();
        Ok(())
    }

    /// Leaves the lines where they are: the next ones are shown below them.
    pub(crate) fn keep(&mut self) {
        self.shown = 0;
    }

    /// Removes the lines.
    pub(crate) fn clear(&mut self) -> std::io::Result<()> {
        self.terminal.clear_last_lines(std::mem::take(&mut self.shown))
    }
}

/// Prints a line of an item as it is.
pub(crate) fn item_line(line: &str) -> std::io::Result<()> {
    writeln!(stdout().lock(), "{line}")
}

/// Prints a sentence about a result, as text or as a JSON object.
pub(crate) fn remark(sentence: &str, as_json: bool) {
    if as_json { note(&with_version(&json!({"note": sentence}))) } else { note(sentence) }
}

/// Prints a JSON value on one line.
pub(crate) fn json(value: &Value) -> std::io::Result<()> {
    writeln!(stdout().lock(), "{value}")
}

/// Prints a JSON object with the version of its form as the first field, on one line.
pub(crate) fn versioned(object: &Value) -> std::io::Result<()> {
    writeln!(stdout().lock(), "{}", with_version(object))
}

/// Returns the text of a JSON object that is not empty, with the version of its form as the first field.
fn with_version(object: &Value) -> String {
    format!("{{\"v\":1,{}", object.to_string().trim_start_matches('{'))
}

/// Prints the JSON value, or without one a line for each field that is not empty.
pub(crate) fn fields(value: Option<&Value>, fields: &[(&str, String)]) -> std::io::Result<()> {
    if let Some(value) = value {
        return json(value);
    }
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let shown = fields.iter().filter(|(_, value)| !value.is_empty());
    lines(shown.map(|(name, value)| format!("{name:<width$}  {value}")))
}

/// Prints a table with a heading, or nothing if there are no rows.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> std::io::Result<()> {
    table_with_numbers(heading, &[], rows)
}

/// Prints a table with a heading, or nothing if there are no rows. The columns in `numbers` are aligned to the right.
pub(crate) fn table_with_numbers(heading: &[&str], numbers: &[usize], rows: &[Vec<String>]) -> std::io::Result<()> {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].width()).chain([heading[column].width()]).max().unwrap_or_default()
    };
    let cell = |(column, cell): (usize, &&str)| {
        let padding = " ".repeat(width(column) - cell.width());
        if numbers.contains(&column) { format!("{padding}{cell}") } else { format!("{cell}{padding}") }
    };
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().enumerate().map(cell);
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let heading = (!rows.is_empty()).then(|| line(heading.to_vec()));
    lines(heading.into_iter().chain(rows.iter().map(|row| line(row.iter().map(String::as_str).collect()))))
}

/// Returns the time since `since`, in the largest unit that fits.
pub(crate) fn age(since: SystemTime) -> String {
    let seconds = since.elapsed().map(|elapsed| elapsed.as_secs()).unwrap_or_default();
    let in_units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let fits = in_units.into_iter().find(|(unit, _)| seconds >= *unit);
    fits.map_or_else(|| "0s".to_owned(), |(unit, name)| format!("{}{name}", seconds / unit))
}
