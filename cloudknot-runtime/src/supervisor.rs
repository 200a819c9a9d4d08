//! The supervisor: runs ranges of items in item processes and stores their values. It depends on the store and the
//! registry, and must not depend on its caller: locally it runs in the user's program, on Batch it is the first process
//! of the container.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use crate::codec::CodecError;
use crate::contract::{self, FailedAttempt, InputLayout, MAX_END_LEN, Part, PartEnd, RunKeys};
use crate::failure::{Failure, ItemError, ItemErrorKind};
use crate::function::Function;
use crate::inputs::{self, InputsError};
use crate::log::Printed;
use crate::machine::Description;
use crate::measurements::Measurements;
use crate::process::{self, Item, Launcher, Timing};
use crate::store::{Store, StoreError};
use crate::{engine, item};

mod slot;

use slot::Slot;

/// Work of a supervisor, except for the ranges of items.
#[derive(Debug)]
pub struct Work {
    /// Store that holds the run.
    pub store: Arc<dyn Store>,
    /// Keys of the run.
    pub keys: RunKeys,
    /// Number of the round, from 1.
    pub round: u32,
    /// Time of the run's submission.
    pub submitted: SystemTime,
    /// Machine of this supervisor.
    pub machine: Description,
    /// Layout of the inputs.
    pub inputs: InputLayout,
    /// Maximum number of items in a part.
    pub chunk: u64,
    /// Number of items that run at once.
    pub parallel: u32,
    /// Maximum number of retries of a failed item.
    pub retries: u32,
    /// Isolation of the items.
    pub isolation: Isolation,
    /// Limits at which values are stored before their part is complete.
    pub flush: FlushLimits,
}

/// Isolation of items from each other and from the supervisor.
#[derive(Debug, Clone)]
pub enum Isolation {
    /// Item processes: a crash ends only its item.
    Processes(Launcher),
    /// Threads of this process: only panics are caught.
    Threads(&'static Function),
}

/// Limits at which values are stored before their part is complete.
#[derive(Debug, Clone, Copy)]
pub struct FlushLimits {
    /// Time that values wait at the start of a run. It grows to a fiftieth of the elapsed time, so that a short run is
    /// visible soon and a long one has few parts.
    pub min_wait: Duration,
    /// Maximum time that values wait.
    pub max_wait: Duration,
    /// Number of waiting bytes from which values are stored; also the maximum number of bytes of inputs read at once.
    pub bytes: u64,
}

impl FlushLimits {
    /// Limits for a folder: a user may be watching, and writes are cheap.
    pub const FOLDER: Self =
        Self { min_wait: Duration::from_millis(200), max_wait: Duration::from_secs(1), bytes: 8 << 20 };
    /// Limits for an object store: requests cost money and time.
    pub const OBJECTS: Self =
        Self { min_wait: Duration::from_secs(30), max_wait: Duration::from_secs(30), bytes: 64 << 20 };
}

/// Event reported by a supervisor.
#[derive(Debug)]
pub enum Event {
    /// These values are stored.
    Stored(Part),
    /// An attempt failed, and its failure is stored.
    Failed {
        /// Index of the item.
        item: u64,
        /// Error of the attempt.
        error: ItemError,
        /// `true` if no further attempt follows.
        last: bool,
    },
    /// Output of an item.
    Log(Printed),
}

/// Shared state by which a caller observes and stops the supervisor.
#[derive(Debug, Default)]
pub struct Control {
    /// Stops the supervisor soon after it is set: running items are ended, finished values are stored.
    pub stop: AtomicBool,
    /// Number of items that are running.
    pub running: AtomicU64,
}

/// Error that stopped a supervisor. Outcomes stored before remain stored.
#[derive(Debug)]
pub enum SupervisorError {
    /// The store failed.
    Store(StoreError),
    /// The inputs do not match the manifest.
    Inputs(CodecError),
    /// Item processes cannot be run.
    Process(String),
}

impl std::fmt::Display for SupervisorError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Inputs(error) => error.fmt(f),
            Self::Process(message) => write!(f, "cannot run an item process: {message}"),
        }
    }
}

