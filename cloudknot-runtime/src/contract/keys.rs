//! Keys of a run's objects in a store.

use crate::failure::{Cause, ItemErrorKind};

/// Object keys of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunKeys {
    prefix: String,
}

/// Values of consecutive items, stored at once. The object is named `<first>-<last>`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Part {
    /// First item.
    pub first: u64,
    /// Last item, included.
    pub last: u64,
}

/// Failed attempt of an item, as its key states it. Attempts with the same cause can be grouped by their keys alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FailedAttempt {
    /// Index of the item.
    pub item: u64,
    /// Number of the round, from 1.
    pub round: u32,
    /// Number of the attempt in its round, from 1.
    pub attempt: u32,
    /// Cause of the failure.
    pub cause: Cause,
}

impl RunKeys {
    /// Prefix that contains the prefixes of all Knots.
    pub const KNOTS: &str = "knots/";

    /// Creates the keys of a run of a Knot.
    pub fn new(knot: &str, run: &str) -> Self {
        Self { prefix: format!("{}{run}", Self::runs(knot)) }
    }

    /// Returns the prefix of all runs of a Knot.
    pub fn runs(knot: &str) -> String {
        format!("{}{}/runs/", Self::KNOTS, segment(knot))
    }

    /// Returns the prefix of all objects of this run.
    pub fn all(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// Returns the key of the run's manifest.
    pub fn manifest(&self) -> String {
        format!("{}/manifest.json", self.prefix)
    }

    /// Returns the key of the object that holds all inputs.
    pub fn inputs(&self) -> String {
        format!("{}/inputs", self.prefix)
    }

    /// Returns the prefix of all parts.
    pub fn results(&self) -> String {
        format!("{}/results/", self.prefix)
    }

    /// Returns the key of a part. The numbers are padded, so that parts sort by their first item.
    pub fn part(&self, part: Part) -> String {
        format!("{}/results/{:012}-{:012}", self.prefix, part.first, part.last)
    }

    /// Returns the key of a failed attempt.
    pub fn failure(&self, failure: FailedAttempt) -> String {
        let FailedAttempt { item, round, attempt, cause } = failure;
        format!("{}/failures/{item:012}/{round:04}.{attempt:04}.{}-{:08x}", self.prefix, cause.kind.name(), cause.hash)
    }

    /// Returns the prefix of all rounds after the first.
    pub fn rounds(&self) -> String {
        format!("{}/rounds/", self.prefix)
    }

    /// Returns the key of the object that lists the scheduled items of a round.
    pub fn round(&self, round: u32) -> String {
        format!("{}/rounds/{round:04}", self.prefix)
    }

    /// Returns the key of the object that exists once this round of the run is cancelled.
    pub fn cancelled(&self, round: u32) -> String {
        format!("{}/cancelled/{round:04}", self.prefix)
    }

    /// Returns the prefix of the segments of the log of a run in a folder.
    pub fn logs(&self) -> String {
        format!("{}/log/", self.prefix)
    }

    /// Returns the key of a segment of the log; they count from 1.
    pub fn log(&self, segment: u64) -> String {
        format!("{}/log/{segment:06}", self.prefix)
    }

    /// Returns the prefix of the leases of all rounds, and of the run's clock.
    pub fn leases(&self) -> String {
        format!("{}/submitting/", self.prefix)
    }

    /// Returns the key of a lease; rounds and epochs count from 1.
    pub fn lease(&self, round: u32, epoch: u32) -> String {
        format!("{}/submitting/{round:04}/{epoch:04}", self.prefix)
    }

    /// Returns the key of the run's clock: an empty object that is written to learn the time of the store.
    pub fn clock(&self) -> String {
        format!("{}/submitting/clock", self.prefix)
    }

    /// Returns the key of the object that a deletion writes before it deletes the manifest: whatever has it and no manifest is the
    /// rest of a run.
    pub fn deletion(&self) -> String {
        format!("{}/deleting", self.prefix)
    }

    /// Returns the key of the lock file of a run in a folder. It is held by the one program that computes the run.
    pub fn lock(&self) -> String {
        format!("{}/lock", self.prefix)
    }
}

/// Returns the segment of a key for this name: the name itself, if a key can contain it. Packages can also have names of other
/// letters (`größe`): each of these becomes its number between dots, after `u.` (`u.gr.f6..df.e`), so that the keys of every
/// store, and the paths of every file system, contain only ASCII. No package name has a dot, so segments do not collide.
pub(super) fn segment(name: &str) -> String {
    if name.is_ascii() {
        return name.to_owned();
    }
    let escaped = name.chars().map(|c| if c.is_ascii() { c.to_string() } else { format!(".{:x}.", u32::from(c)) });
    "u.".chars().map(String::from).chain(escaped).collect()
}

/// Returns the name of the Knot whose folder in `knots/` has this name; `None` if no Knot has such a folder.
pub fn knot_of(folder: &str) -> Option<String> {
    let Some(escaped) = folder.strip_prefix("u.") else { return Some(folder.to_owned()) };
    // Every second field is the number of a letter.
    let fields = escaped.split('.').enumerate();
    let name: Option<String> = fields
        .map(|(position, field)| match position % 2 {
            0 => Some(field.to_owned()),
            _ => u32::from_str_radix(field, 16).ok().and_then(char::from_u32).map(String::from),
        })
        .collect();
    name.filter(|name| segment(name) == folder)
}

/// Parses the part from a key in `results/`. Returns `None` for any other key, and for a name that [`RunKeys::part`] does not give.
pub fn part_of(key: &str) -> Option<Part> {
    let name = name_in(key, "results")?;
    let (first, last) = name.split_once('-')?;
    let part = Part { first: number(first, 12)?, last: number(last, 12)? };
    (part.first <= part.last).then_some(part)
}

/// Parses the failed attempt from a key in `failures/`, as [`RunKeys::failure`] gives it.
pub fn failure_of(key: &str) -> Option<FailedAttempt> {
    let (folder, name) = key.rsplit_once('/')?;
    let item = number(name_in(folder, "failures")?, 12)?;
    let (round, rest) = name.split_once('.')?;
    let (attempt, cause) = rest.split_once('.')?;
    let (kind, hash) = cause.rsplit_once('-')?;
    let is_hash = hash.len() == 8 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let hash = is_hash.then(|| u32::from_str_radix(hash, 16).ok()).flatten()?;
    let cause = Cause { kind: ItemErrorKind::parse(kind)?, hash };
    Some(FailedAttempt { item, round: from_one(round)?, attempt: from_one(attempt)?, cause })
}

/// Parses the round from a key in `rounds/`, as [`RunKeys::round`] gives it.
pub fn round_of(key: &str) -> Option<u32> {
    from_one(name_in(key, "rounds")?)
}

/// Parses the number of a segment from a key in `log/`, as [`RunKeys::log`] gives it.
pub fn log_of(key: &str) -> Option<u64> {
    number(name_in(key, "log")?, 6).filter(|&segment| segment > 0)
}

/// Parses the round and epoch from a key in `submitting/`, as [`RunKeys::lease`] gives it.
pub fn lease_of(key: &str) -> Option<(u32, u32)> {
    let (folder, epoch) = key.rsplit_once('/')?;
    Some((from_one(name_in(folder, "submitting")?)?, from_one(epoch)?))
}

/// Returns the last segment of a key, if it is in a folder of this name.
fn name_in<'a>(key: &'a str, folder: &str) -> Option<&'a str> {
    let (parent, name) = key.rsplit_once('/')?;
    (parent.rsplit('/').next() == Some(folder)).then_some(name)
}

