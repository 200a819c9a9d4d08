//! Resources in the account without an owner: stacks that were never completed, images that nothing starts, runs of
//! Knots that are gone. Finds them, and deletes those that the caller selects. Anything that may be in use is left
//! alone.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use cloudknot_runtime::engine;
use serde::Serialize;

use crate::aws::batch::{Batch, Definition};
use crate::aws::cloudformation::{KNOT_STACKS, PARS_STACKS, Stack, Stacks};
use crate::aws::ecr::{Ecr, Stored};
use crate::aws::{Aws, s3};
use crate::deploy::knot::{self, Knot};
use crate::deploy::pars::{self, Pars};
use crate::error::Result;
use crate::event::step;
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
///     println!("{}: {}", orphan.name, orphan.why);
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
    pub why: String,
    /// Description of everything that is deleted with it.
    pub deletes: String,
    /// `true` if runs are deleted with it, whose results cannot be restored.
    pub has_runs: bool,
    #[serde(skip)]
    aws: Aws,
    #[serde(skip)]
    what: What,
}

/// Kind of a resource without an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OrphanKind {
    /// A stack of ours that was never completed, or could not be deleted.
    Stack,
    /// A Knot whose Pars is gone.
    Knot,
    /// A revision of a job definition whose Knot is gone, or has a newer one.
    JobDefinition,
    /// An image that no job starts any more.
    Image,
    /// The runs of a Knot that is gone. They may have been kept on purpose by a clobber.
    Runs,
    /// The templates of a Knot that is gone.
    Templates,
}

/// Target of the deletion.
#[derive(Debug, Clone)]
enum What {
    Stack(Box<Stack>),
    Pars(Box<Pars>),
    Knot(Box<Knot>),
    Definition(String),
    Image { repository: String, digest: String },
    Folder { bucket: String, folder: String },
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

    /// Uses this profile of AWS.
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
    /// A deploy pushes its image some minutes before anything names it, and programs that were deployed elsewhere name
    /// the earlier revisions until they are deployed again.
    #[must_use]
    pub fn min_age(mut self, age: Duration) -> Self {
        self.min_age = age;
        self
    }

    /// Returns the resources without an owner. Nothing is deleted.
    ///
    /// # Errors
    /// If AWS cannot be asked.
    pub async fn find(self) -> Result<Vec<Orphan>> {
        engine::inside(Box::pin(self.look())).await
    }

    async fn look(self) -> Result<Vec<Orphan>> {
        let aws = Aws::load(&self.account).await?;
        let (stacks, batch) = (Stacks::new(&aws), Batch::new(&aws));
        // Listed before the stacks: anything that a deploy creates meanwhile is either named by its stack or not in
        // this list.
        let definitions = batch.definitions().await?;
        let (pars, knots) = tokio::try_join!(stacks.all(PARS_STACKS), stacks.all(KNOT_STACKS))?;
        let there = Inventory { aws, account: self.account, min_age: self.min_age, pars, knots };
        let mut found = there.stacks();
        found.extend(there.definitions(&definitions));
        for knot in there.knots_at_rest() {
            found.extend(there.of_knot(&batch, &knot, &definitions).await?);
        }
        found.extend(there.folders().await?);
        Ok(found)
    }
}

impl Orphan {
    /// Deletes the resource. If it was deleted in the meantime, that is not an error.
    ///
    /// # Errors
    /// If AWS refuses.
    pub async fn delete(self) -> Result<()> {
        engine::inside(Box::pin(self.delete_inside())).await
    }

    async fn delete_inside(self) -> Result<()> {
        match self.what {
            What::Stack(stack) => Stacks::new(&self.aws).delete(&stack, &[]).await,
            What::Pars(pars) => pars.clobber().await,
            What::Knot(knot) => knot.clobber().await,
            What::Definition(arn) => Batch::new(&self.aws).deregister(&arn).await,
            What::Image { repository, digest } => {
                step(&format!("deleting the image {digest} in `{repository}`"));
                Ecr::new(&self.aws).delete_image(&repository, &digest).await
            }
            What::Folder { bucket, folder } => {
                step(&format!("emptying `{folder}` in the bucket `{bucket}`"));
                s3::delete_below(&self.aws, &bucket, "", &folder).await.map(drop)
            }
        }
    }
}

