//! The contract between host and worker: environment names, object keys and wire types, for both sides.
//! No other file spells one of them.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::failure::Failure;
use crate::fingerprint::Fingerprint;

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

/// The object keys of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunKeys {
    prefix: String,
}

/// The values of some consecutive items, stored at once. Named `<first>-<last>`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Part {
    /// The first item.
    pub first: u64,
    /// The last item, included.
    pub last: u64,
}

impl RunKeys {
    /// The prefix below which each Knot has its own.
    pub const KNOTS: &str = "knots/";

    /// The keys of this run of this Knot.
    pub fn new(knot: &str, run: &str) -> Self {
        Self { prefix: format!("{}{run}", Self::runs(knot)) }
    }

    /// The prefix of all runs of a Knot.
    pub fn runs(knot: &str) -> String {
        format!("{}{knot}/runs/", Self::KNOTS)
    }

    /// The prefix of all objects of this run.
    pub fn all(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// The run's record.
    pub fn manifest(&self) -> String {
        format!("{}/manifest.json", self.prefix)
    }

    /// All inputs.
    pub fn inputs(&self) -> String {
        format!("{}/inputs", self.prefix)
    }

    /// The prefix of all parts.
    pub fn results(&self) -> String {
        format!("{}/results/", self.prefix)
    }

    /// One part. The numbers are padded, so that parts sort by their first item.
    pub fn part(&self, part: Part) -> String {
        format!("{}/results/{:012}-{:012}", self.prefix, part.first, part.last)
    }

    /// One failed attempt; rounds and attempts count from 1.
    pub fn failure(&self, item: u64, round: u32, attempt: u32) -> String {
        format!("{}/failures/{item:012}/{round:04}.{attempt:04}", self.prefix)
    }

    /// The prefix of all rounds after the first.
    pub fn rounds(&self) -> String {
        format!("{}/rounds/", self.prefix)
    }

    /// The items that a round takes up again.
    pub fn round(&self, round: u32) -> String {
        format!("{}/rounds/{round:04}", self.prefix)
    }

    /// There once this round of the run is cancelled.
    pub fn cancelled(&self, round: u32) -> String {
        format!("{}/cancelled/{round:04}", self.prefix)
    }

    /// Whom a lock on a folder is for: the one program that computes this run.
    pub fn lock(&self) -> String {
        format!("{}/lock", self.prefix)
    }
}

/// The part that a key below `results/` names.
pub fn part_of(key: &str) -> Option<Part> {
    let (first, last) = key.rsplit('/').next()?.split_once('-')?;
    let part = Part { first: first.parse().ok()?, last: last.parse().ok()? };
    (part.first <= part.last).then_some(part)
}

/// Item, round and attempt that a key below `failures/` names.
pub fn failure_of(key: &str) -> Option<(u64, u32, u32)> {
    let mut segments = key.rsplit('/');
    let (round, attempt) = segments.next()?.split_once('.')?;
    Some((segments.next()?.parse().ok()?, round.parse().ok()?, attempt.parse().ok()?))
}

/// The round that a key below `rounds/` names.
pub fn round_of(key: &str) -> Option<u32> {
    key.rsplit('/').next()?.parse().ok()
}

/// What a supervisor writes to an item process: this header, then `length` bytes of the input's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The item's index.
    pub item: u64,
    /// Length of the frame that follows.
    pub length: u64,
}

impl Request {
    /// Appends the request and its frame.
    pub fn append(item: u64, frame: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&item.to_le_bytes());
        out.extend_from_slice(&(frame.len() as u64).to_le_bytes());
        out.extend_from_slice(frame);
    }

    /// The next request, or `None` where the input ends.
    pub fn read(input: &mut impl Read) -> io::Result<Option<Self>> {
        let mut header = [0; 16];
        if input.read(&mut header[..1])? == 0 {
            return Ok(None);
        }
        input.read_exact(&mut header[1..])?;
        Ok(Some(Self { item: u64_at(&header, 0), length: u64_at(&header, 8) }))
    }
}

/// What an item process answers: a tag (8 bytes), an item (8), a length (8), and so many bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It has started, and knows the function.
    Ready,
    /// It cannot run this function, and why.
    Refused(String),
    /// The item failed.
    Failed(u64, Failure),
    /// The frame of the item's value.
    Value(u64, Vec<u8>),
}

const REPLY_HEADER: usize = 24;
const READY: u64 = 0;
const REFUSED: u64 = 1;
const FAILED: u64 = 2;
const VALUE: u64 = 3;

