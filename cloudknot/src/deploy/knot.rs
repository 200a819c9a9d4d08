//! A Knot: the resources of one program on top of a Pars, which are image, job definitions, job role, compute
//! environment and queue.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::backend::Backend;
use crate::build::compile::Compile;
use crate::deploy::pars::Pars;
use crate::deploy::plan::Plan;
use crate::error::Result;
use crate::host::{host, host_await};
use crate::pending::Pending;
use crate::settings::account::Account;
use crate::settings::image::{ImageSettings, image_setters};
use crate::settings::knot::{Compute, KnotSettings, Log, Mount, knot_setters};
use crate::settings::sizes::Machines;

#[cfg(not(cloudknot_worker))]
pub(crate) mod host;

/// The resources that one program needs to run on AWS Batch: a CloudFormation stack on a [`Pars`], found by its name
/// from any machine.
///
/// ```no_run
/// # async fn example() -> cloudknot::Result<()> {
/// use cloudknot::{Knot, Pars};
///
/// let pars = Pars::get("lab").await?;
/// let knot = Knot::builder("sweep").pars(&pars).spot(60).memory("8 GiB").deploy().await?;
/// println!("{} runs {}", knot.queue(), knot.image());
/// Knot::get("sweep").await?.clobber().keep_data().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Knot {
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) stack_id: String,
    pub(crate) deployed: Deployed,
    /// Outputs of the CloudFormation stack.
    pub(crate) outputs: BTreeMap<String, String>,
    pub(crate) changed: std::time::SystemTime,
    pub(crate) account: Account,
}

/// Description of the program and the settings that a Knot was deployed with. It is stored in the Knot's stack, so
/// that another deploy can report differences.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Deployed {
    /// Package of the program.
    pub package: String,
    /// Version of the package.
    pub version: String,
    /// Cargo target of the program, as cargo's option names it.
    pub cargo_target: String,
    /// Settings from all sources.
    pub settings: KnotSettings,
    /// cargo options that selected features of the package.
    #[serde(default)]
    pub features: Vec<String>,
    /// IDs of the remote functions, by the logical IDs of their job definitions in the stack.
    pub functions: BTreeMap<String, String>,
    /// Fingerprints of the functions' types, by the IDs of the functions, as reported by the worker. Empty if the
    /// machine that deployed could not run the worker, such as one of another architecture: then only the worker
    /// compares them.
    #[serde(default)]
    pub types: BTreeMap<String, u64>,
    /// `true` if the image has a base, without which nothing in it can use a GPU; `None` if the Knot was deployed before this was recorded.
    #[serde(default)]
    pub(crate) gpu_image: Option<bool>,
    /// Machines of the Knot's own environment; `None` on Fargate, or on an existing queue.
    #[serde(default)]
    pub(crate) machines: Option<Machines>,
}

/// Builder of a Knot; see [`Knot::builder`].
#[derive(Debug, Clone)]
pub struct KnotBuilder {
    pub(crate) settings: KnotSettings,
    pub(crate) account: Account,
    pub(crate) manifest_path: Option<PathBuf>,
    pub(crate) package: Option<String>,
    pub(crate) image: ImageSettings,
    pub(crate) add_feature: bool,
    pub(crate) compile: Option<Compile>,
}

impl Knot {
    /// Creates a builder for a Knot with this name (at most 45 letters, digits and `-`, starting with a letter), for the
    /// program in the current folder.
    pub fn builder(name: impl Into<String>) -> KnotBuilder {
        KnotBuilder::of(KnotSettings { knot: Some(name.into()), ..KnotSettings::default() })
    }

    /// Returns the Knot of this name in the account and region that the environment, the profile and `config.toml`
    /// select.
    ///
    /// # Errors
    /// Returns an error if there is none, or a request to AWS fails.
    pub async fn get(name: &str) -> Result<Self> {
        Self::builder(name).get().await
    }

    /// Returns all Knots, sorted by name.
    ///
    /// # Errors
    /// Returns an error if a request to AWS fails.
    pub async fn list() -> Result<Vec<Self>> {
        Self::builder("any").list().await
    }

    /// Returns the name of the Knot.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the region of the Knot.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Returns the ARN of the stack.
    pub fn stack_id(&self) -> &str {
        &self.stack_id
    }

    /// Returns the program and the settings that the Knot was deployed with.
    pub fn deployed(&self) -> &Deployed {
        &self.deployed
    }

    /// Returns the tags that the user gave it, without cloudknot's own.
    pub fn tags(&self) -> &BTreeMap<String, String> {
        &self.deployed.settings.tags
    }

    /// Returns the time at which it was last deployed or changed.
    pub fn changed(&self) -> std::time::SystemTime {
        self.changed
    }

    /// Returns the name of the Pars that the Knot uses.
    pub fn pars_name(&self) -> &str {
        self.output("Pars")
    }