/// All resources of cloudknot in the account, as CloudFormation reports them.
struct Inventory {
    aws: Aws,
    account: Account,
    min_age: Duration,
    pars: Vec<Stack>,
    knots: Vec<Stack>,
}

impl Inventory {
    fn orphan(&self, kind: OrphanKind, name: &str, why: String, deletes: String, what: What) -> Orphan {
        // A stack that could not be deleted may have failed because of the runs in its bucket.
        let has_runs = kind == OrphanKind::Runs || (kind == OrphanKind::Stack && !matches!(what, What::Stack(_)));
        Orphan { kind, name: name.to_owned(), why, deletes, has_runs, aws: self.aws.clone(), what }
    }

    fn has_pars(&self, name: &str) -> bool {
        self.pars.iter().any(|stack| stack.name.strip_prefix(PARS_STACKS) == Some(name))
    }

    fn has_knot(&self, name: &str) -> bool {
        self.knots.iter().any(|stack| stack.name.strip_prefix(KNOT_STACKS) == Some(name))
    }

    /// Returns the stacks that are stuck or incomplete, and the Knots whose Pars is gone.
    fn stacks(&self) -> Vec<Orphan> {
        // A stack that is readable as a Pars or a Knot can be clobbered as such, including what would make
        // CloudFormation fail.
        let stuck_pars = self.pars.iter().filter(|stack| stack.is_stuck()).map(|stack| {
            let what = pars::of_stack(stack, &self.account).map(Box::new).map(What::Pars);
            self.stuck(stack, what.unwrap_or_else(|_| What::Stack(Box::new(stack.clone()))))
        });
        let stuck_knots = self.knots.iter().filter(|stack| stack.is_stuck()).map(|stack| {
            let what = knot::of_stack(stack, &self.account).map(Box::new).map(What::Knot);
            self.stuck(stack, what.unwrap_or_else(|_| What::Stack(Box::new(stack.clone()))))
        });
        let begun = self.knots.iter().filter(|stack| stack.is_complete() && !stack.outputs.contains_key("ImageDigest"));
        let begun = begun.filter(|stack| self.is_old(stack.changed)).map(|stack| {
            let why = "its deploy was never finished: it has a repository, and nothing else".to_owned();
            let deletes = "the stack and its repository".to_owned();
            self.orphan(OrphanKind::Stack, &stack.name, why, deletes, What::Stack(Box::new(stack.clone())))
        });
        let without_pars =
            self.knots_at_rest().into_iter().filter(|knot| !self.has_pars(knot.pars_name())).map(|knot| {
                let why = format!("its Pars `{}` is gone", knot.pars_name());
                let deletes = "the Knot: queue, environment, job definitions, role, and its own repository".to_owned();
                let name = knot.name.clone();
                self.orphan(OrphanKind::Knot, &name, why, deletes, What::Knot(Box::new(knot)))
            });
        stuck_knots.chain(stuck_pars).chain(begun).chain(without_pars).collect()
    }

    fn stuck(&self, stack: &Stack, what: What) -> Orphan {
        let reason = stack.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        let why = format!("it is {}{reason}", stack.status);
        let deletes = match what {
            What::Pars(_) => "the Pars, with the bucket and all runs in it",
            What::Knot(_) => "the Knot, with its runs",
            _ => "the stack and its remaining resources",
        };
        self.orphan(OrphanKind::Stack, &stack.name, why, deletes.to_owned(), what)
    }

    fn is_old(&self, since: SystemTime) -> bool {
        since.elapsed().is_ok_and(|age| age >= self.min_age)
    }

    /// Returns the complete Knots. Those of another version, which this one cannot read, belong to the users of that
    /// version.
    fn knots_at_rest(&self) -> Vec<Knot> {
        let complete =
            self.knots.iter().filter(|stack| stack.is_complete() && stack.outputs.contains_key("ImageDigest"));
        complete.filter_map(|stack| knot::of_stack(stack, &self.account).ok()).collect()
    }

    /// Returns the revisions that CloudFormation has left behind.
    fn definitions(&self, all: &[Definition]) -> Vec<Orphan> {
        let ours = all.iter().filter_map(|one| Some((one, one.knot.as_deref()?)));
        let orphans = ours.filter(|(_, knot)| !self.has_knot(knot)).map(|(one, knot)| {
            let why = format!("its Knot `{knot}` is gone");
            let what = What::Definition(one.arn.clone());
            self.orphan(OrphanKind::JobDefinition, &one.arn, why, "the revision".to_owned(), what)
        });
        orphans.collect()
    }

