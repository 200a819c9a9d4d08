//! The contract between host and worker, for both sides: the names of environment variables, the records in the store
//! ([`Manifest`], [`Round`]), the keys of objects (`keys`), and what goes through the pipes of an item process (`pipe`). No
//! other file spells one of them.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::fingerprint::Fingerprint;

mod keys;
mod pipe;

pub use keys::{Part, RunKeys, failure_of, part_of, round_of};
pub use pipe::{LARGE, Reply, Request, begin_value, end_value};

/// The version of this contract. Another one is refused by whoever builds a worker, deploys it or attaches to a run.
pub const VERSION: u32 = 1;
/// The line of a worker's section `.cloudknot` which says that its main hands over to the runtime, and by which contract.
pub const START: &str = "{\"start\":true,\"contract\":1}\n";

/// What the user sets: where maps run (`local`, `docker`, `batch`).
pub const ENV_BACKEND: &str = "CLOUDKNOT_BACKEND";
/// What the user sets: the folder that holds the runs, in place of `.cloudknot/` beside the crate.
pub const ENV_HOME: &str = "CLOUDKNOT_HOME";
/// What the user sets: `off` for no progress, `plain` for lines, `bar` for a bar.
pub const ENV_PROGRESS: &str = "CLOUDKNOT_PROGRESS";
/// What makes a program an item process: an [`ItemProcess`] as JSON. Taken out before user code runs.
pub const ENV_ITEM_PROCESS: &str = "CLOUDKNOT_ITEM_PROCESS";
/// What makes a worker say what it holds: it prints its [`Types`] as JSON, and ends.
pub const ENV_DESCRIBE: &str = "CLOUDKNOT_DESCRIBE";
/// What makes a program a container's supervisor: a [`Task`] as JSON.
pub const ENV_TASK: &str = "CLOUDKNOT_TASK";
/// Set in job definitions: how many virtual CPUs a job has, where its [`Task`] does not say.
pub const ENV_VCPUS: &str = "CLOUDKNOT_VCPUS";
/// Set by AWS Batch, in array children only: which child this is. A run of one child is a plain job, so absent is 0.
pub const ENV_CHILD: &str = "AWS_BATCH_JOB_ARRAY_INDEX";
/// Set by AWS Batch: which attempt of the child this is, from 1.
pub const ENV_ATTEMPT: &str = "AWS_BATCH_JOB_ATTEMPT";
/// The folder beside a crate that holds its runs.
pub const HOME: &str = ".cloudknot";

/// What an item process is told when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemProcess {
    /// The id of the function.
    pub function: String,
    /// The types that the supervisor's inputs were written with.
    pub fingerprint: Fingerprint,
    /// How long one attempt of an item may take; the supervisor sees to it, and a function can ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// What a container's supervisor is told when it starts. All children of a run are told the same; which of them it is
/// comes from [`ENV_CHILD`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Where the run is kept.
    pub store: StoreAt,
    /// The Knot that the run belongs to.
    pub knot: String,
    /// The run's id.
    pub run: String,
    /// Which round this is, from 1.
    pub round: u32,
    /// The id of the function.
    pub function: String,
    /// The types that the inputs were written with.
    pub fingerprint: Fingerprint,
    /// How many items the run has.
    pub items: u64,
    /// How the object `inputs` is laid out.
    pub inputs: InputLayout,
    /// How many items a child takes.
    pub chunk: u64,
    /// The number of this job's first child, where a run takes several jobs.
    pub first_child: u64,
    /// How many items run at once.
    pub parallel: u32,
    /// How often a failed item is tried again.
    pub retries: u32,
    /// How long one attempt of an item may take.
    pub timeout_ms: Option<u64>,
    /// How many virtual CPUs the items of a worker share; `None` for what [`ENV_VCPUS`] says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<f64>,
    /// Nothing of these items can be stored yet, so that a first attempt need not look.
    pub fresh: bool,
}

/// The types of a remote function, as a worker knows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Types {
    /// The function's id.
    pub function: String,
    /// The fingerprint of its types.
    pub fingerprint: Fingerprint,
    /// Their structure, for people.
    pub schema: String,
}

/// A remote function as it describes itself in the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FunctionDescription {
    /// The cargo package.
    pub package: String,
    /// The path of the module, crate name first.
    pub module: String,
    /// Its name.
    pub name: String,
    /// Its signature as it is written.
    pub signature: String,
    /// How its inputs and results are written.
    pub codec: String,
    /// Virtual CPUs.
    pub vcpus: Option<f64>,
    /// Memory in MiB.
    pub memory_mib: Option<u64>,
    /// GPUs.
    #[serde(default)]
    pub gpus: u32,
    /// How often a failed item is tried again.
    #[serde(default)]
    pub retries: u32,
    /// How long one attempt of one item may take.
    pub timeout_seconds: Option<f64>,
}

impl FunctionDescription {
    /// The id by which host and worker mean this function.
    pub fn id(&self) -> String {
        format!("{}:{}::{}", self.package, self.module, self.name)
    }
}

/// A store, as a worker is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreAt {
    /// A folder, as the worker sees it.
    Folder(String),
    /// A bucket, and a prefix in it.
    S3 {
        /// The bucket.
        bucket: String,
        /// The prefix, without a slash at its end; empty for none.
        prefix: String,
    },
}

