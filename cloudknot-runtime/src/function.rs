//! A remote function without its types, and the registry of those that are linked into this program.
//! Filled by `#[cloudknot::remote]`; read by the host (to submit) and by the item process (to call).

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use crate::codec::Codec;
use crate::failure::Failure;
use crate::fingerprint::Schema;

/// Everything that is known of a remote function once its types are forgotten.
#[derive(Debug)]
pub struct Function {
    /// Package, module path and name, unique in a program.
    pub id: FunctionId,
    /// The signature as it is written, for people.
    pub signature: &'static str,
    /// How its inputs and results are written.
    pub codec: Codec,
    /// What one item asks of the machine it runs on.
    pub resources: Resources,
    call: Call,
    trace: fn(Codec) -> Schema,
    schema: OnceLock<Schema>,
}

/// Decodes an input frame, runs the function, and appends the frame of its value.
pub type Call = fn(&[u8], &mut Vec<u8>) -> Result<(), Failure>;

/// What one item of a remote function asks of its machine, and its budgets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resources {
    /// Virtual CPUs.
    pub vcpus: Option<f64>,
    /// Memory in MiB.
    pub memory_mib: Option<u64>,
    /// GPUs.
    pub gpus: u32,
    /// How often a failed item is tried again.
    pub retries: u32,
    /// How long one attempt of one item may take.
    pub timeout: Option<Duration>,
}

impl Resources {
    /// Nothing asked, no retries, no time limit.
    pub const NONE: Self = Self { vcpus: None, memory_mib: None, gpus: 0, retries: 0, timeout: None };
}

/// The name by which host and worker mean the same function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionId {
    /// The cargo package.
    pub package: &'static str,
    /// The path of the module, crate name first.
    pub module: &'static str,
    /// The function's name, or the attribute's `name = "…"`.
    pub name: &'static str,
}

impl fmt::Display for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}::{}", self.package, self.module, self.name)
    }
}

impl Function {
    /// What the macro writes.
    pub const fn new(
        id: FunctionId,
        signature: &'static str,
        codec: Codec,
        resources: Resources,
        call: Call,
        trace: fn(Codec) -> Schema,
    ) -> Self {
        Self { id, signature, codec, resources, call, trace, schema: OnceLock::new() }
    }

    /// The structure of its input and output types, traced once.
    pub fn schema(&self) -> &Schema {
        self.schema.get_or_init(|| (self.trace)(self.codec))
    }

    /// Runs one item: from the frame of its input to the frame of its value.
    pub fn call(&self, input: &[u8], value: &mut Vec<u8>) -> Result<(), Failure> {
        (self.call)(input, value)
    }
}

/// How a function gets into the registry; written by the macro only.
pub struct Registered(pub &'static Function);

inventory::collect!(Registered);

/// All remote functions linked into this program.
pub fn all() -> impl Iterator<Item = &'static Function> {
    inventory::iter::<Registered>().map(|registered| registered.0)
}

/// The one function with this id.
///
/// # Errors
/// None or several have it; the message lists what there is.
pub fn find(id: &str) -> Result<&'static Function, String> {
    let mut found = all().filter(|function| function.id.to_string() == id);
    match (found.next(), found.next()) {
        (Some(function), None) => Ok(function),
        (Some(_), Some(_)) => Err(format!(
            "two remote functions are called `{id}`; give one of them another name: #[cloudknot::remote(name = \"…\")]"
        )),
        (None, _) => {
            let known: Vec<_> = all().map(|function| format!("`{}`", function.id)).collect();
            Err(format!("this program has no remote function `{id}`; it has: {}", known.join(", ")))
        }
    }
}
