//! An image of a worker, from code: assembled, tagged, pushed, loaded into Docker, saved, and taken away again.
//!
//! Knows the rooms that do it and does none of it. In a worker all of this compiles and none of it is there.

#[cfg(not(cloudknot_worker))]
#[path = "docker_image/host.rs"]
mod inside;
#[cfg(cloudknot_worker)]
#[path = "docker_image/worker.rs"]
mod inside;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cloudknot_runtime::engine;

use crate::error::{Error, ErrorKind, Result};
use crate::settings::login::Login;
use inside::Inside;

/// What an image shall be made of; see [`DockerImage::builder`].
#[derive(Debug, Clone)]
#[cfg_attr(cloudknot_worker, allow(dead_code, reason = "a worker builds no image"))]
pub struct DockerImageBuilder {
    name: String,
    worker: PathBuf,
    title: String,
    version: String,
    functions: Vec<String>,
    labels: BTreeMap<String, String>,
    ca_bundles: Vec<PathBuf>,
    tags: Vec<String>,
    base: Option<Base>,
}

#[derive(Debug, Clone)]
#[cfg_attr(any(cloudknot_worker, not(feature = "docker")), allow(dead_code, reason = "only an engine makes use of it"))]
pub(crate) enum Base {
    Image(String),
    Dockerfile(PathBuf),
}

/// The image of a worker: a Knot without the resources of the cloud.
///
/// ```no_run
/// # async fn example() -> cloudknot::Result<()> {
/// use cloudknot::{DockerImage, Login};
///
/// let mut image = DockerImage::builder("my-crate", "target/cloudknot/my-crate").build().await?;
/// println!("{}: {} bytes", image.digest(), image.compressed_bytes());
/// let there = image.push("ghcr.io/somebody/my-crate", &Login::stored()).await?;
/// println!("pushed as {there}");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DockerImage {
    name: String,
    tags: Vec<String>,
    inside: Inside,
    /// Where it was pushed to, so that it can be taken away from there.
    pushed: Vec<(String, Login)>,
}

impl DockerImage {
    /// An image of this name, of the worker (a static executable for Linux) in this file.
    pub fn builder(name: impl Into<String>, worker: impl Into<PathBuf>) -> DockerImageBuilder {
        let name = name.into();
        DockerImageBuilder {
            title: name.clone(),
            name,
            worker: worker.into(),
            version: String::new(),
            functions: Vec::new(),
            labels: BTreeMap::new(),
            ca_bundles: Vec::new(),
            tags: Vec::new(),
            base: None,
        }
    }

    /// The image's name, without a tag.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its tags. An image that was given none is called `latest` in Docker, and by the start of its digest in a registry.
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// The digest by which a registry knows it. The same worker gives the same.
    pub fn digest(&self) -> &str {
        self.inside.digest()
    }

    /// The size of all that is stored and sent, in bytes.
    pub fn compressed_bytes(&self) -> u64 {
        self.inside.compressed_bytes()
    }

    /// The size of the worker, in bytes.
    pub fn worker_bytes(&self) -> u64 {
        self.inside.worker_bytes()
    }

    /// The layers, the lowest first: digest and size in bytes.
    pub fn layers(&self) -> Vec<(String, u64)> {
        self.inside.layers()
    }

    /// Gives it one more tag, for what is pushed, loaded or saved from now on.
    ///
    /// # Errors
    /// If there cannot be such a tag.
    pub fn tag(&mut self, tag: impl Into<String>) -> Result<()> {
        let tag = tag.into();
        Inside::check_name(&format!("{}:{tag}", self.name))?;
        if !self.tags.contains(&tag) {
            self.tags.push(tag);
        }
        Ok(())
    }