    /// Returns what earlier deploys of a Knot have left behind and nothing needs any more.
    async fn of_knot(&self, batch: &Batch, knot: &Knot, definitions: &[Definition]) -> Result<Vec<Orphan>> {
        if !self.has_pars(knot.pars_name()) {
            return Ok(Vec::new());
        }
        let repository = knot.repository().split_once('/').map(|(_, repository)| repository);
        let mut old = Vec::new();
        if let Some(repository) = repository.filter(|_| knot.deployed.settings.repository.is_none()) {
            let stored = Ecr::new(&self.aws).images(repository).await?;
            old.extend(stored.into_iter().filter(|image| self.is_old(image.pushed)));
        }
        let ours: Vec<_> = definitions.iter().filter(|one| one.knot.as_deref() == Some(knot.name())).collect();
        let names = knot::all_definitions(knot.name(), Some(knot), definitions);
        // A job keeps its revision, and with it its image, when the Knot gets a new one.
        let Some(started) = batch.images_of_jobs(knot.queue(), &names).await? else {
            step(&format!(
                "what earlier deploys of the Knot `{}` created is kept: AWS Batch does not report the job definition of a job \
                 yet",
                knot.name
            ));
            return Ok(Vec::new());
        };
        let current: Vec<&str> = knot.job_definitions().into_values().collect();
        // The last deploy has replaced every revision that is not its own, so the age of that deploy counts.
        let replaced = ours.into_iter().filter(|_| self.is_old(knot.changed));
        let replaced: Vec<_> = replaced.filter(|one| is_replaced(one, &current, &started)).collect();
        let of_others = definitions.iter().filter(|one| !replaced.contains(one));
        let needed: BTreeSet<&str> =
            of_others.flat_map(|one| &one.images).chain(&started).map(String::as_str).collect();
        let mut found: Vec<_> = replaced.iter().map(|one| self.replaced(knot, one)).collect();
        found.extend(repository.into_iter().flat_map(|repository| self.images(knot, repository, &old, &needed)));
        Ok(found)
    }

    fn replaced(&self, knot: &Knot, one: &Definition) -> Orphan {
        let why = format!(
            "the Knot `{}` has newer ones, and no unfinished job uses its image; programs deployed before them by others must \
             be deployed again",
            knot.name
        );
        let (deletes, what) = ("the revision".to_owned(), What::Definition(one.arn.clone()));
        self.orphan(OrphanKind::JobDefinition, &one.arn, why, deletes, what)
    }

    /// Returns the images in a Knot's own repository that nothing starts any more.
    fn images(&self, knot: &Knot, repository: &str, old: &[Stored], needed: &BTreeSet<&str>) -> Vec<Orphan> {
        let own = knot.image();
        let unowned =
            old.iter().filter(|image| !is_needed(image, repository, needed.iter().copied().chain([own.as_str()])));
        let orphans = unowned.map(|image| {
            let why = format!("neither the Knot `{}` nor a job definition or an unfinished job names it", knot.name);
            let tags = if image.tags.is_empty() { String::new() } else { format!(" ({})", image.tags.join(", ")) };
            let deletes = format!("{} bytes{tags}", image.bytes);
            let (repository, digest) = (repository.to_owned(), image.digest.clone());
            let name = format!("{repository}@{digest}");
            self.orphan(OrphanKind::Image, &name, why, deletes, What::Image { repository, digest })
        });
        orphans.collect()
    }

