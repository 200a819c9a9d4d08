//! The contract between host and worker, for both sides: the names of environment variables, the records in the store
//! ([`Manifest`], [`Round`], [`Lease`]), the keys of objects (`keys`, `index`), the end of a part (`table`), the messages
//! between a supervisor and an item process (`messages`), and the orders of a command to a program (`order`). They are defined here only.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::fingerprint::{Fingerprint, Structure};

mod checks;
mod index;
mod inputs_hash;
mod keys;
mod lease;
mod log_line;
mod messages;
mod order;
mod provenance;
mod table;
mod tracing;

pub use checks::{
    MAX_ITEMS, MAX_ITEMS_WITHOUT_INPUTS, MAX_RECORD_LEN, ManifestError, is_included_path, is_user_variable,
    last_attempt,
};
pub use index::{
    IndexEntry, MAX_NAME_LEN, RunState, WORD_LEN, WORD_LETTERS, check_name, index, index_entry, index_key, index_of,
    index_of_month, submitted_at, unix_ms, word_of,
};
pub use inputs_hash::{InputsHash, InputsHasher};
pub use keys::{FailedAttempt, Part, RunKeys, failure_of, knot_of, lease_of, log_of, part_of, round_of};
pub use lease::{Lease, LeaseState, LeasedJob};
pub use log_line::LogLine;
pub use messages::{Exit, LARGE_LEN, Parsed, Reply, Request, begin_value, end_value};
pub use order::{
    Order, OrderEnd, OrderedDecode, OrderedInputs, OrderedMap, OrderedReplay, OrderedRetry, OrderedTask, Refusal,
    Report, TableLine,
};
pub use provenance::{MAX_PROVENANCE_LEN, Program, Provenance, Submitter};
pub use table::{MAX_END_LEN, PartEnd, ROW_LEN};
pub use tracing::{FunctionToTrace, TraceMessage, TraceOrder, line};

/// Version of this contract. A build refuses a worker with another one; a manifest has a version of its own.
pub const VERSION: u32 = 1;
/// Line in a worker's section `.cloudknot`. It states that the worker's `main` hands over to the runtime, and the version
/// of the contract.
pub const START: &str = "{\"start\":true,\"contract\":1}\n";

/// Version of the [`Order`]s that a program carries out.
pub const ORDERS_VERSION: u32 = 1;
/// Line in the section `.cloudknot` of a program that is not a worker. It states that its `main` carries out orders, and their
/// version.
pub const ORDERS: &str = "{\"orders\":1}\n";

