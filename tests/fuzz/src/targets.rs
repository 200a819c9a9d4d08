//! The kinds of inputs, each with valid samples, the code that reads it, and the memory that this may need.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::SystemTime;

use cloudknot_runtime::codec::Codec;
use cloudknot_runtime::contract::{
    self, FailedAttempt, FunctionDescription, IndexEntry, InputLayout, Lease, LeaseState, LeasedJob, Manifest, Part,
    PartEnd, Provenance, Resources, Round, RunKeys, RunState, StoreAt, Task, Types,
};
use cloudknot_runtime::failure::{Failure, ItemError, ItemErrorKind};
use cloudknot_runtime::fingerprint::json::StoredValue;
use cloudknot_runtime::fingerprint::{Fingerprint, Part as TypePart, Schema, Structure};
use cloudknot_runtime::frame;
use cloudknot_runtime::measurements::{Machine, Measured, Measurements};
use cloudknot_runtime::store::{DirStore, Store, StoreErrorKind};
use cloudknot_runtime::text::printable;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

/// Reads an input as the library does, and checks what comes of it.
type Read = Box<dyn Fn(&[u8])>;

/// A kind of input.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) samples: Vec<Vec<u8>>,
    pub(crate) is_text: bool,
    /// Memory that any input may need, for messages and for the first elements of a list.
    pub(crate) base_bytes: u64,
    /// Memory that each byte of the input may need. The shortest entry of a map is eight bytes of JSON.
    pub(crate) bytes_per_byte: u64,
    pub(crate) read: Read,
}

impl Target {
    fn json<T: Serialize>(name: &'static str, samples: &[T], read: impl Fn(&[u8]) + 'static) -> Self {
        let samples = samples.iter().map(|sample| serde_json::to_vec(sample).expect("a sample serializes to JSON"));
        Self {
            name,
            samples: samples.collect(),
            is_text: true,
            base_bytes: 16 << 10,
            bytes_per_byte: 64,
            read: Box::new(read),
        }
    }
}

pub(crate) fn all() -> Vec<Target> {
    vec![
        Target::json("manifest", &manifests(), read_manifest),
        Target::json("round", &rounds(), read_round),
        Target::json("task", &[task()], read_task),
        Target::json("lease", &leases(), read_lease),
        Target::json("failure", &[failure()], read_failure),
        Target::json("types", &[[types()]], parse::<Vec<Types>>),
        Target::json("functions", &[description()], parse::<FunctionDescription>),
        keys(),
        Target {
            name: "part",
            samples: vec![part()],
            is_text: false,
            base_bytes: 16 << 10,
            bytes_per_byte: 64,
            read: Box::new(read_part),
        },
        structures("structure of bincode", Codec::Bincode),
        structures("structure of messagepack", Codec::Messagepack),
        frames("frame of bincode", Codec::Bincode),
        frames("frame of messagepack", Codec::Messagepack),
    ]
}

const KNOT: &str = "sweep";
const RUN: &str = "20260101-000000000-abcdef";

fn manifests() -> [Manifest; 2] {
    let manifest = Manifest {
        version: Manifest::VERSION,
        run: RUN.into(),
        knot: KNOT.into(),
        backend: "local".into(),
        function: "sweep:sweep::f".into(),
        signature: "fn f(x: u64) -> u64".into(),
        fingerprint: Fingerprint(7),
        schema: "(u64) -> u64".into(),
        types: Some(structure(Codec::Bincode)),
        codec: Codec::Bincode,
        items: 12,
        inputs: InputLayout::Uniform(33),
        inputs_hash: None,
        chunk: 4,
        parallel: 2,
        retries: 1,
        timeout_ms: Some(1_000),
        recycle: Some(100),
        max_failures: Some(3),
        env: BTreeMap::from([("A".into(), "1".into()), ("B".into(), String::new())]),
        tags: BTreeMap::from([("team".into(), "x".into())]),
        resources: Resources { vcpus: Some(0.5), ..Resources::default() },
        attribute: Resources { vcpus: Some(2.0), ..Resources::default() },
        batch: None,
        submitted_ms: 1_767_225_600_000,
        name: Some("sweep 3".into()),
        parent: None,
        provenance: Provenance::default(),
    };
    [Manifest { inputs: InputLayout::Offsets(400), batch: None, ..manifest.clone() }, manifest]
}

