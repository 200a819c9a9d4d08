//! Checks of records that were read. A store or an environment can contain anything, written by anyone. After the check, no
//! arithmetic on a record's numbers overflows, and memory for its items is bounded by the size of its objects.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Component, Path};

use super::{InputLayout, MAX_PROVENANCE_LEN, Manifest, Round, Task};
use crate::fingerprint::Structure;
use crate::frame::HEADER_LEN;

/// Maximum length in bytes of a record as JSON, except that of a round. The largest parts of a manifest are the structure of the
/// types and the variables of the user.
pub const MAX_RECORD_LEN: u64 = 16 << 20;
/// Maximum number of items of a run. The host needs three bits for each.
pub const MAX_ITEMS: u64 = 1 << 32;
/// Maximum number of items of a run without the object `inputs`, whose size bounds the number otherwise. Such a run can be read,
/// but not continued.
pub const MAX_ITEMS_WITHOUT_INPUTS: u64 = 1 << 24;

/// Reason why bytes are not a manifest of this version.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ManifestError {
    /// The bytes are not a manifest of any version, for this reason.
    Damaged(String),
    /// The manifest was written by an older version of cloudknot.
    Older {
        /// Version of the manifest.
        version: u32,
    },
    /// The manifest was written by a newer version of cloudknot.
    Newer {
        /// Version of the manifest.
        version: u32,
        /// Version of cloudknot, if it is stated.
        cloudknot: Option<String>,
    },
}

impl ManifestError {
    /// Returns the reason of the error, for a parser that gave up.
    #[allow(clippy::needless_pass_by_value, reason = "it is an argument of `map_err`")]
    fn damaged(error: serde_json::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ours = Manifest::VERSION;
        match self {
            Self::Damaged(why) => write!(f, "it is damaged: {why}"),
            Self::Older { version } => write!(
                f,
                "it was written by an older version of cloudknot (its record has version {version}, and this program reads {ours})"
            ),
            Self::Newer { version, cloudknot } => write!(
                f,
                "it was written by cloudknot {}, which is newer than this program (its record has version {version}, and this \
                 program reads {ours})",
                cloudknot.as_deref().unwrap_or("of an unknown version")
            ),
        }
    }
}

impl std::error::Error for ManifestError {}

impl Manifest {
    /// Parses a manifest. The version is read first, because a manifest of another version may lack fields of this one.
    ///
    /// # Errors
    /// Returns the reason why the bytes are not a manifest of this version.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let Version { version } = serde_json::from_slice(bytes).map_err(ManifestError::damaged)?;
        match version {
            0 => Err(ManifestError::Damaged("it has version 0".into())),
            older if older < Self::VERSION => Err(ManifestError::Older { version }),
            newer if newer > Self::VERSION => {
                Err(ManifestError::Newer { version, cloudknot: version_of_cloudknot(bytes) })
            }
            _ => serde_json::from_slice(bytes).map_err(ManifestError::damaged),
        }
    }

    /// Checks that this is the manifest of this run, and that it fits the object `inputs`, which has this size in bytes; `None` if
    /// it does not exist.
    ///
    /// # Errors
    /// Returns the first reason why the manifest cannot be used.
    pub fn check(&self, knot: &str, run: &str, inputs: Option<u64>) -> Result<(), String> {
        if self.run != run || self.knot != knot {
            return Err(format!("it is the manifest of run `{}` of `{}`", self.run, self.knot));
        }
        check_inputs(self.inputs, self.items, inputs)?;
        at_least_one("chunk", self.chunk)?;
        at_least_one("parallel", self.parallel.into())?;
        at_least_one("timeout_ms", self.timeout_ms.unwrap_or(1))?;
        at_least_one("max_failures", self.max_failures.unwrap_or(1))?;
        at_least_one("recycle", self.recycle.unwrap_or(1))?;
        check_vcpus(self.resources.vcpus)?;
        check_vcpus(self.attribute.vcpus)?;
        self.parent.as_ref().map_or(Ok(()), |parent| check_ranges(&parent.items, MAX_ITEMS))?;
        self.types.as_ref().map_or(Ok(()), Structure::check)?;
        check_env(&self.env)
    }
}

