//! A Knot: what one program needs on top of a Pars, which is image, job definitions, job role, compute environment and queue.
//!
//! Knows what a Knot is made of. In a worker all of this compiles and none of it is there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cloudknot_runtime::engine;

use crate::backend::Backend;
#[cfg(not(cloudknot_worker))]
use crate::build::compile::Compile;
use crate::build::docker_image::Base;
use crate::deploy::pars::Pars;
use crate::deploy::plan::Plan;
use crate::error::Result;
use crate::pending::Pending;
use crate::settings::account::Account;
use crate::settings::knot::{Compute, KnotSettings, Log, Mount};

#[cfg(not(cloudknot_worker))]
#[path = "knot/host.rs"]
mod inside;
#[cfg(cloudknot_worker)]
#[path = "knot/worker.rs"]
mod inside;
#[cfg(not(cloudknot_worker))]
pub(crate) mod values;

#[cfg(not(cloudknot_worker))]
pub(crate) use inside::{all_definitions, read as of_stack};

/// What one program needs to run on AWS Batch. A stack of CloudFormation on a [`Pars`], found by its name from any machine.
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
    /// What CloudFormation says of it.
    pub(crate) outputs: BTreeMap<String, String>,
    pub(crate) changed: std::time::SystemTime,
    pub(crate) account: Account,
}

/// What a Knot was deployed with. It is noted in its stack, so that another deploy can tell what is different.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Deployed {
    /// The package of the program.
    pub package: String,
    /// Its version.
    pub version: String,
    /// Its cargo target, as cargo's option names it.
    pub cargo_target: String,
    /// What was said, all in all.
    pub settings: KnotSettings,
    /// The ids of the remote functions, by what the stack calls their job definitions.
    pub functions: BTreeMap<String, String>,
    /// The fingerprints of the functions' types, by their ids, as the worker said. Empty where the machine that deployed could
    /// not run it, as one of another architecture: then only the worker compares them.
    #[serde(default)]
    pub types: BTreeMap<String, u64>,
}

/// What a Knot shall be; see [`Knot::builder`].
#[derive(Debug, Clone)]
#[cfg_attr(cloudknot_worker, allow(dead_code, reason = "a worker makes nothing"))]
pub struct KnotBuilder {
    pub(crate) settings: KnotSettings,
    pub(crate) account: Account,
    pub(crate) manifest_path: Option<PathBuf>,
    pub(crate) package: Option<String>,
    pub(crate) ca_bundles: Vec<PathBuf>,
    pub(crate) base: Option<Base>,
    pub(crate) add_feature: bool,
    #[cfg(not(cloudknot_worker))]
    pub(crate) compile: Option<Compile>,
}

