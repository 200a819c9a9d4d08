//! Messages between a program and the process that traces its types: one [`TraceOrder`], then any number of
//! [`TraceMessage`]s, each as one line of JSON.

use serde::{Deserialize, Serialize};

use crate::fingerprint::{Exceptions, Part, Schema};

/// Functions to be traced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceOrder {
    /// Functions, in the order in which they are traced.
    pub functions: Vec<FunctionToTrace>,
    /// `true` to report each point.
    pub reports_points: bool,
}

/// A function to be traced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionToTrace {
    /// Index of the function in the registry. Not its ID, which two functions of a program may have.
    pub index: usize,
    /// ID of the function, as a check.
    pub id: String,
    /// Exceptions, as learned from an earlier process.
    pub exceptions: Exceptions,
}

/// Message of the process that traces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TraceMessage {
    /// The process begins with this part of the types.
    Begins(Part),
    /// The process has passed this point.
    Point(u64),
    /// The types of the next function are traced.
    Traced(Schema),
    /// The order cannot be carried out.
    Refused(String),
}

/// Writes a line of JSON.
pub fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("messages serialize to JSON");
    line.push(b'\n');
    line
}