    /// Returns what deleted Knots have left behind in buckets. Only buckets that were created with their Pars count:
    /// in one that existed before, another account's Knots may have their runs.
    async fn folders(&self) -> Result<Vec<Orphan>> {
        let mut found = Vec::new();
        for stack in self.pars.iter().filter(|stack| stack.is_complete()) {
            let Ok(pars) = pars::of_stack(stack, &self.account) else { continue };
            for (kind, above) in [(OrphanKind::Runs, "knots"), (OrphanKind::Templates, "stacks")] {
                let above = format!("{}{above}/", pars.prefix());
                let names = s3::folders(&self.aws, pars.bucket(), &above).await?;
                let gone: Vec<_> = names.into_iter().filter(|name| !self.has_knot(name)).collect();
                if !pars::bucket_is_its_own(stack)? {
                    if !gone.is_empty() {
                        let (bucket, names) = (pars.bucket(), gone.join(", "));
                        step(&format!(
                            "kept in the bucket `{bucket}`, which existed before the Pars `{}`: `{above}` of {names}",
                            pars.name
                        ));
                    }
                    continue;
                }
                for name in gone {
                    found.push(self.folder(kind, &pars, &format!("{above}{name}/"), &name).await?);
                }
            }
        }
        Ok(found)
    }

    async fn folder(&self, kind: OrphanKind, pars: &Pars, folder: &str, knot: &str) -> Result<Orphan> {
        let bucket = pars.bucket().to_owned();
        let mut why = format!("its Knot `{knot}` is gone");
        let deletes = if kind == OrphanKind::Runs {
            why.push_str("; perhaps clobbered with its runs kept on purpose");
            let runs = s3::folders(&self.aws, &bucket, &format!("{folder}runs/")).await?.len();
            format!("{runs} {}, with inputs and results", if runs == 1 { "run" } else { "runs" })
        } else {
            "templates of its stack".to_owned()
        };
        let (name, folder) = (format!("s3://{bucket}/{folder}"), folder.to_owned());
        Ok(self.orphan(kind, &name, why, deletes, What::Folder { bucket, folder }))
    }
}

/// Returns whether the Knot has replaced or dropped this revision, and no unfinished job starts its image.
fn is_replaced(one: &Definition, current: &[&str], started: &[String]) -> bool {
    !current.contains(&one.arn.as_str()) && !one.images.iter().any(|image| started.contains(image))
}

/// Returns whether one of these names, as jobs have them, refers to this image, by its digest or by one of its tags.
fn is_needed<'a>(image: &Stored, repository: &str, names: impl IntoIterator<Item = &'a str>) -> bool {
    names.into_iter().any(|name| {
        if let Some((_, digest)) = name.rsplit_once('@') {
            // The registry does not matter, because a digest identifies a single image.
            return digest == image.digest;
        }
        // A colon before a slash belongs to a port.
        let (path, tag) = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).unwrap_or((name, "latest"));
        let ours = path.strip_suffix(repository).is_some_and(|host| host.is_empty() || host.ends_with('/'));
        ours && image.tags.iter().any(|one| one == tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_replaced_that_is_not_current_and_that_no_job_has() {
        let arn = |number: u32| format!("arn:aws:batch:eu-west-1:1:job-definition/cloudknot-sweep-f-1a:{number}");
        let (current, jobs) = (arn(3), ["lab/sweep@sha256:bb".to_owned()]);
        let check = |number, image: &str, replaced: bool| {
            let one = Definition { arn: arn(number), knot: Some("sweep".into()), images: vec![image.into()] };
            assert_eq!(is_replaced(&one, &[&current], &jobs), replaced, "{number} with {image}");
        };
        check(1, "lab/sweep@sha256:aa", true);
        check(2, "lab/sweep@sha256:bb", false);
        check(3, "lab/sweep@sha256:cc", false);
    }

    #[test]
    fn an_image_is_needed_by_digest_or_by_tag() {
        let image = Stored {
            digest: "sha256:aa".into(),
            tags: vec!["sweep-aa".into(), "latest".into()],
            bytes: 1,
            pushed: SystemTime::UNIX_EPOCH,
        };
        let check = |name: &str, needed: bool| {
            assert_eq!(is_needed(&image, "cloudknot/sweep", [name]), needed, "{name}");
        };
        check("123456789012.dkr.ecr.eu-west-1.amazonaws.com/cloudknot/sweep@sha256:aa", true);
        check("proxy:5000/cloudknot/sweep@sha256:aa", true);
        check("proxy:5000/cloudknot/sweep@sha256:bb", false);
        check("proxy:5000/cloudknot/sweep:sweep-aa", true);
        check("proxy:5000/cloudknot/sweep", true);
        check("proxy:5000/cloudknot/sweep:sweep-bb", false);
        check("proxy:5000/cloudknot/other:sweep-aa", false);
        check("proxy:5000/not-cloudknot/sweep:sweep-aa", false);
    }
}
