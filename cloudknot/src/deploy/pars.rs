//! A Pars: the Persistent AWS Resource Set that Knots share, which is network, bucket, log group and roles. Created
//! once.

use std::collections::BTreeMap;

use crate::deploy::plan::Plan;
use crate::error::Result;
use crate::host::{host, host_await};
use crate::pending::Pending;
use crate::settings::account::Account;
use crate::settings::pars::{Internet, ParsSettings, Tenancy, pars_setters};

#[cfg(not(cloudknot_worker))]
pub(crate) mod host;

/// The resources that Knots share: network, bucket, log group and roles. A CloudFormation stack, found by its name
/// from any machine.
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
    /// Outputs of the CloudFormation stack.
    pub(crate) outputs: BTreeMap<String, String>,
    pub(crate) account: Account,
}

/// Builder of a Pars; see [`Pars::builder`].
///
/// Jobs run in the account's default VPC, unless a setting selects another network: in the subnets that AWS created with
/// it. In an existing VPC, the routes of its subnets decide: jobs run in private subnets that have a route to the internet;
/// if there are none, in public ones, with public addresses; and else in isolated ones, where they need endpoints of AWS.
#[derive(Debug, Clone)]
pub struct ParsBuilder {
    pub(crate) name: String,
    pub(crate) settings: ParsSettings,
    pub(crate) account: Account,
}

impl Pars {
    /// Creates a builder for a Pars with this name: at most 45 letters, digits and `-`, starting with a letter.
    pub fn builder(name: impl Into<String>) -> ParsBuilder {
        ParsBuilder::of(name, ParsSettings::default())
    }

    /// Returns the Pars of this name in the account and region that the environment, the profile and `config.toml`
    /// select.
    ///
    /// # Errors
    /// Returns an error if there is none, or a request to AWS fails.
    pub async fn get(name: &str) -> Result<Self> {
        Self::builder(name).get().await
    }

    /// Returns all Pars, sorted by name.
    ///
    /// # Errors
    /// Returns an error if a request to AWS fails.
    pub async fn list() -> Result<Vec<Self>> {
        Self::builder("any").list().await
    }

    /// Returns the name of the Pars.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the region of the Pars.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Returns the ARN of the stack.
    pub fn stack_id(&self) -> &str {
        &self.stack_id
    }

    /// Returns the settings that the Pars was created with.
    pub fn settings(&self) -> &ParsSettings {
        &self.settings
    }

    /// Returns the tags that the user gave it, without cloudknot's own.
    pub fn tags(&self) -> &BTreeMap<String, String> {
        &self.settings.tags
    }

    /// Returns the bucket that stores runs.
    pub fn bucket(&self) -> &str {
        self.output("Bucket")
    }

    /// Returns the prefix of every key in the bucket: nothing, or `team/`.
    pub fn prefix(&self) -> &str {
        // An output cannot be empty, so this one has a leading slash.
        self.output("BucketPrefix").trim_start_matches('/')
    }

    /// Returns the log group of jobs.
    pub fn log_group(&self) -> &str {
        self.output("LogGroup")
    }

    /// Returns the ID of the VPC.
    pub fn vpc(&self) -> &str {
        self.output("Vpc")
    }

    /// Returns the IDs of the subnets that jobs run in.
    pub fn subnets(&self) -> impl Iterator<Item = &str> {
        self.output("Subnets").split(',').filter(|subnet| !subnet.is_empty())
    }

    /// Returns the ID of the security group of jobs, which allows no inbound connections.
    pub fn security_group(&self) -> &str {
        self.output("SecurityGroup")
    }

    /// Returns the name of the role of instances.
    pub fn instance_role(&self) -> &str {
        self.output("InstanceRole")
    }

    /// Returns the ARN of the instance profile, which gives instances their role.
    pub fn instance_profile(&self) -> &str {
        self.output("InstanceProfile")
    }

    /// Returns the ARN of the role that starts containers.
    pub fn execution_role(&self) -> &str {
        self.output("ExecutionRole")
    }

    /// Deletes the Pars and all runs in it once awaited. Resources that existed before it stay: an adopted role, VPC
    /// or bucket.
    pub fn clobber(self) -> ParsClobber {
        let mut account = self.account;
        account.region = Some(self.region);
        ParsClobber { name: self.name, account, keep_data: false }
    }

    /// Returns an output of the stack. All outputs exist, because a [`Pars`] is constructed only if they do.
    fn output(&self, key: &str) -> &str {
        self.outputs.get(key).map_or("", String::as_str)
    }
}

impl ParsBuilder {
    /// Creates a builder with this name and these settings.
    pub fn of(name: impl Into<String>, settings: ParsSettings) -> Self {
        Self { name: name.into(), settings, account: Account::default() }
    }

    pars_setters!();

    /// Creates a VPC with these addresses, such as `10.0.0.0/16`, in place of using an existing one: see
    /// [`cidr`](ParsSettings::cidr).
    #[must_use]
    pub fn new_vpc(mut self, cidr: impl Into<String>) -> Self {
        self.settings.vpc = None;
        self.settings.cidr = Some(cidr.into());
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

    pub(crate) fn in_account(mut self, account: &Account) -> Self {
        self.account = account.clone();
        self
    }

    /// Creates the Pars. If it already exists with these settings, nothing is done.
    ///
    /// # Errors
    /// Returns an error if a setting is invalid; if the Pars exists with other settings, which are listed; or if AWS
    /// rejects a request.
    pub async fn create(self) -> Result<Pars> {
        host_await!(host::create(&self))
    }

    /// Returns the existing Pars of this name.
    ///
    /// # Errors
    /// Returns an error if there is none, or a request to AWS fails.
    pub async fn get(self) -> Result<Pars> {
        host_await!(host::get(&self))
    }

    /// Deletes the Pars of this name once awaited, in whatever state it is: partly created, partly deleted, or
    /// complete.
    pub fn clobber(self) -> ParsClobber {
        ParsClobber { name: self.name, account: self.account, keep_data: false }
    }

    /// Returns all Pars in this region, sorted by name; the name of this builder is ignored.
    ///
    /// # Errors
    /// Returns an error if a request to AWS fails.
    pub async fn list(self) -> Result<Vec<Pars>> {
        host_await!(host::list(&self.account))
    }

    /// Returns the steps that [`create`](Self::create) would perform, without performing them.
    ///
    /// # Errors
    /// Those of [`create`](Self::create), as far as they can be known beforehand.
    pub async fn plan(self) -> Result<Plan> {
        host_await!(host::plan(&self))
    }

    /// Returns the stack that [`create`](Self::create) would create, as a CloudFormation template, for users who
    /// create their stacks themselves. Its first lines give the name that the stack must have. Nothing is created.
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
    /// Returns an error if a setting is invalid, if the Pars exists with other settings, or if the resources that it
    /// uses cannot be looked up.
    pub async fn template(self) -> Result<String> {
        host_await!(host::template(&self))
    }
}

/// Deletion of a Pars, which starts when it is awaited; see [`Pars::clobber`].
#[derive(Debug)]
#[must_use = "nothing is deleted until it is awaited"]
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
        Pending::new(async move { host!(host::clobber(&self).await) })
    }
}
