//! Image of a worker, with an API to assemble, tag, push, load into Docker, save and remove it. Other modules implement
//! these operations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cloudknot_runtime::engine;

use super::compile::{FunctionDescription, Worker};
use super::docker::{Base, Engine};
use super::image::{Image, ImageOptions};
use super::registry::{self, Progress, Repository};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{self, Event};
use crate::host::host;
use crate::settings::image::{ImageSettings, image_setters};
use crate::settings::login::Login;

/// Contents of an image to build; see [`DockerImage::builder`].
#[derive(Debug, Clone)]
pub struct DockerImageBuilder {
    name: String,
    worker: PathBuf,
    title: String,
    version: String,
    functions: Vec<String>,
    labels: BTreeMap<String, String>,
    package_folder: PathBuf,
    image: ImageSettings,
    tags: Vec<String>,
}

/// Image of a worker: a Knot without its cloud resources.
///
/// ```no_run
/// # async fn example() -> cloudknot::Result<()> {
/// use cloudknot::{DockerImage, Login};
///
/// let mut image = DockerImage::builder("my-crate", "target/cloudknot/my-crate").build().await?;
/// println!("{}: {} bytes", image.digest(), image.compressed_bytes());
/// let reference = image.push("ghcr.io/somebody/my-crate", &Login::stored()).await?;
/// println!("pushed as {reference}");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DockerImage {
    name: String,
    tags: Vec<String>,
    image: Image,
    ca_bundles: Vec<PathBuf>,
    /// Repositories that it was pushed to, so that it can be removed from them.
    pushed: Vec<(String, Login)>,
}

impl DockerImage {
    /// Returns a builder for an image of this name, with the worker (a static executable for Linux) in this file.
    pub fn builder(name: impl Into<String>, worker: impl Into<PathBuf>) -> DockerImageBuilder {
        let name = name.into();
        DockerImageBuilder {
            title: name.clone(),
            name,
            worker: worker.into(),
            version: String::new(),
            functions: Vec::new(),
            labels: BTreeMap::new(),
            package_folder: PathBuf::new(),
            image: ImageSettings::default(),
            tags: Vec::new(),
        }
    }

    /// Returns the image's name, without a tag.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the tags. An image without tags is called `latest` in Docker, and by the start of its digest in a registry.
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// Returns the digest by which a registry identifies the image. The same worker gives the same digest.
    pub fn digest(&self) -> &str {
        self.image.digest()
    }

    /// Returns the size of everything that is stored and sent, in bytes.
    pub fn compressed_bytes(&self) -> u64 {
        self.image.compressed_bytes()
    }

    /// Returns the size of the worker, in bytes.
    pub fn worker_bytes(&self) -> u64 {
        self.image.worker_bytes()
    }

    /// Returns the layers, the lowest first: digest and size in bytes.
    pub fn layers(&self) -> Vec<(String, u64)> {
        self.image.layers().map(|(digest, bytes)| (digest.to_owned(), bytes.len() as u64)).collect()
    }

    /// Adds a tag, which later pushes, loads and saves use.
    ///
    /// # Errors
    /// Returns an error if the tag is invalid.
    pub fn tag(&mut self, tag: impl Into<String>) -> Result<()> {
        let tag = tag.into();
        check_name(&format!("{}:{tag}", self.name))?;
        if !self.tags.contains(&tag) {
            self.tags.push(tag);
        }
        Ok(())
    }

    /// Writes the image as a tar that `docker load` and `skopeo` accept.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        Ok(self.image.save_tar(path.as_ref(), &self.names())?)
    }

    /// Pushes the image with its tags to a repository, such as `ghcr.io/somebody/my-crate`; sends only what the registry lacks.
    /// Returns `<repository>@<digest>`, a name that never refers to another image.
    ///
    /// # Errors
    /// Returns an error if the registry cannot be reached, rejects a request, or keeps failing.
    pub async fn push(&mut self, repository: &str, login: &Login) -> Result<String> {
        let reference = self.push_to(repository, login).await?;
        self.pushed.push((repository.to_owned(), login.clone()));
        Ok(reference)
    }

    /// Pushes the image as [`push`](Self::push) does, but `clobber` will not remove it from the repository.
    pub(crate) async fn push_to(&self, repository: &str, login: &Login) -> Result<String> {
        let tags: Vec<&str> = self.tags.iter().map(String::as_str).collect();
        let on_progress = reporter(repository, self.compressed_bytes());
        let pushed = self.repository(repository, login)?.on_progress(on_progress).push(&self.image, &tags).await;
        let sent = pushed.as_ref().ok().map(|pushed| pushed.sent_bytes);
        event::report(&Event::PushFinished { repository, sent });
        Ok(pushed?.reference)
    }

    /// Loads the image with its tags into the local Docker engine. Returns the name to run it by.
    ///
    /// # Errors
    /// Returns an error if no engine answers, or the engine rejects the image.
    pub async fn load(&self) -> Result<String> {
        let mut names = self.names();
        Engine::connect().await?.load(&self.image, &names).await?;
        Ok(names.swap_remove(0))
    }

    /// Removes the image from the local Docker engine, and from the repositories that this value has pushed it to, with all its
    /// tags, if the registry permits clients to delete. Other images of the same name stay.
    ///
    /// # Errors
    /// Returns an error if the engine or a registry rejects a request or cannot be reached. A second call removes the
    /// rest.
    pub async fn clobber(&mut self) -> Result<()> {
        self.remove_local().await?;
        while let Some((repository, login)) = self.pushed.last() {
            self.repository(repository, login)?.delete(self.digest()).await?;
            self.pushed.pop();
        }
        Ok(())
    }

    /// Removes the image from the local engine. Without an engine, there is nothing to remove.
    async fn remove_local(&self) -> Result<()> {
        let engine = match Engine::connect().await {
            Ok(engine) => engine,
            Err(error) if error.is_no_engine() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for name in self.names() {
            if engine.id_of(&name).await?.as_deref() == Some(self.image.id()) {
                engine.remove(&name).await?;
            }
        }
        Ok(())
    }

    fn repository(&self, name: &str, login: &Login) -> Result<Repository> {
        let repository = Repository::new(name)?.login(login.clone());
        Ok(self.ca_bundles.iter().fold(repository, Repository::ca_bundle))
    }

    fn names(&self) -> Vec<String> {
        if self.tags.is_empty() {
            return vec![format!("{}:latest", self.name)];
        }
        self.tags.iter().map(|tag| format!("{}:{tag}", self.name)).collect()
    }
}

