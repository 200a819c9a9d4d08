//! An order to a program: what it does in place of its `main`, for a command that has built it. The program answers with
//! [`Report`]s, each as one line of JSON.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;

/// Order to a program, in the variable [`ENV_ORDER`](super::ENV_ORDER).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// File to which the program appends its reports; `None` for its standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reports: Option<PathBuf>,
    /// The work that the program does.
    pub task: OrderedTask,
}

/// Work that a program does for an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrderedTask {
    /// Map a function over inputs that are given as JSON.
    Map(OrderedMap),
    /// Retry the items of a run that have no value.
    Retry(OrderedRetry),
    /// Run one item in the program's own process.
    Replay(OrderedReplay),
    /// Print values as JSON. Their frames come on the standard input, each behind the header of a
    /// [`Request`](super::Request).
    Decode(OrderedDecode),
}

/// Map whose inputs are JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderedMap {
    /// Name of the function, or the end of its path.
    pub function: String,
    /// The inputs.
    pub inputs: OrderedInputs,
    /// Arguments that are the same for all inputs: JSON by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, String>,
    /// Name of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `true` for this machine, instead of the backend that the program chooses.
    #[serde(default)]
    pub is_local: bool,
}

/// Inputs of a map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrderedInputs {
    /// One input: the JSON of its arguments, in their order.
    One(Vec<String>),
    /// The standard input has one input a line, as JSON.
    Lines,
    /// The standard input has one [`TableLine`] a line, with a cell for each of these arguments.
    Cells(Vec<String>),
}

/// Line of a table of text, as JSON. The last one is an end or an error, so that a part of a table is not taken for all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableLine {
    /// A row: the line of the file in which it begins, from 1, and the cells in the order of the columns.
    Row(u64, Vec<String>),
    /// The table ends here.
    End,
    /// The rest cannot be read, for this reason.
    Failed(String),
}

/// Retry of a run by its program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderedRetry {
    /// ID of the run.
    pub run: String,
    /// ID of its function.
    pub function: String,
    /// Name of its backend.
    pub backend: String,
    /// Folder of the runs, on the local backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<PathBuf>,
    /// Name of another backend, on which a new run computes the items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// `true` to wait until the new run has ended.
    #[serde(default)]
    pub waits: bool,
    /// Items of the round; `None` for all without a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Vec<Range<u64>>>,
    /// Memory of each job, such as `16 GiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Timeout of one attempt of an item, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Maximum number of retries of a failed item within the round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
}

/// Run of one item in the program's own process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderedReplay {
    /// ID of the function.
    pub function: String,
    /// Fingerprint of the types that the input was encoded with.
    pub fingerprint: Fingerprint,
    /// ID of the run.
    pub run: String,
    /// Git revision of the program at submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// `true` if its repository had no uncommitted changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_clean: Option<bool>,
    /// Index of the item.
    pub item: u64,
    /// File with the frame of the input.
    pub input: PathBuf,
}

/// Values of a function, to be printed as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderedDecode {
    /// ID of the function.
    pub function: String,
    /// Fingerprint of the types that the values were encoded with.
    pub fingerprint: Fingerprint,
}

/// Line of a program's answer to an order. JSON texts are borrowed from the line, and passed on unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report<'a> {
    /// The run with this ID was submitted, or is retried.
    Run(String),
    /// An item has this value.
    Value {
        /// Index of the item.
        item: u64,
        /// The value as JSON, as `serde_json` prints it.
        json: &'a str,
    },
    /// An item has no value.
    Failed {
        /// Index of the item.
        item: u64,
        /// Its [`ItemError`](crate::failure::ItemError) as JSON.
        json: &'a str,
    },
    /// The order is carried out.
    Ended(OrderEnd),
    /// The order cannot be carried out.
    Refused(Refusal),
}

