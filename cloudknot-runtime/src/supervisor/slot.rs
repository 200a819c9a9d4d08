//! A slot of item processes: starts one process after another, keeps it busy, and handles its answers and its end.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Event, POLL_INTERVAL, Segment, Supervisor, SupervisorError};
use crate::failure::{Failure, ItemErrorKind};
use crate::process::{End, FailedItem, Item, ItemProcess, Launcher, Step, Victim};

/// Time for which an item has to run before the items behind it are given back to slots that have none. It is long compared
/// with the time that this takes.
const SLOW: Duration = Duration::from_millis(10);
/// Time from the start of an item during which its process may have died of something that an earlier item left behind.
const DOUBT: Duration = Duration::from_secs(1);

pub(super) struct Slot<'a> {
    supervisor: &'a Supervisor<'a>,
    launcher: &'a Launcher,
    number: u32,
    process: Option<ItemProcess>,
    pace: Pace,
    /// Item whose process died, perhaps not because of it. It runs again as the first item of a new process.
    suspect: Option<Item>,
    /// `true` once the system cannot start another process for this slot.
    is_retired: bool,
}

impl<'a> Slot<'a> {
    pub(super) fn new(supervisor: &'a Supervisor<'a>, launcher: &'a Launcher, number: u32) -> Self {
        Self { supervisor, launcher, number, process: None, pace: Pace::default(), suspect: None, is_retired: false }
    }

    /// Runs items until none remains, or until this slot cannot start a process while others can.
    pub(super) fn run(mut self) -> Result<(), SupervisorError> {
        // Checked while an item is running too: dropping the process ends the item.
        while !self.is_retired && !self.supervisor.is_over() {
            let Some(items) = self.next_items()? else { return Ok(()) };
            if !items.is_empty() {
                self.send(items);
            }
            if let Some(mut process) = self.process.take() {
                self.supervisor.control.running.fetch_add(1, Ordering::Relaxed);
                let result = self.exchange(&mut process);
                self.supervisor.control.running.fetch_sub(1, Ordering::Relaxed);
                self.process = result?.then_some(process);
            }
            self.supervisor.store_due(false)?;
        }
        Ok(())
    }

    /// Returns the items to send next, if any; `None` if no item remains.
    fn next_items(&mut self) -> Result<Option<Vec<Item>>, SupervisorError> {
        if let Some(item) = self.suspect.take() {
            return Ok(Some(vec![item]));
        }
        let Some(process) = &mut self.process else { return self.supervisor.claim(1, true) };
        let busy = process.busy();
        if process.running_for() > SLOW {
            self.pace.window = 1;
            if busy > 1 && self.supervisor.idle.load(Ordering::Relaxed) > 0 {
                process.ask_to_give_back();
            }
        }
        if busy > self.pace.window / 2 || !process.accepts_items() {
            return Ok(Some(Vec::new()));
        }
        self.supervisor.claim(self.pace.window - busy, busy == 0)
    }

    /// Sends the items to the process, which is started if there is none.
    fn send(&mut self, items: Vec<Item>) {
        // If the process died while it was idle, none of these items is the cause.
        self.process.take_if(|process| process.busy() == 0 && process.has_ended());
        if self.process.is_none() {
            match ItemProcess::start(self.launcher) {
                Ok(process) => self.process = Some(process),
                Err(error) => {
                    self.supervisor.requeue(items);
                    self.is_retired = true;
                    self.supervisor.retire_slot(&error);
                    return;
                }
            }
        }
        let process = self.process.as_mut().expect("it was just started");
        for item in items {
            process.send(item);
        }
    }

