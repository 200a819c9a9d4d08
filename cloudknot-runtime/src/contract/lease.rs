//! The lease of a round: it decides which program submits the jobs of the round, and names the jobs that were submitted.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A lease on the submission of a round, stored as `submitting/<round>/<epoch>`. Only the lease of the last epoch is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Random ID of the program that created the lease.
    pub owner: String,
    /// State of the submission.
    pub state: LeaseState,
    /// Jobs that run children of the round: those that existed when the lease was created, and those that its owner has submitted
    /// since. A job of an earlier epoch that is not listed runs in vain, and may be ended.
    pub jobs: Vec<LeasedJob>,
}

/// State of the submission of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseState {
    /// The owner submits jobs, and renews the lease meanwhile. There may be jobs that the lease does not list yet.
    Submitting,
    /// The owner submits no more jobs, and the lease lists all of them.
    Released,
    /// No program submits any more jobs of the round: it was cancelled, or a later round has begun.
    Closed {
        /// `true` if the lease before this one was not released: its owner may have submitted jobs that this lease does not list.
        interrupted: bool,
    },
}

/// A submitted job of a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeasedJob {
    /// ID that the scheduler gave to the job.
    pub id: String,
    /// Children of the round that the job runs.
    pub children: Range<u64>,
}

impl Lease {
    /// Returns the maximum length in bytes of a lease of a round with this number of children, as JSON. A job has at least one child.
    pub fn max_len(children: u64) -> u64 {
        const JOB_LEN: u64 = 256;
        const REST_LEN: u64 = 1024;
        children.saturating_mul(JOB_LEN).saturating_add(REST_LEN)
    }

    /// Parses the lease of a round with this number of children, and checks it.
    ///
    /// # Errors
    /// Returns the reason why the bytes are not such a lease.
    pub fn parse(bytes: &[u8], children: u64) -> Result<Self, String> {
        let lease: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let is_wrong = |job: &&LeasedJob| job.children.is_empty() || job.children.end > children || !is_id(&job.id);
        match lease.jobs.iter().find(is_wrong) {
            Some(job) => Err(format!(
                "the job `{}` does not run children of a round with {children}: {:?}",
                job.id, job.children
            )),
            None => Ok(lease),
        }
    }
}

/// Returns whether this can be the ID of a job; AWS Batch gives UUIDs.
fn is_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(jobs: &[(&str, Range<u64>)]) -> Lease {
        let jobs = jobs.iter().map(|(id, children)| LeasedJob { id: (*id).into(), children: children.clone() });
        Lease {
            owner: "0123456789abcdef".into(),
            state: LeaseState::Closed { interrupted: true },
            jobs: jobs.collect(),
        }
    }

    fn parse(lease: &Lease, children: u64) -> Result<Lease, String> {
        let bytes = serde_json::to_vec(lease).expect("a lease serializes to JSON");
        assert!(bytes.len() as u64 <= Lease::max_len(children), "{} bytes for {children} children", bytes.len());
        Lease::parse(&bytes, children)
    }

    #[test]
    fn leases_round_trip() {
        let id = "01234567-89ab-cdef-0123-456789abcdef";
        for jobs in [vec![], vec![(id, 0..10)], vec![("a", 0..4), ("b", 4..5), ("a_2", 0..5)]] {
            assert_eq!(parse(&lease(&jobs), 10), Ok(lease(&jobs)));
        }
        let longest: Vec<_> =
            (0..100).map(|child| (id, u64::from(u32::MAX) + child..u64::from(u32::MAX) + child + 1)).collect();
        assert!(serde_json::to_vec(&lease(&longest)).unwrap().len() as u64 <= Lease::max_len(100));
    }

    /// M5: the children of a job are used in arithmetic, and its ID in requests.
    #[test]
    #[allow(clippy::reversed_empty_ranges)]
    fn jobs_that_the_round_cannot_have_are_refused() {
        for invalid in
            [("a", 3..3), ("a", 4..3), ("a", 0..11), ("a", 0..u64::MAX), ("", 0..1), ("a\n", 0..1), ("a b", 0..1)]
        {
            assert!(parse(&lease(std::slice::from_ref(&invalid)), 10).is_err(), "{invalid:?}");
        }
    }
}