impl DockerImageBuilder {
    /// Returns a builder for the image of a compiled worker, with the image settings of its package.
    pub fn of_worker(name: impl Into<String>, worker: &Worker) -> Self {
        let functions = worker.functions.iter().map(FunctionDescription::id);
        let builder = DockerImage::builder(name, &worker.path).of_crate(&worker.package, &worker.version);
        builder.functions(functions).package_folder(&worker.package_folder).image(worker.settings.image.clone())
    }

    /// Sets the settings of the image, in place of those that were set before.
    #[must_use]
    pub fn image(mut self, settings: ImageSettings) -> Self {
        self.image = settings;
        self
    }

    image_setters!();

    /// Sets the name and version of the worker's crate, which become labels.
    #[must_use]
    pub fn of_crate(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.title = name.into();
        self.version = version.into();
        self
    }

    /// Sets the folder of the worker's package, which included files are relative to; the current folder if not set.
    #[must_use]
    pub fn package_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.package_folder = folder.into();
        self
    }

    /// Sets the IDs of the remote functions in the worker, which become a label.
    #[must_use]
    pub fn functions<I: IntoIterator<Item: Into<String>>>(mut self, functions: I) -> Self {
        self.functions = functions.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a label. A value that changes with every build must not be a label, since it changes the digest.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Assembles the image.
    ///
    /// # Errors
    /// Returns an error if the name or a tag is invalid, the worker cannot be read or is not an executable for Linux, a file
    /// cannot be read, or the base image is not available.
    pub async fn build(self) -> Result<DockerImage> {
        check_name(&self.name)?;
        self.image.check()?;
        let worker = std::fs::read(&self.worker).map_err(|source| {
            let message = format!("cannot read the worker `{}`", self.worker.display());
            Error::new(ErrorKind::Image, message).with_source(source)
        })?;
        let mut options = ImageOptions::new(&self.title, &self.version).functions(&self.functions);
        options = self.labels.iter().fold(options, |options, (key, value)| options.label(key, value));
        options = self.image.ca_bundle.iter().fold(options, ImageOptions::ca_bundle);
        options = self.image.include.iter().fold(options.package_folder(self.package_folder), ImageOptions::include);
        if self.image.timezones == Some(true) {
            options = options.timezones();
        }
        let image = if let Some(base) = Base::of(&self.image) {
            Engine::connect().await?.assemble(&base, &worker, &options).await?
        } else {
            // Compressing takes a considerable part of a second and must not block other tasks.
            let assembled = async { tokio::task::spawn_blocking(move || Image::assemble(&worker, &options)).await };
            engine::inside(Box::pin(assembled)).await.expect("assembling an image does not panic")?
        };
        let (name, ca_bundles) = (self.name, self.image.ca_bundle);
        let mut image = DockerImage { name, tags: Vec::new(), image, ca_bundles, pushed: Vec::new() };
        for tag in self.tags {
            image.tag(tag)?;
        }
        Ok(image)
    }
}

fn check_name(name: &str) -> Result<()> {
    host!(if registry::client::is_name(name) {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::Image, format!("invalid image name `{name}`"))
            .with_hint("a name is like `my-crate` or `lab/my-crate`, in lower case, and a tag has no spaces"))
    })
}

/// Converts the progress of each blob to the progress of the whole image.
fn reporter(repository: &str, bytes: u64) -> impl Fn(&Progress<'_>) + Send + Sync + 'static {
    let (repository, settled) = (repository.to_owned(), AtomicU64::new(0));
    move |progress| {
        let report = |sent| event::report(&Event::Pushing { repository: &repository, sent, bytes });
        match *progress {
            Progress::Sending { sent, .. } => report(settled.load(Ordering::Relaxed) + sent),
            Progress::Present { bytes, .. } | Progress::Sent { bytes, .. } => {
                report(settled.fetch_add(bytes, Ordering::Relaxed) + bytes);
            }
            Progress::Retrying { action, reason, wait, .. } => event::report(&Event::Retrying { action, reason, wait }),
            Progress::Tagged { .. } => {}
        }
    }
}
