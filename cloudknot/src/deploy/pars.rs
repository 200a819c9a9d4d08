//! A Pars: the Persistent AWS Resource Set that Knots share, which is network, bucket, log group and roles. Made once.
//!
//! Knows what a Pars is made of. In a worker all of this compiles and none of it is there.

use std::collections::BTreeMap;

use cloudknot_runtime::engine;

use crate::deploy::plan::Plan;
use crate::error::Result;
use crate::pending::Pending;
use crate::settings::account::Account;
use crate::settings::pars::{Internet, Network, ParsSettings, Tenancy};

#[cfg(not(cloudknot_worker))]
#[path = "pars/host.rs"]
mod inside;
#[cfg(cloudknot_worker)]
#[path = "pars/worker.rs"]
mod inside;

#[cfg(not(cloudknot_worker))]
pub(crate) use inside::{
    LOOKED_FOR, ParsPlan, ParsResolved, ParsState, apply, bucket_is_its_own, find, of_log_group, read as of_stack,
    stack_name,
};

/// What Knots share: network, bucket, log group and roles. A stack of CloudFormation, found by its name from any machine.
///
/// ```no_run
/// # async fn example() -> cloudknot::Result<()> {
/// use cloudknot::{Internet, Pars};
///
/// let pars = Pars::builder("lab").new_vpc("10.0.0.0/16").internet(Internet::Nat).tag("Owner", "Ada").create().await?;
/// println!("{} keeps its runs in {}", pars.name(), pars.bucket());
/// Pars::get("lab").await?.clobber().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Pars {
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) stack_id: String,
    pub(crate) settings: ParsSettings,
    /// What CloudFormation says of it.
    pub(crate) outputs: BTreeMap<String, String>,
    pub(crate) account: Account,
}

/// What a Pars shall be; see [`Pars::builder`].
#[derive(Debug, Clone)]
#[cfg_attr(cloudknot_worker, allow(dead_code, reason = "a worker makes nothing"))]
pub struct ParsBuilder {
    pub(crate) name: String,
    pub(crate) settings: ParsSettings,
    pub(crate) account: Account,
}

impl Pars {
    /// A Pars of this name: a letter, then letters, digits and `-`, 45 at most.
    pub fn builder(name: impl Into<String>) -> ParsBuilder {
        let settings = ParsSettings::default();
        ParsBuilder { name: name.into(), settings, account: Account::default() }
    }

    /// The one of this name, in the account and region that the environment, the profile and `config.toml` say.
    ///
    /// # Errors
    /// If there is none, or AWS cannot be asked.
    pub async fn get(name: &str) -> Result<Self> {
        Self::builder(name).get().await
    }

    /// All that there are, in the order of their names.
    ///
    /// # Errors
    /// If AWS cannot be asked.
    pub async fn list() -> Result<Vec<Self>> {
        Self::builder("any").list().await
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The ARN of its stack.
    pub fn stack_id(&self) -> &str {
        &self.stack_id
    }

    /// What it was made with.
    pub fn settings(&self) -> &ParsSettings {
        &self.settings
    }

    /// The tags that it was given, besides cloudknot's own.
    pub fn tags(&self) -> &BTreeMap<String, String> {
        &self.settings.tags
    }

    /// The bucket that keeps runs.
    pub fn bucket(&self) -> &str {
        self.output("Bucket")
    }

    /// What stands before every key in the bucket: nothing, or `team/`.
    pub fn prefix(&self) -> &str {
        // An output cannot be empty, so this one has a slash at its front.
        self.output("BucketPrefix").trim_start_matches('/')
    }

    /// The log group of its jobs.
    pub fn log_group(&self) -> &str {
        self.output("LogGroup")
    }

    /// The id of the VPC.
    pub fn vpc(&self) -> &str {
        self.output("Vpc")
    }

    /// The ids of the subnets that jobs run in.
    pub fn subnets(&self) -> impl Iterator<Item = &str> {
        self.output("Subnets").split(',').filter(|subnet| !subnet.is_empty())
    }

    /// The id of the security group of jobs: nothing comes in.
    pub fn security_group(&self) -> &str {
        self.output("SecurityGroup")
    }

    /// The name of the role of instances.
    pub fn instance_role(&self) -> &str {
        self.output("InstanceRole")
    }

    /// The ARN of the profile by which instances have their role.
    pub fn instance_profile(&self) -> &str {
        self.output("InstanceProfile")
    }

    /// The ARN of the role that starts containers.
    pub fn execution_role(&self) -> &str {
        self.output("ExecutionRole")
    }

    /// Takes it away, with all runs in it; await it. What was there before it stays: an adopted role, VPC or bucket.
    pub fn clobber(self) -> ParsClobber {
        let mut account = self.account;
        account.region = Some(self.region);
        ParsClobber { name: self.name, account, keep_data: false }
    }

    /// Every one of them is there, or a [`Pars`] is not made.
    fn output(&self, key: &str) -> &str {
        self.outputs.get(key).map_or("", String::as_str)
    }
}

impl ParsBuilder {
    /// In a VPC that exists, by its id, in place of the account's [default one](Network::Default). Of its subnets those that
    /// give no public addresses are used, or all if all do.
    #[must_use]
    pub fn vpc(mut self, id: impl Into<String>) -> Self {
        self.settings.network = Network::Vpc(id.into());
        self
    }