/// Numbers of items of a run whose order was carried out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderEnd {
    /// Number of items that the order has run.
    pub ran: u64,
    /// Number of items of the run that have a value.
    pub succeeded: u64,
    /// Number of items of the run that have none.
    pub failed: u64,
}

/// Reason why an order cannot be carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Message of the error.
    pub message: String,
    /// Messages of its causes, outermost first.
    pub causes: Vec<String>,
    /// Hint on how to fix it.
    pub hint: Option<String>,
    /// Name of the kind of the error.
    pub kind: String,
}

/// Report that holds no JSON text.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Plain {
    Run(String),
    Ended(OrderEnd),
    Refused(Refusal),
}

/// Beginning of a report about an item.
const ITEM: &str = "{\"item\":";
/// Part of a report between the item and its value.
const VALUE: &str = ",\"value\":";
/// Part of a report between the item and its error.
const ERROR: &str = ",\"error\":";

impl<'a> Report<'a> {
    /// Returns the line, with its newline.
    pub fn line(&self) -> String {
        let plain = match self {
            Self::Value { item, json } => return format!("{ITEM}{item}{VALUE}{json}}}\n"),
            Self::Failed { item, json } => return format!("{ITEM}{item}{ERROR}{json}}}\n"),
            Self::Run(run) => Plain::Run(run.clone()),
            Self::Ended(end) => Plain::Ended(*end),
            Self::Refused(refusal) => Plain::Refused(refusal.clone()),
        };
        let mut line = serde_json::to_string(&plain).expect("a report serializes to JSON");
        line.push('\n');
        line
    }

    /// Parses a line. Returns `None` if it is not a report: user code may print before `main`.
    pub fn parse(line: &'a str) -> Option<Self> {
        let line = line.trim_end_matches('\n');
        let Some(rest) = line.strip_prefix(ITEM) else {
            return serde_json::from_str(line).ok().map(|plain| match plain {
                Plain::Run(run) => Self::Run(run),
                Plain::Ended(end) => Self::Ended(end),
                Plain::Refused(refusal) => Self::Refused(refusal),
            });
        };
        let (item, rest) = rest.split_at(rest.find(',')?);
        let (item, rest) = (item.parse().ok()?, rest.strip_suffix('}')?);
        match rest.strip_prefix(VALUE) {
            Some(json) => Some(Self::Value { item, json }),
            None => Some(Self::Failed { item, json: rest.strip_prefix(ERROR)? }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(report: &Report<'_>, line: &str) {
        assert_eq!(report.line(), format!("{line}\n"));
        assert_eq!(Report::parse(line).as_ref(), Some(report));
    }

    #[test]
    fn reports_are_lines_and_keep_json_texts() {
        check(&Report::Run("20261128-101530123-k5vzdk".into()), r#"{"run":"20261128-101530123-k5vzdk"}"#);
        check(&Report::Value { item: 17, json: r#"{"b":1.0,"a":1}"# }, r#"{"item":17,"value":{"b":1.0,"a":1}}"#);
        check(&Report::Value { item: 0, json: r#"",\"error\":""# }, r#"{"item":0,"value":",\"error\":"}"#);
        check(&Report::Failed { item: 2, json: "{}" }, r#"{"item":2,"error":{}}"#);
        let end = OrderEnd { ran: 3, succeeded: 2, failed: 1 };
        check(&Report::Ended(end), r#"{"ended":{"ran":3,"succeeded":2,"failed":1}}"#);
        let refusal = Refusal { message: "no".into(), kind: "Config".into(), ..Refusal::default() };
        check(&Report::Refused(refusal), r#"{"refused":{"message":"no","causes":[],"hint":null,"kind":"Config"}}"#);
    }

    #[test]
    fn other_lines_are_no_reports() {
        for line in
            ["", "a banner", "{}", "{\"item\":", "{\"item\":1", "{\"item\":x,\"value\":1}", "{\"item\":1,\"log\":1}"]
        {
            assert_eq!(Report::parse(line), None, "{line}");
        }
    }
}