impl Reply {
    /// The reply as it is written.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Ready => reply(READY, 0, &[]),
            Self::Refused(message) => reply(REFUSED, 0, message.as_bytes()),
            Self::Failed(item, failure) => {
                let failure = serde_json::to_vec(failure).expect("a failure is texts and numbers");
                reply(FAILED, *item, &failure)
            }
            Self::Value(item, frame) => reply(VALUE, *item, frame),
        }
    }

    /// The first reply in `bytes` and its length; `Err` holds how many bytes it takes until more can be said.
    ///
    /// # Panics
    /// Never for what an item process of this version writes; a reply that is none is `Refused`.
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize), usize> {
        let header = bytes.get(..REPLY_HEADER).ok_or(REPLY_HEADER)?;
        let (tag, item, length) = (u64_at(header, 0), u64_at(header, 8), u64_at(header, 16));
        let end = usize::try_from(length).ok().and_then(|length| length.checked_add(REPLY_HEADER));
        let end = end.ok_or(usize::MAX)?;
        let body = bytes.get(REPLY_HEADER..end).ok_or(end)?;
        let reply = match tag {
            READY => Self::Ready,
            FAILED => match serde_json::from_slice(body) {
                Ok(failure) => Self::Failed(item, failure),
                Err(error) => Self::Refused(format!("the item process sent a failure that cannot be read: {error}")),
            },
            VALUE => Self::Value(item, body.to_vec()),
            _ => Self::Refused(String::from_utf8_lossy(body).into_owned()),
        };
        Ok((reply, end))
    }
}

/// From this size on a buffer is given back once it has served.
pub const LARGE: usize = 1 << 20;

impl Reply {
    /// The one reply that `bytes` is, if it is a large value: it is taken as it is, and not copied like others.
    pub fn take_large(bytes: &mut Vec<u8>) -> Option<Self> {
        let header = bytes.get(..REPLY_HEADER).filter(|_| bytes.len() >= LARGE)?;
        let (tag, item, length) = (u64_at(header, 0), u64_at(header, 8), u64_at(header, 16));
        if tag != VALUE || length != (bytes.len() - REPLY_HEADER) as u64 {
            return None;
        }
        let mut frame = std::mem::take(bytes);
        frame.drain(..REPLY_HEADER);
        Some(Self::Value(item, frame))
    }
}

fn reply(tag: u64, item: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(REPLY_HEADER + body.len());
    for number in [tag, item, body.len() as u64] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

/// Begins a [`Reply::Value`] in place, so that a large value is not copied once more; the value's frame is appended
/// next, then [`end_value`].
pub fn begin_value(out: &mut Vec<u8>, item: u64) -> usize {
    let begun = out.len();
    out.extend_from_slice(&reply(VALUE, item, &[]));
    begun
}

/// Ends what [`begin_value`] began.
pub fn end_value(out: &mut [u8], begun: usize) {
    let length = (out.len() - begun - REPLY_HEADER) as u64;
    out[begun + 16..begun + REPLY_HEADER].copy_from_slice(&length.to_le_bytes());
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes make a u64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_what_they_name() {
        let keys = RunKeys::new("sweep", "20260101-000000000-abcdef");
        let part = Part { first: 7, last: 11 };
        assert_eq!(keys.part(part), "knots/sweep/runs/20260101-000000000-abcdef/results/000000000007-000000000011");
        assert_eq!(part_of(&keys.part(part)), Some(part));
        assert_eq!(failure_of(&keys.failure(3, 2, 1)), Some((3, 2, 1)));
        assert_eq!(round_of(&keys.round(12)), Some(12));
        for strange in ["knots/sweep/runs/r/results/", "x/7", "x/9-7", "x/a-b", ""] {
            assert_eq!(part_of(strange), None, "{strange}");
        }
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

    #[test]
    fn replies_arrive_whole_or_ask_for_more() {
        let failure = Failure::new(crate::failure::ItemErrorKind::Returned, "no such star");
        let replies = [
            Reply::Ready,
            Reply::Refused("no".into()),
            Reply::Failed(7, failure),
            Reply::Value(9, vec![1, 2, 3]),
            Reply::Value(u64::MAX, Vec::new()),
        ];
        for reply in replies {
            let bytes = reply.to_bytes();
            assert_eq!(Reply::parse(&bytes), Ok((reply, bytes.len())));
            for cut in 0..bytes.len() {
                let wanted = Reply::parse(&bytes[..cut]).unwrap_err();
                assert!(wanted > cut && wanted <= bytes.len().max(REPLY_HEADER), "{wanted} bytes of {}", bytes.len());
            }
        }
    }

    #[test]
    fn a_large_value_is_taken_where_it_is_all_there_is() {
        let large = Reply::Value(5, vec![7; LARGE]);
        let mut bytes = large.to_bytes();
        for cut in [0, 10, REPLY_HEADER, LARGE, bytes.len() - 1] {
            assert_eq!(Reply::take_large(&mut bytes[..cut].to_vec()), None);
        }
        let mut two = [bytes.clone(), Reply::Ready.to_bytes()].concat();
        assert_eq!(Reply::take_large(&mut two), None);
        assert_eq!(Reply::take_large(&mut bytes), Some(large));
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_value_written_in_place_is_the_same_reply() {
        let mut bytes = vec![1, 2];
        let begun = begin_value(&mut bytes, 5);
        bytes.extend([7; 100]);
        end_value(&mut bytes, begun);
        assert_eq!(bytes[2..], Reply::Value(5, vec![7; 100]).to_bytes());
    }
}