/// Parses a number that is padded to `width` digits. A number with another form is the name of another object.
fn number(text: &str, width: usize) -> Option<u64> {
    let is_padded = text.len() == width || (text.len() > width && !text.starts_with('0'));
    let is_number = is_padded && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// Parses the number of a round or attempt.
pub(super) fn from_one(text: &str) -> Option<u32> {
    number(text, 4)?.try_into().ok().filter(|&number| number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip() {
        let keys = RunKeys::new("sweep", "20260101-000000000-abcdef");
        let part = Part { first: 7, last: 11 };
        assert_eq!(keys.part(part), "knots/sweep/runs/20260101-000000000-abcdef/results/000000000007-000000000011");
        for part in [part, Part { first: 0, last: 0 }, Part { first: 999_999_999_999, last: u64::MAX }] {
            assert_eq!(part_of(&keys.part(part)), Some(part));
        }
        let cause = Cause { kind: ItemErrorKind::OutOfMemory, hash: 0xab };
        let failure = FailedAttempt { item: 3, round: 2, attempt: 1, cause };
        assert!(keys.failure(failure).ends_with("/failures/000000000003/0002.0001.out-of-memory-000000ab"));
        for (item, round, attempt) in [(3, 2, 1), (u64::MAX, u32::MAX, u32::MAX), (0, 9_999, 10_000)] {
            let failure = FailedAttempt { item, round, attempt, cause };
            assert_eq!(failure_of(&keys.failure(failure)), Some(failure));
        }
        for round in [2, 12, 10_000, u32::MAX] {
            assert_eq!(round_of(&keys.round(round)), Some(round));
            assert_eq!(lease_of(&keys.lease(round, round - 1)), Some((round, round - 1)));
        }
        for segment in [1, 999_999, 1_000_000] {
            assert_eq!(log_of(&keys.log(segment)), Some(segment));
        }
        assert_eq!((log_of(&keys.log(0)), lease_of(&keys.clock())), (None, None));
    }

    /// L6: cargo accepts package names of any letters, and stores accept keys of ASCII only.
    #[test]
    fn package_names_of_any_letters_have_keys() {
        for (name, segment) in [
            ("sweep-2", "sweep-2"),
            ("größe", "u.gr.f6..df.e"),
            ("größer", "u.gr.f6..df.er"),
            ("ölwert", "u..f6.lwert"),
            ("f6", "f6"),
        ] {
            let keys = RunKeys::new(name, "r");
            assert_eq!(keys.lock(), format!("knots/{segment}/runs/r/lock"));
            assert_eq!(knot_of(segment).as_deref(), Some(name));
            assert_eq!(part_of(&keys.part(Part { first: 0, last: 1 })), Some(Part { first: 0, last: 1 }));
        }
    }

    #[test]
    fn folder_of_no_knot_is_passed_over() {
        for folder in ["u.", "u.gr", "u.gr.f6", "u.gr.F6.e", "u.gr.66.e", "u.gr.110000.e", "u..x.."] {
            assert_eq!(knot_of(folder), None, "{folder}");
        }
    }

    /// M5: the key of a parsed part is the key that was listed, so that it can be read.
    #[test]
    fn names_in_another_form_are_passed_over() {
        let (seven, nine) = ("000000000007", "000000000009");
        let parts =
            ["7-9".into(), format!("{nine}-{seven}"), format!("+{}-{nine}", &seven[1..]), format!("0{seven}-{nine}")];
        for name in
            parts.into_iter().chain([String::new(), seven.into(), "a-b".into(), format!("{seven}-{}", "9".repeat(21))])
        {
            assert_eq!(part_of(&format!("knots/k/runs/r/results/{name}")), None, "{name}");
        }
        assert_eq!(part_of(&format!("knots/k/runs/r/other/{seven}-{nine}")), None);
        assert_eq!(part_of(&format!("{seven}-{nine}")), None);
        let seven_failed = |rest: &str| format!("{seven}/{rest}");
        for name in [
            "7/0001.0001.crashed-00000000".into(),
            seven_failed("1.1.crashed-00000000"),
            seven_failed("0000.0001.crashed-00000000"),
            seven_failed("0001.0000.crashed-00000000"),
            seven_failed("0001.0001"),
            seven_failed("0001.0001.sad-00000000"),
            seven_failed("0001.0001.crashed-0000000A"),
            seven_failed("0001.0001.crashed-1"),
            "0001.0001.crashed-00000000".into(),
        ] {
            assert_eq!(failure_of(&format!("knots/k/runs/r/failures/{name}")), None, "{name}");
        }
        for name in ["2", "0000", "4294967296", "+002", "00002"] {
            assert_eq!(round_of(&format!("knots/k/runs/r/rounds/{name}")), None, "{name}");
            assert_eq!(lease_of(&format!("knots/k/runs/r/submitting/0001/{name}")), None, "{name}");
            assert_eq!(lease_of(&format!("knots/k/runs/r/submitting/{name}/0001")), None, "{name}");
        }
    }
}