impl Knot {
    /// A Knot of this name (a letter, then letters, digits and `-`, 45 at most), of the program in the current folder.
    pub fn builder(name: impl Into<String>) -> KnotBuilder {
        KnotBuilder::of(KnotSettings { knot: Some(name.into()), ..KnotSettings::default() })
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

    /// What it was deployed with.
    pub fn deployed(&self) -> &Deployed {
        &self.deployed
    }

    /// The tags that it was given, besides cloudknot's own.
    pub fn tags(&self) -> &BTreeMap<String, String> {
        &self.deployed.settings.tags
    }

    /// When it was deployed or changed last.
    pub fn changed(&self) -> std::time::SystemTime {
        self.changed
    }

    /// The name of the Pars that it stands on.
    pub fn pars_name(&self) -> &str {
        self.output("Pars")
    }

    /// The Pars that it stands on.
    ///
    /// # Errors
    /// If AWS cannot be asked.
    pub async fn pars(&self) -> Result<Pars> {
        let mut builder = Pars::builder(self.pars_name()).region(&self.region);
        builder.account.profile.clone_from(&self.account.profile);
        builder.get().await
    }

    /// The repository of its image, as `docker pull` takes it.
    pub fn repository(&self) -> &str {
        self.output("RepositoryUri")
    }

    /// Its image: the repository and the digest.
    pub fn image(&self) -> String {
        format!("{}@{}", self.repository(), self.output("ImageDigest"))
    }

    /// The ARN of the queue that its jobs go to.
    pub fn queue(&self) -> &str {
        self.output("JobQueue")
    }

    /// The ARN of its compute environment; none on a queue that existed before.
    pub fn compute_environment(&self) -> Option<&str> {
        self.outputs.get("ComputeEnvironment").map(String::as_str)
    }

    /// The ARN of the role that its jobs have.
    pub fn job_role(&self) -> &str {
        self.output("JobRole")
    }

    /// The ARNs of its job definitions, by the id of the function.
    pub fn job_definitions(&self) -> BTreeMap<&str, &str> {
        let functions = self.deployed.functions.iter();
        functions.filter_map(|(key, id)| Some((id.as_str(), self.outputs.get(key)?.as_str()))).collect()
    }

    /// Where maps of its functions run: for `.on(..)`, in a program beside whose crate another Knot is noted, or none.
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
    /// If its Pars cannot be asked for.
    pub async fn backend(&self) -> Result<Backend> {
        engine::inside(Box::pin(inside::backend(self))).await
    }

    /// Notes it beside the crate in this folder, so that the program's maps run on it, as a deploy from there would.
    ///
    /// # Errors
    /// If its Pars cannot be asked for, or the note cannot be written.
    pub async fn use_beside(&self, folder: impl Into<PathBuf>) -> Result<()> {
        let folder = folder.into();
        engine::inside(Box::pin(inside::use_beside(self, &folder))).await
    }

    /// Takes it away, with all its runs; await it. The Pars stays, unless that is asked for.
    pub fn clobber(self) -> KnotClobber {
        let mut account = self.account;
        account.region = Some(self.region);
        KnotClobber { name: self.name, account, folder: PathBuf::new(), keep_data: false, pars: false, image: false }
    }

    /// Every one of them is there, or a [`Knot`] is not made.
    fn output(&self, key: &str) -> &str {
        self.outputs.get(key).map_or("", String::as_str)
    }
}

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $field:ident = $type:ty;)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $field: $type) -> Self {
            self.settings.$field = Some($field.into());
            self
        })*
    };
}

impl KnotBuilder {
    /// One with these settings; without a name it is called like the package.
    pub fn of(settings: KnotSettings) -> Self {
        Self {
            settings,
            account: Account::default(),
            manifest_path: None,
            package: None,
            ca_bundles: Vec::new(),
            base: None,
            add_feature: false,
            #[cfg(not(cloudknot_worker))]
            compile: None,
        }
    }

    settings! {
        /// Virtual CPUs of each item, in place of what the functions say.
        vcpus: vcpus = f64;
        /// Memory of each item, such as `8 GiB`, in place of what the functions say.
        memory: memory = impl Into<String>;
        /// GPUs of each item, in place of what the functions say.
        gpus: gpus = u32;
        /// The size of `/dev/shm`, such as `1 GiB`; 64 MiB if not said. Not on Fargate.
        shared_memory: shared_memory = impl Into<String>;
        /// Disk of a container on Fargate, such as `50 GiB`; 20 GiB if not said.
        ephemeral_storage: ephemeral_storage = impl Into<String>;
        /// How often a job starts that is lost with its machine, 1 to 10; 3 if not said.
        attempts: attempts = u32;
        /// Virtual CPUs that are there, and paid, even if nothing runs; 0 if not said.
        min_vcpus: min_vcpus = u32;
        /// Virtual CPUs to begin with; AWS moves it from then on.
        desired_vcpus: desired_vcpus = u32;
        /// The most virtual CPUs at once; 256 if not said.
        max_vcpus: max_vcpus = u32;
        /// Disk of an instance, such as `200 GiB`; 30 GiB if not said.
        volume_size: volume_size = impl Into<String>;
        /// The machine image of instances; AWS's latest if not said.
        ami: ami = impl Into<String>;
        /// The key pair of instances. Nothing lets connections in unless you add a rule.
        key_pair: key_pair = impl Into<String>;
        /// The ARN of a service role for the compute environment, in place of Batch's own.
        service_role: service_role = impl Into<String>;
        /// The ARN of a queue that exists: no compute environment is made.
        queue: queue = impl Into<String>;
        /// The name of the queue that is made; AWS makes one up if not said.
        queue_name: queue_name = impl Into<String>;
        /// The priority of the queue that is made; 1 if not said.
        priority: priority = u32;
        /// A repository of ECR that others share, by its name; its own if not said.
        repository: repository = impl Into<String>;
        /// The ARN of a role that jobs have, in place of the Knot's own.
        job_role: job_role = impl Into<String>;
    }

