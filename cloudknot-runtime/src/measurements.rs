//! Measurements of each attempt of an item, and the machine that it ran on. Parts and failures contain both.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Measurements of one attempt of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Measurements {
    /// Number of the round, from 1.
    pub round: u32,
    /// Number of the attempt in its round, from 1.
    pub attempt: u32,
    /// Start of the attempt, in milliseconds since the run was submitted. It is negative if the worker's clock is behind that of
    /// the program that submitted the run.
    pub start_ms: i64,
    /// Time in the function, including the decoding of its input and the encoding of its value.
    #[serde(rename = "seconds", with = "seconds")]
    pub duration: Duration,
    /// Time between the receipt of the item by its slot and its start: the start of an item process, its init functions, and
    /// quick items before it.
    #[serde(rename = "waited_seconds", with = "seconds")]
    pub waited: Duration,
    /// CPU time of the item process and of the processes that it started, if they have ended; `None` if it is unknown.
    #[serde(rename = "cpu_seconds", default, with = "seconds::option", skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Duration>,
    /// Peak memory in bytes of the item process or, if that is larger, of one process that it started and that has ended. `None`
    /// if it is unknown: for items below two milliseconds, and for attempts that ended their process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// `true` if the peak memory may be that of an earlier item of the same process, so that it is an upper bound.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub peak_is_bound: bool,
    /// Number of the slot of the worker that ran the item, from 0.
    pub slot: u32,
}

/// Duration as a number of seconds in JSON.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }

    pub(super) mod option {
        use super::{Deserialize, Deserializer, Duration, Error, Serializer};

        // Serde passes a reference to the field.
        #[allow(clippy::ref_option)]
        pub(in super::super) fn serialize<S: Serializer>(
            duration: &Option<Duration>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match duration {
                Some(duration) => super::serialize(duration, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Duration>, D::Error> {
            let seconds = Option::<f64>::deserialize(deserializer)?;
            seconds.map(|seconds| Duration::try_from_secs_f64(seconds).map_err(D::Error::custom)).transpose()
        }
    }
}

impl Measurements {
    /// Creates the measurements of an attempt from what was measured in its process. `sent` is the time at which its slot received
    /// the item, and `submitted` that of the run.
    pub fn new(
        (round, attempt): (u32, u32),
        measured: &Measured,
        sent: SystemTime,
        submitted: SystemTime,
        slot: u32,
    ) -> Self {
        let millis = |time: SystemTime| -> i64 {
            let since = |from: SystemTime, to: SystemTime| {
                to.duration_since(from).ok().and_then(|time| i64::try_from(time.as_millis()).ok())
            };
            since(submitted, time).or_else(|| since(time, submitted).map(|time| -time)).unwrap_or(i64::MAX)
        };
        let started = measured.started();
        Self {
            round,
            attempt,
            start_ms: millis(started),
            duration: measured.duration(),
            waited: started.duration_since(sent).unwrap_or_default(),
            cpu: measured.cpu(),
            peak_memory: measured.memory.map(|memory| memory.peak),
            peak_is_bound: measured.memory.is_some_and(|memory| memory.is_bound),
            slot,
        }
    }
}

/// Machine that a worker runs on, as far as the worker can determine it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Machine {
    /// Name of the host. In a container, it is that of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// ID of the EC2 instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Type of the EC2 instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
    /// Availability zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// `true` on a Spot machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spot: Option<bool>,
    /// Number of virtual CPUs that the worker may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<f64>,
    /// Memory in bytes that the worker may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Start of the worker, in milliseconds since 1970-01-01 UTC.
    pub started_ms: u64,
    /// ID of the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Number of the job's attempt, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_attempt: Option<u32>,
    /// Log group of the worker's output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_group: Option<String>,
    /// Log stream of the worker's output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_stream: Option<String>,
}

/// Measurements of an item process while it ran an item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measured {
    /// Start of the item, in microseconds since 1970-01-01 UTC.
    pub started_us: u64,
    /// Time that the item took, in microseconds.
    pub duration_us: u64,
    /// CPU time in microseconds, if it is known.
    pub cpu_us: Option<u64>,
    /// Peak memory, if it is known.
    pub memory: Option<Memory>,
}

/// Peak memory of an item process or of a process that it has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Peak in bytes; below 2^63.
    pub peak: u64,
    /// `true` if the peak may be that of an earlier item.
    pub is_bound: bool,
}

impl Measured {
    /// Returns the measurements of an item that began at this time and ends now.
    pub fn until_now(started: SystemTime, duration: Duration) -> Self {
        let started = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { started_us: micros(started), duration_us: micros(duration), cpu_us: None, memory: None }
    }

    /// Returns the start of the item.
    pub fn started(&self) -> SystemTime {
        let since_epoch = Duration::from_micros(self.started_us);
        SystemTime::UNIX_EPOCH.checked_add(since_epoch).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Returns the time that the item took.
    pub fn duration(&self) -> Duration {
        Duration::from_micros(self.duration_us)
    }

    /// Returns the CPU time, if it is known.
    pub fn cpu(&self) -> Option<Duration> {
        self.cpu_us.map(Duration::from_micros)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
