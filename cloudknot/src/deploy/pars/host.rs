//! How a Pars is made, found and taken away: what is asked of AWS, and in which order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::aws::cloudformation::{Body, KNOT_STACKS, PARS_STACKS, Stack, Stacks, Wanted};
use crate::aws::ec2::{Ec2, Subnet};
use crate::aws::partition::Partition;
use crate::aws::{Aws, iam, logs, machines, permissions, quotas, s3};
use crate::deploy::costs;
use crate::deploy::noted::{Noted, differences, digest};
use crate::deploy::pars::{Pars, ParsBuilder, ParsClobber};
use crate::deploy::plan::Plan;
use crate::deploy::policy::{Allowed, Scope};
use crate::deploy::template::{self, render, resources};
use crate::error::{Error, ErrorKind, Result};
use crate::event::step;
use crate::settings::account::Account;
use crate::settings::names::{self, Kind};
use crate::settings::pars::{Internet, Network, ParsSettings};

/// What the names of their log groups begin with.
const LOGS: &str = "/cloudknot/";

/// In so many zones is a new VPC at most.
const ZONES: usize = 3;

/// Where a Pars was looked for that is not there, as a hint.
pub(crate) const LOOKED_FOR: &str = "`cargo knot pars list` shows those in this region";

/// What is noted in the stack: what the user said, and what of it was there before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Note {
    settings: ParsSettings,
    bucket_was_there: bool,
    /// An earlier Pars of this name may have left them. One that knew nothing of that had none.
    #[serde(default)]
    logs_were_there: bool,
}

/// What a stack's settings say, read back.
struct Known {
    pars: Pars,
    noted: Noted<Note>,
}

/// The log group of the Pars of this name.
fn log_group(pars: &str) -> String {
    format!("{LOGS}{pars}")
}

/// The name of the Pars that has this log group.
pub(crate) fn of_log_group(group: &str) -> Option<&str> {
    group.strip_prefix(LOGS)
}

pub(crate) fn stack_name(pars: &str) -> String {
    format!("{PARS_STACKS}{pars}")
}

pub(super) async fn create(builder: &ParsBuilder) -> Result<Pars> {
    let (aws, stacks, mut known) = look(builder).await?;
    if let Some(known) = known.take_if(|known| known.is_as_it_should_be()) {
        step(&format!("the Pars `{}` is there, and as it should be", builder.name));
        return Ok(known.pars);
    }
    if known.is_none() {
        let mut takes = vec!["cloudformation:CreateStack"];
        if builder.settings.instance_role.is_none() || builder.settings.execution_role.is_none() {
            takes.push("iam:CreateRole");
        }
        let policy = |account: &str| Allowed::ParsCreate.policy(&scope(account, &aws, builder));
        permissions::check(&aws, Allowed::ParsCreate.name(), &takes, policy).await?;
        room(builder, &aws, &stacks).await?;
    }
    for cost in idle_costs(builder) {
        step(&cost);
    }
    let (template, name) = (render_template(builder, &aws, &stacks, false).await?, stack_name(&builder.name));
    if let Some(days) = expiry(builder, &template).filter(|_| known.is_none()) {
        step(&days);
    }
    let (body, tags) = (Body::Text(template), tags_of(builder));
    let wanted = Wanted { name: &name, template: &body, tags: &tags, only_new: false };
    // Somebody else may have made it meanwhile.
    let ours = match &body {
        Body::Text(text) => makes_a_bucket(text),
        Body::Url(_) => false,
    };
    let may_change = |stack: &Stack| {
        same_settings(builder, stack)?;
        // Who looked for the bucket while somebody else's stack made it takes it for one that was there before.
        if Noted::<Note>::read(stack)?.settings.bucket_was_there != ours {
            return Ok(());
        }
        let message = format!("failed to create the Pars `{}`: somebody else has just made it", builder.name);
        Err(Error::new(ErrorKind::Exists, message).with_hint("run the same command again: it finds what there is"))
    };
    let (stack, _) = stacks.apply(&wanted, &may_change).await?;
    Ok(Known::of(&stack, builder)?.pars)
}