/// How a container's supervisor ends, for the scheduler. Whatever became of the items, 0 says that it is stored.
pub mod exit {
    /// Every outcome is stored.
    pub const DONE: i32 = 0;
    /// The store or the machine failed; another attempt may fare better.
    pub const TROUBLE: i32 = 74;
    /// It was told to stop before it was done; another attempt goes on.
    pub const INTERRUPTED: i32 = 75;
    /// The worker is not the one that the run needs; another attempt would end the same.
    pub const WRONG_WORKER: i32 = 78;
}

/// The record of a run, complete in the store before anything starts: `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this layout, [`Manifest::VERSION`].
    pub version: u32,
    /// The run's id.
    pub run: String,
    /// The Knot (locally: the program) that it belongs to.
    pub knot: String,
    /// The name of the backend that it was submitted to.
    pub backend: String,
    /// The id of the function.
    pub function: String,
    /// The function's signature, for people.
    pub signature: String,
    /// The fingerprint of the function's types.
    pub fingerprint: Fingerprint,
    /// The structure of the function's types, for people and for the message when they have changed.
    pub schema: String,
    /// How inputs and results are written.
    pub codec: Codec,
    /// How many items.
    pub items: u64,
    /// How the object `inputs` is laid out.
    pub inputs: InputLayout,
    /// How many items make a part at most (on Batch: a child).
    pub chunk: u64,
    /// How many items run at once: locally in all, on Batch in one worker.
    pub parallel: u32,
    /// How often a failed item is tried again.
    pub retries: u32,
    /// How long one attempt of an item may take.
    pub timeout_ms: Option<u64>,
    /// After so many failed items the rest is cancelled.
    pub max_failures: Option<u64>,
    /// Environment variables of the item processes. Stored in clear: settings, not secrets.
    pub env: BTreeMap<String, String>,
    /// The user's tags.
    pub tags: BTreeMap<String, String>,
    /// What its jobs have in place of what the function asks for.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// Where on AWS Batch it runs, as it was when the run was submitted: a later deploy changes nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<OnBatch>,
    /// When it was submitted, RFC 3339.
    pub created: String,
}

impl Manifest {
    /// The version that this code writes and reads.
    pub const VERSION: u32 = 1;

    /// What the workers of a round are told, from this child on; all of them look at what is stored before they begin.
    pub fn task(&self, store: StoreAt, round: u32, retries: u32, first_child: u64) -> Task {
        Task {
            store,
            knot: self.knot.clone(),
            run: self.run.clone(),
            round,
            function: self.function.clone(),
            fingerprint: self.fingerprint,
            items: self.items,
            inputs: self.inputs,
            chunk: self.chunk,
            first_child,
            parallel: self.parallel,
            retries,
            timeout_ms: self.timeout_ms,
            vcpus: self.resources.vcpus,
            fresh: false,
        }
    }
}

/// What the jobs of a run have; what is `None` is as it was deployed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Virtual CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<f64>,
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Memory in MiB when items are taken up again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_on_retry_mib: Option<u64>,
    /// GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
}

impl Resources {
    /// Whether all is as it was deployed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Memory in MiB in this round.
    pub fn memory_in(&self, round: u32) -> Option<u64> {
        self.memory_on_retry_mib.filter(|_| round > 1).or(self.memory_mib)
    }
}

/// Where on AWS Batch a run is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnBatch {
    /// The region.
    pub region: String,
    /// The ARN of the queue.
    pub queue: String,
    /// The ARN of the job definition, with its revision.
    pub job_definition: String,
    /// The image, with its digest.
    pub image: String,
    /// The log group of its jobs, unless their definition names another.
    pub log_group: String,
    /// A job of its own for each child, in place of arrays.
    pub independent: bool,
}

/// How the object `inputs` is laid out: frames one after another, then (if they differ in length) their offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputLayout {
    /// All frames are this many bytes long: one read finds any range of them.
    Uniform(u64),
    /// At this byte begin `items + 1` little-endian u64: where each frame begins, and where the last one ends.
    Offsets(u64),
}

/// The items that a round takes up: `rounds/<n>`. The first round is all items and has no object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// Ranges of items, first included, last excluded, in order.
    pub items: Vec<Range<u64>>,
    /// How often a failed item is tried again in this round: the attempt after these is the last.
    pub retries: u32,
}

impl Round {
    /// The `count` items of the round from the `first` on, counted from 0 in the order in which the round has them.
    pub fn slice(&self, first: u64, count: u64) -> Vec<Range<u64>> {
        let (mut skip, mut left) = (first, count);
        let mut slice = Vec::new();
        for range in &self.items {
            let length = range.end - range.start;
            if skip >= length {
                skip -= length;
                continue;
            }
            let start = range.start + skip;
            let end = range.end.min(start.saturating_add(left));
            skip = 0;
            left -= end - start;
            if start < end {
                slice.push(start..end);
            }
        }
        slice
    }

    /// How many items it has.
    pub fn len(&self) -> u64 {
        self.items.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The same line, read.
#[derive(Debug, Deserialize)]
pub struct Start {
    /// Always true.
    pub start: bool,
    /// The version of the contract; none of a worker from before there was one.
    #[serde(default)]
    pub contract: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_names_its_contract() {
        let start: Start = serde_json::from_str(START).unwrap();
        assert!(start.start);
        assert_eq!(start.contract, VERSION);
    }

    #[test]
    fn children_share_a_round_without_gap_or_overlap() {
        let round = Round { items: vec![3..5, 8..9, 20..30], retries: 0 };
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