/// Set by the user: the backend that maps run on (`local`, `docker`, `batch`).
pub const ENV_BACKEND: &str = "CLOUDKNOT_BACKEND";
/// Set by the user: the folder that holds the runs, instead of `.cloudknot/` beside the crate.
pub const ENV_HOME: &str = "CLOUDKNOT_HOME";
/// Set by the user: the folder of the included files on this machine, instead of the package's folder. A worker does not read it.
pub const ENV_DATA: &str = "CLOUDKNOT_DATA";
/// Set by the user: `off` for no progress, `plain` for lines, `bar` for a bar.
pub const ENV_PROGRESS: &str = "CLOUDKNOT_PROGRESS";
/// Makes a program an item process: an [`ItemProcess`] as JSON. Removed from the environment before user code runs.
pub const ENV_ITEM_PROCESS: &str = "CLOUDKNOT_ITEM_PROCESS";
/// Makes a program the keeper of an item process, which it starts as specified by [`ENV_ITEM_PROCESS`]: the ID of the
/// supervisor's process.
pub const ENV_KEEPER: &str = "CLOUDKNOT_KEEPER";
/// Set in an item process and inherited by all processes that the function starts, so that they can be found if their keeper
/// was killed. Makes no process part of cloudknot.
pub const ENV_TAG: &str = "CLOUDKNOT_TAG";
/// Makes a program trace the types of its functions, as a [`TraceOrder`] on its standard input specifies. Removed from the
/// environment before user code runs.
pub const ENV_TRACE: &str = "CLOUDKNOT_TRACE";
/// Makes a program carry out an [`Order`], as JSON, in place of its `main`. Removed from the environment before user code runs.
pub const ENV_ORDER: &str = "CLOUDKNOT_ORDER";
/// Makes a worker describe its functions: it prints their [`Types`] (see [`Types::line`]) and exits.
pub const ENV_DESCRIBE: &str = "CLOUDKNOT_DESCRIBE";
/// Makes a program the supervisor of a container: a [`Task`] as JSON.
pub const ENV_TASK: &str = "CLOUDKNOT_TASK";
/// Set in job definitions: the number of virtual CPUs of a job, for a [`Task`] that does not specify it.
pub const ENV_VCPUS: &str = "CLOUDKNOT_VCPUS";
/// Set by AWS Batch, in array children only: the index of the child. A run of one child is a plain job, so the index is 0
/// if the variable is absent.
pub const ENV_CHILD: &str = "AWS_BATCH_JOB_ARRAY_INDEX";
/// Set by AWS Batch: the ID of the job.
pub const ENV_JOB: &str = "AWS_BATCH_JOB_ID";
/// Set by AWS Batch: the number of the child's attempt, from 1.
pub const ENV_ATTEMPT: &str = "AWS_BATCH_JOB_ATTEMPT";
/// Variables that make a process part of cloudknot. An item process does not inherit them, because the function may start
/// the program itself.
pub const ROLES: [&str; 6] = [ENV_ITEM_PROCESS, ENV_TASK, ENV_DESCRIBE, ENV_VCPUS, ENV_TRACE, ENV_ORDER];
/// Name of the folder beside a crate that holds its runs.
pub const HOME: &str = ".cloudknot";
/// Folder of the included files in an image.
pub const DATA: &str = "/cloudknot";

/// Settings that an item process receives when it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemProcess {
    /// ID of the function.
    pub function: String,
    /// Fingerprint of the types that the supervisor's inputs were encoded with.
    pub fingerprint: Fingerprint,
    /// Timeout of one attempt of an item, in milliseconds. The supervisor enforces it, and a function can query it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Number of items after which the process is replaced; `None` for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recycle: Option<u64>,
    /// Memory in bytes that the process may use. Close to it, a process that has grown is replaced between two items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Random number of the marker that the process writes into its log before each item (`log`), in hexadecimal.
    #[serde(default)]
    pub log_nonce: String,
    /// Soft limit of open files that the function finds, if the supervisor raised its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
}

/// Task that a container's supervisor receives when it starts. All children of a job receive the same task; the index of
/// the child comes from [`ENV_CHILD`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Store that holds the run.
    pub store: StoreAt,
    /// Knot that the run belongs to.
    pub knot: String,
    /// ID of the run.
    pub run: String,
    /// Number of the round, from 1.
    pub round: u32,
    /// ID of the function.
    pub function: String,
    /// Fingerprint of the types that the inputs were encoded with.
    pub fingerprint: Fingerprint,
    /// Time of the run's submission, in milliseconds since 1970-01-01 UTC.
    pub submitted_ms: u64,
    /// Number of items of the run.
    pub items: u64,
    /// Layout of the object `inputs`.
    pub inputs: InputLayout,
    /// Number of items of a child.
    pub chunk: u64,
    /// Number of this job's first child, if a run has several jobs.
    pub first_child: u64,
    /// Number of items that run at once.
    pub parallel: u32,
    /// Maximum number of retries of a failed item.
    pub retries: u32,
    /// Timeout of one attempt of an item, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Environment variables of the item processes; the worker does not read them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Number of items after which an item process is replaced; `None` for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recycle: Option<u64>,
    /// Number of virtual CPUs that the items of a worker share; `None` for the value of [`ENV_VCPUS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<f64>,
    /// `true` if no outcome of these items can be stored yet, so that a first attempt need not list the store.
    #[serde(rename = "fresh")]
    pub has_no_outcomes: bool,
}

