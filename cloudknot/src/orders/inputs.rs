//! Inputs that are given as JSON, or as cells of a table: finds the arguments in them, and encodes them.

use std::collections::BTreeMap;

use cloudknot_runtime::function::{Function, JsonError};
use cloudknot_runtime::text::printable;

use super::json::{self, Shape};
use super::json_of;
use crate::error::{Error, ErrorKind, Result};

/// The arguments of a function, of which some are the same for all inputs.
#[derive(Debug)]
pub(super) struct Arguments {
    function: &'static Function,
    /// Arguments that are the same for all inputs, with their JSON.
    fixed: BTreeMap<String, String>,
    /// The other ones, in the order of the function.
    free: Vec<&'static str>,
}

/// Texts of arguments, by name.
type Texts<'a> = Vec<(&'a str, &'a str)>;

impl Arguments {
    /// # Errors
    /// Returns an error if there is no such argument, or its text is not JSON.
    pub(super) fn new(function: &'static Function, fixed: BTreeMap<String, String>) -> Result<Self> {
        let names = json_of(function).arguments;
        for (name, text) in &fixed {
            if !names.contains(&name.as_str()) {
                return Err(invalid("arguments", &no_argument(function, name)));
            }
            check_json(name, text)?;
        }
        let free = names.iter().copied().filter(|name| !fixed.contains_key(*name)).collect();
        Ok(Self { function, fixed, free })
    }

    /// Encodes the only input, whose arguments are given in their order.
    pub(super) fn of_positions(&self, values: &[String]) -> Result<Vec<u8>> {
        for (name, text) in self.free.iter().zip(values) {
            check_json(name, text)?;
        }
        let texts = self.by_position(values.iter().map(String::as_str)).map_err(|why| invalid("arguments", &why))?;
        self.encode(&texts).map_err(|error| self.wrong("input", &error))
    }

    /// Encodes the input in a line of JSON: an object by the names of the arguments, an array by their position, or the value of
    /// the only argument. Where the type of the only argument accepts several of these, an object whose only name is that of the
    /// argument is by name, and all else is the value.
    pub(super) fn of_line(&self, number: u64, text: &str) -> Result<Vec<u8>> {
        let place = format!("input in line {number}");
        let shape = json::split(text).map_err(|error| not_json(&place, text, &error))?;
        if let [only] = self.free[..] {
            return self.of_only(only, text, &shape).map_err(|error| self.wrong(&place, &error));
        }
        let texts = match &shape {
            Shape::Object(members) => {
                self.by_name(members.iter().map(|(name, value)| (name.as_str(), *value)).collect())
            }
            Shape::Array(elements) => self.by_position(elements.iter().copied()),
            Shape::Other => Err(format!("must be an object or an array: the arguments are {}", list(&self.free))),
        };
        let texts = texts.map_err(|why| invalid(&place, &why))?;
        self.encode(&texts).map_err(|error| self.wrong(&place, &error))
    }

    fn of_only(&self, name: &str, text: &str, shape: &Shape<'_>) -> std::result::Result<Vec<u8>, JsonError> {
        let encode = |text| self.encode(&vec![(name, text)]);
        let inner = match shape {
            Shape::Object(members) if members.len() == 1 && members[0].0 == name => Some(members[0].1),
            _ => None,
        };
        if let Some(inner) = inner {
            return encode(inner).or_else(|error| encode(text).map_err(|_| error));
        }
        match shape {
            Shape::Array(elements) if elements.len() == 1 => {
                encode(text).or_else(|error| encode(elements[0]).map_err(|_| error))
            }
            _ => encode(text),
        }
    }

    /// Checks the columns of a table.
    pub(super) fn check_columns(&self, columns: &[String]) -> Result<()> {
        let texts = columns.iter().map(|name| (name.as_str(), "")).collect();
        self.by_name(texts).map(drop).map_err(|why| invalid("header", &why))
    }

    /// Encodes the input in a row of text.
    ///
    /// A cell is JSON if it is JSON of the argument's type, and else text: `007` and `a` are text for a `String`, and so is `1`. For
    /// a type that accepts both, numbers, `true`, `false`, `null`, arrays and objects are JSON. Text keeps its quotes, unless the type
    /// accepts it only without. An empty cell is `null` if the type does not accept text without characters.
    pub(super) fn of_cells(&self, columns: &[String], line: u64, cells: &[String]) -> Result<Vec<u8>> {
        let mut cells: Vec<Cell<'_>> = columns.iter().zip(cells).map(|(name, cell)| Cell::new(name, cell)).collect();
        loop {
            let texts: Texts<'_> = cells.iter().map(|cell| (cell.name, cell.text())).collect();
            let error = match self.encode(&texts) {
                Ok(frame) => return Ok(frame),
                Err(error) => error,
            };
            let is_wrong = |cell: &&mut Cell<'_>| first_name(&error.path) == cell.name;
            let error = match cells.iter_mut().find(is_wrong) {
                Some(cell) => match cell.next(error) {
                    None => continue,
                    Some(first) => first,
                },
                None => error,
            };
            return Err(self.wrong(&format!("input in line {line}"), &error));
        }
    }

