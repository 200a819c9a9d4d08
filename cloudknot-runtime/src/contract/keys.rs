//! Keys of a run's objects in a store.

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

impl RunKeys {
    /// Prefix that contains the prefixes of all Knots.
    pub const KNOTS: &str = "knots/";

    /// Creates the keys of a run of a Knot.
    pub fn new(knot: &str, run: &str) -> Self {
        Self { prefix: format!("{}{run}", Self::runs(knot)) }
    }

    /// Returns the prefix of all runs of a Knot.
    pub fn runs(knot: &str) -> String {
        format!("{}{knot}/runs/", Self::KNOTS)
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

    /// Returns the key of a failed attempt; rounds and attempts count from 1.
    pub fn failure(&self, item: u64, round: u32, attempt: u32) -> String {
        format!("{}/failures/{item:012}/{round:04}.{attempt:04}", self.prefix)
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

    /// Returns the key of the lock file of a run in a folder. It is held by the one program that computes the run.
    pub fn lock(&self) -> String {
        format!("{}/lock", self.prefix)
    }
}

/// Parses the part from a key below `results/`.
pub fn part_of(key: &str) -> Option<Part> {
    let (first, last) = key.rsplit('/').next()?.split_once('-')?;
    let part = Part { first: first.parse().ok()?, last: last.parse().ok()? };
    (part.first <= part.last).then_some(part)
}

/// Parses the item, round and attempt from a key below `failures/`.
pub fn failure_of(key: &str) -> Option<(u64, u32, u32)> {
    let mut segments = key.rsplit('/');
    let (round, attempt) = segments.next()?.split_once('.')?;
    Some((segments.next()?.parse().ok()?, round.parse().ok()?, attempt.parse().ok()?))
}

/// Parses the round from a key below `rounds/`.
pub fn round_of(key: &str) -> Option<u32> {
    key.rsplit('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip() {
        let keys = RunKeys::new("sweep", "20260101-000000000-abcdef");
        let part = Part { first: 7, last: 11 };
        assert_eq!(keys.part(part), "knots/sweep/runs/20260101-000000000-abcdef/results/000000000007-000000000011");
        assert_eq!(part_of(&keys.part(part)), Some(part));
        assert_eq!(failure_of(&keys.failure(3, 2, 1)), Some((3, 2, 1)));
        assert_eq!(round_of(&keys.round(12)), Some(12));
        for invalid in ["knots/sweep/runs/r/results/", "x/7", "x/9-7", "x/a-b", ""] {
            assert_eq!(part_of(invalid), None, "{invalid}");
        }
    }
}