/// Types of a remote function, as a worker describes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Types {
    /// ID of the function.
    pub function: String,
    /// Fingerprint of its types.
    pub fingerprint: Fingerprint,
    /// Structure of its types, in readable form.
    pub schema: String,
}

impl Types {
    /// Start of the line with the types, which distinguishes it from what libraries print.
    const MARK: &str = "cloudknot-types: ";

    /// Returns the line that a worker prints to describe its functions. It begins with a line break, because the output so
    /// far may end within a line.
    pub fn line(all: &[Self]) -> String {
        format!("\n{}{}\n", Self::MARK, serde_json::to_string(all).expect("types serialize to JSON"))
    }

    /// Finds that line in the output of a worker.
    pub fn find(output: &str) -> Option<Vec<Self>> {
        output.lines().rev().find_map(|line| serde_json::from_str(line.strip_prefix(Self::MARK)?).ok())
    }
}

/// Description of a remote function in the worker's executable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FunctionDescription {
    /// Name of the cargo package.
    pub package: String,
    /// Path of the module, with the crate name first.
    pub module: String,
    /// Name of the function.
    pub name: String,
    /// Signature as written in the source.
    pub signature: String,
    /// Name of the codec of its inputs and results.
    pub codec: String,
    /// Number of virtual CPUs.
    pub vcpus: Option<f64>,
    /// Memory in MiB.
    pub memory_mib: Option<u64>,
    /// Number of GPUs.
    #[serde(default)]
    pub gpus: u32,
    /// Maximum number of retries of a failed item.
    #[serde(default)]
    pub retries: u32,
    /// Timeout of one attempt of an item, in seconds.
    pub timeout_seconds: Option<f64>,
}

impl FunctionDescription {
    /// Returns the ID by which host and worker refer to this function.
    pub fn id(&self) -> String {
        format!("{}:{}::{}", self.package, self.module, self.name)
    }
}

/// Location of a store, as passed to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreAt {
    /// A folder, by its path inside the worker.
    Folder(String),
    /// A bucket and a prefix in it.
    S3 {
        /// Name of the bucket.
        bucket: String,
        /// Prefix, without a trailing slash; empty for none.
        prefix: String,
    },
}

/// Exit codes of a container's supervisor, for the scheduler. A code of 0 states that every outcome, value or failure, is
/// stored.
pub mod exit {
    /// Every outcome is stored.
    pub const DONE: i32 = 0;
    /// The store or the machine failed; another attempt may succeed.
    pub const INFRASTRUCTURE: i32 = 74;
    /// The supervisor was stopped before it was done; another attempt continues.
    pub const INTERRUPTED: i32 = 75;
    /// The worker is not the one that the run needs; another attempt would end the same way.
    pub const WRONG_WORKER: i32 = 78;
}

/// Record of a run, stored as `manifest.json` before anything starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this layout, [`Manifest::VERSION`].
    pub version: u32,
    /// ID of the run.
    pub run: String,
    /// Knot (locally: program) that the run belongs to.
    pub knot: String,
    /// Name of the backend that the run was submitted to.
    pub backend: String,
    /// ID of the function.
    pub function: String,
    /// Signature of the function, in readable form.
    pub signature: String,
    /// Fingerprint of the function's types.
    pub fingerprint: Fingerprint,
    /// Structure of the function's types, in readable form; also used in the message about changed types.
    pub schema: String,
    /// The same structure as data, from which values are read without the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types: Option<Structure>,
    /// Codec of the inputs and results.
    pub codec: Codec,
    /// Number of items.
    pub items: u64,
    /// Layout of the object `inputs`.
    pub inputs: InputLayout,
    /// Hash of the inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs_hash: Option<InputsHash>,
    /// Maximum number of items in a part (on Batch: of a child).
    pub chunk: u64,
    /// Number of items that run at once: locally in total, on Batch in one worker.
    pub parallel: u32,
    /// Maximum number of retries of a failed item.
    pub retries: u32,
    /// Timeout of one attempt of an item, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Number of items after which an item process is replaced; `None` for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recycle: Option<u64>,
    /// Number of failed items after which the remaining items are cancelled.
    pub max_failures: Option<u64>,
    /// Environment variables of the item processes. Stored in plain text, so for settings, not secrets.
    pub env: BTreeMap<String, String>,
    /// Tags set by the user.
    pub tags: BTreeMap<String, String>,
    /// Resources of the run's jobs that override those of the function.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// Resources of the function's attribute at submission, for a retry by a program that does not have the function.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub attribute: Resources,
    /// AWS Batch resources that the run uses, as they were at submission: later deploys do not affect the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchResources>,
    /// Time of submission, in milliseconds since 1970-01-01 UTC.
    pub submitted_ms: u64,
    /// Name that the user gave the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Run on another backend whose items without a value this run computes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Origin of the run.
    #[serde(default)]
    pub provenance: Provenance,
}