    /// Waits for answers and handles them. Returns `false` if the process has ended.
    fn exchange(&mut self, process: &mut ItemProcess) -> Result<bool, SupervisorError> {
        let began = process.running_for();
        let step = process.step(POLL_INTERVAL).map_err(|error| SupervisorError::Process(error.to_string()))?;
        let Step { answers, given_back, log, end } = step;
        for printed in log {
            (self.supervisor.report)(Event::Log(printed));
        }
        self.supervisor.requeue(given_back);
        self.pace.answered(answers.len());
        let has_answers = !answers.is_empty();
        let mut values: Vec<Segment> = Vec::new();
        for answer in answers {
            let measurements = self.supervisor.measurements(&answer.item, &answer.timing, self.number);
            match answer.outcome.map(|frame| self.supervisor.refuse_large(frame)) {
                Ok(Ok(frame)) => self.supervisor.append(&mut values, answer.item.index, frame, &measurements),
                Ok(Err(failure)) => self.supervisor.failed(answer.item, measurements, failure, String::new())?,
                Err(failed) => self.supervisor.failed(answer.item, measurements, failed.failure, failed.output)?,
            }
        }
        if !values.is_empty() {
            self.supervisor.keep(values)?;
        }
        let Some(end) = end else { return Ok(true) };
        let ran_for = if has_answers { Duration::ZERO } else { began };
        self.ended(process, end, ran_for)?;
        Ok(false)
    }

    fn ended(&mut self, process: &mut ItemProcess, end: End, ran_for: Duration) -> Result<(), SupervisorError> {
        let items = process.take_back().collect();
        let killed_at_start = self.pace.killed_at_start + 1;
        self.pace = Pace::default();
        match end {
            End::Idle => self.supervisor.requeue(items),
            End::NotStarted(error) => {
                self.supervisor.requeue(items);
                self.is_retired = true;
                self.supervisor.retire_slot(&error);
            }
            End::AtStart(message) => return Err(SupervisorError::Process(message)),
            End::KilledAtStart(message) if killed_at_start > Pace::MAX_FAILED_STARTS => {
                return Err(SupervisorError::Process(message));
            }
            End::KilledAtStart(_) => {
                self.pace.killed_at_start = killed_at_start;
                self.supervisor.requeue(items);
            }
            End::During(victim) => {
                let Victim { item, timing, failed: FailedItem { failure, output } } = *victim;
                self.supervisor.requeue(items);
                if is_doubtful(&failure) && process.answered() > 0 && ran_for < DOUBT {
                    tracing::warn!(item = item.index, reason = failure.message, "the item runs again in a new process");
                    self.suspect = Some(item);
                } else {
                    let measurements = self.supervisor.measurements(&item, &timing, self.number);
                    self.supervisor.failed(item, measurements, failure, output)?;
                }
            }
        }
        Ok(())
    }
}

/// Returns whether something that an earlier item left behind, such as a thread or memory, may be the cause of a failure.
fn is_doubtful(failure: &Failure) -> bool {
    matches!(failure.kind, ItemErrorKind::Crashed | ItemErrorKind::OutOfMemory)
}

/// Number of items that a process receives ahead of its answers: about one millisecond's worth, so that quick items do
/// not wait for their supervisor and slow ones do not wait behind one another.
struct Pace {
    window: usize,
    since: Instant,
    /// Number of consecutive processes that were killed before they ran an item.
    killed_at_start: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { window: 1, since: Instant::now(), killed_at_start: 0 }
    }
}

impl Pace {
    /// Maximum number of items that a process receives ahead of its answers.
    const MAX_WINDOW: usize = 64;
    /// Maximum number of consecutive processes that are killed at their start before the supervisor stops.
    const MAX_FAILED_STARTS: u32 = 10;

    fn answered(&mut self, items: usize) {
        if items == 0 {
            return;
        }
        self.killed_at_start = 0;
        let nanos = self.since.elapsed().as_nanos() / items as u128;
        self.since = Instant::now();
        let fitting = usize::try_from(1_000_000 / nanos.max(1)).unwrap_or(Self::MAX_WINDOW);
        self.window = fitting.min(self.window * 4).clamp(1, Self::MAX_WINDOW);
    }
}