pub(super) async fn plan(builder: &ParsBuilder) -> Result<Plan> {
    let (aws, stacks, known) = look(builder).await?;
    let mut plan = Plan::default();
    if known.as_ref().is_some_and(Known::is_as_it_should_be) {
        return Ok(plan);
    }
    let name = stack_name(&builder.name);
    let there = stacks.find(&name).await?;
    let before = match there.as_ref().filter(|stack| !stack.is_stuck()) {
        Some(stack) => Some(stacks.template(stack).await?),
        None => None,
    };
    let after = render_template(builder, &aws, &stacks, true).await?;
    room(builder, &aws, &stacks).await?;
    plan.stack(&name, before.as_deref(), &after);
    plan.notes.extend(there.as_ref().and_then(Stack::goes_first));
    plan.notes.extend(expiry(builder, &after).filter(|_| before.is_none()));
    plan.notes.extend(idle_costs(builder));
    Ok(plan)
}

pub(super) async fn template(builder: &ParsBuilder) -> Result<String> {
    let (aws, stacks, _) = look(builder).await?;
    if builder.settings.network == Network::Default && Ec2::new(&aws).default_vpc().await?.is_none() {
        // A template can name a default VPC, but not make one.
        let message =
            format!("failed to render the Pars `{}`: there is no default VPC in {}", builder.name, aws.region);
        return Err(Error::new(ErrorKind::NotFound, message).with_hint(
            "name a VPC (--vpc), have one made with the stack (--cidr), or run `aws ec2 create-default-vpc`",
        ));
    }
    let rendered = render_template(builder, &aws, &stacks, true).await?;
    Ok(template::heading(&format!("pars {}", builder.name), &stack_name(&builder.name), &[]) + &rendered)
}

/// Whether there is room for a network, where one is to be made.
async fn room(builder: &ParsBuilder, aws: &Aws, stacks: &Stacks) -> Result<()> {
    let Network::New { internet, .. } = builder.settings.network else { return Ok(()) };
    // What is there of it, half made or whole, has its network, perhaps.
    if stacks.find(&stack_name(&builder.name)).await?.is_some() {
        return Ok(());
    }
    let first = match internet {
        Internet::Nat => Ec2::new(aws).zones().await?.into_iter().next(),
        _ => None,
    };
    quotas::check_network(aws, first.as_deref()).await
}

fn makes_a_bucket(template: &str) -> bool {
    resources(template).contains_key("Bucket")
}

/// When results go that somebody may count on. A bucket that was there before has rules of its own.
fn expiry(builder: &ParsBuilder, template: &str) -> Option<String> {
    let days = builder.settings.expire_runs.filter(|_| makes_a_bucket(template))?;
    Some(format!("runs in it are deleted after {} (--expire-runs)", machines::counted(days, "day")))
}

/// What it costs while nothing runs, a sentence each.
fn idle_costs(builder: &ParsBuilder) -> Vec<String> {
    let network = match builder.settings.network {
        Network::New { internet, endpoints, .. } => Some((internet, endpoints, ZONES)),
        _ => None,
    };
    costs::idle(network, 0)
}

/// Of what the policy for making it speaks.
fn scope(account: &str, aws: &Aws, builder: &ParsBuilder) -> Scope {
    let mut scope = Scope::new(account, aws.region.as_str(), &builder.name, "example");
    scope.bucket.clone_from(&builder.settings.bucket);
    scope.prefix.clone_from(&builder.settings.prefix);
    scope.kms_key.clone_from(&builder.settings.kms_key);
    scope.role_path.clone_from(&builder.settings.role_path);
    scope.permissions_boundary.clone_from(&builder.settings.permissions_boundary);
    scope
}

pub(super) async fn get(builder: &ParsBuilder) -> Result<Pars> {
    let aws = Aws::load(&builder.account).await?;
    find(&Stacks::new(&aws), &builder.name, &builder.account).await?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("failed to find the Pars `{}` in {}", builder.name, aws.region))
            .with_hint(LOOKED_FOR)
    })
}

