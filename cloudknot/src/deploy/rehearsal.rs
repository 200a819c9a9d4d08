//! Rehearses in an account what programs do in it: creates a small Pars, and a Knot of a built-in program for each kind of
//! compute, runs a few items, checks their results, retries and logs, and deletes all of it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::host::host_await;
use crate::settings::account::Account;
use crate::settings::knot::Compute;
use crate::settings::pars::ParsSettings;

#[cfg(not(cloudknot_worker))]
mod host;

/// A rehearsal in an account. Its Pars and Knots have names of their own, so that no others are changed.
///
/// ```no_run
/// # async fn example() -> cloudknot::Result<()> {
/// use cloudknot::Compute;
/// use cloudknot::rehearsal::{Rehearsal, Step};
///
/// let rehearsal = Rehearsal::new().computes([Compute::Fargate]).region("eu-central-1");
/// println!("{}", rehearsal.plan().await?.join("\n"));
/// let report = |step: Step| eprintln!("{}: {:?}", step.action, step.error);
/// let passed = rehearsal.run(&report).await;
/// if rehearsal.clobber(&report).await.is_err() {
///     eprintln!("run:\n{}", rehearsal.remaining().join("\n"));
/// }
/// passed
/// # }
/// ```
#[derive(Debug)]
pub struct Rehearsal {
    name: String,
    computes: Vec<Compute>,
    pars: ParsSettings,
    account: Account,
    created: Mutex<Created>,
}

/// The resources that a rehearsal has created, or has begun to create.
#[derive(Debug, Default)]
struct Created {
    /// Folder of the program's package.
    folder: Option<PathBuf>,
    has_pars: bool,
    /// Names of the Knots.
    knots: BTreeSet<String>,
}

/// A step of a rehearsal that has ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Step {
    /// Description of the step, such as "create the Pars `rehearsal-x4k9q`".
    pub action: String,
    /// Duration of the step.
    pub elapsed: Duration,
    /// Error, if the step failed.
    pub error: Option<Error>,
}

/// Receiver of the steps, each at its end.
pub type Report<'r> = &'r (dyn Fn(Step) + Send + Sync);

impl Default for Rehearsal {
    fn default() -> Self {
        Self::new()
    }
}

impl Rehearsal {
    /// Creates a rehearsal with a new name, on EC2 and on Fargate: these two differ in what they need of an account. Spot
    /// capacity needs the same, and may be missing for hours.
    pub fn new() -> Self {
        Self {
            name: new_name(),
            computes: vec![Compute::Ec2, Compute::Fargate],
            pars: ParsSettings::default(),
            account: Account::default(),
            created: Mutex::default(),
        }
    }

    /// Sets the kinds of compute, with a Knot for each.
    #[must_use]
    pub fn computes(mut self, computes: impl IntoIterator<Item = Compute>) -> Self {
        self.computes.clear();
        for compute in computes {
            if !self.computes.contains(&compute) {
                self.computes.push(compute);
            }
        }
        self
    }

    /// Sets the settings of the Pars.
    #[must_use]
    pub fn pars(mut self, settings: ParsSettings) -> Self {
        self.pars = settings;
        self
    }

    /// Uses this AWS profile.
    #[must_use]
    pub fn profile(mut self, name: impl Into<String>) -> Self {
        self.account.profile = Some(name.into());
        self
    }

    /// Uses this region.
    #[must_use]
    pub fn region(mut self, name: impl Into<String>) -> Self {
        self.account.region = Some(name.into());
        self
    }

    /// Returns the name of the Pars. Those of the Knots begin with it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what the rehearsal will do and its maximum costs, one sentence each. Creates nothing.
    ///
    /// # Errors
    /// Returns an error if the Pars could not be created, as far as that can be known beforehand.
    pub async fn plan(&self) -> Result<Vec<String>> {
        host_await!(host::plan(self))
    }

    /// Performs the steps, and reports each of them. The Knots are deployed and used at the same time, because that takes
    /// half the time. After a failed step, those that need it are skipped. What was created stays until
    /// [`clobber`](Self::clobber), also if this future is dropped.
    ///
    /// # Errors
    /// Returns an error if a step has failed; the reports have the reasons.
    pub async fn run(&self, report: Report<'_>) -> Result<()> {
        host_await!(host::run(self, report))
    }

    /// Deletes everything that was created, and reports each step.
    ///
    /// # Errors
    /// Returns an error if a step has failed; the reports have the reasons.
    pub async fn clobber(&self, report: Report<'_>) -> Result<()> {
        host_await!(host::clobber(self, report))
    }

    /// Returns the commands that delete what still exists; none if that is nothing.
    pub fn remaining(&self) -> Vec<String> {
        let created = self.created.lock().unwrap_or_else(PoisonError::into_inner);
        let knots = created.knots.iter().map(|knot| format!("cargo knot clobber {knot}"));
        let pars = created.has_pars.then(|| format!("cargo knot pars clobber {}", self.name));
        let Account { profile, region } = &self.account;
        let options = [("aws-profile", profile), ("region", region)];
        let options: String =
            options.iter().filter_map(|(name, value)| Some(format!(" --{name} {}", value.as_ref()?))).collect();
        knots.chain(pars).map(|command| command + &options).collect()
    }

    /// Returns the name of the Knot on this kind of compute.
    #[allow(dead_code, reason = "a worker creates no Knot")]
    fn knot(&self, compute: Compute) -> String {
        format!("{}-{}", self.name, compute.name())
    }

    /// Changes the list of what was created.
    #[allow(dead_code, reason = "a worker creates nothing")]
    fn created<T>(&self, change: impl FnOnce(&mut Created) -> T) -> T {
        change(&mut self.created.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns a new name: `rehearsal-` and five random characters.
fn new_name() -> String {
    use std::hash::BuildHasher;
    // The hasher's keys come from the system's random source.
    let mut random = std::hash::RandomState::new().hash_one((std::time::SystemTime::now(), std::process::id()));
    let digit = || {
        let digit = b"0123456789abcdefghjkmnpqrstvwxyz"[(random % 32) as usize];
        random /= 32;
        char::from(digit)
    };
    format!("rehearsal-{}", std::iter::repeat_with(digit).take(5).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_resources_have_commands() {
        let rehearsal = Rehearsal::new().profile("lab").region("eu-central-1");
        assert_eq!(rehearsal.remaining(), [""; 0]);
        let name = rehearsal.name();
        rehearsal.created.lock().unwrap().has_pars = true;
        rehearsal.created.lock().unwrap().knots.insert(format!("{name}-ec2"));
        let options = "--aws-profile lab --region eu-central-1";
        let expected =
            [format!("cargo knot clobber {name}-ec2 {options}"), format!("cargo knot pars clobber {name} {options}")];
        assert_eq!(rehearsal.remaining(), expected);
    }

    #[test]
    fn names_are_valid_and_differ() {
        let [one, other] = [Rehearsal::new(), Rehearsal::new()];
        assert_ne!(one.name, other.name);
        let longest = format!("{}-{}", one.name, Compute::FargateSpot.name());
        assert_eq!((one.name.len(), longest.len()), (15, 28), "{longest}");
    }
}
