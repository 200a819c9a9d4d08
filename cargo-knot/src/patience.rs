//! Decides how long a verb goes on looking at a run: through outages, and for a while if nothing seems to compute the run.

use std::time::{Duration, Instant};

use cloudknot::look::{Look, RunState, Summary};

use crate::failure::Failure;

/// Time after which a run that nothing computes, or whose jobs have ended without outcomes, is not waited for any longer: a program
/// may be about to submit its jobs, or to store why they failed.
const DOUBT: Duration = Duration::from_secs(15);
/// Interval between two attempts while AWS cannot be reached, or the credentials have expired.
const OUTAGE_INTERVAL: Duration = Duration::from_secs(10);

/// State of a verb that waits for the end of a run: since when nothing seems to compute it.
#[derive(Default)]
pub(crate) struct Patience {
    doubtful_since: Option<Instant>,
}

impl Patience {
    /// Returns whether nothing more is to be expected of the run: it has ended, or nothing has computed it for a while.
    pub(crate) fn is_over(&mut self, look: &Look) -> bool {
        let summary = look.summary();
        // A run whose record cannot be read has no state that could change.
        let has_ended = summary.state.is_none_or(RunState::is_end);
        if look.abandoned().is_none() && !(has_ended && is_unsettled(summary)) {
            self.doubtful_since = None;
            return has_ended;
        }
        self.doubtful_since.get_or_insert_with(Instant::now).elapsed() > DOUBT
    }
}

/// Looks at a run, and goes on through errors that may pass by themselves, or once the user has logged in again.
pub(crate) async fn through_outages<T>(
    look: impl AsyncFn() -> cloudknot::Result<T>,
    mut note: impl FnMut(&str),
) -> Result<T, Failure> {
    let mut is_noted = false;
    loop {
        match look().await {
            Err(error) if error.is_temporary() => {
                if !std::mem::replace(&mut is_noted, true) {
                    note(&format!(
                        "{}; trying again every {} s",
                        Failure::from(error).in_one_line(),
                        OUTAGE_INTERVAL.as_secs()
                    ));
                }
                tokio::time::sleep(OUTAGE_INTERVAL).await;
            }
            looked => return Ok(looked?),
        }
    }
}

/// Returns whether the end is only that of the jobs: the program that follows them may be about to explain it.
fn is_unsettled(summary: &Summary) -> bool {
    summary.state == Some(RunState::Failed) && summary.items.unfinished > 0
}