pub(super) async fn list(account: &Account) -> Result<Vec<Pars>> {
    let aws = Aws::load(account).await?;
    let stacks = Stacks::new(&aws).all(PARS_STACKS).await?;
    // One that is half made or half deleted is not one that a Knot could stand on.
    let whole = stacks.iter().filter(|stack| stack.outputs.contains_key("Settings"));
    // One of another version of cloudknot does not keep the others from being listed.
    let told = |stack| read(stack, account).map_err(|error| step(&format!("warning: {error}"))).ok();
    Ok(whole.filter_map(told).collect())
}

/// The Pars of this name, if it is there and complete.
pub(crate) async fn find(stacks: &Stacks, name: &str, account: &Account) -> Result<Option<Pars>> {
    let stack = stacks.find(&stack_name(name)).await?;
    // One that is being deleted, or was in part, is none to stand on.
    let stack = stack.filter(|stack| !stack.status.as_str().starts_with("DELETE_"));
    stack.filter(|stack| stack.outputs.contains_key("Settings")).map(|stack| read(&stack, account)).transpose()
}

pub(super) async fn clobber(clobber: &ParsClobber) -> Result<()> {
    let name = &clobber.name;
    let aws = Aws::load(&clobber.account).await?;
    let stacks = Stacks::new(&aws);
    let Some(stack) = stacks.find_at_rest(&stack_name(name)).await? else {
        return Err(Error::new(ErrorKind::NotFound, format!("failed to find the Pars `{name}` in {}", aws.region))
            .with_hint(LOOKED_FOR));
    };
    let refused = |why: &str, who: Vec<&str>, hint: &str| {
        let message = format!("failed to clobber the Pars `{name}`: {why}: {}", who.join(", "));
        Err(Error::new(ErrorKind::Exists, message).with_hint(hint))
    };
    let all = stacks.all("cloudknot-").await?;
    let says = |stack: &&Stack, key: &str, value: &str| stack.outputs.get(key).is_some_and(|there| there == value);
    let knots = all.iter().filter_map(|knot| Some((knot.name.strip_prefix(KNOT_STACKS)?, knot)));
    let on_it: Vec<_> = knots.filter(|(_, knot)| says(knot, "Pars", name)).map(|(name, _)| name).collect();
    if !on_it.is_empty() {
        return refused("Knots stand on it", on_it, "clobber those first: `cargo knot clobber <name>`");
    }
    // What the template has is the stack's own; a bucket that was there before is not in it.
    let own = resources(&stacks.template(&stack).await?);
    let bucket = stack.outputs.get("Bucket").filter(|_| own.contains_key("Bucket"));
    if clobber.keep_data {
        if stack.status.as_str() != "DELETE_FAILED" && stack.outputs.contains_key("Settings") {
            keep_data(&stacks, &stack, true).await?;
        }
        let kept: Vec<_> = ["Bucket", "LogGroup"].into_iter().filter(|name| own.contains_key(*name)).collect();
        return stacks.delete(&stack, &kept).await;
    }
    if let Some(bucket) = bucket {
        let others = all.iter().filter(|other| other.id != stack.id && says(other, "Bucket", bucket));
        let others: Vec<_> = others.filter_map(|other| other.name.strip_prefix(PARS_STACKS)).collect();
        if !others.is_empty() {
            return refused("others keep their runs in its bucket", others, "clobber those first, or keep the data");
        }
        if stack.can_be_changed() {
            keep_data(&stacks, &stack, false).await?;
        }
        s3::empty(&aws, bucket).await?;
    }
    stacks.delete(&stack, &[]).await
}

/// Has the stack leave bucket and logs when it is deleted, or take them with it: that stands in its template.
///
/// An output changes with it: CloudFormation takes a change of the policy alone for none.
async fn keep_data(stacks: &Stacks, stack: &Stack, keep: bool) -> Result<()> {
    const KEPT: &str = "  KeptData:\n    Value: \"true\"\n";
    let (delete, retain) = ("DeletionPolicy: Delete", "DeletionPolicy: Retain");
    let template = stacks.template(stack).await?;
    let plain = template.replace(KEPT, "");
    let wanted = if keep { plain.replace(delete, retain) + KEPT } else { plain.replace(retain, delete) };
    if wanted == template {
        return Ok(());
    }
    let body = Body::Text(wanted.clone());
    let change = Wanted { name: &stack.name, template: &body, tags: &[], only_new: false };
    let (stack, _) = stacks.apply(&change, &|_| Ok(())).await?;
    if stacks.template(&stack).await? == wanted {
        return Ok(());
    }
    let message = format!("failed to say in the stack `{}` what becomes of its data", stack.name);
    Err(Error::new(ErrorKind::Aws, message).with_hint("nothing was deleted; run the same command again"))
}