/// Reads a manifest as an attach does, and uses what the check allows.
fn read_manifest(bytes: &[u8]) {
    let Ok(manifest) = Manifest::parse(bytes) else { return };
    for size in [Some(12 * 33), Some(400 + 13 * 8), manifest.inputs.size(manifest.items), None] {
        if manifest.check(KNOT, RUN, size).is_ok() {
            let round = Round { retries: manifest.retries, ..Round::default() };
            let task = manifest.task(StoreAt::Folder("/runs".into()), 1, &round, 0);
            assert!(task.check().is_ok(), "a checked manifest has a valid task");
            assert!(size.is_none() || manifest.items <= size.unwrap_or(0) / 32, "the size bounds the items");
            use_layout(manifest.inputs, manifest.items);
        }
    }
}

/// Computes where inputs are, as a supervisor does.
fn use_layout(layout: InputLayout, items: u64) {
    for item in [0, items / 2, items.saturating_sub(1)].into_iter().filter(|&item| item < items) {
        black_box(match layout {
            InputLayout::Uniform(size) => item * size..(item + 1) * size,
            InputLayout::Offsets(at) => at + item * 8..at + (item + 2) * 8,
        });
    }
}

fn rounds() -> [Round; 2] {
    let items = vec![0..3, 5..6, 9..12];
    let first = Round { items, retries: 1, ..Round::default() };
    [first, Round { retries: u32::MAX, timeout_ms: Some(7), ..Round::default() }]
}

fn read_round(bytes: &[u8]) {
    for items in [0, 12, contract::MAX_ITEMS] {
        let Ok(round) = Round::parse(bytes, items) else { continue };
        assert!(round.len() <= items, "the round has items of the run");
        for (first, count) in [(0, 1), (2, 5), (0, u64::MAX), (u64::MAX, u64::MAX)] {
            let slice = round.slice(first, count);
            assert!(slice.iter().all(|range| range.start < range.end && range.end <= items));
        }
        black_box(contract::last_attempt(round.retries));
    }
}

fn leases() -> [Lease; 2] {
    let job = |id: &str, children| LeasedJob { id: id.into(), children };
    let jobs = vec![job("01234567-89ab-cdef-0123-456789abcdef", 0..4), job("b", 4..5)];
    let owner = "0123456789abcdef".to_owned();
    [
        Lease { owner: owner.clone(), state: LeaseState::Submitting, jobs },
        Lease { owner, state: LeaseState::Closed { interrupted: true }, jobs: Vec::new() },
    ]
}

fn read_lease(bytes: &[u8]) {
    for children in [0, 5, contract::MAX_ITEMS] {
        let Ok(lease) = Lease::parse(bytes, children) else { continue };
        assert!(lease.jobs.iter().all(|job| job.children.start < job.children.end && job.children.end <= children));
    }
}

fn task() -> Task {
    let round = Round { retries: 1, ..Round::default() };
    manifests()[1].task(StoreAt::S3 { bucket: "b".into(), prefix: "p".into() }, 2, &round, 3)
}

fn read_task(bytes: &[u8]) {
    let Ok(task) = serde_json::from_slice::<Task>(bytes) else { return };
    if task.check().is_err() {
        return;
    }
    use_layout(task.inputs, task.items);
    #[allow(clippy::single_range_in_vec_init)]
    let all = Round { items: vec![0..task.items], retries: task.retries, ..Round::default() };
    for child in [0, 1, u64::MAX] {
        let first = task.first_child.saturating_add(child).saturating_mul(task.chunk);
        black_box(all.slice(first, task.chunk));
    }
}

fn failure() -> ItemError {
    let mut failure = Failure::new(ItemErrorKind::Panicked, "no such star");
    failure.chain = vec!["a cause".into(), "\u{1b}[31m".into()];
    failure.location = Some("src/main.rs:1:2".into());
    failure.exit_code = Some(101);
    ItemError::new(failure, 2).with_log("the end\nof the log".into())
}

