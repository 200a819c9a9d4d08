//! Resources of cloudknot in an account, and those of them without an owner.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::{Orphan, OrphanKind, Prune};
use crate::aws::batch::{Batch, Definition};
use crate::aws::cloudformation::{KNOT_STACKS, PARS_STACKS, Stack, Stacks};
use crate::aws::ecr::{Ecr, StoredImage};
use crate::aws::{Aws, s3};
use crate::deploy::knot::Knot;
use crate::deploy::knot::host as knot;
use crate::deploy::pars::Pars;
use crate::deploy::pars::host as pars;
use crate::error::Result;
use crate::event::step;
use crate::settings::account::Account;

/// Resource to delete, and its account.
#[derive(Debug, Clone)]
pub(super) struct Target {
    aws: Aws,
    resource: Resource,
}

/// Kind and identifier of a resource.
#[derive(Debug, Clone)]
enum Resource {
    Stack(Box<Stack>),
    Pars(Box<Pars>),
    Knot(Box<Knot>),
    Definition(String),
    Image { repository: String, digest: String },
    Folder { bucket: String, folder: String },
}

pub(super) async fn find(prune: Prune) -> Result<Vec<Orphan>> {
    let aws = Aws::load(&prune.account).await?;
    let (stacks, batch) = (Stacks::new(&aws), Batch::new(&aws));
    // Listed before the stacks: anything that a deploy creates meanwhile is either named by its stack or not in
    // this list.
    let definitions = batch.definitions().await?;
    let (pars, knots) = tokio::try_join!(stacks.all(PARS_STACKS), stacks.all(KNOT_STACKS))?;
    let inventory = Inventory { aws, account: prune.account, min_age: prune.min_age, pars, knots };
    let mut found = inventory.stacks();
    found.extend(inventory.definitions(&definitions));
    for knot in inventory.complete_knots() {
        found.extend(inventory.superseded(&batch, &knot, &definitions).await?);
    }
    found.extend(inventory.folders().await?);
    Ok(found)
}

