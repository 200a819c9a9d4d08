//! Deletion of a Knot.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::stack::{all_definitions, read, stack_name};
use super::tag_of;
use crate::aws::batch::Batch;
use crate::aws::cloudformation::{PARS_STACKS, Stack, Stacks};
use crate::aws::ecr::Ecr;
use crate::aws::{Aws, s3};
use crate::deploy::knot::KnotClobber;
use crate::deploy::pars::Pars;
use crate::deploy::pars::host as pars;
use crate::deploy::template::output_in;
use crate::error::{Error, ErrorKind, Result};
use crate::event::step;
use crate::home;
use crate::home::built::Built;
use crate::home::knot_note::KnotNote;
use crate::settings::sizes::counted;

/// Maximum time to wait for jobs to end. A container is killed 30 seconds after SIGTERM; Fargate then detaches its network
/// interface.
const MAX_WAIT: Duration = Duration::from_mins(3);
/// Maximum number of jobs that an error names.
const MAX_SHOWN: usize = 10;

/// Deletes the stack with everything that belongs to it, or only the remains if an interrupted clobber has already
/// deleted the stack.
pub(crate) async fn clobber(clobber: &KnotClobber) -> Result<()> {
    let aws = Aws::load(&clobber.account).await?;
    let stacks = Stacks::new(&aws);
    let found = stacks.find(&stack_name(&clobber.name)).await?;
    // Another process may be deleting it at the moment.
    let stack = match &found {
        Some(stack) => stacks.find_settled(&stack.id).await?,
        None => None,
    };
    let (pars, had_remains) = match &stack {
        Some(stack) => {
            let pars = pars_stack(&stacks, stack).await?;
            delete(clobber, &aws, &stacks, stack, pars.as_ref()).await?;
            (pars, true)
        }
        None => delete_remains(clobber, &aws, &stacks).await?,
    };
    let pars = pars.filter(|_| clobber.pars);
    let pars_result = match &pars {
        Some(pars) => clobber_pars(clobber, &aws, pars).await,
        None => Ok(()),
    };
    // The note is removed last, because a repeated clobber reads from it which Pars the Knot was on. It is removed even
    // if the Pars has to stay.
    let had_local = clobber_local(clobber, &aws.region).await?;
    pars_result?;
    if found.is_some() || had_remains || pars.is_some() || had_local {
        return Ok(());
    }
    let message = format!("cannot find the Knot `{}` in {}", clobber.name, aws.region);
    let hint = "`cargo knot list` lists the Knots in this region; `cargo knot pars clobber <name>` deletes a Pars";
    Err(Error::new(ErrorKind::NotFound, message).with_hint(hint))
}

/// Returns the stack of the Pars that the stack of a Knot uses.
async fn pars_stack(stacks: &Stacks, stack: &Stack) -> Result<Option<Stack>> {
    let pars = match stack.outputs.get("Pars") {
        Some(pars) => Some(pars.clone()),
        // A stack whose creation failed has no outputs.
        None => output_in(&stacks.template(stack).await?, "Pars"),
    };
    match pars {
        Some(pars) => stacks.find(&pars::stack_name(&pars)).await,
        None => Ok(None),
    }
}