impl Task {
    /// Checks that the numbers of the task fit together.
    ///
    /// # Errors
    /// Returns the first reason why the task cannot be used.
    pub fn check(&self) -> Result<(), String> {
        check_layout(self.inputs, self.items)?;
        at_least_one("round", self.round.into())?;
        at_least_one("chunk", self.chunk)?;
        at_least_one("parallel", self.parallel.into())?;
        at_least_one("timeout_ms", self.timeout_ms.unwrap_or(1))?;
        at_least_one("recycle", self.recycle.unwrap_or(1))?;
        check_vcpus(self.vcpus)?;
        check_env(&self.env)
    }
}

impl InputLayout {
    /// Returns the size in bytes of the object `inputs` with this number of items; `None` if no object can have this layout.
    pub fn size(self, items: u64) -> Option<u64> {
        let shortest = HEADER_LEN as u64;
        match self {
            Self::Uniform(size) if items > 0 && size < shortest => None,
            Self::Uniform(size) => size.checked_mul(items),
            Self::Offsets(at) if at < items.checked_mul(shortest)? => None,
            Self::Offsets(at) => items.checked_add(1)?.checked_mul(8)?.checked_add(at),
        }
    }
}

impl Round {
    /// Returns the maximum length in bytes of a round of a run with this number of items, as JSON. The ranges of either list are
    /// apart, so they are at most half as many as the items, and each has two numbers of at most 20 digits. The rest is the provenance and the
    /// names of AWS resources, which have at most a few hundred bytes each.
    pub fn max_len(items: u64) -> u64 {
        const RANGE_LEN: u64 = 2 * 64;
        const REST_LEN: u64 = MAX_PROVENANCE_LEN as u64 + 4096;
        (items.saturating_add(1) / 2).saturating_mul(RANGE_LEN).saturating_add(REST_LEN)
    }

    /// Parses a round of a run with this number of items, and checks it.
    ///
    /// # Errors
    /// Returns the reason why the bytes are not such a round.
    pub fn parse(bytes: &[u8], items: u64) -> Result<Self, String> {
        let round: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        round.check(items)?;
        Ok(round)
    }

    /// Checks that the ranges are not empty, in order, apart, and within a run of this number of items, and that the settings are
    /// possible.
    ///
    /// # Errors
    /// Returns the first reason why the round cannot be used.
    pub fn check(&self, items: u64) -> Result<(), String> {
        at_least_one("timeout_ms", self.timeout_ms.unwrap_or(1))?;
        check_vcpus(self.resources.vcpus)?;
        check_ranges(&self.items, items)?;
        check_ranges(&self.left_out, items)
    }
}

fn check_ranges(ranges: &[Range<u64>], items: u64) -> Result<(), String> {
    let mut end = 0;
    for (position, range) in ranges.iter().enumerate() {
        let apart = position == 0 || range.start > end;
        if range.is_empty() || !apart || range.end > items {
            return Err(format!("the range {range:?} is empty, out of order, or not within the {items} items"));
        }
        end = range.end;
    }
    Ok(())
}

fn check_env(env: &BTreeMap<String, String>) -> Result<(), String> {
    match env.iter().find(|(name, value)| !is_user_variable(name, value)) {
        Some((name, _)) => Err(format!("`{name}` cannot be set for an item process")),
        None => Ok(()),
    }
}

/// Returns whether a user may set this environment variable for item processes.
pub fn is_user_variable(name: &str, value: &str) -> bool {
    let is_reserved = name.starts_with("CLOUDKNOT_") || name.starts_with("AWS_BATCH");
    !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0') && !is_reserved
}