/// Whether the bucket was made with the Pars, and holds nobody else's objects.
pub(crate) fn bucket_is_its_own(stack: &Stack) -> Result<bool> {
    Ok(!Noted::<Note>::read(stack)?.settings.bucket_was_there)
}

/// Whether AWS would take all of it, as far as its form tells.
fn check(builder: &ParsBuilder) -> Result<()> {
    let settings = &builder.settings;
    names::check_name(Kind::Pars, &builder.name)?;
    settings.bucket.iter().try_for_each(|bucket| names::check_name(Kind::Bucket, bucket))?;
    settings.kms_key.iter().try_for_each(|key| names::check_name(Kind::Key, key))?;
    settings.log_retention.iter().try_for_each(|days| names::check_retention(*days))?;
    if settings.expire_runs == Some(0) {
        return Err(Error::new(ErrorKind::Config, "failed to have runs expire after 0 days: S3 takes 1 and more")
            .with_hint("say `None` to keep them for ever (`--expire-runs 0`), or a number of days"));
    }
    names::check_name(Kind::RolePath, &settings.role_path)?;
    names::check_tags(&settings.tags.clone().into_iter().collect::<Vec<_>>())?;
    if let Network::New { cidr, .. } = &settings.network {
        names::subnets_of(cidr, ZONES)?;
    }
    Ok(())
}

/// What is known of the Pars, and whether it is the one that is wanted.
async fn look(builder: &ParsBuilder) -> Result<(Aws, Stacks, Option<Known>)> {
    check(builder)?;
    let aws = Aws::load(&builder.account).await?;
    let stacks = Stacks::new(&aws);
    let stack = stacks.find_at_rest(&stack_name(&builder.name)).await?;
    let known = match stack.filter(|stack| stack.is_complete() && stack.outputs.contains_key("Settings")) {
        Some(stack) => {
            same_settings(builder, &stack)?;
            Some(Known::of(&stack, builder)?)
        }
        None => None,
    };
    Ok((aws, stacks, known))
}

impl Known {
    fn of(stack: &Stack, builder: &ParsBuilder) -> Result<Self> {
        Ok(Self { pars: read(stack, &builder.account)?, noted: Noted::<Note>::read(stack)? })
    }

    fn is_as_it_should_be(&self) -> bool {
        self.noted.content == content()
    }
}

/// Another version of cloudknot may have another template.
fn content() -> String {
    digest(template::source("pars.yaml"))
}

/// What such a stack says that it is.
pub(crate) fn read(stack: &Stack, account: &Account) -> Result<Pars> {
    for key in template::outputs("pars.yaml").filter(|key| *key != "BucketKey") {
        stack.output(key)?;
    }
    Ok(Pars {
        name: stack.output("Pars")?.to_owned(),
        region: stack.region().to_owned(),
        stack_id: stack.id.clone(),
        settings: Noted::<Note>::read(stack)?.settings.settings,
        outputs: stack.outputs.clone(),
        account: account.clone(),
    })
}

/// Whether what is there was made with the same settings; the error lists what is different.
fn same_settings(builder: &ParsBuilder, stack: &Stack) -> Result<()> {
    let there = Noted::<Note>::read(stack)?.settings.settings;
    if there == builder.settings {
        return Ok(());
    }
    let message = format!("failed to create the Pars `{}`: it exists with other settings", builder.name);
    Err(Error::new(ErrorKind::Exists, message)
        .with_source(differences(&json!(there), &json!(builder.settings)).join("\n"))
        .with_hint("give it these settings, choose another name, or clobber it first: `cargo knot pars clobber`"))
}

fn tags_of(builder: &ParsBuilder) -> Vec<(String, String)> {
    let own = ("cloudknot:pars".to_owned(), builder.name.clone());
    std::iter::once(own).chain(builder.settings.tags.clone()).collect()
}

