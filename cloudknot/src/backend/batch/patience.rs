//! Patience: conditions that pass, such as a missing network or an expired login, do not end a round. They are reported and waited
//! for, until the user stops the program.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Outage, Result};
use crate::event::{self, Event};
use crate::record::ledger::Ledger;

/// Bounds of the pause before a request is repeated. The pause doubles.
const PAUSE_BOUNDS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// Interval between two reports of the same condition.
const REPORT_INTERVAL: Duration = Duration::from_mins(10);
/// Time after which a program without a terminal ends if its login has expired, because nobody may see the report.
const LOGIN_TIMEOUT: Duration = Duration::from_hours(1);
/// Interval at which a waiting program checks whether it should stop.
const CHECK_INTERVAL: Duration = if cfg!(test) { Duration::from_secs(10) } else { Duration::from_millis(100) };

/// The reason why the work on a round ends early.
#[derive(Debug)]
pub(super) enum Interrupt {
    /// The round was cancelled, or the program is about to end.
    Stop,
    /// Another program may submit the jobs of the round, because this one has not renewed its lease or was not the first.
    Lost,
    Failed(Error),
}

impl Interrupt {
    /// Returns the error of a request that is not part of following a round.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Stop | Self::Lost => Error::new(ErrorKind::Cancelled, "the program was interrupted"),
            Self::Failed(error) => error,
        }
    }
}

/// Result of work on a round.
pub(super) type Flow<T> = std::result::Result<T, Interrupt>;

impl From<Error> for Interrupt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Waits on behalf of a round.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    ledger: Arc<Ledger>,
    /// `true` while the jobs of a cancelled round are ended, which must not stop because the round is stopped.
    pub(super) ignores_stop: bool,
    /// `false` for a request of the user, who is told at once if it fails.
    is_patient: bool,
    /// `true` if somebody at a terminal can read that a login is needed.
    pub(super) has_terminal: bool,
}

/// A condition that lasts.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// The condition, and the times since which it lasts and at which it was reported last.
    outage: Option<(Outage, Instant, Instant)>,
    pause: Duration,
}

impl Patience {
    pub(super) fn new(ledger: &Arc<Ledger>) -> Self {
        let has_terminal = std::io::stdin().is_terminal();
        Self { ledger: Arc::clone(ledger), ignores_stop: false, is_patient: true, has_terminal }
    }

    /// Returns this for a request of the user: it fails at once, and is not affected by the state of the round.
    pub(super) fn impatient(mut self) -> Self {
        (self.ignores_stop, self.is_patient) = (true, false);
        self
    }

    /// Repeats a request until it succeeds, or fails for a reason that does not pass.
    pub(super) async fn wait_for<T, F>(&self, mut request: impl FnMut() -> F) -> Flow<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut waiting = Waiting::default();
        loop {
            let response = tokio::select! {
                biased;
                response = request() => response,
                interrupt = self.stopped() => return Err(interrupt),
            };
            match response {
                Ok(response) => return Ok(response),
                Err(error) => self.wait_out(error, &mut waiting).await?,
            }
        }
    }

    /// Pauses before a request is repeated. Returns an error that does not pass.
    pub(super) async fn wait_out(&self, error: Error, waiting: &mut Waiting) -> Flow<()> {
        waiting.pause = (2 * waiting.pause).clamp(PAUSE_BOUNDS.0, PAUSE_BOUNDS.1);
        let pause = waiting.pause;
        self.report(error, pause, waiting)?;
        self.sleep(pause).await
    }

    /// Reports that a request is repeated after a pause, unless this was reported recently. Returns an error that does not pass.
    pub(super) fn report(&self, error: Error, pause: Duration, waiting: &mut Waiting) -> Flow<()> {
        let Some(outage) = error.outage().filter(|_| self.is_patient) else { return Err(error.into()) };
        let now = Instant::now();
        let (since, is_reported) = match waiting.outage {
            Some((same, since, reported)) if same == outage => (since, now - reported < REPORT_INTERVAL),
            _ => (now, false),
        };
        if outage == Outage::Login && !self.has_terminal && now - since > LOGIN_TIMEOUT {
            return Err(error.into());
        }
        if is_reported {
            return Ok(());
        }
        waiting.outage = Some((outage, since, now));
        let text = error.in_one_line();
        let (action, reason) = text.split_once(": ").unwrap_or((&text, "it failed"));
        let action = action.strip_prefix("cannot ").unwrap_or(action);
        event::report(&Event::Retrying { action, reason, wait: pause });
        Ok(())
    }

    /// Sleeps, unless the round is stopped.
    pub(super) async fn sleep(&self, time: Duration) -> Flow<()> {
        let began = Instant::now();
        loop {
            self.check()?;
            let remaining = time.saturating_sub(began.elapsed());
            if remaining.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(remaining.min(CHECK_INTERVAL)).await;
        }
    }

    /// Waits until the round is stopped.
    async fn stopped(&self) -> Interrupt {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            if let Err(interrupt) = self.check() {
                return interrupt;
            }
        }
    }

    /// Returns `Err` if the round is stopped.
    pub(super) fn check(&self) -> Flow<()> {
        let is_stopped = !self.ignores_stop && self.ledger.control.stop.load(Ordering::Relaxed);
        if is_stopped { Err(Interrupt::Stop) } else { Ok(()) }
    }
}