impl std::error::Error for SupervisorError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            Self::Inputs(error) => error.source(),
            Self::Process(_) => None,
        }
    }
}

impl From<StoreError> for SupervisorError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Runs the items of the ranges until the value or the last failure of each is stored. The ranges must be in order and
/// must not overlap.
///
/// # Errors
/// Fails if the store, the inputs or the machine fail. Outcomes stored before remain stored.
pub fn supervise(
    work: &Work,
    ranges: impl IntoIterator<Item = Range<u64>>,
    control: &Control,
    report: &(dyn Fn(Event) + Sync),
) -> Result<(), SupervisorError> {
    let ranges: VecDeque<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
    let unresolved = ranges.iter().map(|range| range.end - range.start).sum();
    let queue = Queue { ranges, unresolved, ..Queue::default() };
    let slots = u64::from(work.parallel).min(unresolved).min(max_slots(&work.isolation));
    let supervisor = Supervisor {
        work,
        control,
        report,
        queue: Mutex::new(queue),
        changed: Condvar::new(),
        slots: AtomicUsize::new(usize::try_from(slots).unwrap_or(usize::MAX)),
        idle: AtomicUsize::new(0),
        began: Instant::now(),
    };
    std::thread::scope(|scope| {
        let supervisor = &supervisor;
        for number in 0..slots {
            let slot = std::thread::Builder::new().name("cloudknot-slot".into()).stack_size(8 << 20);
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            if let Err(error) = slot.spawn_scoped(scope, move || supervisor.slot(number)) {
                supervisor.retire_slot(&error);
            }
        }
    });
    let finished = supervisor.store_due(true);
    let error = supervisor.lock().error.take();
    error.map_or(finished, Err)
}

/// Returns the number of slots that the system allows. A process that cannot be started is handled by its slot; but the store
/// needs open files, too, and its failure would end the run.
fn max_slots(isolation: &Isolation) -> u64 {
    match isolation {
        Isolation::Processes(_) => process::max_processes() as u64,
        Isolation::Threads(_) => u64::MAX,
    }
}

struct Supervisor<'a> {
    work: &'a Work,
    control: &'a Control,
    report: &'a (dyn Fn(Event) + Sync),
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Number of slots that run items.
    slots: AtomicUsize,
    /// Number of slots that wait for items.
    idle: AtomicUsize,
    began: Instant,
}

#[derive(Default)]
struct Queue {
    /// Items whose inputs are still in the store.
    ranges: VecDeque<Range<u64>>,
    /// Items to retry, and items whose process died before it ran them.
    requeued: VecDeque<Item>,
    /// Items whose inputs have been read.
    loaded: VecDeque<Item>,
    /// Number of items that have neither a value nor their last failure.
    unresolved: u64,
    /// Chunks with loaded items that are not all resolved.
    open: HashMap<u64, OpenChunk>,
    /// Open chunks with values that are not stored yet.
    waiting: HashSet<u64>,
    error: Option<SupervisorError>,
}

/// A chunk that is not completely stored yet.
struct OpenChunk {
    unresolved: u64,
    values: Vec<Segment>,
    bytes: u64,
    since: Instant,
}

/// The frames of consecutive items, and their rows in the table of a part.
struct Segment {
    first: u64,
    count: u64,
    frames: Vec<u8>,
    table: Vec<u8>,
}

impl Segment {
    fn new(item: u64, frame: Vec<u8>, measurements: &Measurements) -> Self {
        let mut segment = Self { first: item, count: 1, frames: frame, table: Vec::new() };
        measurements.append(&mut segment.table);
        segment
    }

    fn end(&self) -> u64 {
        self.first + self.count
    }

    /// Returns the size in bytes of a part with these items and those of `other`, or more.
    fn len_with(&self, other: &Self) -> u64 {
        (self.frames.len() + self.table.len() + other.frames.len() + other.table.len()) as u64 + MAX_END_LEN
    }
}

/// Maximum time that a slot waits before it checks the queue again.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

