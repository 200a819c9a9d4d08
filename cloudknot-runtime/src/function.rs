//! Type-erased remote functions, and the registry of those that are linked into this program.
//! `#[cloudknot::remote]` fills the registry; the host (to submit) and the item process (to call) read it.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::codec::Codec;
use crate::failure::Failure;
use crate::fingerprint::{Exceptions, Fingerprint, Observer, Schema, TypePair};
use crate::trace_process::{self, TraceError};

/// A remote function, with its types erased.
#[derive(Debug)]
pub struct Function {
    /// ID of the function, unique in a program.
    pub id: FunctionId,
    /// Signature as written in the source, for display.
    pub signature: &'static str,
    /// Codec of the inputs and results.
    pub codec: Codec,
    /// Resources that one item needs, and its limits.
    pub resources: Resources,
    /// Conversion from and to JSON; `None` in a worker.
    pub json: Option<Json>,
    call: Call,
    types: fn() -> TypePair,
    schema: OnceLock<Schema>,
    fingerprint: OnceLock<Fingerprint>,
}

/// Function that decodes an input frame, runs the remote function, and appends the frame of its value.
pub type Call = fn(&[u8], &mut Vec<u8>) -> Result<(), Failure>;

/// Names of a function's arguments, and conversion of its inputs and values from and to JSON.
#[derive(Debug, Clone, Copy)]
pub struct Json {
    /// Names of the arguments, in their order.
    pub arguments: &'static [&'static str],
    /// Parses the JSON of an input, an object with all arguments by name, and appends its frame.
    pub encode: fn(&str, &mut Vec<u8>) -> Result<(), JsonError>,
    /// Decodes a frame, and returns its value as JSON, as `serde_json` prints it.
    pub decode: fn(&[u8]) -> Result<String, JsonError>,
}

/// Reason why JSON is not an input of a function, or a value cannot be JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    /// Path of the part that is wrong, such as `model.weights[3]`; empty if it is unknown.
    pub path: String,
    /// Reason.
    pub message: String,
}

/// Resources that one item of a remote function needs from its machine, and its limits on retries and time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resources {
    /// Number of virtual CPUs.
    pub vcpus: Option<f64>,
    /// Memory in MiB.
    pub memory_mib: Option<u64>,
    /// Number of GPUs.
    pub gpus: u32,
    /// Maximum number of retries of a failed item.
    pub retries: u32,
    /// Timeout of one attempt of an item.
    pub timeout: Option<Duration>,
    /// Number of items after which an item process is replaced.
    pub recycle: Option<u32>,
}

impl Resources {
    /// Nothing specified, no retries, no timeout.
    pub const NONE: Self = Self { vcpus: None, memory_mib: None, gpus: 0, retries: 0, timeout: None, recycle: None };
}

/// Name by which host and worker refer to the same function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionId {
    /// Name of the cargo package.
    pub package: &'static str,
    /// Path of the module, with the crate name first.
    pub module: &'static str,
    /// Name of the function, or the attribute's `name = "…"`.
    pub name: &'static str,
}

impl fmt::Display for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}::{}", self.package, self.module, self.name)
    }
}

impl Function {
    /// Creates a function. Called by the code that the macro generates.
    pub const fn new(
        id: FunctionId,
        signature: &'static str,
        codec: Codec,
        resources: Resources,
        json: Option<Json>,
        call: Call,
        types: fn() -> TypePair,
    ) -> Self {
        let schema = OnceLock::new();
        Self { id, signature, codec, resources, json, call, types, schema, fingerprint: OnceLock::new() }
    }

    /// Returns the structure of the function's input and output types. It is traced once, by [`trace`].
    ///
    /// # Errors
    /// Returns an error if the types cannot be traced, for a reason that is not in the types.
    pub fn schema(&self) -> Result<&Schema, TraceError> {
        if self.schema.get().is_none() {
            trace(&[self])?;
        }
        Ok(self.schema.get().expect("`trace` sets the schema"))
    }