    /// In a VPC of its own with these addresses, such as `10.0.0.0/16`.
    #[must_use]
    pub fn new_vpc(mut self, cidr: impl Into<String>) -> Self {
        if let Network::New { cidr: addresses, .. } = self.with_new_vpc() {
            *addresses = cidr.into();
        }
        self
    }

    /// Whose hardware instances in a new VPC run on. A VPC of its own is made, if none was asked for yet.
    #[must_use]
    pub fn tenancy(mut self, choice: Tenancy) -> Self {
        if let Network::New { tenancy, .. } = self.with_new_vpc() {
            *tenancy = choice;
        }
        self
    }

    /// How jobs in a new VPC reach the internet. A VPC of its own is made, if none was asked for yet.
    #[must_use]
    pub fn internet(mut self, choice: Internet) -> Self {
        if let Network::New { internet, .. } = self.with_new_vpc() {
            *internet = choice;
        }
        self
    }

    /// Has ECR and logs reached by endpoints in a new VPC, which cost while idle: images and logs then stay in AWS's network,
    /// also where there is an internet. Without one they are always there. A VPC of its own is made, if none was asked for yet.
    #[must_use]
    pub fn endpoints(mut self) -> Self {
        if let Network::New { endpoints, .. } = self.with_new_vpc() {
            *endpoints = true;
        }
        self
    }

    fn with_new_vpc(&mut self) -> &mut Network {
        if !matches!(self.settings.network, Network::New { .. }) {
            let cidr = "10.0.0.0/16".to_owned();
            let (tenancy, internet) = (Tenancy::default(), Internet::default());
            self.settings.network = Network::New { cidr, tenancy, internet, endpoints: false };
        }
        &mut self.settings.network
    }

    /// A role for instances that exists, by its name. It survives a clobber.
    #[must_use]
    pub fn instance_role(mut self, name: impl Into<String>) -> Self {
        self.settings.instance_role = Some(name.into());
        self
    }

    /// A role that starts containers and exists, by its name. It survives a clobber.
    #[must_use]
    pub fn execution_role(mut self, name: impl Into<String>) -> Self {
        self.settings.execution_role = Some(name.into());
        self
    }

    /// The bucket of this name. One that exists is used, and survives a clobber; else it is made.
    #[must_use]
    pub fn bucket(mut self, name: impl Into<String>) -> Self {
        self.settings.bucket = Some(name.into());
        self
    }

    /// What stands before all keys in the bucket, such as `team/`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        let prefix = prefix.into();
        let prefix = prefix.trim_matches('/');
        self.settings.prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        self
    }

    /// The ARN of the KMS key that objects and logs are encrypted with.
    #[must_use]
    pub fn kms_key(mut self, arn: impl Into<String>) -> Self {
        self.settings.kms_key = Some(arn.into());
        self
    }

    /// After how many days runs are deleted: 30 if not said, `None` for never. Not in a bucket that existed before.
    #[must_use]
    pub fn expire_runs(mut self, days: impl Into<Option<u32>>) -> Self {
        self.settings.expire_runs = days.into();
        self
    }