    /// On this Pars.
    #[must_use]
    pub fn pars(mut self, pars: &Pars) -> Self {
        self.settings.pars = Some(pars.name.clone());
        self.account.region = Some(pars.region.clone());
        self.account.profile = self.account.profile.or_else(|| pars.account.profile.clone());
        self
    }

    /// On the Pars of this name.
    #[must_use]
    pub fn pars_named(mut self, name: impl Into<String>) -> Self {
        self.settings.pars = Some(name.into());
        self
    }

    /// On instances of EC2: what is taken if nothing is said.
    #[must_use]
    pub fn ec2(mut self) -> Self {
        self.settings.compute = Some(Compute::Ec2);
        self
    }

    /// On Spot instances, for at most so many percent of what they cost otherwise.
    #[must_use]
    pub fn spot(mut self, bid_percentage: impl Into<Option<u32>>) -> Self {
        self.settings.compute = Some(Compute::Spot);
        self.settings.bid_percentage = bid_percentage.into();
        self
    }

    /// On Fargate.
    #[must_use]
    pub fn fargate(mut self) -> Self {
        self.settings.compute = Some(Compute::Fargate);
        self
    }

    /// On Fargate Spot.
    #[must_use]
    pub fn fargate_spot(mut self) -> Self {
        self.settings.compute = Some(Compute::FargateSpot);
        self
    }

    /// Types (`c7g.large`) or families (`c7g`) of instances.
    #[must_use]
    pub fn instance_types<I: IntoIterator<Item: Into<String>>>(mut self, types: I) -> Self {
        self.settings.instance_types = types.into_iter().map(Into::into).collect();
        self
    }

    /// On 64-bit ARM.
    #[must_use]
    pub fn arm64(mut self) -> Self {
        self.settings.arm64 = Some(true);
        self
    }

    /// A further policy of the job role, by name or ARN.
    #[must_use]
    pub fn policy(mut self, policy: impl Into<String>) -> Self {
        self.settings.policies.push(policy.into());
        self
    }