async fn clobber_pars(clobber: &KnotClobber, aws: &Aws, pars: &Stack) -> Result<()> {
    let name = pars.name.strip_prefix(PARS_STACKS).expect("the stack was found by its name");
    let deletion = Pars::builder(name).in_account(&clobber.account).region(&aws.region).clobber();
    let deletion = if clobber.keep_data { deletion.keep_data() } else { deletion };
    match deletion.await {
        // The stack was already being deleted.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Ends jobs first, then deletes runs and images, then the stack; results that jobs stored while they ended are
/// deleted last.
async fn delete(clobber: &KnotClobber, aws: &Aws, stacks: &Stacks, stack: &Stack, pars: Option<&Stack>) -> Result<()> {
    let batch = Batch::new(aws);
    // A partly created Knot has no jobs and no runs.
    let complete = read(stack, &clobber.account).ok();
    let definitions = all_definitions(&clobber.name, complete.as_ref(), &batch.definitions().await?);
    if let Some(knot) = &complete {
        let ended = batch.end_all(knot.queue(), &definitions).await?;
        if ended > 0 {
            step(&format!("ended {ended} jobs of the Knot `{}`", knot.name));
            if knot.deployed.settings.queue.is_none() {
                wait_for_jobs(&knot.name, || batch.unfinished(knot.queue(), &definitions)).await?;
            }
        }
    }
    let pars = pars.filter(|pars| !clobber.keep_data && pars.outputs.contains_key("Bucket"));
    if let Some(pars) = pars {
        step(&format!("deleting the runs of the Knot `{}`", clobber.name));
        delete_runs(clobber, aws, pars).await?;
    }
    if let Some(shared) = complete.as_ref().and_then(|knot| knot.deployed.settings.repository.as_ref()) {
        Ecr::new(aws).delete_tags(shared, &tag_of(&clobber.name, "")).await?;
    }
    stacks.delete(stack, &[]).await?;
    // CloudFormation deregisters only the newest revisions: a deploy keeps the older ones for programs that still use
    // them.
    batch.deregister_all(&definitions).await?;
    if let Some(pars) = pars {
        delete_runs(clobber, aws, pars).await?;
    }
    Ok(())
}

/// Waits until there are no unfinished jobs. With a job of it, AWS cannot delete a compute environment on Fargate, which then
/// becomes invalid (`DeleteComputeEnvironment` in the AWS Batch API reference).
async fn wait_for_jobs<F>(knot: &str, mut unfinished: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<Vec<String>>>,
{
    let (deadline, mut interval) = (Instant::now() + MAX_WAIT, Duration::from_secs(1));
    loop {
        let jobs = unfinished().await?;
        if jobs.is_empty() {
            return Ok(());
        }
        if Instant::now() + interval > deadline {
            let minutes = MAX_WAIT.as_secs() / 60;
            let count = counted(u32::try_from(jobs.len()).unwrap_or(u32::MAX), "job");
            let message = format!("cannot clobber the Knot `{knot}`: {count} did not end within {minutes} minutes");
            return Err(Error::new(ErrorKind::Aws, message)
                .with_source(jobs[..jobs.len().min(MAX_SHOWN)].join("\n"))
                .with_hint("its stack was not deleted; run the same command again once they have ended"));
        }
        sleep(interval).await;
        interval = (interval * 2).min(Duration::from_secs(8));
    }
}

/// Deletes the remains of a Knot whose stack no longer exists. Returns the stack of the Pars that the Knot was on, and
/// whether there were any remains.
async fn delete_remains(clobber: &KnotClobber, aws: &Aws, stacks: &Stacks) -> Result<(Option<Stack>, bool)> {
    // An unreadable note is reported later, when it is to be removed.
    let note = KnotNote::read(&home::of_package(&clobber.folder)).ok().flatten();
    let note = note.filter(|note| note.knot == clobber.name && note.region == aws.region);
    let pars = pars_stack_of_deleted_knot(clobber, stacks, note.as_ref()).await?;
    let batch = Batch::new(aws);
    let definitions = all_definitions(&clobber.name, None, &batch.definitions().await?);
    if !definitions.is_empty() {
        step(&format!("deregistering the remaining job definitions of the Knot `{}`", clobber.name));
    }
    batch.deregister_all(&definitions).await?;
    let mut remains = definitions.len();
    if let Some(pars) = pars.as_ref().filter(|pars| !clobber.keep_data && pars.outputs.contains_key("Settings")) {
        // In a bucket that existed before, a Knot of this name may be another account's, unless the local note
        // shows that it is in this account.
        if note.is_some() || pars::bucket_is_its_own(pars)? {
            remains += delete_runs(clobber, aws, pars).await?;
        } else {
            let (bucket, pars, name) = (pars.output("Bucket")?, &pars.name, &clobber.name);
            step(&format!(
                "the bucket `{bucket}` existed before the stack `{pars}`, so runs of the Knot `{name}` in it are kept"
            ));
        }
    }
    Ok((pars, remains > 0))
}

/// Returns the stack of the Pars of a Knot whose own stack no longer exists, from CloudFormation's record of deleted
/// stacks or from the note in this folder.
async fn pars_stack_of_deleted_knot(
    clobber: &KnotClobber,
    stacks: &Stacks,
    note: Option<&KnotNote>,
) -> Result<Option<Stack>> {
    let deleted_stack = match stacks.deleted(&stack_name(&clobber.name)).await {
        // A caller that may delete stacks may not be allowed to list the deleted ones.
        Err(error) if error.kind() == ErrorKind::Denied => None,
        found => found?,
    };
    let recorded = deleted_stack.and_then(|knot| Some((output_in(&knot.template, "Pars")?, knot.created)));
    // A Pars that was created later is a different one of the same name.
    if let Some((pars, created)) = recorded {
        let found = stacks.find(&pars::stack_name(&pars)).await?;
        return Ok(found.filter(|pars| pars.created <= created));
    }
    let from_note = note.and_then(|note| Some((pars::pars_of_log_group(&note.log_group)?, &note.bucket)));
    let Some((pars, bucket)) = from_note else { return Ok(None) };
    let found = stacks.find(&pars::stack_name(pars)).await?;
    Ok(found.filter(|pars| pars.outputs.get("Bucket") == Some(bucket)))
}

/// Deletes the runs of a Knot and the templates of its stack. Returns the number of deleted objects.
async fn delete_runs(clobber: &KnotClobber, aws: &Aws, pars: &Stack) -> Result<usize> {
    let bucket = pars.output("Bucket")?;
    let prefix = pars.outputs.get("BucketPrefix").map_or("", |prefix| prefix.trim_start_matches('/'));
    let mut deleted = 0;
    for folder in ["knots", "stacks"] {
        deleted += s3::delete_below(aws, bucket, prefix, &format!("{folder}/{}/", clobber.name)).await?;
    }
    Ok(deleted)
}

/// Removes the local note of this Knot and, if requested, the built image. Returns `true` if anything was removed.
async fn clobber_local(clobber: &KnotClobber, region: &str) -> Result<bool> {
    let home = home::of_package(&clobber.folder);
    let had_note = KnotNote::remove(&home, &clobber.name, region)?;
    Ok((clobber.image && Built::clobber(&home).await?) || had_note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn clobber_waits_for_jobs_to_end() {
        let mut answers = vec![vec![], vec!["b".to_owned()], vec!["a".to_owned(), "b".to_owned()]];
        let unfinished = || std::future::ready(Ok(answers.pop().expect("the wait ends with the jobs")));
        wait_for_jobs("sweep", unfinished).await.unwrap();
        assert!(answers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn clobber_stops_if_jobs_do_not_end() {
        let (start, left) = (Instant::now(), || std::future::ready(Ok(vec!["a".to_owned()])));
        let error = wait_for_jobs("sweep", left).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot clobber the Knot `sweep`: 1 job did not end within 3 minutes");
        let waited = start.elapsed();
        assert!(waited <= MAX_WAIT && waited + Duration::from_secs(8) > MAX_WAIT, "{waited:?}");
    }
}