    /// After how many days logs are deleted: 30 if not said, `None` for never. CloudWatch knows certain numbers only.
    #[must_use]
    pub fn log_retention(mut self, days: impl Into<Option<u32>>) -> Self {
        self.settings.log_retention = days.into();
        self
    }

    /// A tag, for all that can have tags.
    #[must_use]
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.tags.insert(key.into(), value.into());
        self
    }

    /// The ARN of the policy that bounds every role.
    #[must_use]
    pub fn permissions_boundary(mut self, arn: impl Into<String>) -> Self {
        self.settings.permissions_boundary = Some(arn.into());
        self
    }

    /// The path of every role, such as `/team/`.
    #[must_use]
    pub fn role_path(mut self, path: impl Into<String>) -> Self {
        self.settings.role_path = path.into();
        self
    }

    /// As this profile of AWS.
    #[must_use]
    pub fn profile(mut self, name: impl Into<String>) -> Self {
        self.account.profile = Some(name.into());
        self
    }

    /// In this region.
    #[must_use]
    pub fn region(mut self, name: impl Into<String>) -> Self {
        self.account.region = Some(name.into());
        self
    }

    #[cfg(not(cloudknot_worker))]
    pub(crate) fn in_account(mut self, account: &Account) -> Self {
        self.account = account.clone();
        self
    }

    /// Makes it. If it is there with these settings already, nothing is done.
    ///
    /// # Errors
    /// If a setting cannot be; if it is there with other settings, which are listed; or if AWS refuses.
    pub async fn create(self) -> Result<Pars> {
        engine::inside(Box::pin(inside::create(&self))).await
    }

    /// The one of this name that exists.
    ///
    /// # Errors
    /// If there is none, or AWS cannot be asked.
    pub async fn get(self) -> Result<Pars> {
        engine::inside(Box::pin(inside::get(&self))).await
    }

    /// Takes the one of this name away, in whatever state it is: half made, half deleted, or whole. Await it.
    pub fn clobber(self) -> ParsClobber {
        ParsClobber { name: self.name, account: self.account, keep_data: false }
    }

    /// All that there are in this region, in the order of their names; this builder's name is not looked at.
    ///
    /// # Errors
    /// If AWS cannot be asked.
    pub async fn list(self) -> Result<Vec<Pars>> {
        engine::inside(Box::pin(inside::list(&self.account))).await
    }

    /// What [`create`](Self::create) would do, without doing it.
    ///
    /// # Errors
    /// As [`create`](Self::create), as far as can be known before.
    pub async fn plan(self) -> Result<Plan> {
        engine::inside(Box::pin(inside::plan(&self))).await
    }

    /// The stack that [`create`](Self::create) would make, as a template of CloudFormation, for those who make their stacks
    /// themselves. Its first lines say under which name it is found. Nothing is made.
    ///
    /// ```no_run
    /// # async fn example() -> cloudknot::Result<()> {
    /// let template = cloudknot::Pars::builder("lab").new_vpc("10.0.0.0/16").template().await?;
    /// std::fs::write("pars.yaml", template).expect("the folder can be written to");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If a setting cannot be, if it is there with other settings, or AWS cannot be asked for what it stands on.
    pub async fn template(self) -> Result<String> {
        engine::inside(Box::pin(inside::template(&self))).await
    }
}

/// A Pars on its way out; see [`Pars::clobber`]. Await it.
#[derive(Debug)]
#[must_use = "nothing is deleted until it is awaited"]
#[cfg_attr(cloudknot_worker, allow(dead_code, reason = "a worker deletes nothing"))]
pub struct ParsClobber {
    pub(crate) name: String,
    pub(crate) account: Account,
    pub(crate) keep_data: bool,
}

impl ParsClobber {
    /// Keeps the bucket and the logs.
    pub fn keep_data(mut self) -> Self {
        self.keep_data = true;
        self
    }
}

impl IntoFuture for ParsClobber {
    type Output = Result<()>;
    type IntoFuture = Pending<()>;

    fn into_future(self) -> Self::IntoFuture {
        Pending::new(async move { inside::clobber(&self).await })
    }
}