    fn by_position<'a>(
        &'a self,
        values: impl ExactSizeIterator<Item = &'a str>,
    ) -> std::result::Result<Texts<'a>, String> {
        if values.len() != self.free.len() {
            let (given, names) = (values.len(), list(&self.free));
            return Err(format!("must have {} values and not {given}: {names}", self.free.len()));
        }
        Ok(self.free.iter().copied().zip(values).collect())
    }

    fn by_name<'a>(&self, texts: Texts<'a>) -> std::result::Result<Texts<'a>, String> {
        for (position, (name, _)) in texts.iter().enumerate() {
            if self.fixed.contains_key(*name) {
                return Err(format!("must not have `{}`, which is the same for all inputs", printable(name)));
            }
            if !self.free.contains(name) {
                return Err(no_argument(self.function, name));
            }
            if texts[..position].iter().any(|(before, _)| before == name) {
                return Err(format!("must have `{name}` only once"));
            }
        }
        match self.free.iter().find(|name| !texts.iter().any(|(given, _)| given == *name)) {
            Some(missing) => Err(format!("must have the argument `{missing}`: the arguments are {}", list(&self.free))),
            None => Ok(texts),
        }
    }

    /// Encodes an input: the texts of all free arguments.
    fn encode(&self, texts: &Texts<'_>) -> std::result::Result<Vec<u8>, JsonError> {
        let fixed = self.fixed.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        let members: Vec<_> =
            texts.iter().copied().chain(fixed).map(|(name, text)| format!("\"{name}\":{text}")).collect();
        // A function without arguments has the input `()`.
        let text = if members.is_empty() { "null".to_owned() } else { format!("{{{}}}", members.join(",")) };
        let mut frame = Vec::new();
        (json_of(self.function).encode)(&text, &mut frame).map(|()| frame)
    }

    fn wrong(&self, place: &str, error: &JsonError) -> Error {
        let JsonError { path, message } = error;
        let name = first_name(path);
        let at = match path.as_str() {
            "" => String::new(),
            path if path == name => format!(", argument `{name}`"),
            path => format!(", argument `{name}`, at `{}`", printable(path)),
        };
        let signature = self.function.signature;
        Error::new(ErrorKind::Input, format!("invalid {place}{at}: {}", printable(message)))
            .with_hint(format!("the function is `{signature}`; nothing was submitted"))
    }
}

/// A cell, and the texts that it may stand for.
struct Cell<'a> {
    name: &'a str,
    /// JSON texts that are still to be tried, the next one last.
    texts: Vec<String>,
    /// Error of the first one.
    error: Option<JsonError>,
}

impl<'a> Cell<'a> {
    fn new(name: &'a str, cell: &str) -> Self {
        let text = serde_json::to_string(cell).expect("text serializes to JSON");
        let texts = match cell.trim() {
            "" => vec!["null".to_owned(), text],
            json if json::check(json).is_err() => vec![text],
            json if json.starts_with('"') => vec![json.to_owned(), text],
            json => vec![text, json.to_owned()],
        };
        Self { name, texts, error: None }
    }

    fn text(&self) -> &str {
        self.texts.last().expect("the last text is never removed")
    }

    /// Goes on to the next text after an error. Returns the first error if there is none.
    fn next(&mut self, error: JsonError) -> Option<JsonError> {
        let first = self.error.get_or_insert(error);
        if self.texts.len() == 1 {
            return Some(first.clone());
        }
        self.texts.pop();
        None
    }
}

/// Returns the name at the beginning of a path, which is that of an argument.
fn first_name(path: &str) -> &str {
    path.split(['.', '[']).next().unwrap_or_default()
}

fn no_argument(function: &Function, name: &str) -> String {
    let names = json_of(function).arguments;
    format!("must not have `{}`: the arguments of `{}` are {}", printable(name), function.id.name, list(names))
}

fn list(names: &[&str]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn check_json(name: &str, text: &str) -> Result<()> {
    json::check(text).map_err(|error| not_json(&format!("argument `{name}`"), text, &error))
}

fn not_json(place: &str, text: &str, error: &serde_json::Error) -> Error {
    const SHOWN: usize = 60;
    let shown: String = text.trim().chars().take(SHOWN).collect();
    invalid(place, &format!("must be JSON, and `{}` is not: {error}", printable(&shown)))
        .with_hint("text has quotes in JSON, such as \"a\"; nothing was submitted")
}

fn invalid(place: &str, must: &str) -> Error {
    Error::new(ErrorKind::Input, format!("invalid {place}: {must}")).with_hint("nothing was submitted")
}