    /// Returns the Pars that the Knot uses.
    ///
    /// # Errors
    /// Returns an error if a request to AWS fails.
    pub async fn pars(&self) -> Result<Pars> {
        let mut builder = Pars::builder(self.pars_name()).region(&self.region);
        builder.account.profile.clone_from(&self.account.profile);
        builder.get().await
    }

    /// Returns the repository of the image, as `docker pull` accepts it.
    pub fn repository(&self) -> &str {
        self.output("RepositoryUri")
    }

    /// Returns the image: the repository and the digest.
    pub fn image(&self) -> String {
        format!("{}@{}", self.repository(), self.output("ImageDigest"))
    }

    /// Returns the ARN of the queue of its jobs.
    pub fn queue(&self) -> &str {
        self.output("JobQueue")
    }

    /// Returns the ARN of the compute environment, or `None` if the Knot uses an existing queue.
    pub fn compute_environment(&self) -> Option<&str> {
        self.outputs.get("ComputeEnvironment").map(String::as_str)
    }

    /// Returns the ARN of the role of its jobs.
    pub fn job_role(&self) -> &str {
        self.output("JobRole")
    }

    /// Returns the ARNs of the job definitions, by the ID of the function.
    pub fn job_definitions(&self) -> BTreeMap<&str, &str> {
        let functions = self.deployed.functions.iter();
        functions.filter_map(|(key, id)| Some((id.as_str(), self.outputs.get(key)?.as_str()))).collect()
    }

    /// Returns the backend that runs maps of its functions, for `.on(..)` in a program without a Knot, or with
    /// another one, in its `.cloudknot/`.
    ///
    /// ```no_run
    /// # #[cloudknot::remote]
    /// # fn double(x: u32) -> u32 { 2 * x }
    /// # async fn example() -> cloudknot::Result<()> {
    /// let knot = cloudknot::Knot::get("sweep").await?;
    /// let doubled = double.map([1, 2, 3]).on(knot.backend().await?).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns an error if its Pars cannot be looked up.
    pub async fn backend(&self) -> Result<Backend> {
        host_await!(host::backend(self))
    }

    /// Records the Knot in `.cloudknot/` in this folder, so that the program's maps run on it, as a deploy from there
    /// would.
    ///
    /// # Errors
    /// Returns an error if its Pars cannot be looked up, or the record cannot be written.
    pub async fn use_beside(&self, folder: impl Into<PathBuf>) -> Result<()> {
        let folder = folder.into();
        host_await!(host::use_beside(self, &folder))
    }

    /// Deletes the Knot and all its runs once awaited. The Pars stays, unless its deletion is requested as well.
    pub fn clobber(self) -> KnotClobber {
        let mut account = self.account;
        account.region = Some(self.region);
        KnotClobber { name: self.name, account, folder: PathBuf::new(), keep_data: false, pars: false, image: false }
    }

    /// Returns an output of the stack. All outputs exist, because a [`Knot`] is constructed only if they do.
    fn output(&self, key: &str) -> &str {
        self.outputs.get(key).map_or("", String::as_str)
    }
}

impl KnotBuilder {
    /// Creates a builder with these settings. Without a name, the Knot is named after the package.
    pub fn of(settings: KnotSettings) -> Self {
        Self {
            settings,
            account: Account::default(),
            manifest_path: None,
            package: None,
            image: ImageSettings::default(),
            add_feature: false,
            compile: None,
        }
    }

    knot_setters!();

    /// Uses this Pars.
    #[must_use]
    pub fn pars(mut self, pars: &Pars) -> Self {
        self.settings.pars = Some(pars.name.clone());
        self.account.region = Some(pars.region.clone());
        self.account.profile = self.account.profile.or_else(|| pars.account.profile.clone());
        self
    }

    /// Uses the Pars of this name.
    #[must_use]
    pub fn pars_named(mut self, name: impl Into<String>) -> Self {
        self.settings.pars = Some(name.into());
        self
    }

    /// Runs jobs on EC2 instances, which is the default.
    #[must_use]
    pub fn ec2(mut self) -> Self {
        self.settings.compute = Some(Compute::Ec2);
        self
    }

    /// Runs jobs on Spot instances, for at most `bid_percentage` percent of the on-demand price.
    #[must_use]
    pub fn spot(mut self, bid_percentage: impl Into<Option<u32>>) -> Self {
        self.settings.compute = Some(Compute::Spot);
        self.settings.bid_percentage = bid_percentage.into();
        self
    }

    /// Runs jobs on Fargate.
    #[must_use]
    pub fn fargate(mut self) -> Self {
        self.settings.compute = Some(Compute::Fargate);
        self
    }

    /// Runs jobs on Fargate Spot.
    #[must_use]
    pub fn fargate_spot(mut self) -> Self {
        self.settings.compute = Some(Compute::FargateSpot);
        self
    }

    /// Sets the types (`c7g.large`) or families (`c7g`) of instances.
    #[must_use]
    pub fn instance_types<I: IntoIterator<Item: Into<String>>>(mut self, types: I) -> Self {
        self.settings.instance_types = types.into_iter().map(Into::into).collect();
        self
    }