    /// A tag, for all that can have tags.
    #[must_use]
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.tags.insert(key.into(), value.into());
        self
    }

    /// A variable of every job.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.env.insert(name.into(), value.into());
        self
    }

    /// A variable whose value is a secret: its ARN in Secrets Manager or SSM.
    #[must_use]
    pub fn secret(mut self, name: impl Into<String>, arn: impl Into<String>) -> Self {
        self.settings.secrets.insert(name.into(), arn.into());
        self
    }

    /// The ARN of the KMS key that secrets are encrypted with, where it is not AWS's own: jobs have to be able to use it.
    #[must_use]
    pub fn secret_key(mut self, arn: impl Into<String>) -> Self {
        self.settings.secret_keys.push(arn.into());
        self
    }

    /// A file system of EFS, by its id, and where a container has it.
    #[must_use]
    pub fn mount(mut self, path: impl Into<String>, file_system: impl Into<String>) -> Self {
        self.settings.mounts.insert(path.into(), Mount::Whole(file_system.into()));
        self
    }

    /// Where logs go, in place of the log group of the Pars.
    #[must_use]
    pub fn log(mut self, log: Log) -> Self {
        self.settings.log = Some(log);
        self
    }

    /// Nothing but `/tmp` can be written to; on Fargate nothing at all.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.settings.read_only = Some(true);
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

    /// Of the program of this package, in place of the one in the current folder.
    #[must_use]
    pub fn package(mut self, name: impl Into<String>) -> Self {
        self.package = Some(name.into());
        self
    }

    /// Of the program with this `Cargo.toml`, in place of the one in the current folder.
    #[must_use]
    pub fn manifest_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.manifest_path = Some(path.into());
        self
    }

    /// A PEM file with certificate authorities that the worker trusts besides the public ones and those that the package
    /// names.
    #[must_use]
    pub fn ca_bundle(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_bundles.push(path.into());
        self
    }

    /// An image that the worker stands on, for native libraries, in place of what the package says. The local Docker engine
    /// fetches it.
    #[cfg(feature = "docker")]
    #[must_use]
    pub fn base_image(mut self, name: impl Into<String>) -> Self {
        self.base = Some(Base::Image(name.into()));
        self
    }

    /// A Dockerfile of what the worker stands on, in place of what the package says. The local Docker engine builds it in
    /// the folder where it is.
    #[cfg(feature = "docker")]
    #[must_use]
    pub fn dockerfile(mut self, path: impl Into<PathBuf>) -> Self {
        self.base = Some(Base::Dockerfile(path.into()));
        self
    }

    /// Turns the feature `aws` of cloudknot on where the program lacks it: a feature of its package is selected, or `cargo add` edits
    /// its `Cargo.toml`. Without this, such a program is refused.
    #[must_use]
    pub fn add_feature(mut self) -> Self {
        self.add_feature = true;
        self
    }

    /// With a worker that is compiled like this.
    #[cfg(not(cloudknot_worker))]
    #[must_use]
    pub fn compile(mut self, compile: Compile) -> Self {
        self.compile = Some(compile);
        self
    }

    /// Takes the program from its source to a Knot that is ready: compiles it, pushes its image, makes or changes the
    /// resources, and notes beside the crate that maps run there. With nothing changed, nothing is done.
    ///
    /// # Errors
    /// If a setting cannot be, the program cannot be a worker, the Knot belongs to another program, or AWS refuses. What was
    /// made by then stays, and the same call goes on from there.
    pub async fn deploy(self) -> Result<Knot> {
        engine::inside(Box::pin(inside::deploy(self))).await
    }

    /// What [`deploy`](Self::deploy) would do, without doing it. The program is compiled.
    ///
    /// # Errors
    /// As [`deploy`](Self::deploy), as far as can be known before.
    pub async fn plan(self) -> Result<Plan> {
        engine::inside(Box::pin(inside::plan(self))).await
    }

    /// The stack that [`deploy`](Self::deploy) would make, as a template of CloudFormation, for those who make their stacks
    /// themselves. Its first lines say under which name it is found, and what is to be done besides. The program is
    /// compiled; nothing is pushed or made.
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
    /// As [`deploy`](Self::deploy), as far as can be known before; and if the Pars is not there.
    pub async fn template(self) -> Result<String> {
        engine::inside(Box::pin(inside::template(self))).await
    }

    /// The one of this name that exists.
    ///
    /// # Errors
    /// If there is none, or AWS cannot be asked.
    pub async fn get(self) -> Result<Knot> {
        engine::inside(Box::pin(inside::get(&self))).await
    }

    /// Takes the one of this name away, in whatever state it is: half made, half deleted, or whole. Await it.
    pub fn clobber(self) -> KnotClobber {
        let name = self.settings.knot.unwrap_or_default();
        KnotClobber { name, account: self.account, folder: PathBuf::new(), keep_data: false, pars: false, image: false }
    }

    /// All that there are in this region, in the order of their names; this builder's name is not looked at.
    ///
    /// # Errors
    /// If AWS cannot be asked.
    pub async fn list(self) -> Result<Vec<Knot>> {
        engine::inside(Box::pin(inside::list(&self.account))).await
    }
}

/// A Knot on its way out; see [`Knot::clobber`]. Await it.
#[derive(Debug)]
#[must_use = "nothing is deleted until it is awaited"]
#[cfg_attr(cloudknot_worker, allow(dead_code, reason = "a worker deletes nothing"))]
pub struct KnotClobber {
    pub(crate) name: String,
    pub(crate) account: Account,
    pub(crate) folder: PathBuf,
    pub(crate) keep_data: bool,
    pub(crate) pars: bool,
    pub(crate) image: bool,
}

impl KnotClobber {
    /// Keeps its runs.
    pub fn keep_data(mut self) -> Self {
        self.keep_data = true;
        self
    }

    /// The folder of the program's package, where a deploy has noted the Knot; the current one if not said.
    pub fn beside(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = folder.into();
        self
    }

    /// The Pars goes, too, if no other Knot stands on it.
    pub fn pars(mut self) -> Self {
        self.pars = true;
        self
    }

    /// What was built on this machine goes, too.
    pub fn image(mut self) -> Self {
        self.image = true;
        self
    }
}

impl IntoFuture for KnotClobber {
    type Output = Result<()>;
    type IntoFuture = Pending<()>;

    fn into_future(self) -> Self::IntoFuture {
        Pending::new(async move { inside::clobber(&self).await })
    }
}