fn read_failure(bytes: &[u8]) {
    if let Ok(error) = serde_json::from_slice::<ItemError>(bytes) {
        let text = error.to_string();
        let shown = printable(&text);
        assert!(!shown.contains(['\u{1b}', '\r', '\u{7}', '\u{202e}']), "control characters are escaped");
    }
}

fn types() -> Types {
    Types { function: "sweep:sweep::f".into(), fingerprint: Fingerprint(7), schema: "(u64) -> u64".into() }
}

/// Description of a function, as a worker's executable contains it.
fn description() -> serde_json::Value {
    serde_json::json!({
        "package": "sweep", "module": "sweep", "name": "f", "signature": "fn f()", "codec": "bincode", "vcpus": 0.5,
        "memory_mib": 512, "gpus": 0, "retries": 1, "timeout_seconds": 1.5,
    })
}

/// The end of a part, after a frame.
fn part() -> Vec<u8> {
    let measured = Measured { started_us: 17, duration_us: 5, cpu_us: Some(3), memory: None };
    let now = SystemTime::UNIX_EPOCH;
    let mut table = Vec::new();
    (1..=3).for_each(|slot| Measurements::new((1, 1), &measured, now, now, slot).append(&mut table));
    let mut bytes = b"frames".to_vec();
    PartEnd::append(&table, &Machine::default().to_bytes(), &mut bytes);
    bytes
}

fn read_part(bytes: &[u8]) {
    let part = Part { first: 4, last: 6 };
    if let Ok(end) = PartEnd::parse(part, bytes) {
        assert_eq!(
            (end.rows.len(), PartEnd::frames_len(part, bytes)),
            (3, Ok(bytes.len() - usize::try_from(end.len).expect("the end is in memory")))
        );
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) {
    black_box(serde_json::from_slice::<T>(bytes).is_ok());
}

fn keys() -> Target {
    let keys = RunKeys::new(KNOT, RUN);
    let ended = IndexEntry::Ended { round: 1, state: RunState::Done, done: 12, failed: 0, at_ms: 7 };
    let samples = [
        keys.manifest(),
        keys.part(Part { first: 7, last: u64::MAX }),
        keys.failure(FailedAttempt { item: 7, round: 2, attempt: u32::MAX, cause: failure().cause() }),
        keys.round(u32::MAX),
        keys.cancelled(1),
        contract::index_key(KNOT, RUN, &ended).expect("the ID has the form of a host's"),
        RunKeys::new("größe", "r").lock(),
    ];
    let store = DirStore::new(std::env::temp_dir().join("cloudknot-fuzz-does-not-exist"));
    let read = move |bytes: &[u8]| read_key(&store, &keys, &String::from_utf8_lossy(bytes));
    Target {
        name: "key",
        samples: samples.map(String::into_bytes).to_vec(),
        is_text: true,
        base_bytes: 16 << 10,
        bytes_per_byte: 64,
        read: Box::new(read),
    }
}

/// Parses a key of any folder. A name that is parsed is the name that is written.
fn read_key(store: &DirStore, keys: &RunKeys, key: &str) {
    let name = key.rsplit('/').next().unwrap_or(key);
    if let Some(part) = contract::part_of(key) {
        assert!(part.first <= part.last && keys.part(part).ends_with(&format!("/{name}")));
    }
    if let Some(failure) = contract::failure_of(key) {
        assert!(failure.round > 0 && failure.attempt > 0 && keys.failure(failure).ends_with(&format!("/{name}")));
    }
    if let Some((run, entry)) = contract::index_entry(key) {
        let again = contract::index_key(KNOT, &run, &entry).expect("the ID has the form of a host's");
        assert_eq!(contract::index_entry(&again), Some((run, entry)));
    }
    if let Some(round) = contract::round_of(key) {
        assert!(round > 0 && keys.round(round).ends_with(&format!("/{name}")));
    }
    match pollster::block_on(store.size(key)) {
        Ok(size) => {
            let is_inside = |segment: &str| !segment.is_empty() && !segment.starts_with('.');
            assert!(size.is_none() && key.split('/').all(is_inside), "the key is in the store");
        }
        Err(error) => assert_eq!(error.kind(), StoreErrorKind::BadKey),
    }
}

/// A value of every kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Everything {
    numbers: Vec<f64>,
    text: String,
    pairs: Vec<(u32, String, Option<i64>)>,
    map: BTreeMap<String, Vec<u8>>,
    wide: (u128, char, bool),
    shape: Shape,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(f32),
    Nested { inside: Option<Box<Self>>, scales: [u16; 3] },
}