async fn render_template(builder: &ParsBuilder, aws: &Aws, stacks: &Stacks, dry_run: bool) -> Result<String> {
    let ParsSettings { bucket, prefix, kms_key, expire_runs, log_retention, tags, .. } = &builder.settings;
    let logs = log_group(&builder.name);
    let (was_there, logs_were_there) = what_was_there(builder, aws, stacks, &logs).await?;
    let note = Note { settings: builder.settings.clone(), bucket_was_there: was_there, logs_were_there };
    let noted = Noted { content: content(), settings: note, of_a_template: false };
    let values = json!({
        "pars": builder.name,
        "tags": tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect::<Vec<_>>(),
        "permissions_boundary": builder.settings.permissions_boundary,
        "role_path": builder.settings.role_path,
        "settings": serde_json::to_string(&noted).expect("settings are texts and numbers"),
        "keep_data": false,
        "network": network(builder, aws, dry_run).await?,
        "instance_role": instance_role(builder, aws).await?,
        "execution_role": execution_role(builder, aws).await?,
        "bucket": {
            "existing": bucket.as_ref().filter(|_| was_there),
            "name": bucket.as_ref().filter(|_| !was_there),
            "kms_key": kms_key, "expire_days": expire_runs, "prefix": prefix,
        },
        "logs": {
            "name": logs, "existing": logs_were_there, "retention_days": log_retention, "kms_key": kms_key,
        },
    });
    Ok(render("pars.yaml", &values))
}

/// Whether the user has the bucket already, and whether there are logs of an earlier Pars of this name, which was clobbered
/// without its data. What this very stack has made was not there before.
async fn what_was_there(builder: &ParsBuilder, aws: &Aws, stacks: &Stacks, logs: &str) -> Result<(bool, bool)> {
    let stack = stacks.find(&stack_name(&builder.name)).await?;
    if let Some(Ok(Noted { settings, .. })) = stack.as_ref().map(Noted::<Note>::read) {
        return Ok((settings.bucket_was_there, settings.logs_were_there));
    }
    let made = match &stack {
        Some(stack) => resources(&stacks.template(stack).await?),
        None => BTreeMap::new(),
    };
    let bucket = match &builder.settings.bucket {
        Some(bucket) if !made.contains_key("Bucket") => s3::is_there(aws, bucket).await?,
        _ => false,
    };
    let kept_logs = !made.contains_key("LogGroup") && logs::group_is_there(aws, logs).await?;
    if kept_logs {
        step(&format!("the log group `{logs}` is there already, and is used as it is"));
    }
    Ok((bucket, kept_logs))
}

async fn network(builder: &ParsBuilder, aws: &Aws, dry_run: bool) -> Result<Value> {
    let ec2 = Ec2::new(aws);
    let vpc = match &builder.settings.network {
        Network::New { cidr, tenancy, internet, endpoints } => {
            // By their names: CloudFormation itself would count those only that have a default subnet.
            let zones: Vec<_> = ec2.zones().await?.into_iter().take(ZONES).collect();
            let parts = names::subnets_of(cidr, zones.len().max(1))?;
            let public = Some(parts.public).filter(|_| *internet == Internet::Nat);
            let subnet = |(index, cidr): (usize, &String)| json!({"cidr": cidr, "zone": zones.get(index)});
            let subnets: Vec<_> = parts.subnets.iter().enumerate().map(subnet).collect();
            return Ok(json!({
                "kind": "new", "cidr": cidr, "tenancy": tenancy, "internet": internet, "subnets": subnets,
                "public_cidr": public, "endpoints": endpoints, "in_china": Partition::of(&aws.region).is_china(),
            }));
        }
        Network::Vpc(id) => ec2.vpc(id).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("failed to find the VPC `{id}` in {}", aws.region))
                .with_hint("name one of this region, or leave it out for the default VPC")
        })?,
        Network::Default => {
            let there = ec2.default_vpc().await?;
            if there.is_none() && dry_run {
                return Ok(json!({"kind": "given", "vpc": "-", "subnets": ["-"], "assign_public_ip": true}));
            }
            if let Some(vpc) = there {
                vpc
            } else {
                step("making the default VPC, which this region lacks");
                ec2.create_default_vpc().await?
            }
        }
    };
    let all = ec2.subnets(&vpc.id).await?;
    if all.is_empty() {
        let message = format!("failed to use the VPC `{}`: it has no subnets", vpc.id);
        return Err(Error::new(ErrorKind::Config, message).with_hint("add a subnet to it, or have a VPC made: --cidr"));
    }
    let (chosen, assign_public_ip) = choose(&all, builder.settings.network == Network::Default);
    let ids: Vec<_> = chosen.iter().map(|subnet| &subnet.id).collect();
    Ok(json!({"kind": "given", "vpc": vpc.id, "subnets": ids, "assign_public_ip": assign_public_ip}))
}