impl Manifest {
    /// Version that this code writes and reads.
    pub const VERSION: u32 = 2;

    /// Returns the task of the workers of round `number`, from child `first_child` on. All of these workers check the stored
    /// outcomes before they start.
    pub fn task(&self, store: StoreAt, number: u32, round: &Round, first_child: u64) -> Task {
        Task {
            store,
            knot: self.knot.clone(),
            run: self.run.clone(),
            round: number,
            function: self.function.clone(),
            fingerprint: self.fingerprint,
            submitted_ms: self.submitted_ms,
            items: self.items,
            inputs: self.inputs,
            chunk: self.chunk,
            first_child,
            parallel: self.parallel,
            retries: round.retries,
            timeout_ms: self.timeout_in(round),
            env: self.env.clone(),
            recycle: self.recycle,
            vcpus: self.resources_in(number, round).vcpus,
            has_no_outcomes: false,
        }
    }

    /// Returns the timeout in milliseconds of one attempt of an item in a round.
    pub fn timeout_in(&self, round: &Round) -> Option<u64> {
        round.timeout_ms.or(self.timeout_ms)
    }

    /// Returns the resources of the jobs of round `number`.
    pub fn resources_in(&self, number: u32, round: &Round) -> Resources {
        let (of_round, of_run) = (&round.resources, &self.resources);
        Resources {
            vcpus: of_round.vcpus.or(of_run.vcpus),
            memory_mib: of_round.memory_mib.or_else(|| of_run.memory_in(number)),
            memory_on_retry_mib: None,
            gpus: of_round.gpus.or(of_run.gpus),
        }
    }

    /// Returns the AWS Batch resources of a round; `None` on another backend.
    pub fn batch_in<'a>(&'a self, round: &'a Round) -> Option<&'a BatchResources> {
        round.batch.as_ref().or(self.batch.as_ref())
    }
}

/// Run whose items another run computes, on another backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// ID of the run.
    pub run: String,
    /// Half-open ranges of its items, in the order of the new run's items.
    pub items: Vec<Range<u64>>,
}

/// Resources of the jobs of a run; `None` for the deployed value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Number of virtual CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<f64>,
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Memory in MiB of rounds after the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_on_retry_mib: Option<u64>,
    /// Number of GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
}

impl Resources {
    /// Returns `true` if all resources have their deployed values.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the memory, in MiB, of the jobs of a round.
    pub fn memory_in(&self, round: u32) -> Option<u64> {
        self.memory_on_retry_mib.filter(|_| round > 1).or(self.memory_mib)
    }
}

/// AWS Batch resources of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchResources {
    /// AWS region.
    pub region: String,
    /// ARN of the job queue.
    pub queue: String,
    /// ARN of the job definition, with its revision.
    pub job_definition: String,
    /// Image, with its digest.
    pub image: String,
    /// Log group of the jobs, unless their job definition names another one.
    pub log_group: String,
    /// Share of a queue with a fair-share policy that the jobs belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_identifier: Option<String>,
    /// `true` if each child is a separate job, instead of an array child.
    pub independent: bool,
}