const FINGERPRINT: Fingerprint = Fingerprint(0x0123_4567_89ab_cdef);

fn structure(codec: Codec) -> Structure {
    Schema::sampled::<(), Everything>(codec).structure
}

/// Structures of types, by which valid frames are converted to JSON.
fn structures(name: &'static str, codec: Codec) -> Target {
    let frames = samples(codec);
    let read = move |bytes: &[u8]| {
        let Ok(structure) = serde_json::from_slice::<Structure>(bytes) else { return };
        // Must not panic before it is checked either.
        for frame in &frames {
            black_box(to_json(&structure, codec, frame));
        }
        black_box(structure.check().is_ok());
        black_box((structure.opaque(TypePart::Output), structure.arguments().count()));
    };
    // Each of two million parts without bytes may be printed, in a buffer that doubles.
    Target { base_bytes: 128 << 20, ..Target::json(name, &[structure(codec)], read) }
}

/// Converts the value in a frame to JSON, which must then be valid.
fn to_json(structure: &Structure, codec: Codec, frame: &[u8]) -> Option<String> {
    let value = StoredValue::new(structure, TypePart::Output, codec, FINGERPRINT, frame).ok()?;
    let json = value.to_json().ok()?;
    assert!(serde_json::from_str::<serde::de::IgnoredAny>(&json).is_ok(), "the text is JSON");
    Some(json)
}

fn samples(codec: Codec) -> Vec<Vec<u8>> {
    let nested = Shape::Nested { inside: Some(Box::new(Shape::Circle(1.5))), scales: [1, 2, 3] };
    let everything = |shape| Everything {
        numbers: vec![0.5, f64::NAN, -0.0],
        text: "größe".into(),
        pairs: vec![(1, "one".into(), None), (2, String::new(), Some(i64::MIN))],
        map: BTreeMap::from([("bytes".into(), vec![0, 255])]),
        wide: (u128::MAX, 'ß', true),
        shape,
    };
    let frame = |shape| {
        let mut frame = Vec::new();
        let _written =
            frame::encode(codec, FINGERPRINT, &everything(shape), &mut frame).expect("the value can be encoded");
        frame
    };
    [Shape::Point, nested].map(frame).to_vec()
}

fn frames(name: &'static str, codec: Codec) -> Target {
    let structure = structure(codec);
    Target {
        name,
        samples: samples(codec),
        is_text: false,
        // A value of up to 1 MiB is decoded with a limit of 16 MiB.
        base_bytes: 17 << 20,
        bytes_per_byte: 64,
        read: Box::new(move |bytes| read_frames(codec, &structure, bytes)),
    }
}

/// Reads the frame as it is, and with a header that fits the damaged value.
fn read_frames(codec: Codec, structure: &Structure, bytes: &[u8]) {
    if let Ok(length) = frame::frame_length(bytes) {
        assert!(length >= frame::HEADER_LEN as u64, "a frame has a header");
    }
    decode(codec, structure, bytes);
    if let Some(value) = bytes.get(frame::HEADER_LEN..) {
        let mut frame = bytes.to_vec();
        frame[16..24].copy_from_slice(&(value.len() as u64).to_le_bytes());
        frame[24..32].copy_from_slice(&XxHash3_64::oneshot_with_seed(FINGERPRINT.0, value).to_le_bytes());
        decode(codec, structure, &frame);
    }
}

/// Decodes a frame with its type, and without it.
fn decode(codec: Codec, structure: &Structure, frame: &[u8]) {
    let json = to_json(structure, codec, frame);
    let is_read = frame::decode::<Everything>(codec, FINGERPRINT, frame).is_ok();
    assert!(!is_read || json.is_some() || codec == Codec::Messagepack, "what bincode can read has a form in JSON");
    black_box(frame::decode::<Vec<String>>(codec, FINGERPRINT, frame).is_ok());
}