/// The subnets that jobs run in, and whether each job gets a public address of its own.
///
/// Who names a VPC that has private subnets means those. The default VPC is nobody's choice: what counts there are the
/// subnets that AWS has made with it, which have addresses and a way out, and not one that somebody has put beside them.
/// Where all of those have had their public addresses turned off, that was on purpose: no job is given one against it, and
/// an instance would not get it anyway, since it has what its subnet gives.
fn choose(all: &[Subnet], in_default_vpc: bool) -> (Vec<&Subnet>, bool) {
    let made_with_it: Vec<&Subnet> = all.iter().filter(|subnet| in_default_vpc && subnet.default_for_zone).collect();
    let candidates = if made_with_it.is_empty() { all.iter().collect() } else { made_with_it };
    let (public, private): (Vec<&Subnet>, Vec<&Subnet>) = candidates.into_iter().partition(|subnet| subnet.public_ip);
    let assign_public_ip = if in_default_vpc { !public.is_empty() } else { private.is_empty() };
    (if assign_public_ip { public } else { private }, assign_public_ip)
}

async fn instance_role(builder: &ParsBuilder, aws: &Aws) -> Result<Value> {
    let Some(role) = &builder.settings.instance_role else { return Ok(Value::Null) };
    iam::role(aws, role).await?;
    Ok(json!({"name": role, "profile": iam::instance_profile(aws, role).await?}))
}

async fn execution_role(builder: &ParsBuilder, aws: &Aws) -> Result<Value> {
    let Some(role) = &builder.settings.execution_role else { return Ok(Value::Null) };
    Ok(json!({"arn": iam::role(aws, role).await?}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_in_the_default_vpc_run_where_there_is_a_way_out() {
        let subnet = |id: &str, public_ip, default_for_zone| Subnet {
            id: id.into(),
            zone: "z-a".into(),
            cidr: "172.31.0.0/20".into(),
            public_ip,
            default_for_zone,
        };
        let check = |all: &[Subnet], in_default_vpc, expected: (&[&str], bool)| {
            let (chosen, public) = choose(all, in_default_vpc);
            let chosen: Vec<_> = chosen.into_iter().map(|subnet| &*subnet.id).collect();
            assert_eq!((&*chosen, public), expected);
        };
        let (one, other) = (subnet("default-a", true, true), subnet("default-b", true, true));
        let (turned_off, theirs) = (subnet("default-c", false, true), subnet("theirs", false, false));
        let all = [one.clone(), other.clone(), theirs.clone()];
        check(&all, true, (&["default-a", "default-b"], true));
        check(&all, false, (&["theirs"], false));
        check(&all[..2], false, (&["default-a", "default-b"], true));
        check(&[one, other, turned_off.clone()], true, (&["default-a", "default-b"], true));
        check(&[turned_off, theirs.clone()], true, (&["default-c"], false));
        // Somebody has deleted those that AWS made.
        check(&[theirs.clone(), subnet("public", true, false)], true, (&["public"], true));
        check(&[theirs], true, (&["theirs"], false));
    }

    #[test]
    fn runs_expire_after_a_day_at_the_earliest() {
        check(&Pars::builder("lab").expire_runs(1)).unwrap();
        check(&Pars::builder("lab").expire_runs(None)).unwrap();
        let error = check(&Pars::builder("lab").expire_runs(0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}