    /// Traces the types in this process, which is started for this purpose. Returns `None` if a type has ended the thread.
    pub(crate) fn trace(&self, exceptions: &Exceptions, observer: &Arc<dyn Observer>) -> io::Result<Option<Schema>> {
        Ok((self.types)().trace_with(self.codec, exceptions, Some(observer), None)?.ok())
    }

    /// Returns the fingerprint of the function's types: that of its [`schema`](Self::schema), unless it was set.
    ///
    /// # Errors
    /// Returns the error of `schema`.
    pub fn fingerprint(&self) -> Result<Fingerprint, TraceError> {
        match self.fingerprint.get() {
            Some(fingerprint) => Ok(*fingerprint),
            None => Ok(self.schema()?.fingerprint),
        }
    }

    /// Sets the fingerprint, in an item process: its supervisor, the same program, has traced the types.
    pub fn set_fingerprint(&self, fingerprint: Fingerprint) {
        self.fingerprint.get_or_init(|| fingerprint);
    }

    /// Returns the index in the registry. It is the same whenever this program is started.
    fn index(&self) -> usize {
        all().position(|function| std::ptr::eq(function, self)).expect("the macro registers each function")
    }

    /// Runs one item: decodes the frame of its input and appends the frame of its value.
    pub fn call(&self, input: &[u8], value: &mut Vec<u8>) -> Result<(), Failure> {
        (self.call)(input, value)
    }
}

/// Entry of the registry, submitted by the macro only.
pub struct Registered(pub &'static Function);

inventory::collect!(Registered);

/// Returns all remote functions linked into this program.
pub fn all() -> impl Iterator<Item = &'static Function> {
    inventory::iter::<Registered>().map(|registered| registered.0)
}

/// Returns whether a name is that of the function with this ID, or the end of its path. `…` stands for the beginning of a long ID.
pub fn is_named(id: &str, name: &str) -> bool {
    let before = id.strip_suffix(name);
    before.is_some_and(|before| before.is_empty() || before.ends_with([':', '…']))
}

/// Traces the types of those of the functions that are not traced yet.
///
/// They are traced in a process of its own, one for all of them. If no generated main has run, this program cannot be started
/// again, and traces them itself.
///
/// # Errors
/// Returns an error if the types cannot be traced, for a reason that is not in the types.
pub fn trace(functions: &[&Function]) -> Result<(), TraceError> {
    // Held, so that no other thread starts a process for the same types.
    static TRACING: Mutex<()> = Mutex::new(());
    let _tracing = TRACING.lock().unwrap_or_else(PoisonError::into_inner);
    let untraced: Vec<&Function> =
        functions.iter().copied().filter(|function| function.schema.get().is_none()).collect();
    let schemas = if trace_process::is_enabled() {
        trace_process::trace(untraced.iter().map(|function| (function.index(), function.id.to_string())))?
    } else {
        untraced.iter().map(|function| (function.types)().trace(function.codec)).collect::<io::Result<_>>()?
    };
    for (function, schema) in untraced.iter().zip(schemas) {
        function.schema.get_or_init(|| schema);
    }
    Ok(())
}

/// Returns the function with this ID.
///
/// # Errors
/// Fails if no function or more than one has this ID. If none has it, the message lists the functions of this program.
pub fn find(id: &str) -> Result<&'static Function, String> {
    let mut found = all().filter(|function| function.id.to_string() == id);
    match (found.next(), found.next()) {
        (Some(function), None) => Ok(function),
        (Some(_), Some(_)) => Err(format!(
            "duplicate remote function `{id}`; give one of them another name: #[cloudknot::remote(name = \"…\")]"
        )),
        (None, _) => {
            let ids: Vec<_> = all().map(|function| format!("`{}`", function.id)).collect();
            Err(format!("cannot find the remote function `{id}`: the program has {}", ids.join(", ")))
        }
    }
}