    /// Writes it as a tar that `docker load` and `skopeo` take.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.inside.save(path.as_ref(), &self.names())
    }

    /// Has it in a repository, such as `ghcr.io/somebody/my-crate`, with its tags; sends what is not there yet. Gives
    /// the name that never comes to mean another image: `<repository>@<digest>`.
    ///
    /// # Errors
    /// If the registry cannot be reached, refuses, or goes on failing.
    pub async fn push(&mut self, repository: &str, login: &Login) -> Result<String> {
        let reference = self.push_to(repository, login).await?;
        self.pushed.push((repository.to_owned(), login.clone()));
        Ok(reference)
    }

    /// As [`push`](Self::push), for an image that somebody else removes from there.
    pub(crate) async fn push_to(&self, repository: &str, login: &Login) -> Result<String> {
        engine::inside(Box::pin(self.inside.push(repository, login, &self.tags))).await
    }

    /// Has it in the local Docker engine, with its tags; gives the name to run it by.
    ///
    /// # Errors
    /// If no engine answers, or it refuses.
    #[cfg(feature = "docker")]
    pub async fn load(&self) -> Result<String> {
        let names = self.names();
        engine::inside(Box::pin(self.inside.load(&names))).await?;
        Ok(names[0].clone())
    }

    /// Takes it away: from the local Docker engine, and from where this value has pushed it, with all its tags, if the
    /// registry lets clients delete. An image of the same name that is another one stays.
    ///
    /// # Errors
    /// If the engine or a registry refuses or cannot be reached. What is left can be clobbered again.
    pub async fn clobber(&mut self) -> Result<()> {
        let names = self.names();
        engine::inside(Box::pin(self.inside.remove_local(&names))).await?;
        while let Some((repository, login)) = self.pushed.last() {
            engine::inside(Box::pin(self.inside.remove_pushed(repository, login))).await?;
            self.pushed.pop();
        }
        Ok(())
    }

    fn names(&self) -> Vec<String> {
        if self.tags.is_empty() {
            return vec![format!("{}:latest", self.name)];
        }
        self.tags.iter().map(|tag| format!("{}:{tag}", self.name)).collect()
    }
}

impl DockerImageBuilder {
    /// The image of a worker that was compiled from code, with what its package's settings say of the image.
    #[cfg(not(cloudknot_worker))]
    pub fn of_worker(name: impl Into<String>, worker: &crate::build::compile::Worker) -> Self {
        let settings = &worker.settings;
        let functions = worker.functions.iter().map(crate::build::compile::FunctionDescription::id);
        let builder = DockerImage::builder(name, &worker.path).of_crate(&worker.package, &worker.version);
        let mut builder = settings.ca_bundle.iter().fold(builder.functions(functions), Self::ca_bundle);
        builder.base = match (&settings.base_image, &settings.dockerfile) {
            (Some(name), _) => Some(Base::Image(name.clone())),
            (_, Some(path)) => Some(Base::Dockerfile(path.clone())),
            _ => None,
        };
        builder
    }

    /// The crate that the worker is made of, and its version; they become labels.
    #[must_use]
    pub fn of_crate(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.title = name.into();
        self.version = version.into();
        self
    }

    /// The ids of the remote functions in the worker; they become a label.
    #[must_use]
    pub fn functions<I: IntoIterator<Item: Into<String>>>(mut self, functions: I) -> Self {
        self.functions = functions.into_iter().map(Into::into).collect();
        self
    }

    /// A label. What changes with every build does not belong here: it changes the digest.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// A tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// A PEM file with certificate authorities that are trusted besides the public ones: by the worker, and on a push.
    #[must_use]
    pub fn ca_bundle(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_bundles.push(path.into());
        self
    }

    /// An image that the worker stands on, for native libraries or files. The local Docker engine fetches it.
    #[cfg(feature = "docker")]
    #[must_use]
    pub fn base_image(mut self, name: impl Into<String>) -> Self {
        self.base = Some(Base::Image(name.into()));
        self
    }

    /// A Dockerfile of what the worker stands on. The local Docker engine builds it in the folder where it is.
    #[cfg(feature = "docker")]
    #[must_use]
    pub fn dockerfile(mut self, path: impl Into<PathBuf>) -> Self {
        self.base = Some(Base::Dockerfile(path.into()));
        self
    }

    /// On this, if on anything; what the package's settings say otherwise does not count then.
    #[cfg(not(cloudknot_worker))]
    pub(crate) fn on(mut self, base: Option<Base>) -> Self {
        self.base = base.or(self.base);
        self
    }

    /// Assembles the image.
    ///
    /// # Errors
    /// If the name or a tag is none, the worker cannot be read or is no executable for Linux, or the base cannot be had.
    pub async fn build(self) -> Result<DockerImage> {
        let inside = engine::inside(Box::pin(Inside::build(&self))).await?;
        let mut image = DockerImage { name: self.name, tags: Vec::new(), inside, pushed: Vec::new() };
        for tag in self.tags {
            image.tag(tag)?;
        }
        Ok(image)
    }
}

/// That something is not there where it was asked for.
#[cfg_attr(not(cloudknot_worker), expect(dead_code, reason = "the host has it"))]
fn absent() -> Error {
    Error::new(ErrorKind::Image, "failed to build an image: this is a worker, which has no part in that")
        .with_hint("build images in the program that runs on your machine")
}