/// Returns whether a path can be that of an included file or folder: it is relative, and stays within the package's folder.
pub fn is_included_path(path: &Path) -> bool {
    let mut parts = path.components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Returns the number of the last attempt of an item with this number of retries.
pub fn last_attempt(retries: u32) -> u32 {
    retries.saturating_add(1)
}

fn check_inputs(layout: InputLayout, items: u64, inputs: Option<u64>) -> Result<(), String> {
    let size = check_layout(layout, items).map(|()| layout.size(items))?;
    match inputs {
        Some(found) if size != Some(found) => {
            Err(format!("the object `inputs` has {found} bytes, which are not the inputs of {items} items"))
        }
        None if items > MAX_ITEMS_WITHOUT_INPUTS => Err(format!("the object `inputs` of {items} items is missing")),
        _ => Ok(()),
    }
}

fn check_layout(layout: InputLayout, items: u64) -> Result<(), String> {
    if items > MAX_ITEMS {
        return Err(format!("`items` is {items}, but must be at most {MAX_ITEMS}"));
    }
    match layout.size(items) {
        Some(_) => Ok(()),
        None => Err(format!("no object `inputs` of {items} items can have the layout {layout:?}")),
    }
}

fn at_least_one(field: &str, value: u64) -> Result<(), String> {
    if value == 0 { Err(format!("`{field}` must be at least 1")) } else { Ok(()) }
}

fn check_vcpus(vcpus: Option<f64>) -> Result<(), String> {
    match vcpus {
        Some(vcpus) if !vcpus.is_finite() || vcpus <= 0.0 => Err("`vcpus` must be positive".into()),
        _ => Ok(()),
    }
}

#[derive(serde::Deserialize)]
struct Version {
    version: u32,
}

/// Returns the version of cloudknot in a manifest of any later version.
fn version_of_cloudknot(bytes: &[u8]) -> Option<String> {
    let manifest: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    manifest.get("provenance")?.get("cloudknot")?.as_str().filter(|version| !version.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{BatchResources, Program, Provenance, Resources, Submitter};

    #[track_caller]
    fn check_size(layout: InputLayout, items: u64, size: Option<u64>) {
        assert_eq!(layout.size(items), size, "{layout:?} of {items} items");
    }

    /// M5: memory for items is bounded by the size of the object, because a frame has a header.
    #[test]
    fn layout_of_more_items_than_an_object_can_hold_is_refused() {
        check_size(InputLayout::Uniform(0), 0, Some(0));
        check_size(InputLayout::Uniform(32), 3, Some(96));
        check_size(InputLayout::Uniform(31), 1, None);
        check_size(InputLayout::Uniform(0), 1 << 40, None);
        check_size(InputLayout::Uniform(1 << 63), 2, None);
        check_size(InputLayout::Offsets(96), 3, Some(128));
        check_size(InputLayout::Offsets(95), 3, None);
        check_size(InputLayout::Offsets(u64::MAX), 3, None);
        check_size(InputLayout::Offsets(u64::MAX), u64::MAX, None);
    }

    /// M5: the ranges of a round are used in arithmetic.
    #[test]
    #[allow(clippy::reversed_empty_ranges, clippy::single_range_in_vec_init)]
    fn rounds_that_are_not_ordered_ranges_of_items_are_refused() {
        let check = |items: Vec<std::ops::Range<u64>>| Round { items, ..Round::default() }.check(10);
        for valid in [vec![], vec![0..10], vec![0..1, 2..3], vec![9..10]] {
            assert_eq!(check(valid), Ok(()));
        }
        for invalid in [vec![5..3], vec![3..3], vec![0..11], vec![4..5, 0..1], vec![0..2, 2..3], vec![0..2, 1..3]] {
            assert!(check(invalid.clone()).is_err(), "{invalid:?}");
        }
    }

    #[test]
    fn settings_that_no_round_has_are_refused() {
        let vcpus = |vcpus| Resources { vcpus: Some(vcpus), ..Resources::default() };
        let round = |timeout_ms, vcpus| Round { timeout_ms, resources: vcpus, ..Round::default() }.check(0);
        assert_eq!(round(Some(1), vcpus(0.5)), Ok(()));
        assert!(round(Some(0), vcpus(0.5)).is_err_and(|why| why.contains("`timeout_ms`")));
        for invalid in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(round(None, vcpus(invalid)).is_err_and(|why| why.contains("`vcpus`")));
        }
    }

    #[test]
    fn manifests_of_other_versions_are_not_damaged() {
        let parse = |text: &str| Manifest::parse(text.as_bytes()).unwrap_err();
        assert_eq!(parse(r#"{"version": 1, "created": "then"}"#), ManifestError::Older { version: 1 });
        let newer = |cloudknot: Option<&str>| ManifestError::Newer { version: 3, cloudknot: cloudknot.map(Into::into) };
        assert_eq!(
            parse(r#"{"version": 3, "provenance": {"cloudknot": "0.9.1", "program": 7}}"#),
            newer(Some("0.9.1"))
        );
        for text in ["", r#", "provenance": 7"#, r#", "provenance": {"cloudknot": ""}"#] {
            assert_eq!(parse(&format!(r#"{{"version": 3{text}}}"#)), newer(None));
        }
        for damaged in [r#"{"version": 0}"#, r#"{"version": 2}"#, r#"{"version": -1}"#, "{}", "", "\0"] {
            assert!(matches!(parse(damaged), ManifestError::Damaged(_)), "{damaged}");
        }
    }

    /// M5: a round is read only if it is no longer than any round of such a run.
    #[test]
    fn longest_round_is_within_the_limit() {
        for items in [0, 1, 2, 1_000, 100_001] {
            let far = MAX_ITEMS - 2 * items;
            let items_of = |range: u64| far + 2 * range..far + 2 * range + 1;
            let items_of_round = (0..items.div_ceil(2)).map(items_of).collect();
            let round = Round { items: items_of_round, ..longest_but_for_items() };
            let bytes = serde_json::to_vec(&round).unwrap();
            assert!(bytes.len() as u64 <= Round::max_len(items), "{items} items need {} bytes", bytes.len());
        }
    }

    /// Returns a round whose fields other than its items have the maximum lengths.
    fn longest_but_for_items() -> Round {
        let resources = Resources {
            vcpus: Some(f64::MAX),
            memory_mib: Some(u64::MAX),
            memory_on_retry_mib: Some(u64::MAX),
            gpus: Some(u32::MAX),
        };
        // The longest names that AWS accepts.
        let arn = |name: usize| {
            format!("arn:aws-us-gov:batch:us-gov-west-1:123456789012:job-definition/{}", "n".repeat(name))
        };
        let batch = BatchResources {
            region: "us-gov-west-1".into(),
            queue: arn(128),
            job_definition: format!("{}:{}", arn(128), u32::MAX),
            image: format!("123456789012.dkr.ecr.us-gov-west-1.amazonaws.com/{}@sha256:{:064}", "i".repeat(256), 0),
            log_group: "g".repeat(512),
            share_identifier: Some("s".repeat(255)),
            independent: false,
        };
        let arguments = std::iter::repeat_n("\u{1b}".to_owned(), MAX_PROVENANCE_LEN);
        let provenance = Provenance {
            submitter: Submitter { command: arguments.collect(), ..Submitter::default() },
            program: Program { package: "p".repeat(1024), version: "1".repeat(1024), ..Program::default() },
            cloudknot: "0.1.0".into(),
        };
        Round {
            items: Vec::new(),
            left_out: Vec::new(),
            retries: u32::MAX,
            recorded_ms: u64::MAX,
            resources,
            timeout_ms: Some(u64::MAX),
            batch: Some(batch),
            provenance: Some(provenance.bounded()),
        }
    }

    /// M5: a worker reads its task from its environment.
    #[test]
    fn tasks_that_no_host_writes_are_refused() {
        let task = || Task {
            store: crate::contract::StoreAt::Folder("/runs".into()),
            knot: "k".into(),
            run: "r".into(),
            round: 1,
            function: "f".into(),
            fingerprint: crate::fingerprint::Fingerprint(0),
            submitted_ms: u64::MAX,
            items: 3,
            inputs: InputLayout::Uniform(32),
            chunk: 1,
            first_child: u64::MAX,
            parallel: 1,
            retries: u32::MAX,
            timeout_ms: Some(1),
            env: [("MODE".to_owned(), "fast".to_owned())].into(),
            recycle: Some(1),
            vcpus: Some(0.5),
            has_no_outcomes: false,
        };
        assert_eq!(task().check(), Ok(()));
        for invalid in [
            Task { round: 0, ..task() },
            Task { chunk: 0, ..task() },
            Task { parallel: 0, ..task() },
            Task { timeout_ms: Some(0), ..task() },
            Task { recycle: Some(0), ..task() },
            Task { env: [("CLOUDKNOT_TASK".to_owned(), String::new())].into(), ..task() },
            Task { vcpus: Some(f64::NAN), ..task() },
            Task { inputs: InputLayout::Uniform(u64::MAX), ..task() },
            Task { items: MAX_ITEMS + 1, ..task() },
        ] {
            assert!(invalid.check().is_err(), "{invalid:?}");
        }
    }

    /// L4: `.retries(u32::MAX)` has a last attempt.
    #[test]
    fn l4_last_attempt_does_not_overflow() {
        assert_eq!((last_attempt(0), last_attempt(2), last_attempt(u32::MAX)), (1, 3, u32::MAX));
    }
}