impl Supervisor<'_> {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no slot panics while it holds the lock")
    }

    /// Runs items, in one process after another, until all items are resolved.
    fn slot(&self, number: u32) {
        let work = || match &self.work.isolation {
            Isolation::Processes(launcher) => Slot::new(self, launcher, number).run(),
            Isolation::Threads(function) => self.slot_of_this_thread(function, number),
        };
        // If a slot ended without an error, the other slots would wait for its items forever.
        let panicked = |_| Err(SupervisorError::Process("a supervisor thread panicked".into()));
        if let Err(error) = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panicked) {
            self.stop(error);
        }
    }

    fn slot_of_this_thread(&self, function: &'static Function, slot: u32) -> Result<(), SupervisorError> {
        while let Some(mut items) = self.claim(1, true)? {
            let Some(item) = items.pop() else { continue };
            let sent = SystemTime::now();
            self.control.running.fetch_add(1, Ordering::Relaxed);
            let mut value = Vec::new();
            let (outcome, measured) = item::measure_thread(|| item::attempt(function, &item.input, &mut value));
            self.control.running.fetch_sub(1, Ordering::Relaxed);
            let measurements = self.measurements(&item, &Timing { sent, measured }, slot);
            match outcome.map(|()| value).and_then(|frame| self.refuse_large(frame)) {
                Ok(frame) => self.keep(vec![Segment::new(item.index, frame, &measurements)])?,
                Err(failure) => self.failed(item, measurements, failure, String::new())?,
            }
            self.store_due(false)?;
        }
        Ok(())
    }

    /// Returns the measurements of an attempt in a slot, as they are stored.
    fn measurements(&self, item: &Item, timing: &Timing, slot: u32) -> Measurements {
        let attempt = (self.work.round, item.attempt);
        Measurements::new(attempt, &timing.measured, timing.sent, self.work.submitted, slot)
    }

    fn is_over(&self) -> bool {
        self.control.stop.load(Ordering::Relaxed) || self.lock().error.is_some()
    }

    /// Puts items that have not begun in front of the others.
    fn requeue(&self, items: Vec<Item>) {
        if items.is_empty() {
            return;
        }
        let mut queue = self.lock();
        items.into_iter().rev().for_each(|item| queue.requeued.push_front(item));
        self.changed.notify_all();
    }

    /// Claims up to `max` items. Returns an empty list if none is available and the caller does not `wait`, because the
    /// caller has other items to wait for; `None` if no item remains.
    fn claim(&self, max: usize, wait: bool) -> Result<Option<Vec<Item>>, SupervisorError> {
        let mut queue = self.lock();
        loop {
            if self.control.stop.load(Ordering::Relaxed) || queue.error.is_some() || (wait && queue.unresolved == 0) {
                return Ok(None);
            }
            if !queue.requeued.is_empty() {
                return Ok(Some(self.share(&mut queue.requeued, max)));
            }
            if queue.loaded.is_empty() {
                self.load(&mut queue)?;
            }
            if !queue.loaded.is_empty() {
                return Ok(Some(self.share(&mut queue.loaded, max)));
            }
            if !wait {
                return Ok(Some(Vec::new()));
            }
            // The items of other slots may still be retried. Meanwhile this slot stores the values that are due.
            self.idle.fetch_add(1, Ordering::Relaxed);
            queue = self.changed.wait_timeout(queue, POLL_INTERVAL).expect("no slot panics while it holds the lock").0;
            self.idle.fetch_sub(1, Ordering::Relaxed);
            if queue.loaded.is_empty() && queue.requeued.is_empty() {
                drop(queue);
                self.store_due(false)?;
                queue = self.lock();
            }
        }
    }

    /// Removes up to `max` items. Near the end, a share remains for the other slots.
    fn share(&self, items: &mut VecDeque<Item>, max: usize) -> Vec<Item> {
        let share = items.len().div_ceil(2 * self.work.parallel as usize);
        items.drain(..max.min(share).max(1)).collect()
    }

    /// Reads the next inputs.
    fn load(&self, queue: &mut Queue) -> Result<(), SupervisorError> {
        let Some(range) = queue.ranges.front().cloned() else { return Ok(()) };
        let (frames, end) = self.read_inputs(&range)?;
        for chunk in range.start / self.work.chunk..=(end - 1) / self.work.chunk {
            if !queue.open.contains_key(&chunk) {
                let (first, last) = (chunk * self.work.chunk, (chunk + 1).saturating_mul(self.work.chunk));
                let items_in_chunk = |range: &Range<u64>| range.end.min(last).saturating_sub(range.start.max(first));
                let unresolved = queue.ranges.iter().take_while(|range| range.start < last).map(items_in_chunk).sum();
                queue.open.insert(chunk, OpenChunk { unresolved, values: Vec::new(), bytes: 0, since: Instant::now() });
            }
        }
        queue.loaded.extend((range.start..end).zip(frames).map(|(index, input)| Item { index, attempt: 1, input }));
        match queue.ranges.front_mut() {
            Some(front) if end < front.end => front.start = end,
            _ => drop(queue.ranges.pop_front()),
        }
        Ok(())
    }

    /// Reads the inputs of the first items of the range. Returns their frames and the index of the item after them.
    fn read_inputs(&self, range: &Range<u64>) -> Result<(Vec<Bytes>, u64), SupervisorError> {
        let Work { store, keys, inputs: layout, flush, .. } = self.work;
        engine::block_on(inputs::read(&**store, &keys.inputs(), *layout, range, flush.bytes)).map_err(|error| {
            match error {
                InputsError::Store(error) => error.into(),
                InputsError::Damaged(error) => SupervisorError::Inputs(error),
            }
        })
    }

    /// Appends a value to the last segment if it follows it in the same chunk; else adds a segment.
    fn append(&self, values: &mut Vec<Segment>, item: u64, frame: Vec<u8>, measurements: &Measurements) {
        match values.last_mut() {
            Some(last) if last.end() == item && !item.is_multiple_of(self.work.chunk) => {
                last.frames.extend_from_slice(&frame);
                measurements.append(&mut last.table);
                last.count += 1;
            }
            _ => values.push(Segment::new(item, frame, measurements)),
        }
    }

    /// Accepts values and stores the chunks that they complete.
    fn keep(&self, values: Vec<Segment>) -> Result<(), SupervisorError> {
        let mut complete = Vec::new();
        let mut queue = self.lock();
        for segment in values {
            let chunk = segment.first / self.work.chunk;
            queue.unresolved -= segment.count;
            let open = queue.open.get_mut(&chunk).expect("a chunk is open while one of its items runs");
            if open.values.is_empty() {
                open.since = Instant::now();
            }
            open.unresolved -= segment.count;
            open.bytes += segment.frames.len() as u64;
            open.values.push(segment);
            queue.waiting.insert(chunk);
            complete.extend(queue.take_complete(chunk));
        }
        self.notify_if_resolved(&queue);
        drop(queue);
        complete.into_iter().try_for_each(|values| self.store(values))
    }

    /// Returns the failure of a value that the store can never take, which is no failure of the store.
    fn refuse_large(&self, frame: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let (length, max) = (frame.len() as u64, self.work.store.max_object().saturating_sub(MAX_END_LEN));
        if length <= max {
            return Ok(frame);
        }
        let message = format!(
            "the result has {length} bytes, but the store accepts results of at most {max}; return it in several items, or \
             store it in the function and return where"
        );
        Err(Failure::new(ItemErrorKind::Codec, message))
    }

    /// Stores a failure. The item is retried unless its retries are used up.
    fn failed(
        &self,
        item: Item,
        measurements: Measurements,
        failure: Failure,
        log: String,
    ) -> Result<(), SupervisorError> {
        let last = item.attempt >= contract::last_attempt(self.work.retries);
        let error = ItemError::new(failure, item.attempt)
            .with_log(log)
            .with_measurements(measurements, self.work.machine.get().clone());
        let (round, cause) = (self.work.round, error.cause());
        let key = self.work.keys.failure(FailedAttempt { item: item.index, round, attempt: item.attempt, cause });
        let bytes = serde_json::to_vec(&error).expect("an item's error serializes to JSON");
        engine::block_on(self.work.store.put(&key, bytes.into()))?;
        (self.report)(Event::Failed { item: item.index, error, last });
        let mut queue = self.lock();
        if !last {
            queue.requeued.push_back(Item { attempt: item.attempt.saturating_add(1), ..item });
            self.changed.notify_all();
            return Ok(());
        }
        queue.unresolved -= 1;
        let chunk = item.index / self.work.chunk;
        let open = queue.open.get_mut(&chunk).expect("a chunk is open while one of its items runs");
        open.unresolved -= 1;
        let complete = queue.take_complete(chunk);
        self.notify_if_resolved(&queue);
        drop(queue);
        complete.map_or(Ok(()), |values| self.store(values))
    }

    fn notify_if_resolved(&self, queue: &Queue) {
        if queue.unresolved == 0 {
            self.changed.notify_all();
        }
    }

    /// Stores the values that have waited long enough or are large enough; all values at the end.
    fn store_due(&self, all: bool) -> Result<(), SupervisorError> {
        let flush = self.work.flush;
        let wait = (self.began.elapsed() / 50).clamp(flush.min_wait, flush.max_wait);
        let due = |open: &OpenChunk| all || open.bytes >= flush.bytes || open.since.elapsed() >= wait;
        let mut due_values = Vec::new();
        let mut queue = self.lock();
        let Queue { open, waiting, .. } = &mut *queue;
        waiting.retain(|chunk| {
            let open = open.get_mut(chunk).expect("a chunk is open while its values wait");
            if due(open) {
                open.bytes = 0;
                due_values.push(std::mem::take(&mut open.values));
            }
            !open.values.is_empty()
        });
        drop(queue);
        due_values.into_iter().try_for_each(|values| self.store(values))
    }

    /// Stores the values of a chunk: as one part, or as several if items are missing in between.
    fn store(&self, mut values: Vec<Segment>) -> Result<(), SupervisorError> {
        values.sort_by_key(|segment| segment.first);
        let mut values = values.into_iter();
        let Some(mut part) = values.next() else { return Ok(()) };
        for segment in values {
            if part.end() == segment.first && part.len_with(&segment) <= self.work.store.max_object() {
                part.frames.extend_from_slice(&segment.frames);
                part.table.extend_from_slice(&segment.table);
                part.count += segment.count;
            } else {
                self.store_part(std::mem::replace(&mut part, segment))?;
            }
        }
        self.store_part(part)
    }

    fn store_part(&self, mut values: Segment) -> Result<(), SupervisorError> {
        let part = Part { first: values.first, last: values.end() - 1 };
        PartEnd::append(&values.table, &self.work.machine.get().to_bytes(), &mut values.frames);
        // If another attempt has already stored this part, its values are equally valid.
        engine::block_on(self.work.store.create(&self.work.keys.part(part), values.frames.into()))?;
        (self.report)(Event::Stored(part));
        Ok(())
    }

    /// Goes on without a slot, because of this error of a system that allows no more processes, threads or open files. Stops if
    /// it is the last slot, or if the error is another one.
    fn retire_slot(&self, error: &std::io::Error) {
        use rustix::io::Errno;
        let is_full = [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM]
            .iter()
            .any(|full| error.raw_os_error() == Some(full.raw_os_error()));
        if is_full && self.slots.fetch_sub(1, Ordering::Relaxed) > 1 {
            tracing::warn!(%error, "fewer item processes than requested");
            return;
        }
        let hint = if is_full { "; allow more processes and open files, or set `.parallel(..)` to less" } else { "" };
        self.stop(SupervisorError::Process(format!("{error}{hint}")));
    }

    fn stop(&self, error: SupervisorError) {
        self.lock().error.get_or_insert(error);
        self.changed.notify_all();
    }
}

impl Queue {
    /// Removes a chunk and returns its values, if it is complete.
    fn take_complete(&mut self, chunk: u64) -> Option<Vec<Segment>> {
        if self.open.get(&chunk)?.unresolved > 0 {
            return None;
        }
        self.waiting.remove(&chunk);
        self.open.remove(&chunk).map(|open| open.values)
    }
}