    /// Mounts an EFS file system, by its ID, at this path of the container.
    #[must_use]
    pub fn mount(mut self, path: impl Into<String>, file_system: impl Into<String>) -> Self {
        self.settings.mounts.insert(path.into(), Mount::Whole(file_system.into()));
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

    /// Uses the program of this package, in place of the one in the current folder.
    #[must_use]
    pub fn package(mut self, name: impl Into<String>) -> Self {
        self.package = Some(name.into());
        self
    }

    /// Uses the program with this `Cargo.toml`, in place of the one in the current folder.
    #[must_use]
    pub fn manifest_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.manifest_path = Some(path.into());
        self
    }

    /// Sets the settings of the image, in place of those that were set before. They are on top of those of the package:
    /// CA bundles and included files are added, and a base image replaces the package's.
    #[must_use]
    pub fn image(mut self, settings: ImageSettings) -> Self {
        self.image = settings;
        self
    }

    image_setters!();

    /// Enables the feature `aws` of cloudknot if the program lacks it: selects a feature of its package, or edits its
    /// `Cargo.toml` with `cargo add`. Otherwise, deploying such a program is an error.
    #[must_use]
    pub fn add_feature(mut self) -> Self {
        self.add_feature = true;
        self
    }

    /// Compiles the worker with these options.
    #[must_use]
    pub fn compile(mut self, compile: Compile) -> Self {
        self.compile = Some(compile);
        self
    }

    /// Deploys the program: compiles it, pushes its image, creates or changes the resources, and records in
    /// `.cloudknot/` that maps run on the Knot. If nothing has changed, nothing is done.
    ///
    /// # Errors
    /// Returns an error if a setting is invalid, the program cannot be a worker, the Knot belongs to another program,
    /// or AWS rejects a request. Everything that was created until then stays, and the same call continues from there.
    pub async fn deploy(self) -> Result<Knot> {
        host_await!(host::deploy(self))
    }

    /// Returns the steps that [`deploy`](Self::deploy) would perform, without performing them. The program is
    /// compiled.
    ///
    /// # Errors
    /// Those of [`deploy`](Self::deploy), as far as they can be known beforehand.
    pub async fn plan(self) -> Result<Plan> {
        host_await!(host::plan(self))
    }

    /// Returns the stack that [`deploy`](Self::deploy) would create, as a CloudFormation template, for users who
    /// create their stacks themselves. Its first lines give the name that the stack must have, and the remaining
    /// steps. The program is compiled; nothing is pushed or created.
    ///
    /// ```no_run
    /// # async fn example() -> cloudknot::Result<()> {
    /// let template = cloudknot::Knot::builder("sweep").pars_named("lab").fargate().template().await?;
    /// std::fs::write("knot.yaml", template).expect("the folder can be written to");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`deploy`](Self::deploy), as far as they can be known beforehand; and if the Pars does not exist.
    pub async fn template(self) -> Result<String> {
        host_await!(host::template(self))
    }

    /// Returns the existing Knot of this name.
    ///
    /// # Errors
    /// Returns an error if there is none, or a request to AWS fails.
    pub async fn get(self) -> Result<Knot> {
        host_await!(host::get(&self))
    }

    /// Deletes the Knot of this name once awaited, in whatever state it is: partly created, partly deleted, or
    /// complete.
    pub fn clobber(self) -> KnotClobber {
        let name = self.settings.knot.unwrap_or_default();
        KnotClobber { name, account: self.account, folder: PathBuf::new(), keep_data: false, pars: false, image: false }
    }

    /// Returns all Knots in this region, sorted by name; the name of this builder is ignored.
    ///
    /// # Errors
    /// Returns an error if a request to AWS fails.
    pub async fn list(self) -> Result<Vec<Knot>> {
        host_await!(host::list(&self.account))
    }
}

/// Deletion of a Knot, which starts when it is awaited; see [`Knot::clobber`].
#[derive(Debug)]
#[must_use = "nothing is deleted until it is awaited"]
pub struct KnotClobber {
    pub(crate) name: String,
    pub(crate) account: Account,
    pub(crate) folder: PathBuf,
    pub(crate) keep_data: bool,
    pub(crate) pars: bool,
    pub(crate) image: bool,
}

impl KnotClobber {
    /// Keeps the Knot's runs.
    pub fn keep_data(mut self) -> Self {
        self.keep_data = true;
        self
    }

    /// Sets the folder of the program's package, where a deploy has recorded the Knot; the current folder by default.
    pub fn beside(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = folder.into();
        self
    }

    /// Deletes the Pars as well, if no other Knot uses it.
    pub fn pars(mut self) -> Self {
        self.pars = true;
        self
    }

    /// Deletes the build artifacts on this machine as well.
    pub fn image(mut self) -> Self {
        self.image = true;
        self
    }
}

impl IntoFuture for KnotClobber {
    type Output = Result<()>;
    type IntoFuture = Pending<()>;

    fn into_future(self) -> Self::IntoFuture {
        Pending::new(async move { host!(host::clobber(&self).await) })
    }
}
