//! Resources in the account without an owner: stacks that were never completed, images that no job uses, runs of
//! deleted Knots. Finds them, and deletes those that the caller selects. Anything that may be in use is kept.

#[cfg(not(cloudknot_worker))]
mod inventory;

use std::time::Duration;

use serde::Serialize;

use crate::error::Result;
use crate::host::{host_await, host_type};
use crate::settings::account::Account;

/// Default minimum age: anything younger may belong to a deploy in progress.
const MIN_AGE: Duration = Duration::from_hours(24);

/// A search for resources without an owner, in one account and region.
///
/// ```no_run
/// # async fn example() -> cloudknot::Result<()> {
/// use cloudknot::prune::Prune;
///
/// for orphan in Prune::new().region("eu-central-1").find().await? {
///     println!("{}: {}", orphan.name, orphan.reason);
///     if !orphan.has_runs {
///         orphan.delete().await?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Prune {
    account: Account,
    min_age: Duration,
}

/// A resource that exists and that nothing needs.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Orphan {
    /// Kind of the resource.
    pub kind: OrphanKind,
    /// Name of the resource.
    pub name: String,
    /// Reason why nothing needs it.
    pub reason: String,
    /// Description of everything that is deleted with it.
    pub deletes: String,
    /// `true` if runs are deleted with it, whose results cannot be restored.
    pub has_runs: bool,
    #[serde(skip)]
    target: host_type!(inventory::Target),
}

/// Kind of a resource without an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OrphanKind {
    /// A stack of cloudknot that was never completed, or could not be deleted.
    Stack,
    /// A Knot whose Pars no longer exists.
    Knot,
    /// A revision of a job definition whose Knot no longer exists, or has a newer one.
    JobDefinition,
    /// An image that no job uses any more.
    Image,
    /// The runs of a deleted Knot. They may have been kept on purpose by a clobber.
    Runs,
    /// The templates of a deleted Knot.
    Templates,
}

impl OrphanKind {
    /// Returns the name of the kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stack => "stack",
            Self::Knot => "knot",
            Self::JobDefinition => "job-definition",
            Self::Image => "image",
            Self::Runs => "runs",
            Self::Templates => "templates",
        }
    }
}

impl Default for Prune {
    fn default() -> Self {
        Self { account: Account::default(), min_age: MIN_AGE }
    }
}

impl Prune {
    /// Creates a search in the account and region that the environment, the profile and `config.toml` select.
    pub fn new() -> Self {
        Self::default()
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

    /// Sets the minimum age of images and incomplete Knots, and of the last deploy of Knots with old revisions; one
    /// day by default.
    ///
    /// A deploy pushes its image some minutes before anything refers to it, and programs that were deployed from other
    /// machines refer to the earlier revisions until they are deployed again.
    #[must_use]
    pub fn min_age(mut self, age: Duration) -> Self {
        self.min_age = age;
        self
    }

    /// Returns the resources without an owner. Nothing is deleted.
    ///
    /// # Errors
    /// Returns an error if a request to AWS fails.
    pub async fn find(self) -> Result<Vec<Orphan>> {
        host_await!(inventory::find(self))
    }
}

impl Orphan {
    /// Deletes the resource. It is not an error if the resource was deleted in the meantime.
    ///
    /// # Errors
    /// Returns an error if AWS rejects the request.
    pub async fn delete(self) -> Result<()> {
        host_await!(self.target.delete())
    }
}