impl Target {
    /// Deletes the resource. It is not an error if the resource was deleted in the meantime.
    pub(super) async fn delete(self) -> Result<()> {
        match self.resource {
            Resource::Stack(stack) => Stacks::new(&self.aws).delete(&stack, &[]).await,
            Resource::Pars(pars) => pars.clobber().await,
            Resource::Knot(knot) => knot.clobber().await,
            Resource::Definition(arn) => Batch::new(&self.aws).deregister(&arn).await,
            Resource::Image { repository, digest } => {
                step(&format!("deleting the image {digest} in `{repository}`"));
                Ecr::new(&self.aws).delete_image(&repository, &digest).await
            }
            Resource::Folder { bucket, folder } => {
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
    fn orphan(&self, kind: OrphanKind, name: &str, reason: String, deletes: String, resource: Resource) -> Orphan {
        // A stack that could not be deleted may have failed because of the runs in its bucket.
        let has_runs =
            kind == OrphanKind::Runs || (kind == OrphanKind::Stack && !matches!(resource, Resource::Stack(_)));
        Orphan {
            kind,
            name: name.to_owned(),
            reason,
            deletes,
            has_runs,
            target: Target { aws: self.aws.clone(), resource },
        }
    }

    fn has_pars(&self, name: &str) -> bool {
        self.pars.iter().any(|stack| stack.name.strip_prefix(PARS_STACKS) == Some(name))
    }

    fn has_knot(&self, name: &str) -> bool {
        self.knots.iter().any(|stack| stack.name.strip_prefix(KNOT_STACKS) == Some(name))
    }

    /// Returns the stacks that are stuck or incomplete, and the Knots whose Pars no longer exists.
    fn stacks(&self) -> Vec<Orphan> {
        // A stack that can be read as a Pars or a Knot is clobbered as such, because CloudFormation alone cannot delete
        // all of it.
        let stuck_pars = self.pars.iter().filter(|stack| stack.is_stuck()).map(|stack| {
            let resource = pars::read(stack, &self.account).map(Box::new).map(Resource::Pars);
            self.stuck_stack(stack, resource.unwrap_or_else(|_| Resource::Stack(Box::new(stack.clone()))))
        });
        let stuck_knots = self.knots.iter().filter(|stack| stack.is_stuck()).map(|stack| {
            let resource = knot::read(stack, &self.account).map(Box::new).map(Resource::Knot);
            self.stuck_stack(stack, resource.unwrap_or_else(|_| Resource::Stack(Box::new(stack.clone()))))
        });
        let unfinished =
            self.knots.iter().filter(|stack| stack.is_complete() && !stack.outputs.contains_key("ImageDigest"));
        let unfinished = unfinished.filter(|stack| self.is_old(stack.changed)).map(|stack| {
            let reason = "its deploy was not finished: it has only a repository".to_owned();
            let deletes = "the stack and its repository".to_owned();
            self.orphan(OrphanKind::Stack, &stack.name, reason, deletes, Resource::Stack(Box::new(stack.clone())))
        });
        let orphaned = self.complete_knots().into_iter().filter(|knot| !self.has_pars(knot.pars_name())).map(|knot| {
            let reason = format!("its Pars `{}` no longer exists", knot.pars_name());
            let deletes = "the Knot: queue, environment, job definitions, role, and its own repository".to_owned();
            let name = knot.name.clone();
            self.orphan(OrphanKind::Knot, &name, reason, deletes, Resource::Knot(Box::new(knot)))
        });
        stuck_knots.chain(stuck_pars).chain(unfinished).chain(orphaned).collect()
    }

    fn stuck_stack(&self, stack: &Stack, resource: Resource) -> Orphan {
        let cause = stack.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        let reason = format!("it is {}{cause}", stack.status);
        let deletes = match resource {
            Resource::Pars(_) => "the Pars, with the bucket and all runs in it",
            Resource::Knot(_) => "the Knot, with its runs",
            _ => "the stack and its remaining resources",
        };
        self.orphan(OrphanKind::Stack, &stack.name, reason, deletes.to_owned(), resource)
    }

    fn is_old(&self, since: SystemTime) -> bool {
        since.elapsed().is_ok_and(|age| age >= self.min_age)
    }

    /// Returns the complete Knots. Those of another version, which this one cannot read, belong to the users of that
    /// version.
    fn complete_knots(&self) -> Vec<Knot> {
        let complete =
            self.knots.iter().filter(|stack| stack.is_complete() && stack.outputs.contains_key("ImageDigest"));
        complete.filter_map(|stack| knot::read(stack, &self.account).ok()).collect()
    }

    /// Returns the revisions of deleted Knots, which CloudFormation does not delete.
    fn definitions(&self, all: &[Definition]) -> Vec<Orphan> {
        let tagged = all.iter().filter_map(|one| Some((one, one.knot.as_deref()?)));
        let orphans = tagged.filter(|(_, knot)| !self.has_knot(knot)).map(|(one, knot)| {
            let reason = format!("its Knot `{knot}` no longer exists");
            let resource = Resource::Definition(one.arn.clone());
            self.orphan(OrphanKind::JobDefinition, &one.arn, reason, "the revision".to_owned(), resource)
        });
        orphans.collect()
    }

    /// Returns the resources of earlier deploys of a Knot that nothing needs any more.
    async fn superseded(&self, batch: &Batch, knot: &Knot, definitions: &[Definition]) -> Result<Vec<Orphan>> {
        if !self.has_pars(knot.pars_name()) {
            return Ok(Vec::new());
        }
        let repository = knot.repository().split_once('/').map(|(_, repository)| repository);
        let mut old = Vec::new();
        if let Some(repository) = repository.filter(|_| knot.deployed.settings.repository.is_none()) {
            let stored = Ecr::new(&self.aws).images(repository).await?;
            old.extend(stored.into_iter().filter(|image| self.is_old(image.pushed)));
        }
        let knot_definitions: Vec<_> =
            definitions.iter().filter(|one| one.knot.as_deref() == Some(knot.name())).collect();
        let names = knot::all_definitions(knot.name(), Some(knot), definitions);
        // A job keeps its revision, and with it its image, when the Knot gets a new one.
        let Some(started) = batch.images_of_jobs(knot.queue(), &names).await? else {
            step(&format!(
                "keeping the resources of earlier deploys of the Knot `{}`: AWS Batch does not report yet which job \
                 definition a job uses",
                knot.name
            ));
            return Ok(Vec::new());
        };
        let current: Vec<&str> = knot.job_definitions().into_values().collect();
        // The last deploy has replaced all earlier revisions, so the age of that deploy counts.
        let replaced = knot_definitions.into_iter().filter(|_| self.is_old(knot.changed));
        let replaced: Vec<_> = replaced.filter(|one| is_replaced(one, &current, &started)).collect();
        let kept = definitions.iter().filter(|one| !replaced.contains(one));
        let needed: BTreeSet<&str> = kept.flat_map(|one| &one.images).chain(&started).map(String::as_str).collect();
        let mut found: Vec<_> = replaced.iter().map(|one| self.replaced(knot, one)).collect();
        found.extend(repository.into_iter().flat_map(|repository| self.images(knot, repository, &old, &needed)));
        Ok(found)
    }

    fn replaced(&self, knot: &Knot, one: &Definition) -> Orphan {
        let reason = format!(
            "superseded by a newer revision of the Knot `{}`, and no unfinished job uses its image; programs that others \
             deployed before must be deployed again",
            knot.name
        );
        let (deletes, resource) = ("the revision".to_owned(), Resource::Definition(one.arn.clone()));
        self.orphan(OrphanKind::JobDefinition, &one.arn, reason, deletes, resource)
    }

    /// Returns the images in a Knot's own repository that no job uses any more.
    fn images(&self, knot: &Knot, repository: &str, old: &[StoredImage], needed: &BTreeSet<&str>) -> Vec<Orphan> {
        let current = knot.image();
        let unused =
            old.iter().filter(|image| !is_needed(image, repository, needed.iter().copied().chain([current.as_str()])));
        let orphans = unused.map(|image| {
            let reason = format!("neither the Knot `{}` nor a job definition or an unfinished job uses it", knot.name);
            let tags = if image.tags.is_empty() { String::new() } else { format!(" ({})", image.tags.join(", ")) };
            let deletes = format!("{} bytes{tags}", image.bytes);
            let (repository, digest) = (repository.to_owned(), image.digest.clone());
            let name = format!("{repository}@{digest}");
            self.orphan(OrphanKind::Image, &name, reason, deletes, Resource::Image { repository, digest })
        });
        orphans.collect()
    }

    /// Returns the remains of deleted Knots in buckets. Only buckets that were created with their Pars count:
    /// in one that existed before, another account's Knots may have their runs.
    async fn folders(&self) -> Result<Vec<Orphan>> {
        let mut found = Vec::new();
        for stack in self.pars.iter().filter(|stack| stack.is_complete()) {
            let Ok(pars) = pars::read(stack, &self.account) else { continue };
            for (kind, parent) in [(OrphanKind::Runs, "knots"), (OrphanKind::Templates, "stacks")] {
                let parent = format!("{}{parent}/", pars.prefix());
                let names = s3::folders(&self.aws, pars.bucket(), &parent).await?;
                let orphaned_knots: Vec<_> = names.into_iter().filter(|name| !self.has_knot(name)).collect();
                if !pars::bucket_is_its_own(stack)? {
                    if !orphaned_knots.is_empty() {
                        let (bucket, names) = (pars.bucket(), orphaned_knots.join(", "));
                        step(&format!(
                            "kept in the bucket `{bucket}`, which existed before the Pars `{}`: `{parent}` of {names}",
                            pars.name
                        ));
                    }
                    continue;
                }
                for name in orphaned_knots {
                    found.push(self.folder(kind, &pars, &format!("{parent}{name}/"), &name).await?);
                }
            }
        }
        Ok(found)
    }

    async fn folder(&self, kind: OrphanKind, pars: &Pars, folder: &str, knot: &str) -> Result<Orphan> {
        let bucket = pars.bucket().to_owned();
        let mut reason = format!("its Knot `{knot}` no longer exists");
        let deletes = if kind == OrphanKind::Runs {
            reason.push_str("; perhaps clobbered with its runs kept on purpose");
            let runs = s3::folders(&self.aws, &bucket, &format!("{folder}runs/")).await?.len();
            format!("{runs} {}, with inputs and results", if runs == 1 { "run" } else { "runs" })
        } else {
            "templates of its stack".to_owned()
        };
        let (name, folder) = (format!("s3://{bucket}/{folder}"), folder.to_owned());
        Ok(self.orphan(kind, &name, reason, deletes, Resource::Folder { bucket, folder }))
    }
}

/// Returns whether the Knot has replaced or dropped this revision, and no unfinished job uses its image.
fn is_replaced(one: &Definition, current: &[&str], started: &[String]) -> bool {
    !current.contains(&one.arn.as_str()) && !one.images.iter().any(|image| started.contains(image))
}

/// Returns whether one of these image names of jobs refers to this image, by its digest or by one of its tags.
fn is_needed<'a>(image: &StoredImage, repository: &str, names: impl IntoIterator<Item = &'a str>) -> bool {
    names.into_iter().any(|name| {
        if let Some((_, digest)) = name.rsplit_once('@') {
            // The registry does not matter, because a digest identifies a single image.
            return digest == image.digest;
        }
        // A colon before a slash belongs to a port.
        let (path, tag) = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).unwrap_or((name, "latest"));
        let is_repository = path.strip_suffix(repository).is_some_and(|host| host.is_empty() || host.ends_with('/'));
        is_repository && image.tags.iter().any(|one| one == tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_old_revision_is_replaced() {
        let arn = |number: u32| format!("arn:aws:batch:eu-west-1:1:job-definition/cloudknot-sweep_f-1a:{number}");
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
    fn image_is_needed_by_digest_or_by_tag() {
        let image = StoredImage {
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