/// Layout of the object `inputs`: the frames one after another, then (if they differ in length) their offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputLayout {
    /// All frames have this length in bytes, so that one read fetches any range of them.
    Uniform(u64),
    /// Byte at which the offsets begin: `items + 1` little-endian u64, the start of each frame and the end of the last one.
    Offsets(u64),
}

/// Items that are scheduled in a round, stored as `rounds/<n>`. The first round has all items and no object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Half-open ranges of items, in order.
    pub items: Vec<Range<u64>>,
    /// Half-open ranges of the items that have no value and are left as they are, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<Range<u64>>,
    /// Maximum number of retries of a failed item in this round: attempt `retries + 1` is the last.
    pub retries: u32,
    /// Time at which the round was recorded, in milliseconds since 1970-01-01 UTC.
    #[serde(default)]
    pub recorded_ms: u64,
    /// Resources of the round's jobs that override those of the run.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// Timeout of one attempt of an item, in milliseconds; `None` for that of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// AWS Batch resources of the round; `None` for those of the run. A retry uses the image that is deployed when it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchResources>,
    /// Origin of the round; `None` for the first, which has that of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
}

impl Round {
    /// Returns `count` items of the round from position `first` on, counted from 0 in the order of the round.
    pub fn slice(&self, first: u64, count: u64) -> Vec<Range<u64>> {
        let (mut skip, mut remaining) = (first, count);
        let mut slice = Vec::new();
        for range in &self.items {
            let length = range.end.saturating_sub(range.start);
            if skip >= length {
                skip -= length;
                continue;
            }
            let start = range.start + skip;
            let end = range.end.min(start.saturating_add(remaining));
            skip = 0;
            remaining -= end - start;
            if start < end {
                slice.push(start..end);
            }
        }
        slice
    }

    /// Returns the number of items.
    pub fn len(&self) -> u64 {
        self.items.iter().fold(0, |len: u64, range| len.saturating_add(range.end.saturating_sub(range.start)))
    }

    /// Returns `true` if the round has no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Parsed form of the line [`ORDERS`].
#[derive(Debug, Deserialize)]
pub struct Orders {
    /// Version of the orders that the program carries out.
    pub orders: u32,
}

/// Parsed form of the line [`START`].
#[derive(Debug, Deserialize)]
pub struct Start {
    /// Always true.
    pub start: bool,
    /// Version of the contract; 0 if the worker was built before the contract had a version.
    #[serde(default)]
    pub contract: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_line_has_contract_version() {
        let start: Start = serde_json::from_str(START).unwrap();
        assert!(start.start);
        assert_eq!(start.contract, VERSION);
    }

    #[test]
    fn orders_line_has_their_version() {
        let orders: Orders = serde_json::from_str(ORDERS).unwrap();
        assert_eq!(orders.orders, ORDERS_VERSION);
    }

    // H3
    #[test]
    fn types_are_found_among_other_output() {
        let types = vec![Types { function: "a:a::f".into(), fingerprint: Fingerprint(7), schema: "input: u8".into() }];
        let line = Types::line(&types);
        for output in
            [line.clone(), format!("a banner{line}"), format!("a banner\n{line}the end"), format!("[]\n{line}")]
        {
            assert_eq!(Types::find(&output), Some(types.clone()), "{output}");
        }
        assert_eq!(Types::find("a banner\n[]\n"), None);
        assert_eq!(Types::find(""), None);
    }

    #[test]
    fn children_divide_a_round_without_gap_or_overlap() {
        let round = Round { items: vec![3..5, 8..9, 20..30], ..Round::default() };
        assert_eq!(round.len(), 13);
        for chunk in 1..15 {
            let shares: Vec<u64> = (0..round.len().div_ceil(chunk))
                .flat_map(|child| round.slice(child * chunk, chunk))
                .flatten()
                .collect();
            let all: Vec<u64> = round.items.iter().cloned().flatten().collect();
            assert_eq!(shares, all, "chunks of {chunk}");
        }
        assert_eq!(round.slice(1, 3), [4..5, 8..9, 20..21]);
        assert!(round.slice(13, 5).is_empty());
    }
}
