//! Image of a worker, with an API to assemble, tag, push, load into Docker, save and remove it.
//!
//! The work is done by other modules. A worker build has the same API, but cannot create an image.

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

/// Contents of an image to build; see [`DockerImage::builder`].
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

/// Image of a worker: a Knot without its cloud resources.
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
            ca_bundles: Vec::new(),
            tags: Vec::new(),
            base: None,
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
        self.inside.digest()
    }

    /// Returns the size of everything that is stored and sent, in bytes.
    pub fn compressed_bytes(&self) -> u64 {
        self.inside.compressed_bytes()
    }

    /// Returns the size of the worker, in bytes.
    pub fn worker_bytes(&self) -> u64 {
        self.inside.worker_bytes()
    }

    /// Returns the layers, the lowest first: digest and size in bytes.
    pub fn layers(&self) -> Vec<(String, u64)> {
        self.inside.layers()
    }

    /// Adds a tag, which later pushes, loads and saves use.
    ///
    /// # Errors
    /// Returns an error if the tag is invalid.
    pub fn tag(&mut self, tag: impl Into<String>) -> Result<()> {
        let tag = tag.into();
        Inside::check_name(&format!("{}:{tag}", self.name))?;
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
        self.inside.save(path.as_ref(), &self.names())
    }

    /// Pushes the image with its tags to a repository, such as `ghcr.io/somebody/my-crate`; sends only what the registry lacks.
    /// Returns `<repository>@<digest>`, a name that never refers to another image.
    ///
    /// # Errors
    /// Returns an error if the registry cannot be reached, refuses, or keeps failing.
    pub async fn push(&mut self, repository: &str, login: &Login) -> Result<String> {
        let reference = self.push_to(repository, login).await?;
        self.pushed.push((repository.to_owned(), login.clone()));
        Ok(reference)
    }

    /// Pushes the image as [`push`](Self::push) does, but `clobber` will not remove it from the repository.
    pub(crate) async fn push_to(&self, repository: &str, login: &Login) -> Result<String> {
        engine::inside(Box::pin(self.inside.push(repository, login, &self.tags))).await
    }

    /// Loads the image with its tags into the local Docker engine. Returns the name to run it by.
    ///
    /// # Errors
    /// Returns an error if no engine answers, or it refuses.
    #[cfg(feature = "docker")]
    pub async fn load(&self) -> Result<String> {
        let names = self.names();
        engine::inside(Box::pin(self.inside.load(&names))).await?;
        Ok(names[0].clone())
    }

    /// Removes the image from the local Docker engine, and from the repositories that this value has pushed it to, with all its
    /// tags, if the registry permits clients to delete. Other images of the same name stay.
    ///
    /// # Errors
    /// Returns an error if the engine or a registry refuses or cannot be reached. A second call removes the rest.
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
    /// Returns a builder for the image of a compiled worker, with the image settings of its package.
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

    /// Sets the name and version of the worker's crate, which become labels.
    #[must_use]
    pub fn of_crate(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.title = name.into();
        self.version = version.into();
        self
    }

    /// Sets the IDs of the remote functions in the worker, which become a label.
    #[must_use]
    pub fn functions<I: IntoIterator<Item: Into<String>>>(mut self, functions: I) -> Self {
        self.functions = functions.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a label. A value that changes with every build does not belong here, since it changes the digest.
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

    /// Adds a PEM file with certificate authorities that are trusted besides the public ones: by the worker, and for pushes.
    #[must_use]
    pub fn ca_bundle(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_bundles.push(path.into());
        self
    }

    /// Sets the base image of the worker, for native libraries or files. The local Docker engine pulls it.
    #[cfg(feature = "docker")]
    #[must_use]
    pub fn base_image(mut self, name: impl Into<String>) -> Self {
        self.base = Some(Base::Image(name.into()));
        self
    }

    /// Sets the Dockerfile of the worker's base image. The local Docker engine builds it, with the Dockerfile's folder as the
    /// context.
    #[cfg(feature = "docker")]
    #[must_use]
    pub fn dockerfile(mut self, path: impl Into<PathBuf>) -> Self {
        self.base = Some(Base::Dockerfile(path.into()));
        self
    }

    /// Sets the base, if one is given. It takes precedence over the package's settings.
    #[cfg(not(cloudknot_worker))]
    pub(crate) fn on(mut self, base: Option<Base>) -> Self {
        self.base = base.or(self.base);
        self
    }

    /// Assembles the image.
    ///
    /// # Errors
    /// Returns an error if the name or a tag is invalid, the worker cannot be read or is not an executable for Linux, or the
    /// base image is not available.
    pub async fn build(self) -> Result<DockerImage> {
        let inside = engine::inside(Box::pin(Inside::build(&self))).await?;
        let mut image = DockerImage { name: self.name, tags: Vec::new(), inside, pushed: Vec::new() };
        for tag in self.tags {
            image.tag(tag)?;
        }
        Ok(image)
    }
}

/// Returns the error for an operation that a worker build does not support.
#[cfg_attr(not(cloudknot_worker), expect(dead_code, reason = "the host has it"))]
fn absent() -> Error {
    Error::new(ErrorKind::Image, "cannot build an image: workers do not support this")
        .with_hint("build images in the program that runs on your machine")
}
